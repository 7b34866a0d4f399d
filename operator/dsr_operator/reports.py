"""What the node daemons have told, and what of it counts."""

from __future__ import annotations

from dataclasses import dataclass

from dsr_api.node import DSRNode, DSRNodeStatus

from dsr_operator.core import NodeView


@dataclass(frozen=True, slots=True)
class News:
    """Whom a report concerns.

    - `ahead`: those who wait for the node; `all`: whatever involves the node.
    - `plans`: names of plans of which it says something else than before.
    """

    ahead: bool = False
    all: bool = False
    plans: frozenset[str] = frozenset()


class Reports:
    """The reports of all nodes. `counting` has those that count; `outdated` names the nodes whose
    report is of an earlier boot, or of another machine of that name: nothing of it is true."""

    def __init__(self) -> None:
        self.counting: dict[str, DSRNodeStatus] = {}
        self.outdated: set[str] = set()
        self._told: dict[str, DSRNode] = {}

    def take(self, name: str, report: DSRNode | None, node: NodeView | None) -> News:
        """The report of a node has come, changed or gone (None)."""
        if report is None:
            self._told.pop(name, None)
        else:
            self._told[name] = report
        before = self.counting.get(name)
        self.weigh(name, node)
        return _news(before, self.counting.get(name))

    def weigh(self, name: str, node: NodeView | None) -> None:
        """The Node has come, changed or gone (None): does its report count?"""
        report = self._told.get(name)
        self.counting.pop(name, None)
        self.outdated.discard(name)
        if report is None:
            return
        if node is None or is_of(report, node):
            self.counting[name] = report.status
        else:
            self.outdated.add(name)


def is_of(report: DSRNode, node: NodeView) -> bool:
    """Whether a report was made on the machine that a Node stands for, since it booted.

    What is not known (a DSRNode without an owner, a Node without a boot ID) is not compared.
    """
    owners = {owner.uid for owner in report.metadata.owner_references if owner.kind == "Node"}
    boots = {report.status.boot_id, node.boot_id} - {""}
    return len(boots) < 2 and (not owners or node.uid in owners)


def _news(before: DSRNodeStatus | None, now: DSRNodeStatus | None) -> News:
    if now is None:
        return News(ahead=True, all=True)
    before = before or DSRNodeStatus()
    complaints = set(before.plans_not_applied.items) ^ set(now.plans_not_applied.items)
    unhealthy = set(before.unhealthy_backends.items) ^ set(now.unhealthy_backends.items)
    more = [(r.plans_not_applied.more, r.unhealthy_backends.more) for r in (before, now)]
    plans = {c.plan for c in complaints} | {b.plan for b in unhealthy}
    return News(
        ahead=before.applied_revision != now.applied_revision,
        all=more[0] != more[1] or "" in plans,
        plans=frozenset(plans - {""}),
    )
