"""Directors that break one rule each: the simulation has to notice every one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.model.director import Director, Entry, Packet, Protocol, Slot, Status, next_slot

Lives = Callable[[int], bool]


class MovedBecauseTheTwoDiffer(Director):
    """Against rule 2: back on the settled backend counts as not moved."""

    @staticmethod
    def next_slot(  # noqa: PLR0917
        old: Slot, wanted: int, lives: Lives, busy: bool, now: int, idle: int
    ) -> Slot:
        slot = next_slot(old, wanted, lives, busy, now, idle)
        return replace(slot, moved=slot.current != slot.settled)


class SynToTheSettledBackend(Director):
    """Against rule 3: new connections of a moved slot stay where they were."""

    def unremembered(self, packet: Packet, slot: Slot, now: int) -> int:
        return super().unremembered(replace(packet, opens=False), slot, now)


class SynNotRemembered(Director):
    """Against rule 3: only packets of old connections are remembered."""

    def remember(self, packet: Packet, backend: int, now: int) -> bool:
        return packet.opens or super().remember(packet, backend, now)


class SynFollowsADrainingBackend(Director):
    """Against rule 3: a port used again goes where it went before, draining or not."""

    def recall(self, packet: Packet) -> Entry | None:
        return super().recall(replace(packet, opens=False))


class TheRestToCurrent(Director):
    """Against rule 3: packets of old connections follow the table."""

    def unremembered(self, packet: Packet, slot: Slot, now: int) -> int:
        return slot.current


class UdpToCurrent(Director):
    """Against rule 4: UDP flows follow the table at once."""

    def unremembered(self, packet: Packet, slot: Slot, now: int) -> int:
        udp = packet.protocol is Protocol.UDP
        return slot.current if udp else super().unremembered(packet, slot, now)


class UdpToSettledForLonger(Director):
    """Against rule 4: a draining backend gets new UDP flows until the slot settles."""

    def unremembered(self, packet: Packet, slot: Slot, now: int) -> int:
        return super().unremembered(packet, slot, slot.moved_at)


class SettlesByTimeAlone(Director):
    """Against rule 5: flows that are still elsewhere hold nothing up."""

    @staticmethod
    def next_slot(  # noqa: PLR0917
        old: Slot, wanted: int, lives: Lives, busy: bool, now: int, idle: int
    ) -> Slot:
        return next_slot(old, wanted, lives, False, now, idle)


class SettlesAtOnce(Director):
    """Against rule 5: flows that have not been seen yet hold nothing up."""

    @staticmethod
    def next_slot(  # noqa: PLR0917
        old: Slot, wanted: int, lives: Lives, busy: bool, now: int, idle: int
    ) -> Slot:
        return next_slot(old, wanted, lives, busy, now, -1)


class MovingAgainForgetsSettled(Director):
    """Against rule 5: settled is always the backend before the last move."""

    @staticmethod
    def next_slot(  # noqa: PLR0917
        old: Slot, wanted: int, lives: Lives, busy: bool, now: int, idle: int
    ) -> Slot:
        slot = next_slot(old, wanted, lives, busy, now, idle)
        return slot if wanted == old.current else replace(slot, settled=old.current)


class ADeadSettledBackendSettles(Director):
    """Against rule 5: such a slot takes current as settled and is done with."""

    @staticmethod
    def next_slot(  # noqa: PLR0917
        old: Slot, wanted: int, lives: Lives, busy: bool, now: int, idle: int
    ) -> Slot:
        slot = next_slot(old, wanted, lives, busy, now, idle)
        dead = slot.moved and not lives(old.settled)
        return replace(slot, moved=False, settled=slot.current) if dead else slot


class ADrainingBackendDoesNotLive(Director):
    """Against rule 2: connections to a draining backend are not kept."""

    def lives(self, backend: int) -> bool:
        return self.backends.get(backend) is Status.SERVING


class RstEndsTheMemory(Director):
    """Against rule 6: a forged RST is believed."""

    def forward(self, packet: Packet, now: int) -> int | None:
        backend = super().forward(packet, now)
        if packet.closes:
            self.flows.pop(packet.flow, None)
        return backend


class EvictsWhenFull(Director):
    """Against rule 7: the memory is an LRU, which forgets live flows."""

    def remember(self, packet: Packet, backend: int, now: int) -> bool:
        if packet.flow not in self.flows and len(self.flows) >= self.capacity:
            del self.flows[min(self.flows, key=lambda flow: self.flows[flow].last_seen)]
        return super().remember(packet, backend, now)


class FullMemoryToCurrent(Director):
    """Against rule 7: a flow not remembered goes where its next packet will not find it."""

    def settled_or_current(self, slot: Slot) -> int:
        return (
            slot.current if len(self.flows) >= self.capacity else super().settled_or_current(slot)
        )


WEAKENED = (
    MovedBecauseTheTwoDiffer,
    SynToTheSettledBackend,
    SynNotRemembered,
    SynFollowsADrainingBackend,
    TheRestToCurrent,
    UdpToCurrent,
    UdpToSettledForLonger,
    SettlesByTimeAlone,
    SettlesAtOnce,
    MovingAgainForgetsSettled,
    ADeadSettledBackendSettles,
    ADrainingBackendDoesNotLive,
    RstEndsTheMemory,
    EvictsWhenFull,
    FullMemoryToCurrent,
)
