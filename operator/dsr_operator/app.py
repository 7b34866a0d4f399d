"""The operator as a whole: which tasks there are, and that all end when one does."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import Counter
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

import kopf
from dsr_api.base import decode

from dsr_operator import handlers, kinds
from dsr_operator.audit import Audit
from dsr_operator.cache import Cache, involved
from dsr_operator.client import ApiError, Client, UnreachableError
from dsr_operator.compile import reasons
from dsr_operator.compile.inputs import ServiceKey
from dsr_operator.core import Lease
from dsr_operator.discovery import wait_until_served
from dsr_operator.health import Health
from dsr_operator.leader import Leader
from dsr_operator.liveness import GAP, POLL, Liveness
from dsr_operator.metrics import Metrics
from dsr_operator.queue import WorkQueue
from dsr_operator.reconcile import Reconciler
from dsr_operator.writes import Writer

log = logging.getLogger(__name__)

GAUGES_PERIOD = 5.0
HANGS_AFTER = 120.0
STOPPING = 5.0
"""Seconds for all tasks to end; a pod is given 30."""


class WatchesEndedError(Exception):
    """kopf or the audit has ended: the cache is not fed any more."""


@dataclass(frozen=True, slots=True)
class Config:
    """What the command line says. An empty host listens on all addresses."""

    namespace: str
    identity: str
    listen_host: str
    listen_port: int


class Operator:
    """All parts, wired. `start` it once, then wait `until` it is to stop.

    `cache`: through which eyes it sees the cluster (uninstall.py has others).
    """

    def __init__(self, config: Config, cache: type[Cache] = Cache) -> None:
        self._config = config
        self._metrics = Metrics()
        self._client = Client()
        self._queue = WorkQueue()
        self._cache = cache(self._wake, time.monotonic)
        self._audit = Audit(self._client, self._cache, self._metrics)
        self._leader = Leader(self._client, config.namespace, config.identity)
        writer = Writer(self._client, self._cache, self._metrics, self._leader.leads)
        self._reconciler = Reconciler(self._cache, writer, self._queue, self._metrics)
        self._health = Health(self._metrics, self._unhealthy, self._unready)
        self._leases_at: float | None = None
        self._liveness_known = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._metrics.leading.set_function(self._leader.leads)
        self._metrics.queue.set_function(lambda: len(self._queue))

    def _wake(self, keys: Iterable[ServiceKey]) -> None:
        # Before it leads, a replica keeps its cache warm and its queue empty.
        if self._reconciler.running:
            self._reconciler.wake(keys)

    async def start(self) -> int:
        """Start everything; returns the port that is listened on."""
        self._take_signals()
        port = await self._health.start(self._config.listen_host, self._config.listen_port)
        for name, work in self._work().items():
            self._tasks.append(asyncio.create_task(work, name=name))
        return port

    def _work(self) -> dict[str, Coroutine[Any, Any, None]]:
        return {
            "watches": self._watch(),
            "liveness": self._watch_leases(),
            "leader": self._leader.run(),
            "reconcile": self._lead(),
            "gauges": self._keep_gauges(),
        }

    async def _watch(self) -> None:
        """Run kopf, and check on it. Raises WatchesEndedError if a part of either ends."""
        await wait_until_served(self._client)
        tasks = await kopf.spawn_tasks(
            registry=handlers.registry(self._cache, self._audit),
            settings=handlers.settings(),
            standalone=True,
            clusterwide=True,
        )
        self._take_signals()  # kopf has taken them
        tasks = [*tasks, asyncio.create_task(self._audit.run(), name="audit")]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            raise WatchesEndedError(", ".join(_how_ended(task) for task in done))
        finally:
            # Once, and waited for: kopf's tasks clean up after one another, and a second
            # cancellation in the midst of that leaves some of them behind for ever.
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=STOPPING)

    def _take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)

    async def until(self, done: asyncio.Task[None] | None = None) -> int:
        """Wait for `done`, a signal or the end of any part, and stop; returns the exit code."""
        stop = asyncio.create_task(self._wait_for_signal(), name="stop")
        stops = [stop, done] if done else [stop]
        ended, _ = await asyncio.wait([*stops, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in ended if task not in stops]
        for task in failed:
            log.error("%s; the operator ends with it", _how_ended(task))
        await self._stop()
        return 1 if failed else 0

    async def _wait_for_signal(self) -> None:
        await self._stopping.wait()

    async def _stop(self) -> None:
        for task in self._tasks:
            if task.get_name() == "reconcile":
                task.cancel()
                await asyncio.wait([task])
        await self._leader.release()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks, timeout=2 * STOPPING)
        await self._health.stop()
        await self._client.close()

    async def _lead(self) -> None:
        """Reconcile once this replica leads and knows everything."""
        await self._leader.elected.wait()
        await self._audit.synced.wait()
        # As a candidate we may have missed the old leader's last writes.
        await self._audit.once()
        await self._liveness_known.wait()
        log.info(
            "reconciling: %d DSRServices, %d plans, %d nodes, %d of them up",
            len(self._cache.services),
            len(self._cache.plans),
            len(self._cache.nodes),
            len(self._cache.live),
        )
        await self._reconciler.run()

    async def _watch_leases(self) -> None:
        liveness = Liveness()
        path = kinds.LEASE.path(self._config.namespace)
        while True:
            try:
                answer = await self._client.request("GET", path)
            except (ApiError, UnreachableError) as error:
                log.warning("nodes' Leases cannot be read: %s", error)
            else:
                self._leases_at = time.monotonic()
                leases = [decode(Lease, item) for item in answer.get("items") or ()]
                live = liveness.update(leases, self._leases_at)
                self._tell_liveness(live)
                self._cache.set_live(live)
                self._liveness_known.set()
            await asyncio.sleep(POLL)

    def _tell_liveness(self, live: frozenset[str]) -> None:
        for node in sorted(live ^ self._cache.live):
            if node in live:
                log.info("node %s: its daemon is up", node)
            else:
                log.warning("node %s: its daemon is down (its Lease was not renewed)", node)

    async def _keep_gauges(self) -> None:
        while True:
            ready: Counter[str] = Counter({"True": 0, "False": 0, "Unknown": 0})
            for service in self._cache.services.values():
                statuses = {c.type: c.status for c in service.status.conditions}
                ready[statuses.get(reasons.READY, "Unknown")] += 1
            for status, count in ready.items():
                self._metrics.services.labels(status).set(count)
            self._metrics.oldest.set(self._oldest())
            await asyncio.sleep(GAUGES_PERIOD)

    def _oldest(self) -> float:
        """Seconds for which the oldest plan has waited for a live node."""
        reports = self._cache.reports
        applied = {n: reports[n].applied_revision for n in self._cache.live if n in reports}
        floor = min(applied.values(), default=0)
        since = [
            at
            for name, history in self._cache.histories.items()
            if history.latest and history.latest.revision > floor
            for node in applied.keys() & involved(self._cache.plans[name])
            if (at := history.behind_since(applied[node])) is not None
        ]
        return time.monotonic() - min(since) if since else 0.0

    def _unhealthy(self) -> list[str]:
        wrong = [f"the watch of {kind} is dead" for kind in self._audit.dead_watches()]
        if (stuck := self._reconciler.stuck_for()) > HANGS_AFTER:
            wrong.append(f"a reconcile has hung for {stuck:.0f} s")
        return wrong

    def _unready(self) -> list[str]:
        wrong = [f"{kind} objects have not been listed yet" for kind in self._audit.missing()]
        if self._leases_at is None or time.monotonic() - self._leases_at > GAP:
            wrong.append("the API server cannot be reached, or nodes' Leases cannot be read")
        return wrong


def _how_ended(task: asyncio.Task[Any]) -> str:
    error = None if task.cancelled() else task.exception()
    why = f"{type(error).__name__}: {error}" if error else "without an error"
    return f"{task.get_name()} has ended ({why})"
