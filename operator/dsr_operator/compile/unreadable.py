"""The status of a service that cannot be compiled: unreadable, or a defect of the operator."""

from __future__ import annotations

import msgspec
from dsr_api.base import Condition, Metadata
from dsr_api.service import DSRService, DSRServiceStatus

from dsr_operator.compile import reasons
from dsr_operator.compile.conditions import Judgement, conditions


def unreadable_status(
    meta: Metadata, present: DSRServiceStatus, message: str, now: float
) -> DSRServiceStatus:
    """For an object that this release cannot read, such as one written for a newer release."""
    said = Judgement(
        status=False,
        reason=reasons.INVALID_SPEC,
        message=f"this release cannot read the spec ({message}): correct it, or upgrade the"
        " operator; what was programmed before stays as it is",
    )
    judged = {reasons.ACCEPTED: said, reasons.READY: said}
    return _replaced(meta, present, judged, now)


def unread_plan_status(
    meta: Metadata, present: DSRServiceStatus, message: str, now: float
) -> DSRServiceStatus:
    """For a service of whose plan this release cannot tell what it says, such as a newer one's."""
    said = Judgement(
        status=False,
        reason=reasons.PLAN_UNREADABLE,
        message=f"this release cannot read the DSRPlan ({message}): upgrade the operator to the"
        " release that wrote it; until then the plan, and what nodes have of it, stay as they are",
    )
    return _replaced(meta, present, {reasons.PROGRAMMED: said, reasons.READY: said}, now)


def failed_status(service: DSRService, error: Exception, now: float) -> DSRServiceStatus:
    """For a service on which the operator itself fails; the other conditions stay as they were."""
    said = Judgement(
        status=False,
        reason=reasons.RECONCILE_ERROR,
        message=f"the operator fails on this object ({type(error).__name__}: {error}): please"
        " report it with the operator's log; what was programmed before stays as it is",
    )
    return _replaced(service.metadata, service.status, {reasons.READY: said}, now)


def _replaced(
    meta: Metadata, present: DSRServiceStatus, judged: dict[str, Judgement], now: float
) -> DSRServiceStatus:
    kept = [c for c in present.conditions if c.type not in judged]
    merged: list[Condition] = [*kept, *conditions(meta, present.conditions, judged, now)]
    return msgspec.structs.replace(
        present, observed_generation=meta.generation, conditions=tuple(merged)
    )
