"""The backends from before the changes of late: DESIGN rule 11.

A director without a pinned table starts as if its slots had moved from the table of these backends
to that of the present ones. A slot that has moved settles once the flow idle time-out has passed,
so each change counts for that long; another change of the same backend in that time leaves what it
was before the first one (rule 5: settled stays what it was).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from dsr_api.plan import DSRPlanSpec, PlanBackend

from dsr_operator.compile.acks import Acks
from dsr_operator.compile.clocktext import from_rfc3339, to_rfc3339

Identity = tuple[str, str]


def remember_backends(current: DSRPlanSpec, new: DSRPlanSpec, acks: Acks) -> DSRPlanSpec:
    """`new`, with the note of what `current` had. Nothing moves before there is a table."""
    idle = max(new.flow_idle_timeout.tcp_seconds, new.flow_idle_timeout.udp_seconds)
    now = acks.clock.wall
    changed = {k: b for k, b in _changes(current).items() if _time(b) + idle > now}
    before, after = _weights(current.backends), _weights(new.backends)
    if current.frontends and before:
        stamp = to_rfc3339(now)
        for key in before.keys() | after.keys():
            if before.get(key, 0) != after.get(key, 0):
                was = changed.get(key) or _entry(key, before.get(key, 0))
                changed[key] = msgspec.structs.replace(was, changed_at=stamp)
    if not changed:
        return msgspec.structs.replace(new, previous_backends=(), backends_changed_at=None)
    acks.deadlines.append(acks.clock.steady + min(map(_time, changed.values())) + idle - now)
    table = {key: _entry(key, weight) for key, weight in after.items()} | changed
    return msgspec.structs.replace(
        new,
        previous_backends=tuple(table[key] for key in sorted(table)),
        backends_changed_at=to_rfc3339(max(map(_time, changed.values()))),
    )


def _changes(plan: DSRPlanSpec) -> dict[Identity, PlanBackend]:
    return {(b.address, b.node_uid): b for b in plan.previous_backends if b.changed_at}


def _time(backend: PlanBackend) -> float:
    return from_rfc3339(backend.changed_at or "")


def _weights(backends: Iterable[PlanBackend]) -> dict[Identity, int]:
    return {(b.address, b.node_uid): b.weight for b in backends if b.weight > 0}


def _entry(key: Identity, weight: int) -> PlanBackend:
    address, node_uid = key
    return PlanBackend(address=address, node_uid=node_uid, weight=weight)
