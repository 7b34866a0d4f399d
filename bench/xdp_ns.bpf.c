/* For bench/xdp_ns.py: the director and a floor, each behind the same step that gives every run
 * another source port. The floor parses Ethernet, IP and TCP and sends the frame back. */
#include <stddef.h>

#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "director.h"

struct variation {
	__u32 mask; /* of the source port: the flows are mask + 1 */
	__u32 next;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct variation);
	__uint(max_entries, 1);
} variation SEC(".maps");

/* Where the TCP header is, without VLAN tags, IP options and extension headers; 0: no TCP. */
static __always_inline __u32 tcp_offset(struct xdp_md *ctx)
{
	struct ethernet *ethernet = data_of(ctx);
	void *end = end_of(ctx), *l3 = ethernet + 1;
	struct ipv6hdr *ipv6 = l3;
	struct iphdr *ipv4 = l3;

	if ((void *)(ipv4 + 1) > end)
		return 0;
	if (ethernet->protocol == bpf_htons(ETH_P_IP))
		return ipv4->ihl == 5 && ipv4->protocol == IPPROTO_TCP ? 34 : 0;
	if ((void *)(ipv6 + 1) > end)
		return 0;
	return ipv6->nexthdr == IPPROTO_TCP ? 54 : 0;
}

static __noinline int vary(struct xdp_md *ctx)
{
	__u32 zero = 0, offset = tcp_offset(ctx);
	struct variation *varied = bpf_map_lookup_elem(&variation, &zero);
	struct tcphdr *tcp = data_of(ctx) + (offset & 0x3e);

	if (varied && (void *)(tcp + 1) <= end_of(ctx))
		tcp->source = bpf_htons(varied->next++ & varied->mask);
	return 0;
}

SEC("xdp.frags")
int floor_program(struct xdp_md *ctx)
{
	struct ethernet *ethernet;
	struct tcphdr *tcp;
	struct mac mac;

	vary(ctx);
	ethernet = data_of(ctx);
	tcp = data_of(ctx) + (tcp_offset(ctx) & 0x3e);
	if ((void *)(tcp + 1) > end_of(ctx) || (void *)(ethernet + 1) > end_of(ctx))
		return XDP_PASS;
	if (tcp->doff < 5)
		return XDP_DROP;
	mac = ethernet->destination;
	ethernet->destination = ethernet->source;
	ethernet->source = mac;
	return XDP_TX;
}

SEC("xdp.frags")
int director_program(struct xdp_md *ctx)
{
	vary(ctx);
	return director(ctx);
}

char LICENSE[] SEC("license") = "Apache-2.0";
