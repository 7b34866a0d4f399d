"""How much this node's maps hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of the maps. A pinned map keeps its size: for another one it has to go (`--cleanup`).

    `backends` counts a backend once for each pool it is in, and is at most 2^20. Memory is taken at
    once for frontends, pools and backends (about 60 bytes each and 16 more for each CPU), for the
    rest as it is used: 16 bytes a slot (by the million), 128 a flow.
    """

    frontends: int = 65536
    pools: int = 16384
    backends: int = 65536
    flows: int = 262144
    vips: int = 16384
    peers: int = 4096

    def sizes(self) -> Mapping[str, int]:
        """max_entries by map."""
        return {name: getattr(self, limit) for limit, names in _MAPS.items() for name in names}

    @classmethod
    def of(cls, sizes: Mapping[str, int]) -> Limits:
        """Of maps of these sizes. Maps of one limit differ only where a first start was cut short
        and the limit changed before the next one."""
        return cls(**{limit: min(sizes[name] for name in names) for limit, names in _MAPS.items()})


_MAPS = {
    "frontends": ("frontends", "frontend_info", "frontend_stats"),
    "pools": ("pools", "pool_owners"),
    "backends": ("backends", "backend_owners", "backend_stats"),
    "flows": ("flows",),
    "vips": ("vips", "announced"),
    "peers": ("peers",),
}
"""The maps that each limit is for."""
