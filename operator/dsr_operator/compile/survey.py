"""Who takes part in one service, and how each of them is: what the conditions are judged from."""

from __future__ import annotations

from dataclasses import dataclass, field

from dsr_api.plan import DSRPlanSpec
from dsr_api.service import BackendCounts, DSRService

from dsr_operator.compile import reasons
from dsr_operator.compile.acks import LAG, Acks
from dsr_operator.compile.backends import Resolution
from dsr_operator.compile.inputs import Problem
from dsr_operator.compile.sequence import Target
from dsr_operator.compile.verdict import Verdict


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
    """The nodes concerned, sorted out. `directors` and `hosts` are those that the target names."""

    directors: tuple[str, ...]
    hosts: tuple[str, ...]
    dead: tuple[str, ...]
    complaints: tuple[Problem, ...]
    laggards: tuple[str, ...]
    behind: tuple[str, ...]
    programmed: int


@dataclass(frozen=True, slots=True)
class Backends:
    """The counts; `sick` and `coming`: address -> what is wrong, or still awaited, with it."""

    counts: BackendCounts
    sick: dict[str, str]
    coming: dict[str, str]


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
    planned = {d.node for d in found.current.directors} if found.current else set()
    # A node that follows within LAG is no news once the service has been out.
    outdated = laggards if was_out(service) else since
    return Nodes(
        directors=directors,
        hosts=hosts,
        dead=tuple(n for n in known if n not in live),
        complaints=tuple(
            Problem(c.reason, f"node {n}: {c.message}") for n in live for c in acks.complaints(n)
        ),
        laggards=laggards,
        behind=tuple(since),
        programmed=sum(
            d in planned and d in live and d not in outdated and not acks.complaints(d)
            for d in directors
        ),
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
    planned = {b.address: b for b in found.current.backends} if found.current else {}
    reported = acks.unhealthy(nodes.directors)
    sick: dict[str, str] = {}
    coming: dict[str, str] = {}
    healthy = 0
    for wanted in found.resolution.backends.values():
        if wanted.weight == 0:
            continue
        where = f"{wanted.address} (node {wanted.node})" if wanted.node else wanted.address
        if wanted.address in reported:
            director, report = reported[wanted.address]
            detail = f"{report.reason}: {report.message}" if report.message else report.reason
            sick[wanted.address] = f"{where}: {detail} (seen from {director})"
        elif wanted.address not in planned:
            node = wanted.node
            due = acks.live(node) and node not in nodes.laggards and not acks.complaints(node)
            absent = coming if due or not node else sick
            absent[wanted.address] = f"{where}: {_why_absent(node, acks)}"
        else:
            healthy += 1
    ids = {*found.resolution.backends, *((b.address, b.node_uid) for b in planned.values())}
    draining = sum(b.weight == 0 for b in planned.values())
    counts = BackendCounts(total=len(ids), healthy=healthy, draining=draining)
    return Backends(counts, sick, coming)


def _why_absent(node: str, acks: Acks) -> str:
    if not node:
        return "not in the plan yet"
    if node in acks.world.outdated:
        return f"node {node} has booted, or was replaced, since a dsr-node daemon reported there"
    if not acks.live(node):
        return f"the dsr-node daemon of node {node} is not running"
    if complaints := acks.complaints(node):
        return f"{complaints[0].reason}: {complaints[0].message}"
    return f"node {node} has not confirmed yet that it holds the VIPs"
