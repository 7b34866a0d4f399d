"""Which nodes are up: those whose Lease has been seen renewed less than one duration ago.

Leases are polled, not watched: an answer in which a Lease has not moved is evidence, whereas the
silence of a watch is none. Only this process's clock counts, never the times in the Lease (clocks
of nodes differ). Who cannot reach the API, or has only just reached it again, declares nobody dead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dsr_api.base import LEASE_DURATION, LEASE_PREFIX

from dsr_operator.core import Lease

POLL = 2.0
"""Seconds between two polls."""

GAP = 3 * POLL
"""Seconds without an answer after which the past says nothing any more."""


@dataclass(slots=True)
class _Seen:
    renewed: str | None
    at: float


class Liveness:
    """The nodes' Leases as this process has seen them move. All times are steady seconds."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}
        self._answered: float | None = None

    def update(self, leases: Iterable[Lease], now: float) -> frozenset[str]:
        """Take in one full list of Leases; returns the nodes that are up.

        A Lease seen for the first time counts as just renewed: that it is old cannot be known.
        """
        gap = self._answered is not None and now - self._answered > GAP
        live_before = self._live(self._answered) if self._answered is not None else frozenset()
        present = {
            lease.metadata.name.removeprefix(LEASE_PREFIX): lease.spec.renew_time
            for lease in leases
            if lease.metadata.name.startswith(LEASE_PREFIX)
        }
        self._seen = {n: s for n, s in self._seen.items() if n in present}
        for node, renewed in present.items():
            seen = self._seen.get(node)
            if seen is None or seen.renewed != renewed:
                self._seen[node] = _Seen(renewed, now)
            elif gap and node in live_before:
                seen.at = now
        self._answered = now
        return self._live(now)

    def _live(self, now: float) -> frozenset[str]:
        return frozenset(n for n, s in self._seen.items() if now - s.at <= LEASE_DURATION)
