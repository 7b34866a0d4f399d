"""What there is to look at in a running daemon: the border between it and the endpoint."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from dsr_api.plan import DSRPlan

from dsr_node.api.watch import Health
from dsr_node.state.types import NodeState
from dsr_node.subsystems.xdp.stats import Stats
from dsr_node.subsystems.xdp.sweep import Swept


@dataclass(frozen=True)
class ApiSight:
    """The daemon's dealings with the API server. Times are of time.monotonic().

    `watches`: those that should run, by resource. `doubt`: why the loss of plans is not believed
    now, "" if none is lost.
    """

    watches: Callable[[], Mapping[str, Health]]
    doubt: Callable[[], str]
    lease_renewed_at: Callable[[], float | None]


@dataclass(frozen=True)
class Sight:
    """Asked anew at each request. `stats` raises OSError where the maps cannot be read; `swept` is
    the last sweep's.

    `api` is None where plans come from a directory.
    """

    node: str
    plans: Callable[[], Mapping[str, DSRPlan]]
    state: Callable[[], NodeState]
    stats: Callable[[], Awaitable[Stats]]
    swept: Callable[[], Swept]
    api: ApiSight | None = None
