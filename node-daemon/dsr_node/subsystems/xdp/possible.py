"""Which values the maps can hold: what they cannot is the problem of the plan it is in. Pure."""

from __future__ import annotations

from dsr_node.subsystems.xdp.layout import CHUNK_SLOTS
from dsr_node.subsystems.xdp.state import FrontendKey, Pool

_32_BITS = 1 << 32
_64_BITS = 1 << 64


def check_pool(pool: Pool) -> None:
    """Raises ValueError; dsr_node.table looks at keys and weights itself, and for a prime."""
    if not 0 <= pool.seed < _64_BITS:
        raise ValueError(f"a hash seed is a number of 64 bits, {pool.seed:#x} is not")
    if not 0 < pool.size <= CHUNK_SLOTS:
        raise ValueError(f"a table has up to {CHUNK_SLOTS} slots, not {pool.size}")
    idle = pool.tcp_idle_s, pool.udp_idle_s
    if not all(0 <= each < _32_BITS for each in idle):
        raise ValueError(f"idle time-outs of {idle} s: each is from 0 to {_32_BITS - 1} s")


def check_frontend(key: FrontendKey) -> None:
    """Raises ValueError."""
    if not 0 < key.port < 1 << 16:
        raise ValueError(f"a port is a number from 1 to {(1 << 16) - 1}, not {key.port}")
