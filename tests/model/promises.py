"""What a director promises to a flow, and what it does not."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.model.director import Director, Packet, Protocol, Status

TCP_IDLE = 150
UDP_IDLE = 90
IDLE = {Protocol.TCP: TCP_IDLE, Protocol.UDP: UDP_IDLE}


class PromiseBrokenError(AssertionError):
    """The datapath did what the slot rules (docs/architecture.md) say it never does."""


@dataclass
class Flow:
    """A connection in progress; `backend` is the one it was opened on.

    `lucky`: why it might have broken at a failover that it has survived. The next may break it.
    """

    packet: Packet
    backend: int
    opened: int
    packets_left: int
    last_seen: int
    unremembered: bool = False
    lucky: str | None = None


@dataclass
class LoadBalancer:
    """A director with its own view of who has failed.

    `unsettled_since`: slot -> when it moved first since it was settled; `failed_ever`: handle ->
    when this node last saw it failed.
    """

    director: Director
    failed: set[bytes] = field(default_factory=set)
    unsettled_since: dict[int, int] = field(default_factory=dict)
    failed_ever: dict[int, int] = field(default_factory=dict)

    def home(self, slot: int) -> int:
        """Where a flow of before the move belongs."""
        return self.director.slots[slot].settled

    def finds_failed(self, handle: int) -> bool:
        return self.director.backends.get(handle) is Status.FAILED


def may_go_where_it_went(packet: Packet, director: Director) -> bool:
    """Whether a new connection may follow the memory of an older one of its ports (rule 3)."""
    entry = director.flows.get(packet.flow)
    if entry is None or not director.slots[packet.slot].moved:
        return False
    status = director.backends.get(entry.backend)
    return status is Status.SERVING or (status is Status.DRAINING and not packet.opens)


def check_new(packet: Packet, backend: int, director: Director, now: int, *, full: bool) -> None:
    """New flows go to backends that take new flows (rules 3, 4 and 7)."""
    slot = director.slots[packet.slot]
    if full and slot.moved:
        if backend != (slot.settled if director.lives(slot.settled) else slot.current):
            raise PromiseBrokenError("memory full, and a new flow is not on the settled backend")
        return
    udp_may_drain = slot.moved and not packet.opens and now - slot.moved_at <= UDP_IDLE
    if not udp_may_drain and director.backends[backend] is not Status.SERVING:
        raise PromiseBrokenError("a new flow on a backend that takes none")


def may_break(flow: Flow, old: LoadBalancer, new: LoadBalancer, now: int) -> str | None:
    """Why a flow may break when its packets come to another LB node; None: it must not.

    The first reason is rule 11. The others follow from two nodes' histories not being one: a flow
    on a slot's former backend outlives the slot's settling on a node that does not see the flow.
    """
    slot = flow.packet.slot
    since = [n.unsettled_since[slot] for n in (old, new) if slot in n.unsettled_since]
    if any(flow.opened >= moment for moment in since):
        return "opened since the slot moved (rule 11)"
    if new.failed_ever.get(flow.backend, -1) >= flow.opened or new.finds_failed(flow.backend):
        return "the new LB node had found its backend failed"
    if old.home(slot) != new.home(slot):
        return "the LB nodes have settled the slot differently"
    if flow.unremembered:
        return "the memory was full"
    there = new.director.slots[slot]
    late = there.moved and now - there.moved_at > UDP_IDLE
    if flow.packet.protocol is Protocol.UDP and late:
        return "UDP, longer after the move than its idle time-out"
    return None
