/* The whole program, from frame to verdict. */
#pragma once

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

static __always_inline int director(struct xdp_md *ctx)
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
