"""The table of a pool: which backends its slots want, and the step from the pinned words. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dsr_node.subsystems.xdp.state import Pool, PoolKey
from dsr_node.table.maglev import fill, wanted
from dsr_node.table.slots import SlotTable, first_table, handles_of, next_table
from dsr_node.table.word import NO_HANDLE, pack, unpack

PART_S, LAST_PART_S = 0.2, 2.0
"""Seconds of filling after which what has been found is written, before the rest is filled: in the
first part of a pass, twice as long in each next one, at most."""

Handles = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class TableStep:
    """The next table of a pool at (chunk, offset), worked out when it is written: all of them at
    once would take 12 bytes a slot.

    `wanted` indexes `handles`, whose last one is nobody. `previous`: handles before the last
    change, for a pool without words; None: it has words, or nothing has moved of late.
    """

    chunk: int
    offset: int
    wanted: NDArray[np.unsignedinteger]
    handles: Handles
    living: frozenset[int]
    idle_s: int
    first: bool = False
    previous: Handles | None = None
    moved_at_s: int = 0

    @property
    def slots(self) -> slice:
        """Where in the chunk."""
        return slice(self.offset, self.offset + len(self.wanted))

    def is_needed(self, words: NDArray[np.uint64]) -> bool:
        """Whether a slot wants another backend, or is settled on one that lives no more."""
        settled_words = pack(self.handles, self.handles, np.zeros(len(self.handles), bool))
        if (settled_words[self.wanted] == words).all():
            return False
        current, settled, moved = unpack(words)
        if (self.handles[self.wanted] != current).any():
            return True
        homes = settled[moved & (settled != current)]
        return not np.isin(homes, np.fromiter(self.living, np.uint32)).all()

    def next(self, old: SlotTable, now_s: int) -> SlotTable:
        """The table to write now. It settles nothing: that needs a sweep of the flows."""
        handles = self.handles[self.wanted]
        if self.first:
            return first_table(handles, self.previous, self.moved_at_s, now_s)
        busy = np.ones(len(handles), bool)
        return next_table(old, handles, self.living, busy, now_s, self.idle_s)


class PostponedError(Exception):
    """A table has not been filled yet: this part of the pass has taken long enough."""


class WantedTables:
    """What slots want, kept between passes: a fill costs far more than a comparison. Also which
    pools have been found as desired.

    Handles are in the order of a pool's backends.
    """

    def __init__(self) -> None:
        self._kept: dict[PoolKey, tuple[object, NDArray[np.unsignedinteger]]] = {}
        self._found: dict[PoolKey, Pool] = {}
        self._spent_s = 0.0
        self._room_s = PART_S

    def begin(self, *, full: bool, part: int) -> None:
        """A part of a pass begins, 0 is the first. `full`: every pool is compared again."""
        self._spent_s = 0.0
        self._room_s = min(PART_S * 2**part, LAST_PART_S)
        if full:
            self._found.clear()

    def is_found(self, pool: Pool) -> bool:
        """Whether this very value has been found in the maps."""
        return self._found.get(pool.key) is pool

    def found(self, pool: Pool) -> None:
        """The maps hold this value."""
        self._found[pool.key] = pool

    def first_step(
        self, pool: Pool, handles: Sequence[int], place: tuple[int, int], now_s: int
    ) -> TableStep:
        """The table of a pool that has none (docs/architecture.md, slot rule 11). Raises
        PostponedError."""
        idle = max(pool.tcp_idle_s, pool.udp_idle_s)
        step = self._step(pool, handles, place)
        if pool.moved_at is None or now_s - pool.moved_at > idle:
            return replace(step, first=True)
        previous = _previous(pool, handles)
        return replace(step, first=True, previous=previous, moved_at_s=pool.moved_at)

    def next_step(self, pool: Pool, handles: Sequence[int], place: tuple[int, int]) -> TableStep:
        """The table of a pool after the one at `place`. Raises PostponedError."""
        return self._step(pool, handles, place)

    def keep(self, pools: Iterable[PoolKey]) -> None:
        """Forgets all but these."""
        keep = set(pools)
        self._kept = {key: value for key, value in self._kept.items() if key in keep}
        self._found = {key: pool for key, pool in self._found.items() if key in keep}

    def _step(self, pool: Pool, handles: Sequence[int], place: tuple[int, int]) -> TableStep:
        return TableStep(
            *place,
            wanted=self._wanted(pool),
            handles=np.array([*handles, NO_HANDLE], np.uint32),
            living=frozenset(
                handle for handle, each in zip(handles, pool.backends, strict=True) if not each.down
            ),
            idle_s=max(pool.tcp_idle_s, pool.udp_idle_s),
        )

    def _wanted(self, pool: Pool) -> NDArray[np.unsignedinteger]:
        inputs = (
            pool.seed,
            pool.size,
            tuple((each.key, each.weight, each.down) for each in pool.backends),
        )
        kept = self._kept.get(pool.key)
        if kept is None or kept[0] != inputs:
            if self._spent_s > self._room_s:
                raise PostponedError
            begin = time.monotonic()
            kept = (inputs, _filled(pool))
            self._kept[pool.key] = kept
            self._spent_s += time.monotonic() - begin
        return kept[1]


def _filled(pool: Pool) -> NDArray[np.unsignedinteger]:
    table = wanted(
        [bytes(each.key) for each in pool.backends],
        [each.weight for each in pool.backends],
        [index for index, each in enumerate(pool.backends) if each.down],
        pool.seed,
        pool.size,
    )
    nobody = len(pool.backends)
    return np.where(table < 0, nobody, table).astype(np.min_scalar_type(nobody))


def _previous(pool: Pool, handles: Sequence[int]) -> Handles:
    """A backend that has left is nobody: what was settled on it goes to current."""
    table = fill(
        [bytes(each.key) for each in pool.previous],
        [each.weight for each in pool.previous],
        pool.seed,
        pool.size,
    )
    today = {each.key: handle for each, handle in zip(pool.backends, handles, strict=True)}
    return handles_of(table, [today.get(each.key, NO_HANDLE) for each in pool.previous])
