/* Which slot a flow falls into: part of TABLE_VERSION, so the same on every LB node and every
 * release. dsr_node/table/flowhash.py is the same function in Python; tests/unit/table holds the
 * two together. */
#pragma once

#include "structs.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* NH of UMAC (RFC 4418, 5.2.2): products of 32 x 32 bits that do not wait for one another. Its keys
 * contain the service's seed: without it nobody can aim flows at one slot. */
static __always_inline __u64 hash_product(__u64 word, __u32 key_low, __u32 key_high, __u64 seed)
{
	__u32 low = (__u32)word + key_low + (__u32)seed;
	__u32 high = (__u32)(word >> 32) + key_high + (__u32)(seed >> 32);

	return (__u64)low * high;
}

/* Words are read as little-endian. The keys are the first 32 fractional bits of the square roots
 * of the first ten primes; the end is the finaliser of MurmurHash3, for NH alone is linear. */
static __always_inline __u32 flow_hash(const struct flow *flow, __u64 seed)
{
	__u64 ports = flow->source_port | (__u64)flow->destination_port << 16 |
		      (__u64)flow->protocol << 32;
	__u64 hash = hash_product(flow->source.high, 0x6a09e667, 0xbb67ae85, seed) +
		     hash_product(flow->source.low, 0x3c6ef372, 0xa54ff53a, seed) +
		     hash_product(flow->destination.high, 0x510e527f, 0x9b05688c, seed) +
		     hash_product(flow->destination.low, 0x1f83d9ab, 0x5be0cd19, seed) +
		     hash_product(ports, 0xcbbb9d5d, 0x629a292a, seed);

	hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccdULL;
	hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53ULL;
	return hash >> 32;
}

/* Lemire, "Fast random integer generation in an interval" (2019): no division. */
static __always_inline __u32 slot_of(__u32 hash, __u32 size)
{
	return (__u64)hash * size >> 32;
}
