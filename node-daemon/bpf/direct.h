/* The director: from a flow of a frontend to the frame's next hop. */
#pragma once

#include "choose.h"
#include "link.h"

static __always_inline __u32 *find_frontend(const struct flow *flow)
{
	struct frontend_key key = {
		.vip = {
			flow->destination.high, flow->destination.high >> 32,
			flow->destination.low, flow->destination.low >> 32,
		},
		.port = flow->destination_port,
		.protocol = flow->protocol,
	};

	return bpf_map_lookup_elem(&frontends, &key);
}

static __always_inline int is_vip(const struct address *address)
{
	return bpf_map_lookup_elem(&vips, address) != NULL;
}

static __always_inline int forward(struct xdp_md *ctx, __u32 handle, __u32 bytes)
{
	const struct backend *backend = backend_of(handle);
	union next_hop hop;

	if (!backend)
		return drop(handle ? DROP_BACKEND_GONE : DROP_NO_BACKEND);
	hop = next_hop_of(backend);
	if (hop.flags & BACKEND_DOWN)
		return drop(DROP_BACKEND_DOWN);
	if (!(hop.flags & BACKEND_LOCAL) && is_sent_by(ctx, &hop.mac))
		return drop(DROP_SENT_BACK);
	count_packet(&backend_stats, handle & ((1 << HANDLE_ID_BITS) - 1), bytes);
	if (hop.flags & BACKEND_LOCAL)
		return XDP_PASS;
	return transmit(ctx, backend, &hop.mac);
}

/* The handle for a flow in this pool, 0 for none. */
static __always_inline __u32 choose(const struct flow *flow, __u32 pool_index, __u8 tcp_flags,
				    int is_error)
{
	const struct pool *pool = bpf_map_lookup_elem(&pools, &pool_index);
	struct choice choice = { .flow = flow, .pool = pool, .pool_index = pool_index };
	void *word;

	if (!pool || !pool->size)
		return 0;
	choice.slot = slot_of(flow_hash(flow, pool->seed), pool->size);
	word = word_at(&slots, pool, choice.slot);
	if (!word)
		return 0;
	choice.word = *(volatile __u64 *)word; /* once: user space swaps it under us */
	if (!(choice.word & SLOT_MOVED))
		return current_handle(choice.word);
	choice.tcp_flags = tcp_flags;
	return is_error ? choose_moved_for_error(&choice) : choose_moved(&choice);
}

/* `flow` is the packet's own, or that of the packet an ICMP error is about. */
static __always_inline int direct(struct xdp_md *ctx, const struct packet *packet,
				  const struct flow *flow, int is_error)
{
	__u32 *index = find_frontend(flow);
	const struct frontend_info *info;

	if (!index || !addressed_to_us(ctx))
		return XDP_PASS;
	info = bpf_map_lookup_elem(&frontend_info, index);
	if (!info)
		return drop(DROP_NO_BACKEND);
	if (info->flags & FRONTEND_HOST && balanced_by_peer(ctx, &packet->flow.source))
		return XDP_PASS;
	count_packet(&frontend_stats, *index, packet->length);
	return forward(ctx, choose(flow, info->pool, packet->tcp_flags, is_error), packet->length);
}

static __always_inline int drop_if_vip(struct xdp_md *ctx, const struct packet *packet)
{
	if (!is_vip(&packet->flow.destination) || !addressed_to_us(ctx))
		return XDP_PASS;
	return drop(packet->reason);
}
