"""The 32-bit hash of a flow, as node-daemon/bpf/hash.h has it: which slot would this flow take?

Part of TABLE_VERSION: LB nodes forward a flow alike only if they hash it alike.
"""

from __future__ import annotations

import struct

_MASK_32 = 0xFFFFFFFF
_MASK_64 = 0xFFFFFFFFFFFFFFFF

_KEYS = (
    (0x6A09E667, 0xBB67AE85),
    (0x3C6EF372, 0xA54FF53A),
    (0x510E527F, 0x9B05688C),
    (0x1F83D9AB, 0x5BE0CD19),
    (0xCBBB9D5D, 0x629A292A),
)


def flow_hash(  # noqa: PLR0913, PLR0917 (a flow is these five values everywhere)
    saddr: bytes, daddr: bytes, sport: int, dport: int, proto: int, seed: int
) -> int:
    """The hash of a flow as the client sent it: 32 bits.

    Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d; ports and the IP protocol
    number are plain integers; `seed` is the plan's hash_seed as a 64-bit number. Raises ValueError
    for an address of another length, struct.error for a port beyond 16 bits.

    NH of UMAC (RFC 4418, 5.2.2) keyed by the seed, then the finaliser of MurmurHash3.
    """
    packet = struct.pack(">16s16sHHB3x", _checked(saddr), _checked(daddr), sport, dport, proto)
    words = struct.unpack("<10I", packet)
    low, high = seed & _MASK_32, seed >> 32
    total = 0
    for (even, odd), a, b in zip(_KEYS, words[::2], words[1::2], strict=True):
        total += ((a + even + low) & _MASK_32) * ((b + odd + high) & _MASK_32)
    total &= _MASK_64
    total ^= total >> 33
    total = total * 0xFF51AFD7ED558CCD & _MASK_64
    total ^= total >> 33
    total = total * 0xC4CEB9FE1A85EC53 & _MASK_64
    return total >> 32


def slot_of(hash32: int, size: int) -> int:
    """The slot of a hash in a table of `size` slots: 0 <= slot < size."""
    return hash32 * size >> 32


def _checked(address: bytes) -> bytes:
    if len(address) != 16:
        raise ValueError(
            f"an address has 16 bytes (IPv4 as ::ffff:a.b.c.d), this one has {len(address)}"
        )
    return address
