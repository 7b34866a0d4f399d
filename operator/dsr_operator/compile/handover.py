"""Which frontends other services' plans have not let go of yet.

A frontend enters one plan only once no director forwards it by another, present or just replaced:
two tables for it would tear its connections apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from dsr_api.plan import DSRPlan, Frontend

from dsr_operator.compile.acks import Acks
from dsr_operator.compile.history import History
from dsr_operator.compile.inputs import Clock, World


@dataclass(slots=True)
class Handover:
    """Frontend -> "namespace/name" of who still has it; what report or time may end that."""

    held: dict[Frontend, str] = field(default_factory=dict)
    awaits: set[str] = field(default_factory=set)
    deadlines: list[float] = field(default_factory=list)


def await_others(
    frontends: Iterable[Frontend],
    others: Iterable[tuple[DSRPlan, History]],
    world: World,
    clock: Clock,
) -> Handover:
    """Look through the plans of other services that have one of the frontends' VIPs.

    A plan that has dropped a frontend has it until its directors, present and former, have
    acknowledged that, are dead, or were given PATIENCE. As far as an operator can know that has
    just started, a plan may have had each frontend of its VIPs.
    """
    wanted = tuple(frontends)
    found = Handover()
    for plan, history in others:
        spec = plan.spec
        owner = f"{spec.service.namespace}/{spec.service.name}"
        acks = Acks(plan.metadata.name, world, history, clock)
        senders = {*(d.node for d in spec.directors), *spec.former_directors}
        present, vips = set(spec.frontends), set(spec.vips)
        for frontend in wanted:
            mark = history.ceded.get(frontend) or history.begun
            ceding = frontend.vip in vips and mark and not acks.let_go(senders, mark)
            if frontend in present or ceding:
                found.held[frontend] = owner
        found.awaits |= acks.awaited
        found.deadlines += acks.deadlines
    return found
