"""That no work is lost where nobody may write, or no event comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pytest
from dsr_operator import kinds, reconcile
from dsr_operator.cache import Cache
from dsr_operator.client import Client
from dsr_operator.compile.inputs import ServiceKey
from dsr_operator.metrics import Metrics
from dsr_operator.queue import WorkQueue
from dsr_operator.reconcile import Reconciler
from dsr_operator.writes import Writer

META = {"namespace": "shop", "name": "web", "uid": "u", "resourceVersion": "1", "generation": 1}
SPEC = {"vips": ["192.0.2.1"], "ports": [{"port": 80}], "backends": {"nodeSelector": {}}}


class Counting(Cache):
    """Counts the looks at services."""

    looks = 0

    def note(self, key: ServiceKey, awaits: Iterable[str]) -> None:
        self.looks += 1
        super().note(key, awaits)


@contextmanager
def running(may_write: Callable[[], bool]) -> Iterator[Counting]:
    """A reconciler with one service, which has a status to be written."""
    cache = Counting(lambda _: None, time.monotonic)
    cache.put(kinds.SERVICE, {"metadata": META, "spec": SPEC})
    metrics = Metrics()
    writer = Writer(Client(), cache, metrics, may_write)
    task = asyncio.create_task(Reconciler(cache, writer, WorkQueue(), metrics).run())
    yield cache
    task.cancel()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - a count
            await asyncio.sleep(0.01)


async def test_who_may_not_write_for_a_moment_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "NOT_LEADING_RETRY", 0.05)
    asked = 0

    def refuse() -> bool:
        nonlocal asked
        asked += 1
        return False

    with running(refuse):
        await until(lambda: asked >= 3)


async def test_every_service_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "NOT_LEADING_RETRY", 1000.0)
    monkeypatch.setattr(reconcile, "RESYNC", 0.1)
    with running(lambda: False) as cache:
        await until(lambda: cache.looks >= 3)
