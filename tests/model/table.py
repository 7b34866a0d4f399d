"""Tables in plain Python, slow and obvious: what dsr_node.table must compute.

Weighted Maglev after Eisenbud et al., NSDI 2016, 3.4, with exact fractions for the turns; choices
of a failed backend's slots after slot rule 1 (docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from fractions import Fraction
from hashlib import blake2b
from heapq import heapify, heapreplace
from itertools import count

MOST_FILLS = 8
"""Failed backends up to which there is a second choice."""

Table = list[bytes | None]
"""For each slot the key of a backend; None: nobody has a weight."""


def walk(key: bytes, seed: int, size: int) -> Iterator[int]:
    """A permutation of the slots, over and over: it starts and steps by the hash of the key."""
    digest = blake2b(key, digest_size=16, key=seed.to_bytes(8, "little")).digest()
    offset = int.from_bytes(digest[:8], "little") % size
    skip = int.from_bytes(digest[8:], "little") % (size - 1) + 1
    position = offset
    while True:
        yield position
        position = (position + skip) % size


def fill(weights: Mapping[bytes, int], seed: int, size: int) -> Table:
    """Turns at 0, 1/weight, 2/weight, ..., ties by key; a turn takes the next free slot."""
    table: Table = [None] * size
    walks = {key: walk(key, seed, size) for key in weights}
    due = [(Fraction(0), key, 0) for key, weight in weights.items() if weight]
    heapify(due)
    for _ in range(size if due else 0):
        _, key, turn = due[0]
        table[next(slot for slot in walks[key] if table[slot] is None)] = key
        heapreplace(due, (Fraction(turn + 1, weights[key]), key, turn + 1))
    return table


def wanted(weights: Mapping[bytes, int], failed: Set[bytes], seed: int, size: int) -> Table:
    """Each slot takes the first of its choices that has not failed."""
    base = fill(weights, seed, size)
    without = {
        key: fill({k: w for k, w in weights.items() if k != key}, seed, size)
        for key in failed
        if len(failed) <= MOST_FILLS
    }
    return [_first_alive(slot, base, without, failed, seed) for slot in range(size)]


def _first_alive(
    slot: int, base: Table, without: Mapping[bytes, Table], failed: Set[bytes], seed: int
) -> bytes | None:
    first = base[slot]
    if first not in failed:
        return first
    assert first is not None
    second = without[first][slot] if without else first
    if second is not None and second not in failed:
        return second
    if all(owner in failed for owner in base):
        return None
    offset = splitmix(seed, 2 * slot) % len(base)
    skip = splitmix(seed, 2 * slot + 1) % (len(base) - 1) + 1
    others = ((offset + turn * skip) % len(base) for turn in count())
    return next(owner for at in others if (owner := base[at]) not in failed)


def splitmix(seed: int, nth: int) -> int:
    """SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): its nth number from 0."""
    state = (seed + (nth + 1) * 0x9E3779B97F4A7C15) % 2**64
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
    return state ^ state >> 31
