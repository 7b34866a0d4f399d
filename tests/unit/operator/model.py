"""A cluster in memory: one service, all versions of its plan, nodes that follow when they like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from dsr_api.base import LabelSelector, Metadata
from dsr_api.node import DSRNodeStatus, PlansNotApplied
from dsr_api.plan import DSRPlan, DSRPlanSpec, PlanService
from dsr_api.service import (
    BackendSource,
    DSRService,
    DSRServiceSpec,
    LoadBalancerNodes,
    Port,
)
from dsr_operator.compile import compile_service
from dsr_operator.compile.acks import PATIENCE
from dsr_operator.compile.history import History, advance
from dsr_operator.compile.inputs import Clock, CoreService, Inputs, Outcome, Standing, World
from dsr_operator.core import NodeView, family

NAMES = ("a", "b", "c", "d")
VIPS = ("192.0.2.1", "192.0.2.2", "2001:db8::1")
GONE = DSRPlanSpec(service=PlanService(namespace="shop", name="web"))
START = 1_700_000_000.0


def view(
    name: str, *, host: bool = True, director: bool = True, weight: str | None = None
) -> NodeView:
    """A node with an address of each family."""
    number = NAMES.index(name) + 1
    addresses = (f"10.0.0.{number}", f"fd00::{number}")
    return NodeView(
        name=name,
        uid=f"uid-{name}",
        labels={"host": str(host), "director": str(director)},
        internal=addresses,
        addresses=addresses,
        weight=weight,
    )


def service(**changes: object) -> DSRService:
    """Of which every node labelled host is a backend, and every one labelled director directs."""
    spec = DSRServiceSpec(
        vips=VIPS[:1],
        ports=(Port(port=80),),
        backends=BackendSource(node_selector=LabelSelector(match_labels={"host": "True"})),
        load_balancer_nodes=LoadBalancerNodes(
            node_selector=LabelSelector(match_labels={"director": "True"})
        ),
        drain_timeout_seconds=30,
    )
    meta = Metadata(
        name="web",
        namespace="shop",
        uid="uid-web",
        generation=1,
        creation_timestamp="2025-01-01T00:00:00Z",
    )
    return DSRService(metadata=meta, spec=msgspec.structs.replace(spec, **changes))


@dataclass
class Cluster:
    """`versions[i]` is the plan at revision i; `acked[node]` what its daemon has reported;
    `booted`: nodes that have booted since."""

    service: DSRService | None = field(default_factory=service)
    nodes: dict[str, NodeView] = field(default_factory=lambda: {n: view(n) for n in NAMES[:3]})
    live: set[str] = field(default_factory=lambda: set(NAMES))
    acked: dict[str, int] = field(default_factory=dict)
    versions: list[tuple[float, DSRPlanSpec]] = field(default_factory=lambda: [(START, GONE)])
    plan: DSRPlan | None = None
    history: History = field(default_factory=History)
    now: float = START
    standing: Standing = field(default_factory=Standing)
    complaints: Mapping[str, PlansNotApplied] = field(default_factory=dict)
    excused: set[str] = field(default_factory=set)
    booted: set[str] = field(default_factory=set)
    withdrawn: bool = False

    @property
    def latest(self) -> int:
        """The newest revision."""
        return len(self.versions) - 1

    # What happens

    def compile(
        self,
        standing: Standing | None = None,
        complaints: Mapping[str, PlansNotApplied] | None = None,
    ) -> Outcome:
        """Ask once, writing nothing."""
        owners = {a: n.name for n in self.nodes.values() for a in n.addresses}
        reports = {
            n: DSRNodeStatus(
                applied_revision=r,
                plans_not_applied=(complaints or self.complaints).get(n, PlansNotApplied()),
            )
            for n, r in self.acked.items()
            if n not in self.booted
        }
        return compile_service(
            Inputs(
                service=self.service,
                plan=self.plan,
                history=self.history,
                world=World(self.nodes, owners, reports, frozenset(self.live), self.booted),
                standing=standing or self.standing,
                core_service=CoreService(),
                clock=Clock(self.now, self.now - START),
            )
        )

    def step(self) -> bool:
        """Ask once and write; whether anything was written."""
        self._excuse()
        outcome = self.compile()
        if outcome.spec is not None:
            self._write(outcome.spec)
        if outcome.withdrawn and self.service is not None:
            self.service, self.plan, self.withdrawn = None, None, True
            self.versions.append((self.now, GONE))
        status = outcome.status
        if self.service is not None and status is not None and status != self.service.status:
            self.service = msgspec.structs.replace(self.service, status=status)
            return True
        return outcome.spec is not None

    def settle(self) -> None:
        """Ask and write until nothing changes any more."""
        for _ in range(20):
            if not self.step():
                return
        raise AssertionError("the operator never comes to rest")

    def _write(self, spec: DSRPlanSpec) -> None:
        self.versions.append((self.now, spec))
        old = self.plan.spec if self.plan else None
        self.history = advance(self.history, old, spec, self.latest, self.now - START)
        meta = Metadata(name="shop.web", resource_version=str(self.latest), uid="uid-plan")
        self.plan = DSRPlan(metadata=meta, spec=spec)

    def forget(self) -> None:
        """The operator is killed and starts again."""
        self.history = History()
        if self.plan is not None:
            self.history = advance(History(), None, self.plan.spec, self.latest, self.now - START)

    def acknowledge(self, node: str) -> None:
        """A node's daemon applies the newest plan and reports it."""
        if node in self.live:
            self.acked[node] = self.latest
            self.excused.discard(node)
            self.booted.discard(node)

    def _excuse(self) -> None:
        """Nodes that nobody waits for: dead or deleted ones, and live ones silent for too long."""
        for node in NAMES:
            unseen = [at for at, _ in self.versions[self.acked.get(node, 0) + 1 :]]
            silent = unseen and self.now - unseen[0] >= PATIENCE
            if unseen and (node not in self.live or node not in self.nodes or silent):
                self.excused.add(node)

    # What must hold

    def stray(self) -> str | None:
        """A packet that could reach a host without its VIP, in words; None if none could.

        Each node may be at any version from the one it reported to the newest.
        """
        held = {n: self._surely_held(n) for n in NAMES}
        for director in NAMES:
            if director in self.excused:
                continue
            for revision in range(self.acked.get(director, 0), self.latest + 1):
                spec = self.versions[revision][1]
                if director not in {d.node for d in spec.directors}:
                    continue
                for frontend in spec.frontends:
                    for backend in spec.backends:
                        if family(backend.address) != family(frontend.vip) or not backend.node:
                            continue
                        if backend.node not in self.nodes or frontend.vip in held[backend.node]:
                            continue
                        return (
                            f"{director} at revision {revision} sends {frontend.vip} to"
                            f" {backend.node}, which is somewhere from"
                            f" {self.acked.get(backend.node, 0)} to {self.latest}"
                        )
        return None

    def _surely_held(self, node: str) -> set[str]:
        """VIPs that a node has on lo at whichever version it may be."""
        possible = [
            set(spec.vips) if node in {*spec.hosts, *(d.node for d in spec.directors)} else set()
            for _, spec in self.versions[self.acked.get(node, 0) :]
        ]
        return set.intersection(*possible)
