"""What there is to look at in a running daemon: the border between it and the endpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from dsr_api.plan import DSRPlan
from prometheus_client import Histogram

from dsr_node.api.report import Identity
from dsr_node.api.watch import Health
from dsr_node.state.report import Report
from dsr_node.state.types import NodeState
from dsr_node.subsystems.xdp.stats import Stats
from dsr_node.subsystems.xdp.sweep import Swept

PASS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds."""


@dataclass(frozen=True)
class ApiSight:
    """The daemon's dealings with the API server. Times are of time.monotonic().

    `watches`: those that should run, by resource. `doubt`: why the loss of plans is not believed
    now, "" if none is lost.
    """

    watches: Callable[[], Mapping[str, Health]]
    doubt: Callable[[], str]
    lease_renewed_at: Callable[[], float | None]


class Seen(Protocol):
    """The engine, as far as it is looked at."""

    @property
    def plans(self) -> Mapping[str, DSRPlan]:
        """Those in force."""
        ...

    @property
    def state(self) -> NodeState:
        """What the kernel should hold now."""
        ...

    @property
    def swept(self) -> Swept:
        """What the last sweep of remembered flows has found."""
        ...

    async def stats(self) -> Stats:
        """The dataplane's counters. Raises OSError."""
        ...


class Passes:
    """A Reporter that keeps the last report, when it came (time.monotonic(); before the first one
    the time of its making) and how long passes take."""

    def __init__(self) -> None:
        self.last: Report | None = None
        self.ended_at = time.monotonic()
        self.duration = Histogram(
            "dsr_node_pass_duration_seconds",
            "Duration of a pass over all subsystems.",
            buckets=PASS_BUCKETS,
            registry=None,
        )

    def report(self, report: Report) -> None:
        """See Reporter."""
        self.last, self.ended_at = report, time.monotonic()
        self.duration.observe(report.pass_seconds)


@dataclass(frozen=True)
class Sight:
    """All of it. `api` is None where plans come from a directory."""

    node: str
    me: Identity
    engine: Seen
    passes: Passes
    api: ApiSight | None = None
