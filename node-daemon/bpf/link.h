/* Ethernet: whom a frame is for, whom it is from, and where it goes on. */
#pragma once

#include "maps.h"
#include "parse.h"

static __always_inline int same_mac(const struct mac *a, const struct mac *b)
{
	return a->part[0] == b->part[0] && a->part[1] == b->part[1] && a->part[2] == b->part[2];
}

/* The interface a frame came in by, or NULL. */
static __always_inline const struct interface *ingress(const struct xdp_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex;

	return bpf_map_lookup_elem(&interfaces, &ifindex);
}

/* XDP also sees frames that a bridge or switch floods to everybody. Balancing a copy of what
 * another director has sent on its way would duplicate it, for ever if two do so. */
static __always_inline int addressed_to_us(const struct xdp_md *ctx)
{
	const struct interface *interface = ingress(ctx);
	struct ethernet *ethernet = data_of(ctx);

	return interface && (void *)(ethernet + 1) <= end_of(ctx) &&
	       same_mac(&ethernet->destination, &interface->mac);
}

/* A packet that another LB node has balanced to this one as a backend: balanced again it could go
 * back, and round for ever. What a peer sends from its own address is an ordinary client's. */
static __noinline int balanced_by_peer(struct xdp_md *ctx, const struct address *source)
{
	struct ethernet *ethernet = data_of(ctx);
	struct peer key = {};

	if ((void *)(ethernet + 1) > end_of(ctx))
		return 0;
	key.mac = ethernet->source;
	if (!bpf_map_lookup_elem(&peers, &key))
		return 0;
	key.address = *source;
	return !bpf_map_lookup_elem(&peers, &key);
}

/* What a machine has sent us is not for itself: a director whose MAC passes for a backend's would
 * send it here again, for ever, as its TTL is nobody's business on one segment. */
static __always_inline int is_sent_by(struct xdp_md *ctx, const struct mac *mac)
{
	const struct ethernet *ethernet = data_of(ctx);

	return (void *)(ethernet + 1) <= end_of(ctx) && same_mac(&ethernet->source, mac);
}

static __always_inline int transmit(struct xdp_md *ctx, const struct backend *backend,
				    const struct mac *mac)
{
	struct ethernet *ethernet = data_of(ctx);

	if ((void *)(ethernet + 1) > end_of(ctx))
		return XDP_ABORTED;
	ethernet->destination = *mac;
	ethernet->source = backend->source_mac;
	if (backend->ifindex == ctx->ingress_ifindex)
		return XDP_TX;
	return bpf_redirect(backend->ifindex, 0);
}
