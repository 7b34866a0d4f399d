/* Counters, per CPU. */
#pragma once

#include "maps.h"

static __always_inline void count_reason(__u32 reason)
{
	__u64 *counter = bpf_map_lookup_elem(&drops, &reason);

	if (counter)
		(*counter)++;
}

static __always_inline int drop(__u32 reason)
{
	count_reason(reason);
	return XDP_DROP;
}

static __always_inline void count_packet(void *map, __u32 index, __u32 bytes)
{
	struct stats *stats = bpf_map_lookup_elem(map, &index);

	if (stats) {
		stats->packets++;
		stats->bytes += bytes;
	}
}
