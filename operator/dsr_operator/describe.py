"""Changes of plans, in words for the log."""

from __future__ import annotations

from collections.abc import Iterable

from dsr_api.plan import Director, DSRPlanSpec, Frontend, PlanBackend

from dsr_operator.compile.backends import names


def describe(old: DSRPlanSpec | None, new: DSRPlanSpec) -> str:
    """What changes from one plan to the next, in one line."""
    if old is None:
        return f"plan made: VIPs {names(new.vips)}; hosts {names(new.hosts) or 'none'}"
    parts = [
        _difference("VIP", old.vips, new.vips),
        _difference("frontend", map(_frontend, old.frontends), map(_frontend, new.frontends)),
        _difference("director", map(_director, old.directors), map(_director, new.directors)),
        _difference("host", old.hosts, new.hosts),
        _difference("backend", map(_backend, old.backends), map(_backend, new.backends)),
    ]
    told = "; ".join(filter(None, parts))
    return f"plan changed: {told or f'generation {new.service.generation}'}"


def _difference(what: str, old: Iterable[str], new: Iterable[str]) -> str:
    before, after = set(old), set(new)
    changes = [f"+{x}" for x in sorted(after - before)] + [f"-{x}" for x in sorted(before - after)]
    return f"{what} {names(changes)}" if changes else ""


def _frontend(frontend: Frontend) -> str:
    return f"{frontend.vip} {frontend.port}/{frontend.protocol}"


def _director(director: Director) -> str:
    return director.node if director.announces else f"{director.node} without announcing"


def _backend(backend: PlanBackend) -> str:
    until = f" until {backend.drain_until}" if backend.drain_until else ""
    return f"{backend.address} weight {backend.weight}{until}"
