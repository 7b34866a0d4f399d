/* Which slot a flow falls into: part of the table version, so the same on every LB node and every
 * release. dsr_node/table/flowhash.py is the same function in Python; a test holds them together.
 * NH of UMAC (RFC 4418, 5.2.2) keyed by the seed, then the finaliser of MurmurHash3. */
#pragma once

#include "structs.h"

static __always_inline __u64 hash_pair(const __u32 *words, __u32 even, __u32 odd, __u64 seed)
{
	__u32 a = bpf_ntohl(words[0]) + even + (__u32)seed;
	__u32 b = bpf_ntohl(words[1]) + odd + (__u32)(seed >> 32);

	return (__u64)a * b;
}

static __always_inline __u32 flow_hash(const struct flow *flow, __u64 seed)
{
	const __u32 *words = (const __u32 *)flow;
	__u64 hash = hash_pair(words, 0x6a09e667, 0xbb67ae85, seed) +
		     hash_pair(words + 2, 0x3c6ef372, 0xa54ff53a, seed) +
		     hash_pair(words + 4, 0x510e527f, 0x9b05688c, seed) +
		     hash_pair(words + 6, 0x1f83d9ab, 0x5be0cd19, seed) +
		     hash_pair(words + 8, 0xcbbb9d5d, 0x629a292a, seed);

	hash ^= hash >> 33;
	hash *= 0xff51afd7ed558ccdULL;
	hash ^= hash >> 33;
	hash *= 0xc4ceb9fe1a85ec53ULL;
	return hash >> 32;
}

/* Lemire, "Fast random integer generation in an interval" (2019): no division. */
static __always_inline __u32 slot_of(__u32 hash, __u32 size)
{
	return (__u64)hash * size >> 32;
}
