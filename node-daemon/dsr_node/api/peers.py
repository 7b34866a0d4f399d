"""Which other nodes' Leases have gone stale, as seen from here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import NoReturn

import msgspec
from dsr_api.base import LEASE_DURATION, LEASE_PREFIX, LEASE_RENEWAL, Metadata

from dsr_node.api.client import Client, leases
from dsr_node.api.watch import Watch

OWN_SILENCE = 1.5 * LEASE_RENEWAL
"""Seconds without a renewal of our own Lease coming back in the watch, after which we do not trust
our view of others. Less than the soonest a peer can go stale after the API has gone, which is
LEASE_DURATION - LEASE_RENEWAL."""

LOOK = 0.5
"""Seconds between two looks; not at each renewal, for a large cluster has hundreds a second."""

log = logging.getLogger(__name__)


class Liveness:
    """Judges peers by when their renewals were seen here, never by the times written in them.

    Pure; `now` is any clock that only runs forward, in seconds. Our own renewals, seen through the
    same watch, prove that the whole way works. While they do not come, and for one LEASE_DURATION
    after they have come again, nobody is stale. A node whose Lease was never seen is not stale; one
    whose Lease was deleted goes stale like one that renews no more.
    """

    def __init__(self, own: str) -> None:
        self._own = own
        self._seen: dict[str, tuple[str, float]] = {}
        self._reached_since: float | None = None

    def seen(self, renewals: Mapping[str, str], now: float) -> None:
        """The Leases as they are now: node -> renewTime as written."""
        for node, renewal in renewals.items():
            before = self._seen.get(node)
            if before and before[0] == renewal:
                continue
            if node == self._own and (before is None or now - before[1] > OWN_SILENCE):
                self._reached_since = now
            self._seen[node] = (renewal, now)

    def stale(self, now: float) -> frozenset[str]:
        """Nodes that have not renewed for longer than LEASE_DURATION."""
        own = self._seen.get(self._own)
        if own is None or self._reached_since is None or now - own[1] > OWN_SILENCE:
            return frozenset()
        if now - self._reached_since < LEASE_DURATION:
            return frozenset()
        return frozenset(node for node, (_, at) in self._seen.items() if now - at > LEASE_DURATION)


class _LeaseSpec(msgspec.Struct, rename="camel"):
    renew_time: str | None = None


class _Lease(msgspec.Struct):
    metadata: Metadata
    spec: _LeaseSpec = msgspec.field(default_factory=_LeaseSpec)


def _renewal(item: bytes) -> str:
    return msgspec.json.decode(item, type=_Lease).spec.renew_time or ""


class Peers:
    """Watches the Leases of all nodes; `watch.run()` must run beside `run()`.

    `stale`: nodes whose Lease has gone stale, as far as this daemon can judge.
    """

    def __init__(self, client: Client, namespace: str, node: str) -> None:
        self.stale: frozenset[str] = frozenset()
        self.watch = Watch(client, leases(namespace), _renewal)
        self._liveness = Liveness(node)

    async def run(self, on_change: Callable[[], None]) -> NoReturn:
        """Endless; calls `on_change` when `stale` has changed."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK)
            renewals = {
                name.removeprefix(LEASE_PREFIX): renewal
                for name, renewal in self.watch.mirror.objects.items()
                if name.startswith(LEASE_PREFIX)
            }
            self._liveness.seen(renewals, loop.time())
            stale = self._liveness.stale(loop.time())
            if stale != self.stale:
                log.info("nodes with a stale Lease: %s", ", ".join(sorted(stale)) or "none")
                self.stale = stale
                on_change()
