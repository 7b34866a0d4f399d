"""Plans from the API server: list and watch become snapshots."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass

import msgspec
from dsr_api.base import Metadata
from dsr_api.node import PlanNotApplied
from dsr_api.plan import DSRPlan

from dsr_node.api.backoff import Backoff
from dsr_node.api.client import CRDS, PLANS, Client
from dsr_node.api.errors import ApiError, CannotReadError
from dsr_node.api.watch import Watch
from dsr_node.source import Snapshot
from dsr_node.source.disk import PlanFiles, Saved, Saver
from dsr_node.source.validity import InvalidPlanError, checked

COALESCE = 0.01
"""Seconds that a change waits for others, so that a burst of them is one pass of the engine."""

PATIENCE = 2.0
"""Seconds that the API server has for its first answer, before the plans on disk are used."""

UNREADABLE = "Unreadable"
"""Reason of a plan that does not decode."""

PLAN_CRD = f"{PLANS.plural}.{PLANS.group}"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A plan as the API has it, which this version of the daemon cannot read."""

    message: str


class _Crd(msgspec.Struct):
    metadata: Metadata


def decode_plan(item: bytes) -> DSRPlan | Unreadable:
    """A plan, or why it is none."""
    try:
        return checked(msgspec.json.decode(item, type=DSRPlan))
    except (msgspec.DecodeError, InvalidPlanError) as error:
        return Unreadable(str(error))


def carries(plan: DSRPlan) -> bool:
    """Whether its loss would take something off the nodes.

    The operator empties a plan before it deletes it, so the end of a plan that carries nothing
    needs no second look.
    """
    return bool(plan.spec.vips or plan.spec.frontends)


def shares(plan: DSRPlan, node: str) -> bool:
    """Whether the node directs this plan together with others."""
    directors = {director.node for director in plan.spec.directors}
    return node in directors and len(directors) > 1


def merge(
    api: Mapping[str, DSRPlan | Unreadable], kept: Mapping[str, DSRPlan], held: Iterable[str]
) -> tuple[dict[str, DSRPlan], tuple[PlanNotApplied, ...]]:
    """The plans to carry out, and those refused.

    `kept`: the plans before, which stand in for what cannot be read and for those in `held`.
    """
    plans = {name: kept[name] for name in held}
    refused = []
    for name, plan in api.items():
        if isinstance(plan, DSRPlan):
            plans[name] = plan
            continue
        if name in kept:
            plans[name] = kept[name]
        advice = "a newer operator? Upgrade this daemon; its last readable version stays in force"
        refused.append(PlanNotApplied(name, UNREADABLE, f"{plan.message} ({advice})"))
    return plans, tuple(sorted(refused, key=lambda each: each.plan))


class ApiSource:
    """A Source. `watch.run()` and `saver.run()` must run beside it.

    A plan that carries something and is gone is believed gone only when its CRD is seen to be
    served and not about to be deleted: the API server deletes all objects of a CRD that goes, with
    the same events. `doubt` says why it is not believed now, "" if nothing is held.
    `has_peers` is set once this node directs a plan together with others.
    """

    def __init__(self, client: Client, files: PlanFiles, node: str) -> None:
        self.watch: Watch[DSRPlan | Unreadable] = Watch(client, PLANS, decode_plan)
        self.saver = Saver(files)
        self.doubt = ""
        self.has_peers = asyncio.Event()
        self._node = node
        self._client = client
        self._files = files
        self._backoff = Backoff()
        self._last = Snapshot(complete=False)

    async def snapshots(self) -> AsyncIterator[Snapshot]:
        """See Source. The first one is the disk's if the API server does not answer in time."""
        saved = await asyncio.to_thread(self._files.load)
        if not await self._answered(PATIENCE):
            log.warning(
                "the API server does not answer: starting with %d plans kept on disk, of "
                "revision %d",
                len(saved.plans),
                saved.revision,
            )
            yield self._from_disk(saved)
            await self._answered(None)
        elif any(carries(saved.plans[name]) for name in self._missing(saved.plans)):
            # The engine must know what it is about to lose, to hold back a loss too large.
            yield self._from_disk(saved)
        self._last = Snapshot(saved.plans, saved.revision, complete=False)
        while True:
            snapshot, wait = await self._next()
            if snapshot != self._last:
                self._last = snapshot
                self.saver.save(snapshot.plans, snapshot.revision)
                self._look_for_peers(snapshot)
                yield snapshot
            await self._changed(wait)

    def _look_for_peers(self, snapshot: Snapshot) -> None:
        known = self.has_peers.is_set()
        if not known and any(shares(plan, self._node) for plan in snapshot.plans.values()):
            self.has_peers.set()

    def _from_disk(self, saved: Saved) -> Snapshot:
        return Snapshot(saved.plans, saved.revision, complete=False)

    def _missing(self, plans: Mapping[str, DSRPlan]) -> set[str]:
        return plans.keys() - self.watch.mirror.objects.keys()

    async def _answered(self, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.watch.changed.wait()
        except TimeoutError:
            return False
        return True

    async def _changed(self, seconds: float | None) -> None:
        if await self._answered(seconds):
            await asyncio.sleep(COALESCE)

    async def _next(self) -> tuple[Snapshot, float | None]:
        """The snapshot now, and after how many seconds to look again even without a change."""
        mirror = self.watch.mirror
        self.watch.changed.clear()
        api, revision, gone = dict(mirror.objects), mirror.revision, self._missing(self._last.plans)
        lost = {name for name in gone if carries(self._last.plans[name])}
        wait = await self._look_twice(lost)
        held = lost if self.doubt else set()
        plans, refused = merge(api, self._last.plans, held)
        return Snapshot(plans, revision, refused=refused), wait

    async def _look_twice(self, lost: set[str]) -> float | None:
        """Sets `doubt`; seconds until the next look if there must be one."""
        if not lost:
            self.doubt = ""
            return None
        try:
            crd = msgspec.convert(await self._client.get(CRDS, PLAN_CRD), _Crd)
            if crd.metadata.deletion_timestamp:
                raise CannotReadError(f"the CRD {PLAN_CRD} is being deleted")
        except ApiError as error:
            wait = self._backoff.failed(error)
            if not self.doubt:
                log.warning("%d plans are gone, but kept in force: %s", len(lost), error)
            self.doubt = str(error)
            return wait
        self._backoff.succeeded()
        self.doubt = ""
        return None
