/* From a frame to a flow. Nothing here looks into a map. */
#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "consts.h"
#include "structs.h"

#define IP_FRAGMENT 0x3fff /* more fragments, or an offset */
#define IP_OFFSET 0x1fff
#define IP6_OFFSET 0xfff8
#define IP6_FRAGMENT 0xfff9

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

enum parsed {
	PARSED_FLOW, /* packet.flow is complete */
	PARSED_ICMP, /* packet.flow has the addresses, packet.l4 is the ICMP header */
	PARSED_OTHER, /* no business of ours */
	PARSED_BAD, /* packet.reason, if it is to a VIP */
};

struct packet {
	struct flow flow;
	void *l3; /* the IP or ARP header */
	void *l4; /* the header after IP and its extensions */
	__u32 length; /* of the frame up to the end of the IP packet */
	__u16 reason; /* enum drop_reason */
	__u8 hop_limit;
	__u8 tcp_flags;
};

struct ethernet {
	struct mac destination;
	struct mac source;
	__be16 protocol;
};

struct vlan_header {
	__be16 tag;
	__be16 protocol;
};

/* RFC 8200, 4.2: all but the fragment header; RFC 8200, 4.5: that one has 8 bytes. */
struct extension_header {
	__u8 next;
	__u8 length; /* in 8 bytes, without the first 8 */
	__u8 routing_type;
	__u8 segments_left;
	__be32 rest;
};

struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 identification;
};

static __always_inline void *data_of(const struct xdp_md *ctx)
{
	return (void *)(long)ctx->data;
}

static __always_inline void *end_of(const struct xdp_md *ctx)
{
	return (void *)(long)ctx->data_end;
}

static __always_inline int bad(struct packet *packet, enum drop_reason reason)
{
	packet->reason = reason;
	return PARSED_BAD;
}

static __always_inline struct address mapped_address(__be32 ipv4)
{
	return (struct address){
		.high = 0,
		.low = (__u64)ipv4 << 32 | bpf_htonl(0x0000ffff),
	};
}

static __always_inline struct address address_at(const void *where)
{
	const __u32 *words = where;

	return (struct address){
		.high = words[0] | (__u64)words[1] << 32,
		.low = words[2] | (__u64)words[3] << 32,
	};
}

static __always_inline int same_address(struct address a, struct address b)
{
	return a.high == b.high && a.low == b.low;
}

/* The ethertype behind up to two VLAN tags (802.1Q, 802.1ad), 0 where the frame is too short. */
static __always_inline __be16 parse_ethernet(const struct xdp_md *ctx, struct packet *packet)
{
	struct ethernet *ethernet = data_of(ctx);
	struct vlan_header *vlan = (void *)(ethernet + 1);
	void *end = end_of(ctx);
	__be16 protocol;

	if ((void *)vlan > end)
		return 0;
	protocol = ethernet->protocol;
#pragma unroll
	for (int i = 0; i < MAX_VLAN_TAGS; i++) {
		if (protocol != bpf_htons(ETH_P_8021Q) && protocol != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(vlan + 1) > end)
			return 0;
		protocol = vlan->protocol;
		vlan++;
	}
	packet->l3 = vlan;
	return protocol;
}

/* The frame may continue in other buffers; the helper is asked only where the first is short. */
static __always_inline int frame_holds(struct xdp_md *ctx, __u32 length)
{
	if (length <= end_of(ctx) - data_of(ctx))
		return 1;
	return length <= bpf_xdp_get_buff_len(ctx);
}

static __always_inline int parse_tcp(void *end, __u32 length, struct packet *packet)
{
	struct tcphdr *tcp = packet->l4;

	if (length < sizeof(*tcp))
		return bad(packet, DROP_MALFORMED);
	if ((void *)(tcp + 1) > end)
		return bad(packet, DROP_TRUNCATED);
	if (tcp->doff * 4 < sizeof(*tcp) || tcp->doff * 4 > length)
		return bad(packet, DROP_MALFORMED);
	packet->flow.source_port = tcp->source;
	packet->flow.destination_port = tcp->dest;
	packet->tcp_flags = ((__u8 *)tcp)[13];
	return PARSED_FLOW;
}

static __always_inline int parse_udp(void *end, __u32 length, struct packet *packet)
{
	struct udphdr *udp = packet->l4;

	if (length < sizeof(*udp))
		return bad(packet, DROP_MALFORMED);
	if ((void *)(udp + 1) > end)
		return bad(packet, DROP_TRUNCATED);
	if (bpf_ntohs(udp->len) < sizeof(*udp) || bpf_ntohs(udp->len) > length)
		return bad(packet, DROP_MALFORMED);
	packet->flow.source_port = udp->source;
	packet->flow.destination_port = udp->dest;
	return PARSED_FLOW;
}

/* `length` is what the IP packet has for it from packet.l4 on. */
static __always_inline int parse_transport(void *end, __u8 protocol, __u32 length,
					   struct packet *packet)
{
	packet->flow.protocol = protocol;
	if (protocol == IPPROTO_TCP)
		return parse_tcp(end, length, packet);
	if (protocol == IPPROTO_UDP)
		return parse_udp(end, length, packet);
	return PARSED_OTHER;
}

static __always_inline int parse_ipv4(struct xdp_md *ctx, struct packet *packet)
{
	struct iphdr *ip = packet->l3;
	void *end = end_of(ctx);
	__u32 header, length;

	if ((void *)(ip + 1) > end || ip->version != 4)
		return PARSED_OTHER;
	packet->flow.source = mapped_address(ip->saddr);
	packet->flow.destination = mapped_address(ip->daddr);
	header = ip->ihl * 4;
	length = bpf_ntohs(ip->tot_len);
	if (header < sizeof(*ip) || length < header)
		return bad(packet, DROP_MALFORMED);
	packet->l4 = packet->l3 + header;
	packet->length = packet->l3 - data_of(ctx) + length;
	if (!frame_holds(ctx, packet->length))
		return bad(packet, DROP_TRUNCATED);
	if (ip->frag_off & bpf_htons(IP_FRAGMENT))
		return bad(packet, DROP_FRAGMENT);
	if (ip->protocol == IPPROTO_ICMP)
		return PARSED_ICMP;
	return parse_transport(end, ip->protocol, length - header, packet);
}

/* A step over one extension header at *l4. Returns the header's type after it in *next. */
static __always_inline int step_extension(void **l4, void *end, __u8 *next, struct packet *packet)
{
	struct extension_header *extension = *l4;
	struct fragment_header *fragment = *l4;

	if ((void *)(extension + 1) > end)
		return bad(packet, DROP_TRUNCATED);
	if (*next == IPPROTO_FRAGMENT) {
		/* RFC 6946: an atomic fragment is a whole packet. */
		if (fragment->offset & bpf_htons(IP6_FRAGMENT))
			return bad(packet, DROP_FRAGMENT);
		*l4 = fragment + 1;
	} else {
		if (*next == IPPROTO_ROUTING && extension->segments_left)
			return bad(packet, DROP_EXTENSION_HEADERS);
		*l4 = (void *)extension + 8 + extension->length * 8;
	}
	*next = extension->next;
	return PARSED_FLOW;
}

static __always_inline int is_extension(__u8 header)
{
	return header == IPPROTO_HOPOPTS || header == IPPROTO_ROUTING ||
	       header == IPPROTO_DSTOPTS || header == IPPROTO_FRAGMENT;
}

/* Walks extension headers; PARSED_FLOW when *next is not one any more. */
static __always_inline int skip_extensions(void **l4, void *end, __u8 *next, struct packet *packet)
{
#pragma unroll
	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		int parsed;

		if (!is_extension(*next))
			return PARSED_FLOW;
		parsed = step_extension(l4, end, next, packet);
		if (parsed != PARSED_FLOW)
			return parsed;
	}
	return is_extension(*next) ? bad(packet, DROP_EXTENSION_HEADERS) : PARSED_FLOW;
}

static __always_inline int parse_ipv6(struct xdp_md *ctx, struct packet *packet)
{
	struct ipv6hdr *ip = packet->l3;
	void *end = end_of(ctx);
	__u32 length, headers = 0;
	__u8 next;

	packet->l4 = ip + 1;
	if (packet->l4 > end || ip->version != 6)
		return PARSED_OTHER;
	packet->flow.source = address_at(&ip->saddr);
	packet->flow.destination = address_at(&ip->daddr);
	packet->hop_limit = ip->hop_limit;
	length = bpf_ntohs(ip->payload_len);
	packet->length = packet->l3 - data_of(ctx) + sizeof(*ip) + length;
	if (!frame_holds(ctx, packet->length))
		return bad(packet, DROP_TRUNCATED);
	next = ip->nexthdr;
	if (is_extension(next)) {
		int parsed = skip_extensions(&packet->l4, end, &next, packet);

		if (parsed != PARSED_FLOW)
			return parsed;
		headers = packet->l4 - (void *)(ip + 1);
		if (headers > length)
			return bad(packet, DROP_MALFORMED);
	}
	if (next == IPPROTO_ICMPV6)
		return PARSED_ICMP;
	return parse_transport(end, next, length - headers, packet);
}
