"""What the engine tells after each pass: DSRNode.status, metrics and /state are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dsr_api.node import PlanNotApplied, UnhealthyBackend, Uplink


@dataclass(frozen=True, slots=True)
class Report:
    """One pass of the engine, by value.

    - `revision`: the highest plan revision that is carried out, except for `problems`.
    - `problems`, `unhealthy`: complete (the reporter caps them), sorted by plan.
    - `announcing`: VIPs whose ARP / NS this node answers now.
    - `repairs`: subsystem -> how often something it had set was found changed and was set again.
    - `errors`: subsystem -> why its last pass failed; it is retried.
    - `alarm`: "" or what is held back (more than half of the plans gone at once).
    - `concerns_us`: since the report before, something other than `revision` and `plans` has
      changed, or a plan that names (or named) this node has: the reporter writes at once.
    """

    revision: int = 0
    plans: int = 0
    problems: tuple[PlanNotApplied, ...] = ()
    unhealthy: tuple[UnhealthyBackend, ...] = ()
    uplinks: tuple[Uplink, ...] = ()
    announcing: frozenset[str] = frozenset()
    repairs: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    alarm: str = ""
    pass_seconds: float = 0.0
    concerns_us: bool = False


class Reporter(Protocol):
    """Takes reports. Must return at once: slow work (a write to the API) is its own task's."""

    def report(self, report: Report) -> None:
        """The report of a pass that has just ended."""
        ...
