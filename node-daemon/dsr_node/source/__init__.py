"""Where plans come from: the border between a source (directory, API, disk) and the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dsr_api.node import PlanNotApplied
from dsr_api.plan import DSRPlan


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All plans a source knows at one moment. A source reuses the object of an unchanged plan.

    - `plans`: by plan name.
    - `revision`: the highest DSRPlan resourceVersion seen, as a number; 0 for a directory.
    - `complete`: False when plans may be missing here (last plans on disk, a list that has not
      ended): the engine then keeps the plans it already has.
    - `refused`: plans the source could not read, with the reason. Their last good version, if
      there is one, stays in `plans`.
    """

    plans: Mapping[str, DSRPlan] = field(default_factory=dict)
    revision: int = 0
    complete: bool = True
    refused: tuple[PlanNotApplied, ...] = ()


class Source(Protocol):
    """Yields a snapshot at once where it can, then one for every change.

    An unreadable source (403, 404, CRD gone, directory gone) yields nothing: the engine keeps what
    it has ("empty is not none"). It retries by itself and raises only what no retry can mend.
    """

    def snapshots(self) -> AsyncIterator[Snapshot]:
        """An endless iterator; closed by cancelling the task that reads it."""
        ...
