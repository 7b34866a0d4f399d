"""docs/architecture.md, rule 7: the loss of more than half of the plans at once is held back. Pure.

Seeing them deleted makes no difference: the operator empties a plan before it deletes it, so who
deletes plans that still carry something is not the operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dsr_api.plan import DSRPlan

from dsr_node.source import Snapshot

HOLD = 30.0
"""Seconds for which the loss is held back."""


@dataclass(frozen=True, slots=True)
class Plans:
    """The plans in force.

    `held`: those of them that the source no longer has; `since`: when the first of these was lost.
    """

    in_force: Mapping[str, DSRPlan] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    since: float = 0.0

    @property
    def alarm(self) -> str:
        """What is held back, "" if nothing is."""
        if not self.held:
            return ""
        return (
            f"{len(self.held)} of {len(self.in_force)} plans vanished at once without having been "
            f"emptied: kept in force for {HOLD:.0f} s"
        )


def taken(plans: Plans, snapshot: Snapshot, now: float) -> Plans:
    """The plans in force after a snapshot. Plans that put nothing on a node may go unseen."""
    before = plans.in_force
    if not snapshot.complete:
        return Plans({**before, **snapshot.plans}, plans.held - snapshot.plans.keys(), plans.since)
    carrying = {name for name, plan in before.items() if plan.spec.vips or plan.spec.frontends}
    lost = carrying - snapshot.plans.keys()
    since = plans.since if plans.held else now
    if 2 * len(lost) <= len(carrying) or now >= since + HOLD:
        return Plans(snapshot.plans)
    return Plans({**{n: before[n] for n in lost}, **snapshot.plans}, frozenset(lost), since)
