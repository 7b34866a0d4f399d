"""Which backend each slot of a service's table wants: weighted Maglev, and what failures change."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from hashlib import blake2b
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from dsr_node.table.native import maglev_fill

MAX_WEIGHT = 65535
MAX_SIZE = 1 << 20
"""Slots of one chunk of the map `slots`; a table lies within one chunk."""

MOST_FILLS = 8
"""Failed backends up to which each has the table without it worked out: part of TABLE_VERSION."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def backend_key(address: str, node_uid: str = "") -> bytes:
    """What a backend is known by in a table: its address (16 bytes, IPv4 mapped) and node UID.

    Raises ValueError for what is no address.
    """
    parsed = ipaddress.ip_address(address)
    packed = parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed
    return packed + node_uid.encode()


def fill(keys: Sequence[bytes], weights: Sequence[int], seed: int, size: int) -> NDArray[np.int32]:
    """The table of the plan: for each slot the index of a backend; -1 if nobody has a weight.

    The order of the backends does not matter: turns go by key. `seed` is the plan's hash_seed
    (64 bits), `size` a prime up to MAX_SIZE. Weight 0 takes no slot; anyone else has at least one
    if there are as many slots as backends. Raises ValueError for keys that are not distinct or
    longer than blake2b takes, a weight beyond 0 to 65535, a size that is not such a prime.

    Maglev (Eisenbud et al., NSDI 2016, 3.4). A backend's permutation starts and steps by the two
    halves of the 16-byte BLAKE2b of its key, keyed by the seed (RFC 7693): part of TABLE_VERSION.
    """
    return _filler(keys, weights, seed, size)(weights)


def wanted(
    keys: Sequence[bytes], weights: Sequence[int], failed: Collection[int], seed: int, size: int
) -> NDArray[np.int32]:
    """The table as this node wants it, which finds the backends with indices `failed` failed.

    A failed backend loses its own slots and no other slot moves, in whatever order backends fail
    and return (docs/architecture.md, slot rule 1); at MOST_FILLS the slots of all that have failed
    are chosen anew. A slot's choices are a fixed list, and it takes the first that has not failed:

    1. its backend in the table of the plan;
    2. its backend in the table filled without that one, which is the table that the plan will have
       when the failed backend leaves it: then these slots do not move a second time. Where more
       than MOST_FILLS have failed at once there is no such choice: a fill takes about 0.1 ms for
       4,093 slots, and meanwhile the dead get traffic;
    3. the owners, in the table of the plan, of slots in an order of this slot's own: each backend
       comes up by its weight. (Tables filled without two, three, ... would be 2^failed fills.)

    -1 if nobody is left. Raises ValueError as fill() does.
    """
    filled = _filler(keys, weights, seed, size)
    base = filled(weights)
    dead = np.zeros(len(keys) + 1, dtype=bool)  # the last one stands for -1: nobody
    dead[list(failed)] = True
    table = base.copy()
    for backend in sorted(set(failed)) if len(set(failed)) <= MOST_FILLS else ():
        mine = base == backend
        if mine.any():
            without = [0 if i == backend else weight for i, weight in enumerate(weights)]
            table[mine] = filled(without)[mine]
    lost = np.flatnonzero(dead[table])
    table[lost] = _next_owners(base, lost, dead, seed)
    return table


def _filler(
    keys: Sequence[bytes], weights: Sequence[int], seed: int, size: int
) -> Callable[[Sequence[int]], NDArray[np.int32]]:
    """fill() of these backends with any weights: what depends on the keys alone is done once."""
    _check(keys, weights, size)
    order = sorted(range(len(keys)), key=keys.__getitem__)
    by_key = np.array(order, dtype=np.int32)
    hashes = _hashes([keys[i] for i in order], seed)

    def filled(weights: Sequence[int]) -> NDArray[np.int32]:
        table = maglev_fill(hashes, np.array([weights[i] for i in order], dtype=np.uint32), size)
        return by_key[table] if any(weights) else table

    return filled


def _next_owners(
    base: NDArray[np.int32], slots: NDArray[np.intp], dead: NDArray[np.bool_], seed: int
) -> NDArray[np.int32]:
    """For each of these slots the first owner alive on its walk through the table; -1: nobody."""
    size = len(base)
    chosen = np.full(len(slots), -1, dtype=np.int32)
    if dead[base].all():
        return chosen
    position = (_splitmix(seed, 2 * slots) % np.uint64(size)).astype(np.int64)
    step = (_splitmix(seed, 2 * slots + 1) % np.uint64(size - 1)).astype(np.int64) + 1
    open_ = np.arange(len(slots))
    while len(open_):
        owner = base[position[open_]]
        found = ~dead[owner]
        chosen[open_[found]] = owner[found]
        open_ = open_[~found]
        position[open_] = (position[open_] + step[open_]) % size
    return chosen


def _splitmix(seed: int, nth: NDArray[np.intp]) -> NDArray[np.uint64]:
    """The nth numbers (from 0) of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) from this seed."""
    state = np.uint64(seed) + (nth.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    state = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ state >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = state ^ state >> np.uint64(31)
    return mixed


def _hashes(keys: Sequence[bytes], seed: int) -> NDArray[np.uint64]:
    """Two 64-bit numbers of each key: uint64[n, 2]."""
    key = seed.to_bytes(8, "little")
    digests = b"".join(blake2b(each, digest_size=16, key=key).digest() for each in keys)
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2)


def _check(keys: Sequence[bytes], weights: Sequence[int], size: int) -> None:
    if len(keys) != len(weights):
        raise ValueError(f"{len(keys)} keys but {len(weights)} weights")
    if len(set(keys)) != len(keys):
        raise ValueError("two backends have the same key: give each (address, node UID) once")
    if any(not 0 <= weight <= MAX_WEIGHT for weight in weights):
        raise ValueError(f"a weight is a number from 0 to {MAX_WEIGHT}")
    if not _is_table_size(size):
        raise ValueError(f"a table has a prime number of slots from 3 to {MAX_SIZE}, not {size}")


@lru_cache(maxsize=64)
def _is_table_size(size: int) -> bool:
    in_range = 3 <= size <= MAX_SIZE
    return in_range and all(size % divisor for divisor in range(2, isqrt(size) + 1))
