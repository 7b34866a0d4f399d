"""What there is to look at in a running daemon: the border between it and the endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dsr_api.plan import DSRPlan

from dsr_node.api.watch import Health
from dsr_node.state.types import NodeState
from dsr_node.subsystems.xdp.state import BackendKey, FrontendKey, PoolKey


@dataclass(frozen=True, slots=True)
class Count:
    """Packets and bytes, added up over all CPUs."""

    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """The counters of the dataplane. `drops`: by the reason's name. `flows`: entries in the
    memory of moved slots."""

    frontends: Mapping[FrontendKey, Count] = field(default_factory=dict)
    backends: Mapping[tuple[PoolKey, BackendKey], Count] = field(default_factory=dict)
    drops: Mapping[str, int] = field(default_factory=dict)
    flows: int = 0


@dataclass(frozen=True)
class ApiSight:
    """The daemon's dealings with the API server. `watches`: by resource. `doubt`: why the loss of
    plans is not believed now ("" if none is lost). Times are of time.monotonic()."""

    watches: Mapping[str, Health]
    doubt: Callable[[], str]
    lease_renewed_at: Callable[[], float | None]


@dataclass(frozen=True)
class Sight:
    """Asked anew at each request. `traffic` may block and raises OSError; the rest is at hand.

    `api` is None where plans come from a directory.
    """

    node: str
    plans: Callable[[], Mapping[str, DSRPlan]]
    state: Callable[[], NodeState]
    traffic: Callable[[], Traffic]
    api: ApiSight | None = None
