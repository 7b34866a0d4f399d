"""The status of a DSRService: conditions after the Kubernetes API conventions, counts, summary.

Each condition carries the generation that it judges, and its lastTransitionTime moves with its
status alone. `Ready` is the one to wait for (kstatus reads it as well).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dsr_api.base import Condition, Metadata
from dsr_api.plan import DSRPlanSpec
from dsr_api.service import (
    BackendCounts,
    DSRService,
    DSRServiceStatus,
    DSRServiceSummary,
    LoadBalancerCounts,
)

from dsr_operator.compile import reasons
from dsr_operator.compile.acks import LAG, Acks
from dsr_operator.compile.backends import names
from dsr_operator.compile.clocktext import to_rfc3339
from dsr_operator.compile.inputs import Problem
from dsr_operator.compile.sequence import Target
from dsr_operator.compile.survey import (
    Backends,
    Findings,
    Nodes,
    survey_backends,
    survey_nodes,
    was_out,
)
from dsr_operator.compile.verdict import Verdict
from dsr_operator.core import family

MESSAGE_LENGTH = 1024
"""Characters at most; the API server takes 32,768, a person far fewer."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A condition before it has a time."""

    status: bool
    reason: str
    message: str


def status(service: DSRService, found: Findings, acks: Acks) -> DSRServiceStatus:
    """The whole status; equal to the present one if nothing has changed."""
    if found.target is None or found.verdict is None:
        return _withdrawing(service, found, acks)
    nodes = survey_nodes(service, found, found.target, acks)
    backends = survey_backends(found, acks, nodes)
    counts = backends.counts
    judged = {
        reasons.ACCEPTED: _accepted(found.verdict),
        reasons.RESOLVED_REFS: _joined(
            found.resolution.problems, reasons.RESOLVED, "all backends and load balancers are known"
        ),
        reasons.PROGRAMMED: _programmed(service, found, nodes, acks),
        reasons.BACKENDS_HEALTHY: _healthy(backends, found.verdict.vips),
        reasons.DEGRADED: _degraded(found, nodes, backends.sick | backends.doubted),
    }
    judged[reasons.READY] = _ready(judged, found, counts)
    return DSRServiceStatus(
        observed_generation=service.metadata.generation,
        vips=found.verdict.vips,
        backends=counts,
        load_balancers=LoadBalancerCounts(total=len(nodes.directors), programmed=nodes.programmed),
        conditions=conditions(service.metadata, service.status.conditions, judged, acks.clock.wall),
        summary=DSRServiceSummary(
            vips=",".join(service.spec.vips),
            ports=",".join(dict.fromkeys(f"{p.port}/{p.protocol}" for p in service.spec.ports)),
            backends=f"{counts.healthy}/{counts.total}",
            load_balancers=f"{nodes.programmed}/{len(nodes.directors)}",
        ),
    )


def conditions(
    meta: Metadata, present: Sequence[Condition], judged: dict[str, Judgement], now: float
) -> tuple[Condition, ...]:
    """Conditions with their times: that of the present one where the status is the same."""
    before = {c.type: c for c in present}
    made = []
    for kind, judgement in judged.items():
        old = before.get(kind)
        text = "True" if judgement.status else "False"
        same = old is not None and old.status == text
        made.append(
            Condition(
                type=kind,
                status=text,
                reason=judgement.reason,
                message=judgement.message[:MESSAGE_LENGTH],
                last_transition_time=old.last_transition_time if old and same else to_rfc3339(now),
                observed_generation=meta.generation,
            )
        )
    return tuple(made)


def _withdrawing(service: DSRService, found: Findings, acks: Acks) -> DSRServiceStatus:
    plan = found.current
    awaited = f"; waiting for {names(sorted(acks.awaited))}" if acks.awaited else ""
    said = Judgement(
        status=False,
        reason=reasons.WITHDRAWING,
        message=f"the service is being deleted and taken off its nodes{awaited}",
    )
    return DSRServiceStatus(
        observed_generation=service.metadata.generation,
        vips=plan.vips if plan else (),
        conditions=conditions(
            service.metadata,
            service.status.conditions,
            {reasons.PROGRAMMED: said, reasons.READY: said},
            acks.clock.wall,
        ),
        summary=service.status.summary,
    )


def _joined(problems: Sequence[Problem], reason: str, message: str) -> Judgement:
    """True with `reason` and `message` if there are no problems, else the first one's reason."""
    if not problems:
        return Judgement(status=True, reason=reason, message=message)
    return Judgement(
        status=False, reason=problems[0].reason, message="; ".join(p.message for p in problems)
    )


def _accepted(verdict: Verdict) -> Judgement:
    judged = _joined(verdict.refusals, reasons.ACCEPTED, "all VIPs and ports are granted")
    if judged.status or not verdict.frontends:
        return judged
    return Judgement(
        status=False, reason=judged.reason, message=f"{judged.message}; the rest is served"
    )


def _programmed(service: DSRService, found: Findings, nodes: Nodes, acks: Acks) -> Judgement:
    trouble = _programming_trouble(found, nodes, acks)
    if trouble is not None:
        return Judgement(status=False, reason=trouble.reason, message=trouble.message)
    pending = _pending(found, nodes, acks)
    if pending is not None and not was_out(service):
        return Judgement(status=False, reason=pending.reason, message=pending.message)
    return Judgement(
        status=True,
        reason=reasons.PROGRAMMED,
        message=f"{nodes.programmed} of {len(nodes.directors)} load balancers are up to date",
    )


def _programming_trouble(found: Findings, nodes: Nodes, acks: Acks) -> Problem | None:
    """What makes Programmed false at any time."""
    current, target = found.current, found.target
    if found.verdict is not None and not found.verdict.frontends:
        return Problem(reasons.NOTHING_TO_PROGRAM, "no frontend is granted; see Accepted")
    if current is None or target is None:
        return Problem(reasons.PENDING, "the plan is being written")
    return _unannounced(nodes, acks) or _unserved(current, target, acks) or _lagging(nodes)


def _unannounced(nodes: Nodes, acks: Acks) -> Problem | None:
    """Why there may be a VIP that no LB node answers for."""
    if not any(acks.live(d) for d in nodes.directors):
        return Problem(
            reasons.NO_LIVE_LB_NODE,
            "no load balancer node has a running dsr-node daemon: see loadBalancerNodes and the"
            " DaemonSet",
        )
    if nodes.conflicts:
        return _first_named(nodes.conflicts)
    if nodes.announcing:
        return None
    # Any of them may be the one that should answer, and may not be able to.
    return _first_named(nodes.complaints or (Problem(reasons.PENDING, _waiting_for(acks)),))


def _lagging(nodes: Nodes) -> Problem | None:
    if not nodes.laggards:
        return None
    return Problem(
        reasons.NODE_LAGS,
        f"more than {LAG:.0f} s behind the plan: {names(nodes.laggards)}; see the logs of"
        " dsr-node there",
    )


def _unserved(current: DSRPlanSpec, target: Target, acks: Acks) -> Problem | None:
    """Why the plan does not have all frontends, or no backend for one."""
    missing = set(target.frontends) - set(current.frontends)
    if held := sorted({target.blocked[f] for f in missing if f in target.blocked}):
        return Problem(
            reasons.WAITING_FOR_OTHER_SERVICE,
            f"waiting until DSRService {names(held)} has been taken off its nodes",
        )
    families = {family(b.address) for b in current.backends}
    if any(family(f.vip) not in families for f in target.frontends):
        return Problem(reasons.WAITING_FOR_BACKENDS, "no backend has confirmed the VIPs yet")
    if missing:
        return Problem(reasons.PENDING, _waiting_for(acks))
    return None


def _pending(found: Findings, nodes: Nodes, acks: Acks) -> Problem | None:
    """What is still to come before this generation is out for the first time."""
    current, target = found.current, found.target
    if current is None or target is None or current.service != target.template.service:
        return Problem(reasons.PENDING, "the plan is being written")
    present = {b.node for b in current.backends}
    absent = [h for h in nodes.hosts if acks.live(h) and h not in present and not acks.fails(h)]
    behind = [n for n in nodes.behind if n in nodes.directors]
    if absent or behind or set(current.frontends) != set(target.frontends):
        return Problem(reasons.PENDING, _waiting_for(acks))
    return None


def _waiting_for(acks: Acks) -> str:
    return f"waiting for {names(sorted(acks.awaited)) or 'the plan to be written'}"


def _healthy(backends: Backends, vips: Iterable[str]) -> Judgement:
    counts, ailing = backends.counts, {**backends.coming, **backends.sick}
    without = sorted({family(vip) for vip in vips} - backends.families)
    if without or not counts.healthy:
        whose = " and ".join(f"IPv{each} " for each in without) if backends.families else ""
        told = f"no {whose}backend takes new connections"
        return Judgement(
            status=False,
            reason=reasons.NONE_HEALTHY if ailing else reasons.NO_BACKENDS,
            message="; ".join([told, _listed(ailing.values())] if ailing else [told]),
        )
    if not ailing:
        return Judgement(
            status=True,
            reason=reasons.ALL_HEALTHY,
            message=f"all {counts.healthy} backends can be reached",
        )
    return Judgement(status=False, reason=reasons.SOME_UNHEALTHY, message=_listed(ailing.values()))


def _first_named(problems: Sequence[Problem]) -> Problem:
    return Problem(problems[0].reason, _listed(p.message for p in problems))


def _listed(items: Iterable[str]) -> str:
    return names(sorted(set(items)), "; ")


def _degraded(found: Findings, nodes: Nodes, sick: dict[str, str]) -> Judgement:
    problems = list(found.resolution.warnings)
    if nodes.dead:
        problems.append(
            Problem(reasons.NODE_DOWN, f"no running dsr-node daemon on {names(nodes.dead)}")
        )
    if nodes.complaints:
        problems.append(_first_named(nodes.complaints))
    if sick:
        problems.append(Problem(reasons.BACKEND_UNHEALTHY, _listed(sick.values())))
    joined = _joined(problems, reasons.AS_EXPECTED, "everything is as it should be")
    return Judgement(status=not joined.status, reason=joined.reason, message=joined.message)


def _ready(judged: dict[str, Judgement], found: Findings, counts: BackendCounts) -> Judgement:
    for kind in (reasons.ACCEPTED, reasons.RESOLVED_REFS, reasons.PROGRAMMED):
        if not judged[kind].status:
            return judged[kind]
    healthy = judged[reasons.BACKENDS_HEALTHY]
    if healthy.reason in (reasons.NONE_HEALTHY, reasons.NO_BACKENDS):
        return healthy
    vips = found.verdict.vips if found.verdict else ()
    return Judgement(
        status=True,
        reason=reasons.READY_REASON,
        message=f"{names(vips)}: {counts.healthy} of {counts.total} backends take connections",
    )
