"""The loop: what the cache holds -> compile_service() -> writes.

Level-triggered: each look takes everything as it is now. What fails is tried again with back-off
and stops no other service.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable

from dsr_api.base import WITHDRAWAL_FINALIZER, Metadata
from dsr_api.plan import DSRPlanSpec, plan_name
from dsr_api.service import DSRServiceStatus

from dsr_operator.cache import Cache, Invalid
from dsr_operator.client import ApiError, UnreachableError
from dsr_operator.compile import compile_service, reasons
from dsr_operator.compile.events import Event, transitions
from dsr_operator.compile.inputs import Clock, Outcome, ServiceKey
from dsr_operator.compile.unreadable import (
    failed_status,
    unread_plan_status,
    unreadable_status,
)
from dsr_operator.describe import describe
from dsr_operator.metrics import Metrics
from dsr_operator.queue import WorkQueue
from dsr_operator.writes import NotLeadingError, Writer

log = logging.getLogger(__name__)

DEBOUNCE = 0.02
"""Seconds for which events about one service are gathered before it is looked at."""

WORKERS = 16
"""Services looked at at once: what they wait for are answers from the API server."""

STEPS = 4
"""Plan writes in a row before other services get their turn."""

FIRST_RETRY, LAST_RETRY = 0.2, 60.0

NOT_LEADING_RETRY = 1.0
"""Seconds until a look that was not allowed to write is repeated: the Lease may yet be renewed, and
if it is not, this process ends."""

RESYNC = 600.0
"""Seconds in which every service is looked at even if nothing has happened: a second line."""


class Reconciler:
    """Works off the queue while this process leads."""

    def __init__(self, cache: Cache, writer: Writer, queue: WorkQueue, metrics: Metrics) -> None:
        self._cache = cache
        self._writer = writer
        self._queue = queue
        self._metrics = metrics
        self._failures: dict[ServiceKey, int] = {}
        self._started: dict[ServiceKey, float] = {}
        self.running = False

    def stuck_for(self) -> float:
        """Seconds for which the longest look has been going on."""
        return max((time.monotonic() - at for at in self._started.values()), default=0.0)

    def wake(self, keys: Iterable[ServiceKey]) -> None:
        """Look at these services soon."""
        self._queue.add(keys, DEBOUNCE)

    async def run(self) -> None:
        """Look at everything once, then at whatever wakes up."""
        self.running = True
        self._cache.distrust_histories()
        self.wake(self._cache.keys())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._resync(), name="resync")
            for number in range(WORKERS):
                group.create_task(self._work(), name=f"reconcile {number}")

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(RESYNC)
            every = self._cache.keys()
            for key in every:
                self._queue.add([key], random.uniform(0.0, RESYNC))  # noqa: S311 - spread

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            self._started[key] = time.monotonic()
            try:
                with self._metrics.reconcile_seconds.time():
                    await self._guarded(key)
            finally:
                del self._started[key]
                self._queue.done(key)

    async def _guarded(self, key: ServiceKey) -> None:
        """One look, whose failure concerns this service alone."""
        try:
            await self.reconcile(key)
        except NotLeadingError:
            log.debug("%s/%s: not leading, nothing written", *key)
            self._queue.add([key], NOT_LEADING_RETRY)
        except ApiError as error:
            cause = "conflict" if error.status in (404, 409, 422) else "api"
            self._retry(key, cause, str(error))
        except UnreachableError as error:
            self._retry(key, "api", str(error))
        except Exception as error:
            log.exception("%s/%s: a defect of the operator", *key)
            self._retry(key, "bug", str(error))
            await self._tell_of_defect(key, error)
        else:
            self._failures.pop(key, None)

    def _retry(self, key: ServiceKey, cause: str, message: str) -> None:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(LAST_RETRY, FIRST_RETRY * 2 ** min(count - 1, 10)) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        self._metrics.errors.labels(cause).inc()
        log.warning("%s/%s: %s; again in %.1f s", *key, message, delay)
        self._queue.add([key], delay)

    async def _tell_of_defect(self, key: ServiceKey, error: Exception) -> None:
        service = self._cache.services.get(key)
        if service is None:
            return
        try:
            status = failed_status(service, error, time.time())
            await self._write_status(service.metadata, service.status, status)
        except (ApiError, UnreachableError, NotLeadingError) as failure:
            log.warning("%s/%s: the defect cannot be told: %s", *key, failure)

    async def reconcile(self, key: ServiceKey) -> None:
        """Bring one service forward as far as it goes now. Raises what Writer raises."""
        if await self._is_unreadable(key):
            return
        for _ in range(STEPS):
            outcome = self._compile(key)
            if outcome.spec is None:
                break
            await self._write_plan(key, outcome.spec)
        else:
            self._queue.add([key], 0.0)
        await self._finish(key, outcome)

    async def _is_unreadable(self, key: ServiceKey) -> bool:
        """Whether this release cannot read the service or its plan; that is told, and all stays.

        A service that is being deleted is withdrawn all the same: that follows from its plan alone.
        """
        found = self._cache.invalid.get(key) or self._cache.services.get(key)
        now = time.time()
        if (message := self._cache.unread_plans.get(plan_name(*key))) is not None:
            if found is not None:
                status = unread_plan_status(found.metadata, found.status, message, now)
                await self._write_status(found.metadata, found.status, status)
            return True
        if not isinstance(found, Invalid) or found.metadata.deletion_timestamp:
            return False
        status = unreadable_status(found.metadata, found.status, found.message, now)
        await self._write_status(found.metadata, found.status, status)
        return True

    def _compile(self, key: ServiceKey) -> Outcome:
        clock = Clock(wall=time.time(), steady=time.monotonic())
        outcome = compile_service(self._cache.inputs(key, clock))
        self._cache.note(key, outcome.awaits)
        if outcome.wake_at is not None:
            self._queue.add([key], max(0.0, outcome.wake_at - clock.steady) + DEBOUNCE)
        return outcome

    async def _write_plan(self, key: ServiceKey, spec: DSRPlanSpec) -> None:
        service = self._cache.services.get(key)
        if service is not None and not service.metadata.deletion_timestamp:
            meta = service.metadata
            if WITHDRAWAL_FINALIZER not in meta.finalizers:
                await self._writer.add_finalizer(meta)
        current = self._cache.plans.get(plan_name(*key))
        await self._writer.apply_plan(spec, current)
        log.info("%s/%s: %s", *key, describe(current.spec if current else None, spec))

    async def _finish(self, key: ServiceKey, outcome: Outcome) -> None:
        """Status, and the end of a service that every node has let go of."""
        service = self._cache.services.get(key)
        if outcome.withdrawn:
            found = service or self._cache.invalid.get(key)
            await self._release(key, found.metadata if found else None)
        elif service is not None and outcome.status is not None:
            await self._write_status(service.metadata, service.status, outcome.status)

    async def _release(self, key: ServiceKey, meta: Metadata | None) -> None:
        plan = self._cache.plans.get(plan_name(*key))
        if plan is not None:
            await self._writer.delete_plan(plan)
            log.info("%s/%s: withdrawn from all nodes, plan deleted", *key)
        if meta is None or WITHDRAWAL_FINALIZER not in meta.finalizers:
            return
        told = Event("Normal", reasons.WITHDRAWN, "taken off all nodes")
        await self._writer.post_event(meta, told)
        await self._writer.remove_finalizer(meta)
        log.info("%s/%s: released", *key)

    async def _write_status(
        self, meta: Metadata, old: DSRServiceStatus, new: DSRServiceStatus
    ) -> None:
        if old == new:
            return
        await self._writer.apply_status(meta, new)
        for event in transitions(old, new):
            log.info("%s/%s: %s: %s", meta.namespace, meta.name, event.reason, event.message)
            await self._writer.post_event(meta, event)
