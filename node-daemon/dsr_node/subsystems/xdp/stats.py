"""The program's counters, with the names of what they count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dsr_node.subsystems.xdp import layout
from dsr_node.subsystems.xdp.dataplane import Dataplane
from dsr_node.subsystems.xdp.identity import backend_identity, pool_identity
from dsr_node.subsystems.xdp.state import BackendKey, DirectorState, FrontendKey, PoolKey


@dataclass(frozen=True, slots=True)
class Traffic:
    """Packets, and bytes from the Ethernet header to the end of the IP packet."""

    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """Since a frontend or backend came; drops since the maps were made.

    `frontends` counts what came in, dropped or not; `backends` what went out to one.
    `unremembered`: packets of new flows that found the memory of flows full.
    """

    frontends: Mapping[FrontendKey, Traffic] = field(default_factory=dict)
    backends: Mapping[tuple[PoolKey, BackendKey], Traffic] = field(default_factory=dict)
    drops: Mapping[str, int] = field(
        default_factory=lambda: dict.fromkeys(layout.DROP_REASONS.values(), 0)
    )
    unremembered: int = 0


def read_stats(dataplane: Dataplane, desired: DirectorState) -> Stats:
    """Of the frontends and backends in `desired` that are in the maps."""
    observed = dataplane.observe()
    frontends = _sums(dataplane, "frontend_stats")
    backends = _sums(dataplane, "backend_stats")
    drops = dataplane.maps["drops"].read_percpu("u8").sum(axis=1).tolist()
    by_backend: dict[tuple[PoolKey, BackendKey], Traffic] = {}
    for key, pool in desired.pools.items():
        ids = observed.backend_ids.get(observed.pool_index.get(pool_identity(pool), -1), {})
        for backend in pool.backends:
            id_ = ids.get(backend_identity(backend.key))
            if id_ is not None:
                by_backend[key, backend.key] = Traffic(*backends[id_])
    return Stats(
        frontends={
            key: Traffic(*frontends[observed.frontends[key]])
            for key in desired.frontends
            if key in observed.frontends
        },
        backends=by_backend,
        drops={name: drops[reason] for reason, name in layout.DROP_REASONS.items()},
        unremembered=drops[layout.FLOWS_FULL],
    )


def _sums(dataplane: Dataplane, name: str) -> list[list[int]]:
    values = dataplane.maps[name].read_percpu(layout.STATS)
    sums: list[list[int]] = values.view("u8").reshape(len(values), -1, 2).sum(axis=1).tolist()
    return sums
