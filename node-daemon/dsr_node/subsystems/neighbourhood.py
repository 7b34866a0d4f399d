"""All that is said on the segments of this node's uplinks, driven by one clock."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from dsr_node.state.types import Announcement, Network, NodeState, Target
from dsr_node.subsystems.announcement import Announcer, Asker
from dsr_node.subsystems.frames import (
    NOBODY_IPV4,
    NOBODY_IPV6,
    Heard,
    announcements,
    mac_text,
    question,
)
from dsr_node.subsystems.neighbours import Neighbours
from dsr_node.subsystems.segment import Segments

TICK = 0.025
"""Seconds between two looks at what is due."""

_log = logging.getLogger(__name__)


class Neighbourhood:
    """Resolver, asker and announcer on the uplinks' raw sockets. `changed()` is called when what
    they know has changed. `error` says why the last tick failed, "" when it did not."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.neighbours = Neighbours(self._ask_target, changed)
        self.asker = Asker(self._ask_for_vip, changed)
        self.announcer = Announcer(self._tell)
        self.error = ""
        self._segments = Segments(self._heard)
        self._woken = asyncio.Event()

    async def settle(self) -> None:
        """Returns when every neighbour and VIP has been asked for long enough."""
        while not (self.neighbours.settled and self.asker.settled):  # noqa: ASYNC110 - by the tick
            await asyncio.sleep(TICK)

    def keep(self, state: NodeState, network: Network) -> None:
        """Watches the state's targets and asks for its VIPs. Raises OSError."""
        used = {t.ifindex for t in state.targets} | {t.ifindex for t in state.to_ask}
        self._segments.keep(link for link in network.links if link.index in used and link.mac)
        now = asyncio.get_running_loop().time()
        change = self.neighbours.diff(state.targets, self.neighbours.read())
        if change.add:
            self.neighbours.add(change.add, now)
        if change.remove:
            self.neighbours.remove(change.remove)
        peers = {mac_text(peer.mac) for peer in state.director.peers}
        self.asker.keep(state.to_ask, peers, now)
        self._woken.set()

    def announce(self, wanted: frozenset[Announcement]) -> None:
        """Tells the segment of VIPs that the XDP program answers for since just now."""
        change = self.announcer.diff(wanted, self.announcer.read())
        self.announcer.apply(change, asyncio.get_running_loop().time())
        self._woken.set()

    async def run(self) -> None:
        """Ticks for ever."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._tick(loop.time())
                self.error = ""
            except OSError as error:
                if str(error) != self.error:
                    _log.warning("on the uplink's segment: %s; it is tried again", error)
                self.error = str(error)
            await self._until(min(self.neighbours.due, self.asker.due, self.announcer.due))

    async def _until(self, due: float) -> None:
        """Sleeps until something is due or has been asked for, at least for a tick."""
        self._woken.clear()
        await asyncio.sleep(TICK)
        now = asyncio.get_running_loop().time()
        if due > now and not self._woken.is_set():
            try:
                async with asyncio.timeout(None if due == math.inf else due - now):
                    await self._woken.wait()
            except TimeoutError:
                return

    def _tick(self, now: float) -> None:
        self._segments.receive()
        self.neighbours.tick(now)
        self.asker.tick(now)
        self.announcer.tick(now)

    def _heard(self, ifindex: int, heard: Heard) -> None:
        self.neighbours.heard(ifindex, heard)
        self.asker.heard(ifindex, heard)

    def _ask_target(self, target: Target, mac: bytes | None) -> None:
        if target.ifindex in self._segments:
            segment = self._segments[target.ifindex]
            source = segment.source_for(target.address)
            segment.send(question(segment.mac, source, target.address, mac))

    def _ask_for_vip(self, asked: Target) -> None:
        if asked.ifindex in self._segments:
            segment = self._segments[asked.ifindex]
            nobody = NOBODY_IPV6 if ":" in asked.address else NOBODY_IPV4
            segment.send(question(segment.mac, nobody, asked.address))

    def _tell(self, announced: Announcement) -> None:
        if announced.ifindex in self._segments:
            segment = self._segments[announced.ifindex]
            for frame in announcements(segment.mac, announced.vip):
                segment.send(frame)
