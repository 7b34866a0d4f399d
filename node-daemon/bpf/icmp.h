/* ICMP and ICMPv6 errors about packets that a backend has sent from a VIP. */
#pragma once

#include "direct.h"

/* RFC 792 */
#define ICMP_UNREACHABLE 3 /* "fragmentation needed" among them */
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
/* RFC 4443 */
#define ICMPV6_UNREACHABLE 1
#define ICMPV6_TOO_BIG 2
#define ICMPV6_TIME_EXCEEDED 3
#define ICMPV6_PARAMETER_PROBLEM 4

#define ICMP_HEADER 8 /* of an error, RFC 792 and RFC 4443, 3 */

static __always_inline int is_icmp_error(__u8 type)
{
	return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED ||
	       type == ICMP_PARAMETER_PROBLEM;
}

static __always_inline int is_icmpv6_error(__u8 type)
{
	return type == ICMPV6_UNREACHABLE || type == ICMPV6_TOO_BIG ||
	       type == ICMPV6_TIME_EXCEEDED || type == ICMPV6_PARAMETER_PROBLEM;
}

/* The flow towards the VIP, from the ports of the packet that came from there. */
static __always_inline int turned_ports(void *l4, void *end, __u8 protocol, struct flow *flow)
{
	__be16 *ports = l4;

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return PARSED_OTHER;
	if ((void *)(ports + 2) > end)
		return PARSED_BAD;
	flow->protocol = protocol;
	flow->destination_port = ports[0];
	flow->source_port = ports[1];
	return PARSED_FLOW;
}

static __always_inline int parse_inner_ipv4(void *inner, void *end, struct flow *flow)
{
	struct iphdr *ip = inner;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl * 4 < sizeof(*ip))
		return PARSED_BAD;
	flow->destination = mapped_address(ip->saddr);
	flow->source = mapped_address(ip->daddr);
	if (ip->frag_off & bpf_htons(IP_OFFSET))
		return PARSED_BAD;
	return turned_ports(inner + ip->ihl * 4, end, ip->protocol, flow);
}

static __always_inline int parse_inner_ipv6(void *inner, void *end, struct flow *flow)
{
	struct ipv6hdr *ip = inner;
	struct packet unused = {};
	void *l4 = ip + 1;
	__u8 next;

	if (l4 > end || ip->version != 6)
		return PARSED_BAD;
	flow->destination = address_at(&ip->saddr);
	flow->source = address_at(&ip->daddr);
	next = ip->nexthdr;
	if (skip_extensions(&l4, end, &next, &unused) != PARSED_FLOW)
		return PARSED_BAD;
	return turned_ports(l4, end, next, flow);
}

static __noinline int direct_error(struct xdp_md *ctx, struct packet *packet, int is_ipv6)
{
	void *end = end_of(ctx);
	__u8 *type = packet->l4;
	struct flow flow = {};
	int parsed;

	if ((void *)(type + ICMP_HEADER) > end) {
		packet->reason = DROP_TRUNCATED;
		return drop_if_vip(ctx, packet);
	}
	if (!(is_ipv6 ? is_icmpv6_error(*type) : is_icmp_error(*type)))
		return XDP_PASS;
	parsed = is_ipv6 ? parse_inner_ipv6(type + ICMP_HEADER, end, &flow) :
			   parse_inner_ipv4(type + ICMP_HEADER, end, &flow);
	if (parsed == PARSED_OTHER)
		return XDP_PASS;
	if (parsed == PARSED_BAD) {
		packet->reason = DROP_ICMP_INNER;
		return drop_if_vip(ctx, packet);
	}
	if (!same_address(flow.destination, packet->flow.destination))
		return XDP_PASS;
	return direct(ctx, packet, &flow, 1);
}
