"""What the maps and interfaces hold: read by the subsystem, compared by diff()."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr_node.subsystems.xdp.layout import BACKEND, FRONTEND_INFO, POOL
from dsr_node.subsystems.xdp.limits import Limits
from dsr_node.subsystems.xdp.state import FrontendKey, Peer


@dataclass(frozen=True, slots=True)
class Chunk:
    """One inner map of `slots`, and that of `moved_at`."""

    words: NDArray[np.uint64]
    moved_at: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Link:
    """Our XDP link of one interface. `ifindex` is 0 where the interface is gone; `current`: it
    runs this version of the program on these maps."""

    ifindex: int
    current: bool


@dataclass(frozen=True, slots=True)
class Observed:
    """A view, not a copy: arrays are the maps' memory and are only read.

    `pool_index` and `backend_ids` come from the owners' maps (identity.py); `backend_ids` is by
    pool index. `cut_short`: indices owned by pools whose making or removal was interrupted.
    `now_s`: CLOCK_MONOTONIC.
    """

    now_s: int
    limits: Limits
    frontend_info: NDArray[Any]
    pools: NDArray[Any]
    backends: NDArray[Any]
    frontends: Mapping[FrontendKey, int] = field(default_factory=dict)
    pool_index: Mapping[bytes, int] = field(default_factory=dict)
    cut_short: frozenset[int] = frozenset()
    backend_ids: Mapping[int, Mapping[bytes, int]] = field(default_factory=dict)
    chunks: Sequence[Chunk] = ()
    vips: frozenset[bytes] = frozenset()
    peers: frozenset[Peer] = frozenset()
    announced: Mapping[bytes, int] = field(default_factory=dict)
    interfaces: Mapping[int, bytes] = field(default_factory=dict)
    links: Mapping[str, Link] = field(default_factory=dict)


def nothing(now_s: int, limits: Limits) -> Observed:
    """Of a node whose maps have not been made yet."""
    return Observed(
        now_s=now_s,
        limits=limits,
        frontend_info=np.zeros(limits.frontends, FRONTEND_INFO),
        pools=np.zeros(limits.pools, POOL),
        backends=np.zeros(limits.backends, BACKEND),
    )
