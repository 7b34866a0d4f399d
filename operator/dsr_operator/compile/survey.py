"""Who takes part in one service, and how each of them is: what the conditions are judged from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from dsr_api.node import ADDRESS_CONFLICT, DIRECTING, PlanNotApplied
from dsr_api.plan import DSRPlanSpec
from dsr_api.service import BackendCounts, DSRService

from dsr_operator.compile import reasons
from dsr_operator.compile.acks import LAG, Acks
from dsr_operator.compile.backends import Resolution, Wanted, names
from dsr_operator.compile.inputs import Problem
from dsr_operator.compile.sequence import Target
from dsr_operator.compile.verdict import Verdict
from dsr_operator.core import family


@dataclass(frozen=True, slots=True)
class Findings:
    """What has been found out about one service, and its `current` plan. One that is withdrawn has
    neither verdict nor target."""

    current: DSRPlanSpec | None = None
    verdict: Verdict | None = None
    resolution: Resolution = field(default_factory=Resolution)
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes concerned, sorted out. `directors` and `hosts` are those that the target names.

    `announcing`: live directors that VIPs are shared out to by the plan as it is. `conflicts`:
    those of the directors' `complaints` that keep a VIP from being announced by anyone.
    """

    directors: tuple[str, ...]
    announcing: tuple[str, ...]
    hosts: tuple[str, ...]
    dead: tuple[str, ...]
    complaints: tuple[Problem, ...]
    conflicts: tuple[Problem, ...]
    laggards: tuple[str, ...]
    behind: tuple[str, ...]
    programmed: int


@dataclass(frozen=True, slots=True)
class Backends:
    """The counts, and of which address `families` there is a healthy one.

    Address -> what is wrong with it (`sick`), what of it is still awaited (`coming`), and what some
    LB nodes have against it, while others reach it (`doubted`).
    """

    counts: BackendCounts
    families: Set[int]
    sick: dict[str, str]
    coming: dict[str, str]
    doubted: dict[str, str]


def survey_nodes(service: DSRService, found: Findings, target: Target, acks: Acks) -> Nodes:
    """Sort the nodes; notes in `acks` who is behind, and when that becomes news."""
    directors = tuple(d.node for d in target.directors)
    hosts = tuple(dict.fromkeys(w.node for w in target.backends.values() if w.node))
    known = tuple(dict.fromkeys((*directors, *hosts)))
    live = [n for n in known if acks.live(n)]
    since = {n: at for n in live if (at := acks.lagging_since(n)) is not None}
    acks.awaited.update(since)
    late = {n: at + LAG for n, at in since.items()}
    acks.deadlines.extend(at for at in late.values() if at > acks.clock.steady)
    laggards = tuple(n for n, at in late.items() if at <= acks.clock.steady)
    planned = {d.node: d for d in found.current.directors} if found.current else {}
    complaints = {n: acks.complaints(n) for n in live}
    # A node that follows within LAG is no news once the service has been out.
    outdated = laggards if was_out(service) else since
    return Nodes(
        directors=directors,
        announcing=tuple(n for n, d in planned.items() if d.announces and acks.live(n)),
        hosts=hosts,
        dead=tuple(n for n in known if n not in live),
        complaints=_problems(complaints),
        conflicts=_problems(
            {
                n: [c for c in complaints[n] if c.reason == ADDRESS_CONFLICT]
                for n in directors
                if n in complaints
            }
        ),
        laggards=laggards,
        behind=tuple(since),
        programmed=sum(
            d in planned and d in live and d not in outdated and not acks.complaints(d)
            for d in directors
        ),
    )


def _problems(complaints: Mapping[str, Sequence[PlanNotApplied]]) -> tuple[Problem, ...]:
    return tuple(
        Problem(c.reason, f"node {node}: {c.message}")
        for node, said in complaints.items()
        for c in said
    )


def was_out(service: DSRService) -> bool:
    """Whether this generation has been out before: it then takes more than a moment to say no."""
    return any(
        c.type == reasons.PROGRAMMED
        and c.status == "True"
        and c.observed_generation == service.metadata.generation
        for c in service.status.conditions
    )


def survey_backends(found: Findings, acks: Acks, nodes: Nodes) -> Backends:
    """Judge every backend that should take traffic."""
    planned = {(b.address, b.node_uid): b for b in found.current.backends} if found.current else {}
    sick: dict[str, str] = {}
    coming: dict[str, str] = {}
    doubted: dict[str, str] = {}
    healthy: list[Wanted] = []
    for wanted in found.resolution.backends.values():
        if wanted.weight == 0:
            continue
        where = f"{wanted.address} (node {wanted.node})" if wanted.node else wanted.address
        if wanted.identity not in planned:
            node = wanted.node
            due = acks.live(node) and node not in nodes.laggards and not acks.fails(node)
            absent = coming if due or not node else sick
            absent[wanted.address] = f"{where}: {_why_absent(node, acks)}"
            continue
        seen = {d: acks.finds(d, wanted.address) for d in nodes.announcing}
        if None not in seen.values():
            sick[wanted.address] = f"{where}: {_why_unreached(seen)}"
            continue
        healthy.append(wanted)
        if any(seen.values()):
            doubted[wanted.address] = f"{where}: {_why_unreached(seen)}"
    ids = {*found.resolution.backends, *planned}
    draining = sum(b.weight == 0 for b in planned.values())
    counts = BackendCounts(total=len(ids), healthy=len(healthy), draining=draining)
    return Backends(counts, {family(w.address) for w in healthy}, sick, coming, doubted)


def _why_unreached(seen: Mapping[str, str | None]) -> str:
    """What those who do not reach a backend have to say, and who that is."""
    if not seen:
        return "no load balancer node tells whether it can be reached"
    said = {node: words for node, words in seen.items() if words}
    if not said:
        return f"not known: {names(seen)} found more unhealthy ones than a DSRNode tells"
    others = [node for node in seen if node not in said]
    contrast = f", not from {names(others)}" if others else ""
    return f"{next(iter(said.values()))} (seen from {names(said)}{contrast})"


def _why_absent(node: str, acks: Acks) -> str:
    if not node:
        return "not in the plan yet"
    if node in acks.world.outdated:
        return f"node {node} has booted, or was replaced, since a dsr-node daemon reported there"
    if not acks.live(node):
        return f"the dsr-node daemon of node {node} is not running"
    for complaint in acks.complaints(node):
        if complaint.reason not in DIRECTING:
            return f"{complaint.reason}: {complaint.message}"
    if acks.cut_off(node):
        return (
            f"not known whether node {node} holds the VIPs: it has more complaints than a DSRNode"
            " tells; mend those it tells, or see the log of dsr-node there"
        )
    return f"node {node} has not confirmed yet that it holds the VIPs"
