"""Free indices and room for tables, worked out anew from what is in use. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dsr_node.subsystems.xdp.layout import CHUNK_SLOTS, MAX_CHUNKS


class NoRoomError(Exception):
    """A map is full; the text says which and what to do."""


def more_room(limit: str) -> str:
    """What to do about a full map: `limit` as in Limits."""
    return (
        f"give dsr-node a larger --max-{limit} (pinned maps keep their size: `dsr-node --cleanup` "
        "on this node before, which forgets the flows), or spread the services over more LB nodes"
    )


class Indices:
    """Free indices of a map. Where they have a generation, the least used come first, so that an
    index, once free, comes back last."""

    def __init__(
        self, name: str, used: NDArray[np.bool_], generations: NDArray[np.uint32] | None = None
    ) -> None:
        self._name = name
        self._size = len(used)
        self._used = used
        self._generations = generations
        self._taken = 0

    @property
    def left(self) -> int:
        """How many may still be taken."""
        return len(self._free) - self._taken

    def take(self, count: int) -> list[int]:
        """The next ones. Raises NoRoomError, and takes none, where there are fewer."""
        if not count:
            return []
        taken = self._free[self._taken : self._taken + count]
        if len(taken) < count:
            raise NoRoomError(
                f"{count} more {self._name} are needed, of {self._size} in all "
                f"{len(taken)} are free; {more_room(self._name)}"
            )
        self._taken += count
        return [int(index) for index in taken]

    @cached_property
    def _free(self) -> NDArray[np.intp]:
        free = np.flatnonzero(~self._used)
        if self._generations is None:
            return free
        return free[np.argsort(self._generations[free], kind="stable")]


class Space:
    """Room for tables in the chunks of `slots`."""

    def __init__(self, tables: Iterable[tuple[int, int, int]]) -> None:
        """`tables`: (chunk, offset, size) of those in use."""
        self._gaps: dict[int, list[tuple[int, int]]] = {}
        ends: dict[int, int] = {}
        for chunk, offset, size in sorted(tables):
            end = ends.get(chunk, 0)
            if offset > end:
                self._gaps.setdefault(chunk, []).append((end, offset))
            ends[chunk] = max(end, offset + size)
        for chunk in range(MAX_CHUNKS):
            if ends.get(chunk, 0) < CHUNK_SLOTS:
                self._gaps.setdefault(chunk, []).append((ends.get(chunk, 0), CHUNK_SLOTS))

    def take(self, size: int) -> tuple[int, int]:
        """Chunk and offset of a table, the first that fits. Raises NoRoomError."""
        for chunk in sorted(self._gaps):
            for i, (begin, end) in enumerate(self._gaps[chunk]):
                if end - begin >= size:
                    self._gaps[chunk][i] = (begin + size, end)
                    return chunk, begin
        raise NoRoomError(
            f"no room for a table of {size} slots in {MAX_CHUNKS * CHUNK_SLOTS} slots; choose "
            "smaller tables or spread the services over more LB nodes"
        )
