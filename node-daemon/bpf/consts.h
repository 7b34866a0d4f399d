/* Numbers shared with user space. dsr_node/subsystems/xdp/layout.py mirrors this file; a test
 * compiles it and holds the two together. */
#pragma once

/* A backend handle: generation << HANDLE_ID_BITS | id. 0 is "none". */
#define HANDLE_ID_BITS 20
#define HANDLE_GENERATION_BITS 11
#define HANDLE_MASK 0x7fffffffULL

/* A slot: current handle, settled handle, moved. */
#define SLOT_SETTLED_SHIFT 32
#define SLOT_MOVED (1ULL << 63)

#define CHUNK_SLOTS 1048576 /* slots in one inner map of `slots` and `moved_at` */
#define MAX_CHUNKS 64

#define FRONTEND_HOST 1 /* this node serves the plan as a backend too: the peer guard applies */

#define BACKEND_LOCAL 1 /* its packets go up this node's stack */
#define BACKEND_DOWN 2 /* failed, or its MAC is not known */
#define BACKEND_DRAINING 4

#define FLOW_CLOSING 1 /* FIN or RST seen: user space forgets it CLOSING_S after its last packet */
#define CLOSING_S 60

#define ANNOUNCED_FOREVER (~0ULL)

#define MAX_VLAN_TAGS 2
#define MAX_EXTENSION_HEADERS 6

/* Keys of `drops`. FLOWS_FULL is no drop: the packet was forwarded, its flow not remembered. New
 * ones go to the end: pinned maps outlive a version. */
enum drop_reason {
	DROP_MALFORMED = 0, /* IP, TCP or UDP header that contradicts itself */
	DROP_TRUNCATED = 1, /* the frame ends before the packet does */
	DROP_FRAGMENT = 2,
	DROP_EXTENSION_HEADERS = 3, /* too many, or a source route not at its end */
	DROP_ICMP_INNER = 4, /* ICMP error whose inner packet names no flow */
	DROP_NO_BACKEND = 5,
	DROP_BACKEND_GONE = 6, /* the handle's generation is past */
	DROP_BACKEND_DOWN = 7,
	FLOWS_FULL = 8,
	DROP_SENT_BACK = 9, /* the chosen backend is the machine that has sent the packet to us */
	DROP_REASONS = 10,
};
