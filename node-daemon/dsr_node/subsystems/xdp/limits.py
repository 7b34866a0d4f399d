"""How much this node's maps hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of the maps. A pinned map keeps its size: another one needs `--cleanup` first.

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
        return {
            "frontends": self.frontends,
            "frontend_info": self.frontends,
            "frontend_stats": self.frontends,
            "pools": self.pools,
            "pool_owners": self.pools,
            "backends": self.backends,
            "backend_owners": self.backends,
            "backend_stats": self.backends,
            "flows": self.flows,
            "vips": self.vips,
            "announced": self.vips,
            "peers": self.peers,
        }
