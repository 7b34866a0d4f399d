"""What is due when, in order of time."""

from __future__ import annotations

import heapq
import math
from typing import Generic, TypeVar

T = TypeVar("T")


class Schedule(Generic[T]):
    """Items with the time at which they are due, in seconds of any one clock.

    Nothing is ever taken out before its time: the owner ignores what it no longer wants.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._count = 0

    @property
    def next(self) -> float:
        """When the next item is due; infinity if there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def at(self, when: float, item: T) -> None:
        """Puts an item in; equal times keep the order of the calls."""
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, item))

    def due(self, now: float, limit: int) -> list[T]:
        """Takes out at most `limit` items whose time has come, the oldest first."""
        found: list[T] = []
        while self._heap and self._heap[0][0] <= now and len(found) < limit:
            found.append(heapq.heappop(self._heap)[2])
        return found
