/* L2 direct server return: a frame for a frontend leaves with the MAC of the flow's backend, the
 * packet in it untouched. What is not ours goes up the stack as it came. */
#include <stddef.h>

#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "announce.h"

static __always_inline int handle_icmp(struct xdp_md *ctx, struct packet *packet, int is_ipv6)
{
	if (is_ipv6 && solicitation_in(ctx, packet))
		return answer_solicitation(ctx, packet);
	return direct_error(ctx, packet, is_ipv6);
}

static __always_inline int handle_ip(struct xdp_md *ctx, struct packet *packet, int parsed,
				     int is_ipv6)
{
	switch (parsed) {
	case PARSED_FLOW:
		return direct(ctx, packet, &packet->flow, 0);
	case PARSED_ICMP:
		return handle_icmp(ctx, packet, is_ipv6);
	case PARSED_BAD:
		return drop_if_vip(ctx, packet);
	default:
		return XDP_PASS;
	}
}

SEC("xdp.frags")
int dsr_xdp(struct xdp_md *ctx)
{
	struct packet packet = {};

	switch (parse_ethernet(ctx, &packet)) {
	case bpf_htons(ETH_P_IP):
		return handle_ip(ctx, &packet, parse_ipv4(ctx, &packet), 0);
	case bpf_htons(ETH_P_IPV6):
		return handle_ip(ctx, &packet, parse_ipv6(ctx, &packet), 1);
	case bpf_htons(ETH_P_ARP):
		return answer_arp(ctx, packet.l3);
	default:
		return XDP_PASS;
	}
}

char LICENSE[] SEC("license") = "Apache-2.0";
