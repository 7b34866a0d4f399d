"""Who answers ARP and NS for a VIP. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b


@lru_cache(maxsize=1 << 16)
def rank(vip: str, node: str) -> bytes:
    """A node's rank for a VIP; the highest announces.

    Rendezvous hashing (Thaler, Ravishankar 1998): every director computes the same ranks, and one
    that leaves gives away its own VIPs only, spread over all others.
    """
    return blake2b(f"{vip}|{node}".encode(), digest_size=8).digest()


def announcer(vip: str, up: Iterable[str]) -> str:
    """The announcer among the directors that are up; "" among none."""
    return max(up, key=lambda node: (rank(vip, node), node), default="")
