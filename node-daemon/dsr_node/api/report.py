"""What this node tells the operator: reports of the engine become DSRNode.status."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.metadata
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec
from dsr_api.base import encode
from dsr_api.node import (
    DIRECTING,
    LIST_CAP,
    MAC_NOT_RESOLVED,
    DSRNodeStatus,
    PlansNotApplied,
    UnhealthyBackend,
    UnhealthyBackends,
)

from dsr_node.api.backoff import Backoff
from dsr_node.api.client import NODES, Client
from dsr_node.api.errors import ApiError, ForbiddenError, NotFoundError
from dsr_node.api.own import OwnNode
from dsr_node.state.report import Report

LEAST_INTERVAL = 1.0
"""Seconds between two writes, at least; the first after a quiet second is immediate."""

LAZY = 4.0
"""Seconds that a mere move of the revision may wait. Waiting and writing take less than 5 s."""

REFRESH = 60.0
"""Seconds after which the same status is applied again, in case somebody has deleted or changed the
object. An apply that changes nothing writes nothing to etcd."""

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """What does not change while the daemon runs."""

    kernel: str
    boot_id: str
    daemon_version: str


def identity() -> Identity:
    """Of this machine and this daemon."""
    return Identity(
        kernel=os.uname().release,
        boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        daemon_version=importlib.metadata.version("dsr-operator"),
    )


def node_status(report: Report, me: Identity) -> DSRNodeStatus:
    """DSRNode.status of a report. Pure; equal reports give equal values, in a stable order."""
    problems, more_problems = _capped(
        sorted(report.problems, key=lambda p: (p.reason in DIRECTING, p.plan, p.vip))
    )
    unhealthy, more_unhealthy = _capped(
        sorted(_said_once(report.unhealthy), key=lambda b: (b.address, b.plan))
    )
    return DSRNodeStatus(
        applied_revision=report.revision,
        plans_not_applied=PlansNotApplied(problems, more_problems),
        unhealthy_backends=UnhealthyBackends(unhealthy, more_unhealthy),
        announcing=len(report.announcing),
        kernel=me.kernel,
        boot_id=me.boot_id,
        daemon_version=me.daemon_version,
        uplinks=_capped(sorted(report.uplinks, key=lambda uplink: uplink.name))[0],
    )


def _said_once(unhealthy: Iterable[UnhealthyBackend]) -> Iterator[UnhealthyBackend]:
    """One entry for a backend that does not answer, however many plans have it."""
    plans: dict[UnhealthyBackend, list[UnhealthyBackend]] = {}
    for each in unhealthy:
        plans.setdefault(msgspec.structs.replace(each, plan=""), []).append(each)
    for whole, parts in plans.items():
        if whole.reason == MAC_NOT_RESOLVED and len(parts) > 1:
            yield whole
        else:
            yield from parts


def _capped(items: Sequence[T]) -> tuple[tuple[T, ...], int]:
    return tuple(items[:LIST_CAP]), max(0, len(items) - LIST_CAP)


def _same_but_revision(status: DSRNodeStatus, before: DSRNodeStatus | None) -> bool:
    return before is not None and before == msgspec.structs.replace(
        status, applied_revision=before.applied_revision
    )


class Pace:
    """When the next write is due. Pure; times are of any clock that only runs forward."""

    def __init__(self) -> None:
        self._written_at = float("-inf")
        self._waiting_since: float | None = None
        self._urgent = False

    def changed(self, now: float, *, urgent: bool) -> None:
        """There is something to write."""
        if self._waiting_since is None:
            self._waiting_since = now
        self._urgent |= urgent

    def written(self, now: float) -> None:
        """All that was there when the write began is written."""
        self._written_at, self._waiting_since, self._urgent = now, None, False

    def due(self) -> float:
        """The time of the next write."""
        if self._waiting_since is None:
            return self._written_at + REFRESH
        wait = 0.0 if self._urgent else LAZY
        return max(self._waiting_since + wait, self._written_at + LEAST_INTERVAL)


class NodeReporter:
    """A Reporter that keeps DSRNode current; `run()` must run.

    A report of revision 0 is not written: it would say that this node has let go of everything,
    where it only has not yet carried out anything since it was started. DSRNode belongs to the
    Node, and is not written while that is known to be no more. `reported` is set once it has been
    written.
    """

    def __init__(self, client: Client, node: str, me: Identity, own: OwnNode) -> None:
        self.reported = asyncio.Event()
        self._client = client
        self._node = node
        self._own = own
        self._me = me
        self._wanted: DSRNodeStatus | None = None
        self._pace = Pace()
        self._changed = asyncio.Event()
        self._backoff = Backoff()
        self._owner_refused = False

    def report(self, report: Report) -> None:
        """See Reporter."""
        status = node_status(report, self._me)
        if not report.revision or status == self._wanted:
            return
        urgent = report.concerns_us or not _same_but_revision(status, self._wanted)
        self._pace.changed(asyncio.get_running_loop().time(), urgent=urgent)
        self._wanted = status
        self._changed.set()

    def node_changed(self) -> None:
        """The Node has come, gone or been replaced: DSRNode follows at once."""
        if self._wanted is not None:
            self._pace.changed(asyncio.get_running_loop().time(), urgent=True)
            self._changed.set()

    async def run(self) -> NoReturn:
        """Endless; failures are logged once and tried again."""
        loop = asyncio.get_running_loop()
        failing = False
        await self._changed.wait()
        while True:
            await self._due()
            self._pace.written(loop.time())
            try:
                await self._write()
            except ApiError as error:
                if not failing:
                    log.warning("DSRNode %s is not written: %s", self._node, error)
                failing = True
                await asyncio.sleep(self._backoff.failed(error))
                self._pace.changed(loop.time(), urgent=True)
            else:
                failing = False
                self._backoff.succeeded()

    async def _due(self) -> None:
        """Returns when a write is due; what changes meanwhile may make it due sooner."""
        while True:
            self._changed.clear()
            try:
                async with asyncio.timeout_at(self._pace.due()):
                    await self._changed.wait()
            except TimeoutError:
                return

    async def _write(self) -> None:
        if self._wanted is None or not self._own.present.is_set():
            return
        fields = {"status": encode(self._wanted)}
        try:
            written = await self._client.apply(NODES, self._node, fields, "status")
        except NotFoundError:
            written = await self._client.apply(NODES, self._node, {}, owners=self._own.owners)
            await self._client.apply(NODES, self._node, fields, "status")
        self.reported.set()
        if not self._own.is_owner_of(written):
            await self._hand_over()

    async def _hand_over(self) -> None:
        """Makes the Node the owner. Where OwnerReferencesPermissionEnforcement is on, only who may
        delete an object may do that later than at its making; the status goes out all the same."""
        try:
            await self._client.apply(NODES, self._node, {}, owners=self._own.owners)
        except ForbiddenError as error:
            if not self._owner_refused:
                log.warning("DSRNode %s will not go with its Node: %s", self._node, error)
            self._owner_refused = True
