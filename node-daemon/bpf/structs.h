/* Keys and values of the maps. Addresses are in network order, IPv4 as ::ffff:a.b.c.d; ports are
 * in network order; times are CLOCK_MONOTONIC. All words have their natural alignment. */
#pragma once

#include <linux/types.h>

struct mac {
	__u16 part[3];
};

struct address {
	__u64 high;
	__u64 low;
};

struct frontend_key {
	__u32 vip[4]; /* not struct address: the key is 20 bytes, without padding */
	__u16 port;
	__u8 protocol;
	__u8 pad;
};

struct frontend_info {
	__u32 pool;
	__u32 flags; /* FRONTEND_* */
};

struct pool {
	__u64 seed;
	__u32 chunk;
	__u32 offset; /* of the table's first slot in the chunk */
	__u32 size; /* 0: no backend */
	__u32 tcp_idle_s;
	__u32 udp_idle_s;
	__u32 flags; /* none yet */
};

/* One word, stored and loaded as one (next_hop_of), so that no packet sees half of a new MAC. */
union next_hop {
	struct {
		struct mac mac;
		__u16 flags; /* BACKEND_* */
	};
	__u64 word;
};

struct backend {
	__u32 generation;
	__u32 ifindex;
	union next_hop next_hop;
	struct mac source_mac;
	__u16 pad;
};

struct flow {
	struct address source;
	struct address destination;
	__u16 source_port;
	__u16 destination_port;
	__u8 protocol;
	__u8 pad[3];
};

struct flow_entry {
	__u32 handle;
	__u32 pool;
	__u32 slot;
	__u32 last_seen_s;
	__u32 flags; /* FLOW_* */
};

struct peer {
	struct mac mac;
	__u16 pad;
	struct address address; /* zero: the MAC alone */
};

struct interface {
	struct mac mac;
	__u16 pad;
};

struct stats {
	__u64 packets;
	__u64 bytes; /* Ethernet header and IP packet, without padding */
};

/* Who owns an index, for the daemon after a restart; the program never reads it. All zero: nobody. */
struct owner {
	__u8 identity[16];
	__u32 pool; /* of a backend */
	__u32 pad;
};
