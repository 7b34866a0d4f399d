"""Who answers ARP and NS for a VIP. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

from dsr_api.plan import Director


@lru_cache(maxsize=1 << 16)
def rank(vip: str, node: str) -> bytes:
    """A node's rank for a VIP; the highest announces.

    Rendezvous hashing (Thaler, Ravishankar 1998): every director computes the same ranks, and one
    that leaves gives away its own VIPs only, spread over all others.
    """
    return blake2b(f"{vip}|{node}".encode(), digest_size=8).digest()


def announcing(up: Iterable[Director]) -> tuple[str, ...]:
    """Those of the directors that are up that VIPs are shared out to.

    Those that the operator does not let announce (it knows of none that could do it better) are
    asked where all are such: a VIP that a doubtful node answers for is better than a dark one.
    """
    directors = list(up)
    return tuple(d.node for d in directors if d.announces) or tuple(d.node for d in directors)


def announcer(vip: str, nodes: Iterable[str]) -> str:
    """The announcer among nodes; "" among none."""
    return max(nodes, key=lambda node: (rank(vip, node), node), default="")
