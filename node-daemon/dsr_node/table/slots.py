"""Slots that remember that they moved: the steps from one table to the next. Pure.

The rules are docs/architecture.md's slot rules; tests/model/director.py says
the same one slot at a time. Handles are those of `dsr_node.table.word`; times are whole seconds of
CLOCK_MONOTONIC. A time-out of N seconds has passed when readings differ by more than N, for two
moments less than N seconds apart can read as N.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsr_node.table.word import NO_HANDLE, pack, unpack


@dataclass(frozen=True, eq=False)
class SlotTable:
    """What the maps `slots` and `moved_at` hold for one pool: uint64[size] and uint32[size]."""

    words: NDArray[np.uint64]
    moved_at: NDArray[np.uint32]

    def unsettled(self) -> int:
        """How many slots have moved and not settled."""
        return int(np.count_nonzero(unpack(self.words).moved))


def handles_of(chosen: NDArray[np.int32], handles: Sequence[int]) -> NDArray[np.uint32]:
    """The handles of a table of indices: uint32[size]; NO_HANDLE where the index is -1."""
    return np.array([*handles, NO_HANDLE], dtype=np.uint32)[chosen]


def first_table(
    wanted: NDArray[np.uint32], previous: NDArray[np.uint32] | None, moved_at: int, now: int
) -> SlotTable:
    """A table without history, as if it had moved from `previous` to `wanted` at `moved_at`.

    `previous` (rule 11) is the table of the plan's previous_backends, in handles of today,
    NO_HANDLE for a backend that has left the plan; None: nothing has moved of late. `moved_at` may
    lie before the boot or in the future (clocks differ): it is brought into 0..now.
    """
    when = np.full(len(wanted), min(max(moved_at, 0), now), dtype=np.uint32)
    if previous is None:
        return SlotTable(pack(wanted, wanted, np.zeros(len(wanted), dtype=bool)), when)
    settled = np.where(previous == NO_HANDLE, wanted, previous)
    return SlotTable(pack(wanted, settled, previous != wanted), when)


def next_table(  # noqa: PLR0913, PLR0917 (one step, all of it)
    old: SlotTable,
    wanted: NDArray[np.uint32],
    living: Collection[int],
    busy: NDArray[np.bool_],
    now: int,
    idle: int,
) -> SlotTable:
    """The table after a change of plan or health, or after a sweep (rules 2, 5, 8, 9).

    - A slot whose wanted handle is another than its current one moves, now; unless it had moved
      before and not settled, what was its current is its settled.
    - Any other moved slot settles on current if `idle` seconds have passed since it moved last and
      it is not busy.
    - Where a moved slot's settled handle is not in `living`, current takes its place; the slot
      stays moved, for its memory may know other backends.

    `living`: handles in the plan and not failed, draining ones too. `busy[slot]`: an unexpired flow
    of the slot is remembered on another backend than `old` has as current; all true where the
    memory has not been looked at. `idle`: the longest idle time-out of the protocols in the pool.
    `now` must not be before the words are written: round up. Raises ValueError for arrays of
    different lengths (a table of another size has no history: first_table).
    """
    if not len(old.words) == len(old.moved_at) == len(wanted) == len(busy):
        raise ValueError(
            f"a table of {len(old.words)} slots cannot become one of {len(wanted)}: start anew"
        )
    current, settled, moved = unpack(old.words)
    moves = wanted != current
    settles = moved & ~moves & ~busy & (now - old.moved_at.astype(np.int64) > idle)
    home = np.where(moved & ~settles, settled, current)
    moved = (moved | moves) & ~settles
    dead = moved & ~np.isin(home, np.array([*living], dtype=np.uint32))
    return SlotTable(
        words=pack(wanted, np.where(dead, wanted, home), moved),
        moved_at=np.where(moves, np.uint32(now), old.moved_at),
    )
