"""What the nodes have said about one plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from dsr_api.node import DIRECTING, FOR_ALL_DIRECTORS, PlanNotApplied

from dsr_operator.compile.history import History, Mark
from dsr_operator.compile.inputs import Clock, World

PATIENCE = 60.0
"""Seconds for which a live node that does not acknowledge is waited for."""

COMPANY = 1.0
"""Seconds since it was named as a host for which those who could enter `backends` wait for a live
node, so that they enter together: each entry by itself moves slots, and what has moved is slower
for a while and keeps new UDP flows where they would have gone before."""

FIRST_SIGHT = 3.0
"""The same for one whose Lease has not been seen yet, though it has acknowledged since: Leases are
looked at every two seconds."""

LAG = 10.0
"""Seconds behind the plan after which a live node is said to lag."""


@dataclass(slots=True)
class Acks:
    """The reports of all nodes, read for one plan. Collects what is waited for, and until when."""

    plan: str
    world: World
    history: History
    clock: Clock
    awaited: set[str] = field(default_factory=set)
    deadlines: list[float] = field(default_factory=list)

    def live(self, node: str) -> bool:
        """Whether the node exists and its Lease is fresh."""
        return node in self.world.live and node in self.world.nodes

    def applied(self, node: str) -> int:
        """The revision up to which the node has carried everything out; 0 before its first."""
        report = self.world.reports.get(node)
        return report.applied_revision if report else 0

    def complaints(self, node: str) -> list[PlanNotApplied]:
        """What the node says about not having applied this plan."""
        report = self.world.reports.get(node)
        return [i for i in report.plans_not_applied.items if i.plan == self.plan] if report else []

    def directs(self, node: str) -> bool:
        """Whether the node has reported, and does not say that it cannot direct this plan."""
        return node in self.world.reports and all(
            c.reason in FOR_ALL_DIRECTORS for c in self.complaints(node)
        )

    def refuses(self, node: str) -> bool:
        """Whether the node says that it does not hold this plan's VIPs."""
        return any(c.reason not in DIRECTING for c in self.complaints(node))

    def lacks(self, node: str) -> bool:
        """Whether a node that had this plan's VIPs has them no more, for all that is known."""
        return node in self.world.outdated or (self.live(node) and self.refuses(node))

    def fails(self, node: str) -> bool:
        """Whether the node does not hold this plan's VIPs, or may not."""
        return self.refuses(node) or self.cut_off(node)

    def cut_off(self, node: str) -> bool:
        """Whether the node may say that it does not hold this plan's VIPs in what its list has no
        room for: such complaints come first, by plan."""
        report = self.world.reports.get(node)
        if report is None or not report.plans_not_applied.more:
            return False
        last = report.plans_not_applied.items[-1:]
        return all(c.reason not in DIRECTING and self.plan >= c.plan for c in last)

    def has(self, node: str, mark: Mark) -> bool:
        """Whether the node has carried out what the plan says since `mark`."""
        return self.applied(node) >= mark.revision and not self.fails(node)

    def holds(self, node: str) -> bool:
        """Whether a host has all the plan's VIPs on lo."""
        mark = self.history.holding.get(node)
        return mark is not None and self.has(node, mark)

    def let_go(self, nodes: Iterable[str], mark: Mark) -> bool:
        """Whether every node has followed up to `mark`, is dead, or was given PATIENCE.

        Notes who is waited for, and until when.
        """
        late = [n for n in nodes if self.live(n) and not self.has(n, mark)]
        return not self.wait_for(late, mark)

    def wait_for(self, late: Iterable[str], mark: Mark, patience: float = PATIENCE) -> bool:
        """Whether there is anybody among `late` for whom to wait still; notes it if so."""
        waiting = set(late)
        deadline = mark.at + patience
        if not waiting or self.clock.steady >= deadline:
            return False
        self.awaited |= waiting
        self.deadlines.append(deadline)
        return True

    def lagging_since(self, node: str) -> float | None:
        """Since when a live node has been behind the current plan; None if it is not."""
        if not self.live(node):
            return None
        return self.history.behind_since(self.applied(node))

    def finds(self, director: str, address: str) -> str | None:
        """What an LB node has against a backend; None: it can be reached, "": not known."""
        report = self.world.reports.get(director)
        if report is None:
            return ""
        listed = report.unhealthy_backends
        for backend in listed.items:
            if backend.address == address and backend.plan in ("", self.plan):
                return f"{backend.reason}: {backend.message}".removesuffix(": ")
        beyond = listed.more > 0 and all(address >= b.address for b in listed.items[-1:])
        return "" if beyond else None
