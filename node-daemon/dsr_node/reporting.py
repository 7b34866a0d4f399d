"""From what a pass has decided and done to the report of it. Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from dsr_api.node import PlanNotApplied, Uplink
from dsr_api.plan import DSRPlan

from dsr_node.source import Snapshot
from dsr_node.state.loss import Plans
from dsr_node.state.report import Report
from dsr_node.state.types import Link, Network, NodeState
from dsr_node.state.uplink import carrier_of
from dsr_node.subsystems.kernel import Outcome

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of the engine. `repairs`: all since the start, this pass's included."""

    node: str
    plans: Plans
    snapshot: Snapshot
    state: NodeState
    network: Network
    outcome: Outcome
    repairs: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def xdp_errors(outcome: Outcome) -> Mapping[str, str]:
    """Facts.xdp_errors, as a pass has found them."""
    errors = {
        problem.interface: f"{problem.interface}: {problem.message} ({problem.reason})"
        for problem in outcome.problems
        if not problem.plan
    }
    return errors | ({"": outcome.errors["xdp"]} if "xdp" in outcome.errors else {})


def report_of(this: Pass, before: Pass | None, former: Report) -> Report:
    """The report of a pass, given the pass before and its report.

    The revision moves on only when everything has been carried out.
    """
    plans, outcome = this.plans, this.outcome
    done = not outcome.errors and not plans.held
    report = Report(
        revision=this.snapshot.revision if done else former.revision,
        plans=len(plans.in_force),
        problems=tuple(sorted(_problems(this), key=lambda p: (p.plan, p.vip, p.reason))),
        unhealthy=this.state.unhealthy,
        uplinks=tuple(_uplinks(this)),
        announcing=frozenset(announcement.vip for announcement in this.state.announcements),
        repairs=dict(this.repairs),
        errors=dict(outcome.errors),
        alarm=plans.alarm,
    )
    same = replace(report, revision=former.revision, plans=former.plans) == replace(
        former, pass_seconds=0.0, concerns_us=False
    )
    former_plans = before.plans.in_force if before else {}
    concerns_us = not same or _touches(this.node, former_plans, plans.in_force)
    return replace(report, pass_seconds=this.seconds, concerns_us=concerns_us)


def news(former: Report, now: Report) -> Iterator[tuple[int, str]]:
    """What an operator wants to find in the log of a change: level and text."""
    for problem in _added(former.problems, now.problems):
        yield logging.WARNING, f"{_about(problem)}: {problem.message} ({problem.reason})"
    for problem in _added(now.problems, former.problems):
        yield logging.INFO, f"{_about(problem)}: no longer: {problem.message} ({problem.reason})"
    for backend in _added(former.unhealthy, now.unhealthy):
        text = f"backend {backend.address}: nothing is sent there: {backend.message}"
        yield logging.WARNING, f"{backend.plan}: {text} ({backend.reason})"
    for backend in _added(now.unhealthy, former.unhealthy):
        text = f"backend {backend.address}: no longer: {backend.message}"
        yield logging.INFO, f"{backend.plan}: {text} ({backend.reason})"
    for vip in sorted(now.announcing - former.announcing):
        yield logging.INFO, f"{vip}: announced by this node"
    for vip in sorted(former.announcing - now.announcing):
        yield logging.INFO, f"{vip}: no longer announced by this node"


def _about(problem: PlanNotApplied) -> str:
    return f"{problem.plan} {problem.vip}".strip()


def _added(former: Sequence[T], now: Sequence[T]) -> list[T]:
    known = set(former)
    return [each for each in now if each not in known]


def _problems(this: Pass) -> Iterator[PlanNotApplied]:
    yield from this.snapshot.refused
    yield from this.state.problems
    for problem in this.outcome.problems:
        if problem.plan:
            yield PlanNotApplied(plan=problem.plan, reason=problem.reason, message=problem.message)
    refused = this.outcome.refused
    for name, plan in this.plans.in_force.items() if refused else ():
        for vip in refused.keys() & set(plan.spec.vips) if _names(this.node, plan) else ():
            yield PlanNotApplied(plan=name, reason="AddressRefused", message=refused[vip], vip=vip)


def _uplinks(this: Pass) -> Iterator[Uplink]:
    errors = xdp_errors(this.outcome)
    for link in this.network.links:
        if link.name in this.state.uplinks:
            carrier = carrier_of(link, this.network).name
            error = errors.get(carrier) or errors.get("", "")
            yield _uplink(link, this.outcome, carrier, error)


def _uplink(link: Link, outcome: Outcome, carrier: str, error: str) -> Uplink:
    return Uplink(
        name=link.name,
        mac=link.mac,
        addresses=link.addresses,
        xdp_mode=outcome.modes.get(carrier, "Unavailable"),
        message=error,
    )


def _names(node: str, plan: DSRPlan | None) -> bool:
    return plan is not None and (
        node in plan.spec.hosts or any(d.node == node for d in plan.spec.directors)
    )


def _touches(node: str, former: Mapping[str, DSRPlan], now: Mapping[str, DSRPlan]) -> bool:
    """Whether a plan that names or named the node has changed."""
    return former is not now and any(
        former.get(name) is not now.get(name)
        and (_names(node, former.get(name)) or _names(node, now.get(name)))
        for name in former.keys() | now.keys()
    )
