/* Answers to ARP requests (RFC 826, RFC 5227) and neighbour solicitations (RFC 4861, 7.2.4) for
 * the VIPs this node announces, while its lease on them lasts. */
#pragma once

#include "icmp.h"

#define ARP_ETHERNET 1
#define ARP_REQUEST 1
#define ARP_REPLY 2

#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136
#define ND_SOLICITED 0x40
#define ND_OVERRIDE 0x20
#define ND_TARGET_LINK_LAYER_ADDRESS 2
#define ND_HOP_LIMIT 255

struct arp_packet { /* of Ethernet and IPv4 */
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	struct mac sender_mac;
	__u16 sender_ip[2];
	struct mac target_mac;
	__u16 target_ip[2];
};

struct solicitation {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__u32 reserved;
	__u32 target[4];
};

struct advertisement {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__u8 flags;
	__u8 reserved[3];
	__u32 target[4];
	__u8 option;
	__u8 option_length; /* in 8 bytes */
	struct mac mac;
};

/* What the ICMPv6 checksum covers (RFC 8200, 8.1). */
struct checksummed {
	struct address source;
	struct address destination;
	__be32 length;
	__be32 next_header;
	struct advertisement advertisement;
};

static __always_inline int announces(const struct address *vip)
{
	__u64 *until = bpf_map_lookup_elem(&announced, vip);

	return until && (*until == ANNOUNCED_FOREVER || bpf_ktime_get_ns() < *until);
}

static __always_inline __be32 ipv4_at(const __u16 *halves)
{
	return halves[0] | (__u32)halves[1] << 16;
}

static __always_inline int is_ethernet_ipv4(const struct arp_packet *arp)
{
	return arp->hardware == bpf_htons(ARP_ETHERNET) && arp->protocol == bpf_htons(ETH_P_IP) &&
	       arp->hardware_length == sizeof(struct mac) && arp->protocol_length == 4;
}

/* To everybody (broadcast or multicast) or to this interface. */
static __always_inline int for_interface(const struct xdp_md *ctx,
					 const struct interface *interface)
{
	const struct ethernet *ethernet = data_of(ctx);

	if ((void *)(ethernet + 1) > end_of(ctx))
		return 0;
	return ethernet->destination.part[0] & bpf_htons(0x0100) ||
	       same_mac(&ethernet->destination, &interface->mac);
}

static __noinline int answer_arp(struct xdp_md *ctx, void *l3)
{
	void *end = end_of(ctx);
	const struct interface *interface = ingress(ctx);
	struct ethernet *ethernet = data_of(ctx);
	struct arp_packet *arp = l3;
	struct address target;
	__be32 asked, asking;

	if ((void *)(arp + 1) > end || (void *)(ethernet + 1) > end || !interface)
		return XDP_PASS;
	if (!is_ethernet_ipv4(arp) || arp->operation != bpf_htons(ARP_REQUEST))
		return XDP_PASS;
	asked = ipv4_at(arp->target_ip);
	asking = ipv4_at(arp->sender_ip);
	target = mapped_address(asked);
	/* asked == asking: somebody announces the address as his own; that is no question. */
	if (asked == asking || !for_interface(ctx, interface) || !announces(&target))
		return XDP_PASS;
	arp->operation = bpf_htons(ARP_REPLY);
	arp->target_mac = arp->sender_mac;
	arp->sender_mac = interface->mac;
	arp->target_ip[0] = asking;
	arp->target_ip[1] = asking >> 16;
	arp->sender_ip[0] = asked;
	arp->sender_ip[1] = asked >> 16;
	ethernet->destination = arp->target_mac;
	ethernet->source = interface->mac;
	return XDP_TX;
}

static __always_inline __sum16 fold_checksum(__s64 sum)
{
	__u32 folded = sum;

	folded = (folded & 0xffff) + (folded >> 16);
	folded = (folded & 0xffff) + (folded >> 16);
	return ~folded;
}

/* To all nodes where the asker has no address yet (duplicate address detection). */
static __always_inline void fill_advertisement(struct checksummed *answer,
					       const struct address *asking,
					       const struct address *target,
					       const struct mac *mac)
{
	struct advertisement *nd = &answer->advertisement;
	int has_address = asking->high || asking->low;

	answer->source = *target;
	answer->destination = *asking;
	if (!has_address) {
		answer->destination.high = bpf_cpu_to_be64(0xff02000000000000ULL);
		answer->destination.low = bpf_cpu_to_be64(1);
	}
	answer->length = bpf_htonl(sizeof(*nd));
	answer->next_header = bpf_htonl(IPPROTO_ICMPV6);
	nd->type = ND_ADVERTISEMENT;
	nd->flags = has_address ? ND_SOLICITED | ND_OVERRIDE : ND_OVERRIDE;
	__builtin_memcpy(nd->target, target, sizeof(*target));
	nd->option = ND_TARGET_LINK_LAYER_ADDRESS;
	nd->option_length = 1;
	nd->mac = *mac;
	nd->checksum = fold_checksum(bpf_csum_diff(NULL, 0, (void *)answer, sizeof(*answer), 0));
}

/* Turns the solicitation's frame into the answer's, which may be longer. */
static __always_inline int send_advertisement(struct xdp_md *ctx, __u32 l3,
					      const struct checksummed *answer, int to_all)
{
	__u32 length = l3 + sizeof(struct ipv6hdr) + sizeof(answer->advertisement);
	struct ethernet *ethernet;
	struct ipv6hdr *ip;
	void *end;

	if (bpf_xdp_adjust_tail(ctx, (int)(length - (ctx->data_end - ctx->data))))
		return XDP_PASS;
	ethernet = data_of(ctx);
	end = end_of(ctx);
	/* The verifier does not know that only VLAN tags, of 4 bytes each, can be between. */
	ip = (void *)(ethernet + 1) + ((l3 - sizeof(*ethernet)) & 0xc);
	if ((void *)(ethernet + 1) > end ||
	    (void *)(ip + 1) + sizeof(answer->advertisement) > end)
		return XDP_ABORTED;
	if (to_all)
		ethernet->destination = (struct mac){ { bpf_htons(0x3333), 0, bpf_htons(1) } };
	else
		ethernet->destination = ethernet->source;
	ethernet->source = answer->advertisement.mac;
	ip->payload_len = bpf_htons(sizeof(answer->advertisement));
	ip->hop_limit = ND_HOP_LIMIT;
	__builtin_memcpy(&ip->saddr, &answer->source, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, &answer->destination, sizeof(ip->daddr));
	__builtin_memcpy(ip + 1, &answer->advertisement, sizeof(answer->advertisement));
	return XDP_TX;
}

/* The header of the solicitation directly behind IPv6, or NULL where there is none to answer. */
static __always_inline struct solicitation *solicitation_in(struct xdp_md *ctx,
							    const struct packet *packet)
{
	struct solicitation *asked = packet->l3 + sizeof(struct ipv6hdr);

	if ((void *)(asked + 1) > end_of(ctx))
		return NULL;
	if (packet->l4 != asked || packet->length < (void *)(asked + 1) - data_of(ctx))
		return NULL;
	if (asked->type != ND_SOLICITATION || asked->code || packet->hop_limit != ND_HOP_LIMIT)
		return NULL;
	return asked;
}

static __noinline int answer_solicitation(struct xdp_md *ctx, const struct packet *packet)
{
	const struct solicitation *asked = solicitation_in(ctx, packet);
	const struct interface *interface = ingress(ctx);
	struct checksummed answer = {};
	struct address target, source = packet->flow.source;

	if (!asked || !interface)
		return XDP_PASS;
	target = address_at(asked->target);
	if (!for_interface(ctx, interface) || !announces(&target))
		return XDP_PASS;
	fill_advertisement(&answer, &source, &target, &interface->mac);
	return send_advertisement(ctx, packet->l3 - data_of(ctx), &answer, !source.high && !source.low);
}
