"""The director in plain Python: the slot rules (docs/architecture.md), with nothing clever in them.

This is the oracle. It is for one pool; a handle is any number that names one backend of one
generation, 0 is nobody. A handle that `backends` lacks is a backend of the past (rule 8).
Times are whole seconds of one clock, so a time-out has passed when *more* than that many seconds
lie between: two moments less than N seconds apart can read as N.

Where they leave room, this is how it is read:

- A memory of a dead backend is none: the packet is treated as that of a flow not remembered.
- A packet that opens no connection is remembered also where the settled backend is dead and it
  goes to current.
- An entry may be used until it is swept away: whoever finds it late loses nothing by it.
- A SYN that follows the memory ends "closing": the port is in use again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

CLOSING_S = 60


class Protocol(Enum):
    TCP = 6
    UDP = 17


class Status(Enum):
    SERVING = "serving"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True)
class Slot:
    """Rule 2. `moved_at` is when it last moved."""

    current: int
    settled: int
    moved: bool
    moved_at: int


@dataclass
class Entry:
    """What is remembered of a flow of a moved slot."""

    backend: int
    slot: int
    last_seen: int
    closing: bool


@dataclass(frozen=True)
class Packet:
    """`opens`: SYN and neither ACK, FIN nor RST; `closes`: FIN or RST. Neither, for UDP."""

    flow: int
    slot: int
    protocol: Protocol
    opens: bool = False
    closes: bool = False


def first_slot(wanted: int, previous: int | None, moved_at: int, now: int) -> Slot:
    """Without a pinned table: as if the slot had moved from `previous` at `moved_at` (rule 11)."""
    when = min(max(moved_at, 0), now)
    if previous is None or previous == wanted:
        return Slot(wanted, wanted, moved=False, moved_at=when)
    return Slot(wanted, previous or wanted, moved=True, moved_at=when)


def next_slot(  # noqa: PLR0917 (the parameters of next_table)
    old: Slot, wanted: int, lives: Callable[[int], bool], busy: bool, now: int, idle: int
) -> Slot:
    """Rules 5 and 9."""
    slot = old
    if wanted != old.current:
        settled = old.settled if old.moved else old.current
        slot = Slot(wanted, settled, moved=True, moved_at=now)
    elif old.moved and not busy and now - old.moved_at > idle:
        slot = replace(old, settled=old.current, moved=False)
    if slot.moved and not lives(slot.settled):
        slot = replace(slot, settled=slot.current)
    return slot


@dataclass
class Director:
    """One LB node's state for one pool; `forward` is what its datapath does with one packet."""

    slots: list[Slot]
    backends: dict[int, Status]
    capacity: int
    tcp_idle: int = 900
    udp_idle: int = 120
    flows: dict[int, Entry] = field(default_factory=dict)
    refused: int = 0
    """Flows that found the memory full."""
    next_slot = staticmethod(next_slot)

    def start(
        self, wanted: Sequence[int], previous: Sequence[int] | None, moved_at: int, now: int
    ) -> None:
        """The first table, with what the plan knows of the one before."""
        before: Sequence[int | None] = previous or [None] * len(wanted)
        self.slots = [
            first_slot(want, was, moved_at, now) for want, was in zip(wanted, before, strict=True)
        ]

    def lives(self, backend: int) -> bool:
        return self.backends.get(backend, Status.FAILED) is not Status.FAILED

    def forward(self, packet: Packet, now: int) -> int | None:
        """The backend that gets this packet; None: dropped."""
        slot = self.slots[packet.slot]
        backend = self.choose_moved(packet, slot, now) if slot.moved else slot.current
        return backend if self.lives(backend) else None

    def choose_moved(self, packet: Packet, slot: Slot, now: int) -> int:
        """Rules 3, 4, 6 and 7."""
        entry = self.recall(packet)
        if entry is not None:
            entry.last_seen = now
            entry.closing = packet.closes or (entry.closing and not packet.opens)
            return entry.backend
        backend = self.unremembered(packet, slot, now)
        if backend and not self.remember(packet, backend, now):
            self.refused += 1
            return self.settled_or_current(slot)
        return backend

    def recall(self, packet: Packet) -> Entry | None:
        """The memory of this flow, if it names a backend that may have this packet."""
        entry = self.flows.get(packet.flow)
        if entry is None or not self.lives(entry.backend):
            return None
        if packet.opens and self.backends[entry.backend] is Status.DRAINING:
            return None
        return entry

    def unremembered(self, packet: Packet, slot: Slot, now: int) -> int:
        """Where a flow goes that is not remembered."""
        if packet.opens:
            return slot.current
        if packet.protocol is Protocol.UDP and now - slot.moved_at > self.udp_idle:
            return slot.current
        return self.settled_or_current(slot)

    def settled_or_current(self, slot: Slot) -> int:
        return slot.settled if self.lives(slot.settled) else slot.current

    def remember(self, packet: Packet, backend: int, now: int) -> bool:
        """False: the memory is full. A flow that is in it already keeps its place."""
        if packet.flow not in self.flows and len(self.flows) >= self.capacity:
            return False
        self.flows[packet.flow] = Entry(backend, packet.slot, now, packet.closes)
        return True

    def sweep(self, protocol_of: Callable[[int], Protocol], now: int) -> set[int]:
        """Forgets what has expired; the slots with a flow on another backend than current."""
        idle = {Protocol.TCP: self.tcp_idle, Protocol.UDP: self.udp_idle}
        for flow, entry in list(self.flows.items()):
            lifetime = idle[protocol_of(flow)]
            if entry.closing:
                lifetime = min(CLOSING_S, lifetime)
            if now - entry.last_seen > lifetime:
                del self.flows[flow]
        return {
            entry.slot
            for entry in self.flows.values()
            if entry.backend != self.slots[entry.slot].current
        }

    def step(self, wanted: Sequence[int], busy: Iterable[int], now: int) -> None:
        """The next table. A slot may settle when the longer of the two time-outs has passed."""
        busy_slots = set(busy)
        idle = max(self.tcp_idle, self.udp_idle)
        self.slots = [
            self.next_slot(slot, want, self.lives, index in busy_slots, now, idle)
            for index, (slot, want) in enumerate(zip(self.slots, wanted, strict=True))
        ]
