"""Which changes of a DSRService's conditions are worth a Kubernetes Event: transitions only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dsr_api.service import DSRServiceStatus

from dsr_operator.compile import reasons


@dataclass(frozen=True, slots=True)
class Event:
    """One line of `kubectl describe`."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


GOOD = {
    reasons.ACCEPTED: "True",
    reasons.RESOLVED_REFS: "True",
    reasons.READY: "True",
    reasons.DEGRADED: "False",
}
"""The conditions whose transitions are told, and the status that is no trouble."""

SELDOM_GOOD = (reasons.ACCEPTED, reasons.READY)
"""Those of which good news is told as well."""


def transitions(old: DSRServiceStatus, new: DSRServiceStatus) -> list[Event]:
    """Events for what has become true or false, or false for another reason."""
    before = {c.type: c for c in old.conditions}
    told = []
    for condition in new.conditions:
        last = before.get(condition.type)
        if condition.type not in GOOD:
            continue
        good = condition.status == GOOD[condition.type]
        changed = last is None or last.status != condition.status
        if good and changed and condition.type in SELDOM_GOOD:
            told.append(Event("Normal", condition.reason, condition.message))
        elif not good and (changed or (last and last.reason != condition.reason)):
            told.append(Event("Warning", condition.reason, condition.message))
    return _without_repeats(told)


def _without_repeats(told: list[Event]) -> list[Event]:
    """Ready is false for the reason of another condition: say it once."""
    passing = {reasons.PENDING, reasons.WAITING_FOR_BACKENDS, reasons.WITHDRAWING}
    kept = {(e.type, e.reason): e for e in told if e.reason not in passing}
    return list(kept.values())
