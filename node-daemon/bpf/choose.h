/* Which backend a packet goes to: docs/architecture.md, slot rules 2 to 7. */
#pragma once

#include "count.h"
#include "hash.h"
#include "parse.h"

#define NS_PER_S 1000000000ULL

struct choice {
	const struct flow *flow;
	const struct pool *pool;
	__u64 word; /* the slot */
	__u32 pool_index;
	__u32 slot;
	__u8 tcp_flags;
};

static __always_inline __u32 current_handle(__u64 word)
{
	return word & HANDLE_MASK;
}

static __always_inline __u32 settled_handle(__u64 word)
{
	return word >> SLOT_SETTLED_SHIFT & HANDLE_MASK;
}

/* The backend of a handle that is not of the past, or NULL. */
static __always_inline const struct backend *backend_of(__u32 handle)
{
	__u32 id = handle & ((1 << HANDLE_ID_BITS) - 1);
	const struct backend *backend = bpf_map_lookup_elem(&backends, &id);

	if (!handle || !backend || backend->generation != handle >> HANDLE_ID_BITS)
		return NULL;
	return backend;
}

/* User space changes it under us: to be called once a packet. */
static __always_inline union next_hop next_hop_of(const struct backend *backend)
{
	return (union next_hop){ .word = *(volatile __u64 *)&backend->next_hop.word };
}

static __always_inline int lives(__u32 handle)
{
	const struct backend *backend = backend_of(handle);

	return backend && !(backend->next_hop.flags & BACKEND_DOWN);
}

static __always_inline int takes_new_flows(__u32 handle)
{
	const struct backend *backend = backend_of(handle);

	return backend && !(backend->next_hop.flags & (BACKEND_DOWN | BACKEND_DRAINING));
}

static __always_inline __u32 *word_at(void *outer, const struct pool *pool, __u32 slot)
{
	__u32 index = pool->offset + slot;
	void *chunk = bpf_map_lookup_elem(outer, &pool->chunk);

	return chunk ? bpf_map_lookup_elem(chunk, &index) : NULL;
}

static __always_inline int opens(const struct choice *choice)
{
	return choice->flow->protocol == IPPROTO_TCP &&
	       (choice->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

static __always_inline int closes(const struct choice *choice)
{
	return choice->flow->protocol == IPPROTO_TCP && choice->tcp_flags & (TCP_FIN | TCP_RST);
}

static __always_inline __u32 settled_or_current(const struct choice *choice)
{
	__u32 settled = settled_handle(choice->word);

	return lives(settled) ? settled : current_handle(choice->word);
}

/* More than one UDP idle time-out since the slot moved, which user space may date a second ahead. */
static __always_inline int moved_long_ago(const struct choice *choice, __u32 now_s)
{
	__u32 *moved = word_at(&moved_at, choice->pool, choice->slot);

	return !moved || (__s32)(now_s - *moved) > (__s32)choice->pool->udp_idle_s;
}

/* Where a flow goes that is not remembered. */
static __always_inline __u32 unremembered(const struct choice *choice, __u32 now_s)
{
	if (opens(choice))
		return current_handle(choice->word);
	if (choice->flow->protocol == IPPROTO_UDP && moved_long_ago(choice, now_s))
		return current_handle(choice->word);
	return settled_or_current(choice);
}

/* Remembers a flow, and says where it goes: with no room left, to the settled backend. */
static __always_inline __u32 remember(const struct choice *choice, __u32 handle, __u32 now_s)
{
	struct flow_entry entry = {
		.handle = handle,
		.pool = choice->pool_index,
		.slot = choice->slot,
		.last_seen_s = now_s,
		.flags = closes(choice) ? FLOW_CLOSING : 0,
	};

	if (!handle || !bpf_map_update_elem(&flows, choice->flow, &entry, BPF_ANY))
		return handle;
	count_reason(FLOWS_FULL);
	return settled_or_current(choice);
}

static __always_inline void refresh(struct flow_entry *entry, const struct choice *choice,
				    __u32 now_s)
{
	__u32 flags = opens(choice) ? 0 : entry->flags;

	if (closes(choice))
		flags = FLOW_CLOSING;
	if (entry->last_seen_s != now_s)
		entry->last_seen_s = now_s;
	if (entry->flags != flags)
		entry->flags = flags;
}

/* The memory of a flow, if it names a backend of this pool that may have the packet. */
static __always_inline struct flow_entry *recall(const struct choice *choice)
{
	struct flow_entry *entry = bpf_map_lookup_elem(&flows, choice->flow);

	if (!entry || entry->pool != choice->pool_index || !lives(entry->handle))
		return NULL;
	if (opens(choice) && !takes_new_flows(entry->handle))
		return NULL;
	return entry;
}

static __noinline __u32 choose_moved(const struct choice *choice)
{
	__u32 now_s = bpf_ktime_get_ns() / NS_PER_S;
	struct flow_entry *entry = recall(choice);

	if (entry) {
		refresh(entry, choice, now_s);
		return entry->handle;
	}
	return remember(choice, unremembered(choice, now_s), now_s);
}

/* For an ICMP error: the backend that has the flow. Anybody can forge one, so it leaves no trace. */
static __noinline __u32 choose_moved_for_error(const struct choice *choice)
{
	struct flow_entry *entry = recall(choice);

	if (entry)
		return entry->handle;
	return unremembered(choice, bpf_ktime_get_ns() / NS_PER_S);
}
