"""The full view of a node as JSON, and whether it is alive and ready. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from dsr_api.base import encode
from dsr_api.plan import DSRPlan

from dsr_node.observe.sight import Sight
from dsr_node.state.report import Report
from dsr_node.state.types import NodeState
from dsr_node.subsystems.xdp.state import FOREVER, Backend, address_text

STALE = 90.0
"""Seconds without a pass after which the engine is taken for hung. A pass is due each 30 s."""


def health(report_age: float) -> tuple[bool, str]:
    """Whether the engine is alive, and why not. Age in seconds, from the start if none came yet."""
    if report_age <= STALE:
        return True, "ok"
    return False, f"the last pass ended {report_age:.0f} s ago; one is due each 30 s"


def readiness(sight: Sight) -> tuple[bool, str]:
    """Whether the plans are known and carried out. The API server need not be reachable for it."""
    report, source = sight.passes.last, _source_problem(sight)
    if report is None:
        return False, f"no pass has ended yet{source}"
    if report.errors:
        failing = "; ".join(f"{name}: {why}" for name, why in sorted(report.errors.items()))
        return False, f"{failing}{source}"
    done = f"{report.plans} plans carried out, revision {report.revision}"
    return True, f"{done}{_problems(report)}{source}"


def _problems(report: Report) -> str:
    if not report.problems:
        return ""
    first = report.problems[0]
    about = f"{first.plan} {first.vip}".strip()
    text = f"{about}: {first.message} ({first.reason})"
    return f"; not carried out: {len(report.problems)}, the first: {text}"


def _source_problem(sight: Sight) -> str:
    if sight.api is None:
        return ""
    problems = {name: h.problem for name, h in sight.api.watches().items() if h.problem}
    return "".join(f"; {name} cannot be read: {why}" for name, why in sorted(problems.items()))


def full_view(sight: Sight, now: float) -> dict[str, Any]:
    """/state. Ages in seconds; addresses and MACs as text."""
    report = sight.passes.last
    view = {
        "node": sight.node,
        "identity": msgspec.to_builtins(sight.me),
        "report": _report(report) if report else None,
        "plans": {
            name: {"revision": plan.metadata.resource_version, **_public(plan)}
            for name, plan in sorted(sight.engine.plans.items())
        },
        "kernel": _kernel(sight.engine.state),
    }
    if sight.api:
        renewed = sight.api.lease_renewed_at()
        view["api"] = {
            "watches": {
                name: {"problem": h.problem, "age": _age(h.heard, now), "for": now - h.since}
                for name, h in sight.api.watches().items()
            },
            "doubt": sight.api.doubt(),
            "leaseAge": _age(renewed, now),
        }
    return view


def _public(plan: DSRPlan) -> dict[str, Any]:
    """Without the hash seed: who knows it can send all his flows to one backend."""
    return {field: value for field, value in encode(plan.spec).items() if field != "hashSeed"}


def _age(at: float | None, now: float) -> float | None:
    return None if at is None else now - at


def _report(report: Report) -> dict[str, Any]:
    return {
        "revision": report.revision,
        "problems": [encode(problem) for problem in report.problems],
        "unhealthy": [encode(backend) for backend in report.unhealthy],
        "uplinks": [encode(uplink) for uplink in report.uplinks],
        "announcing": sorted(report.announcing),
        "repairs": dict(report.repairs),
        "errors": dict(report.errors),
        "alarm": report.alarm,
        "passSeconds": report.pass_seconds,
    }


def _kernel(state: NodeState) -> Mapping[str, Any]:
    """What this kernel should hold."""
    director = state.director
    return {
        "addresses": sorted(state.addresses),
        "sysctls": dict(sorted(state.sysctls.items())),
        "uplinks": list(state.uplinks),
        "frontends": {str(key): str(pool) for key, pool in sorted(director.frontends.items())},
        "pools": {
            str(key): {
                "tableSize": pool.size,
                "backends": [_backend(backend) for backend in pool.backends],
            }
            for key, pool in sorted(director.pools.items())
        },
        "announced": {
            address_text(vip): "without end" if end == FOREVER else end / 1e9
            for vip, end in sorted(director.announced.items())
        },
        "peers": [
            {"mac": p.mac.hex(":"), "address": address_text(p.address)}
            for p in sorted(director.peers)
        ],
        "interfaces": [attachment.name for attachment in director.attachments],
    }


def _backend(backend: Backend) -> dict[str, Any]:
    return {
        "address": address_text(backend.key.address),
        "nodeUID": backend.key.node_uid,
        "weight": backend.weight,
        "mac": backend.mac.hex(":") if backend.mac else "",
        "local": backend.local,
        "health": "failed" if backend.failed else "draining" if backend.draining else "good",
    }
