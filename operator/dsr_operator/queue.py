"""The work queue: which services to look at, and when. Level-triggered: a key is in it once."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Iterable

from dsr_operator.compile.inputs import ServiceKey


class WorkQueue:
    """Keys with due times; `now` gives steady seconds.

    A key that is asked for again before it is due keeps the earlier time. A key that is being
    worked on is handed out again only after `done`, so that nobody works on it twice at a time.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._due: dict[ServiceKey, float] = {}
        self._heap: list[tuple[float, ServiceKey]] = []
        self._busy: set[ServiceKey] = set()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Keys that are due by now, and those being worked on."""
        now = self._now()
        return sum(due <= now for due in self._due.values()) + len(self._busy)

    def add(self, keys: Iterable[ServiceKey], delay: float) -> None:
        """Have the keys looked at in `delay` seconds, or earlier."""
        due = self._now() + delay
        for key in keys:
            if due < self._due.get(key, float("inf")):
                self._due[key] = due
                heapq.heappush(self._heap, (due, key))
                self._changed.set()

    async def get(self) -> ServiceKey:
        """Wait for the next key that is due; the caller must call `done` with it."""
        while True:
            self._changed.clear()
            wait = self._until_next()
            if wait is not None and wait <= 0:
                key = heapq.heappop(self._heap)[1]
                del self._due[key]
                self._busy.add(key)
                return key
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def done(self, key: ServiceKey) -> None:
        """The key may be handed out again."""
        self._busy.discard(key)
        if key in self._due:
            heapq.heappush(self._heap, (self._due[key], key))
        self._changed.set()

    def _until_next(self) -> float | None:
        """Seconds until the first key that may be handed out is due; drops stale entries."""
        while self._heap:
            due, key = self._heap[0]
            if self._due.get(key) == due and key not in self._busy:
                return due - self._now()
            heapq.heappop(self._heap)
        return None
