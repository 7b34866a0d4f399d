"""compile_service(): everything known about one service -> what to do for it now."""

from __future__ import annotations

from hashlib import blake2b

import msgspec
from dsr_api.plan import Director, DSRPlanSpec, PlanService, plan_name
from dsr_api.service import DSRService

from dsr_operator.compile import reasons
from dsr_operator.compile.acks import Acks
from dsr_operator.compile.backends import Resolution, resolve, select
from dsr_operator.compile.conditions import status
from dsr_operator.compile.inputs import Inputs, Outcome, Problem
from dsr_operator.compile.pools import unfit
from dsr_operator.compile.sequence import Target, grow_and_shrink, withdraw
from dsr_operator.compile.survey import Findings
from dsr_operator.compile.verdict import Verdict, as_carried_out, judge
from dsr_operator.core import NodeView


def compile_service(inputs: Inputs) -> Outcome:
    """The next step for one service. Pure: equal inputs give equal outcomes.

    Never raises for objects that the API server may hold; what is wrong with them becomes a
    condition. Applying an outcome and asking again converges: when nothing changes any more,
    `spec` is None and `status` is what the object has.
    """
    acks = _acks(inputs)
    if inputs.service is None or inputs.service.metadata.deletion_timestamp:
        return _withdrawing(inputs, acks)
    return _serving(inputs, inputs.service, acks)


def _acks(inputs: Inputs) -> Acks:
    if inputs.service is not None:
        meta = inputs.service.metadata
        name = plan_name(meta.namespace, meta.name)
    else:
        name = inputs.plan.metadata.name if inputs.plan else ""
    return Acks(name, inputs.world, inputs.history, inputs.clock)


def _withdrawing(inputs: Inputs, acks: Acks) -> Outcome:
    current = inputs.plan.spec if inputs.plan else None
    spec, withdrawn = withdraw(current, acks) if current else (None, True)
    findings = Findings(current=current)
    return _outcome(inputs, acks, findings, spec, withdrawn=withdrawn)


def _serving(inputs: Inputs, service: DSRService, acks: Acks) -> Outcome:
    verdict = judge(service, inputs.standing, inputs.world.owners)
    fit = verdict.vips or tuple(v for v in service.spec.vips if unfit(v) is None)
    resolution = resolve(service.spec, fit, inputs.core_service, inputs.world)
    resolution.warnings.extend(verdict.warnings)
    acks.awaited |= inputs.standing.awaits
    acks.deadlines.extend(inputs.standing.deadlines)
    asked = as_carried_out(service, inputs.plan, inputs.standing)
    directors = _directors(asked, inputs, resolution)
    current = inputs.plan.spec if inputs.plan else None
    target = _target(inputs, asked, verdict, resolution, directors)
    spec = None
    if current is not None or verdict.frontends:
        spec = grow_and_shrink(current or target.template, target, acks)
    findings = Findings(current, verdict, resolution, target)
    return _outcome(inputs, acks, findings, spec)


def _directors(service: DSRService, inputs: Inputs, resolution: Resolution) -> list[NodeView]:
    try:
        chosen = select(service.spec.load_balancer_nodes.node_selector, inputs.world.nodes)
    except ValueError as error:
        resolution.problems.append(
            Problem(reasons.INVALID_SELECTOR, f"loadBalancerNodes.nodeSelector: {error}")
        )
        return []
    if not chosen:
        resolution.problems.append(
            Problem(
                reasons.NO_LB_NODE,
                "loadBalancerNodes.nodeSelector matches no Node: label the nodes, or correct it",
            )
        )
    return chosen


def _target(
    inputs: Inputs,
    service: DSRService,
    verdict: Verdict,
    resolution: Resolution,
    directors: list[NodeView],
) -> Target:
    meta, spec = service.metadata, service.spec
    current = inputs.plan.spec if inputs.plan else None
    template = DSRPlanSpec(
        service=PlanService(
            namespace=meta.namespace, name=meta.name, uid=meta.uid, generation=meta.generation
        ),
        dataplane=spec.dataplane,
        method=spec.forwarding.method,
        scheduler=spec.scheduler,
        announcement=spec.announcement.mode,
        flow_idle_timeout=spec.flow_idle_timeout,
        hash_seed=current.hash_seed if current else _seed(meta.uid),
    )
    if current is not None:
        # Another table would move slots of every flow there is.
        template = msgspec.structs.replace(
            template, table_version=current.table_version, table_size=current.table_size
        )
    return Target(
        template=template,
        vips=verdict.vips,
        frontends=verdict.frontends,
        blocked=verdict.pending,
        directors=tuple(Director(node=n.name, addresses=n.internal) for n in directors),
        backends=resolution.backends,
        drain_seconds=spec.drain_timeout_seconds,
    )


def _seed(uid: str) -> str:
    """The seed of a new plan. One made again for the same service gives the same tables, so that
    its flows stay where they are."""
    return blake2b(uid.encode(), digest_size=8).hexdigest()


def _outcome(
    inputs: Inputs,
    acks: Acks,
    findings: Findings,
    spec: DSRPlanSpec | None,
    *,
    withdrawn: bool = False,
) -> Outcome:
    written = status(inputs.service, findings, acks) if inputs.service is not None else None
    current = inputs.plan.spec if inputs.plan else None
    return Outcome(
        spec=spec if spec != current else None,
        withdrawn=withdrawn,
        status=written,
        awaits=frozenset(acks.awaited),
        wake_at=min(acks.deadlines, default=None),
    )
