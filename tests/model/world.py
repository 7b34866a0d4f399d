"""A service's life in small: LB nodes, backends that come and go, and flows that must not break.

`World` plays what an operator and the machines do to a service and checks, packet by packet, what
the slot rules (docs/architecture.md) promise; a promise not kept raises. What they allow to break
(rule 11, a memory that is full) is counted in `allowed`, by its reason.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from heapq import heappop, heappush

from tests.model.director import CLOSING_S, Director, Packet, Protocol, Slot, Status
from tests.model.promises import (
    IDLE,
    TCP_IDLE,
    UDP_IDLE,
    Flow,
    LoadBalancer,
    PromiseBrokenError,
    check_new,
    may_break,
    may_go_where_it_went,
)
from tests.model.table import Table, wanted

SIZE = 61
SEED = 0x5EED


MakeDirector = Callable[..., Director]


@lru_cache(maxsize=512)
def table_of(weights: frozenset[tuple[bytes, int]], failed: frozenset[bytes]) -> Table:
    return wanted(dict(weights), failed, SEED, SIZE)


class World:
    """See the module. All that is random comes from `choices`; `make` makes a director."""

    def __init__(
        self,
        choices: random.Random,
        make: MakeDirector = Director,
        *,
        nodes: int = 3,
        room: int = 10**9,
    ) -> None:
        self.choices = choices
        self.make = make
        self.room = room
        self.now = 1000
        self.weights: dict[bytes, int] = {}
        self.handles: dict[bytes, int] = {}
        self.previous: list[int] | None = None
        self.changed_at = 0
        self.next_handle = 1
        self.next_flow = 0
        self.flows: dict[int, Flow] = {}
        self.protocols: dict[int, Protocol] = {}
        self.due: list[tuple[int, int]] = []
        self.done: list[int] = []
        self.allowed: Counter[str] = Counter()
        self.counted: Counter[str] = Counter()
        self.nodes = [LoadBalancer(self.new_director([])) for _ in range(nodes)]
        for node in self.nodes:
            node.director.start([0] * SIZE, None, 0, self.now)
        self.announcer = 0

    def new_director(self, slots: list[Slot]) -> Director:
        return self.make(slots, {}, self.room, TCP_IDLE, UDP_IDLE)

    # What happens to the plan.

    def join(self, weight: int = 1) -> None:
        """A backend that was never there, or a new machine on an old address."""
        key = next(k for k in (b"backend%d" % i for i in range(100)) if k not in self.weights)
        self.handles[key] = self.next_handle
        self.next_handle += 1
        self.change_plan(lambda: self.weights.update({key: weight}))

    def reweigh(self, key: bytes, weight: int) -> None:
        """0 drains."""
        self.change_plan(lambda: self.weights.update({key: weight}))

    def leave(self, key: bytes) -> None:
        """The drain deadline, or a node that is gone: flows there end."""

        def change() -> None:
            del self.weights[key]
            for node in self.nodes:
                node.failed.discard(key)

        gone = self.handles[key]
        self.change_plan(change)
        del self.handles[key]
        self.end_flows_on(gone)

    def change_plan(self, change: Callable[[], None]) -> None:
        before = self.wanted_by(frozenset())
        change()
        present = {self.handles[key] for key in self.weights}
        self.previous = [handle if handle in present else 0 for handle in before]
        self.changed_at = self.now
        for node in self.nodes:
            self.apply(node)

    # What happens to LB nodes.

    def fail(self, node: LoadBalancer, key: bytes) -> None:
        """This node finds a backend failed: that backend's share moves, and nothing else."""
        before = self.wanted_by(frozenset(node.failed))
        node.failed.add(key)
        after = self.wanted_by(frozenset(node.failed))
        handle = self.handles[key]
        moved = [slot for slot in range(SIZE) if before[slot] != after[slot]]
        if moved != [slot for slot in range(SIZE) if before[slot] == handle]:
            raise PromiseBrokenError("other slots than the failed backend's moved")
        node.failed_ever[handle] = self.now
        self.apply(node)
        if node is self.nodes[self.announcer]:
            self.end_flows_on(handle)

    def recover(self, node: LoadBalancer, key: bytes) -> None:
        node.failed.discard(key)
        node.failed_ever[self.handles[key]] = self.now
        self.apply(node)

    def failover(self, to: int) -> None:
        """The VIP moves to another node: flows of slots settled alike on both must not break."""
        old, new = self.nodes[self.announcer], self.nodes[to]
        self.announcer = to
        self.take_over(old, new)

    def lose_pins(self, index: int) -> None:
        """A node that comes back without its maps: it has the plan, and nothing else."""
        old = self.nodes[index]
        new = LoadBalancer(self.new_director([]), set(old.failed), {}, dict(old.failed_ever))
        new.director.start(self.wanted_by(frozenset()), self.previous, self.changed_at, self.now)
        moved = [slot for slot in range(SIZE) if new.director.slots[slot].moved]
        new.unsettled_since = dict.fromkeys(moved, self.changed_at)
        self.nodes[index] = new
        self.apply(new)
        if index == self.announcer:
            self.take_over(old, new)

    def apply(self, node: LoadBalancer, busy: set[int] | None = None) -> None:
        """A node carries out plan and failures: backends, then the table."""
        old = node.director.slots
        node.director.backends = {
            self.handles[key]: self.status(node, key, weight)
            for key, weight in self.weights.items()
        }
        slots = range(SIZE) if busy is None else busy
        want = self.wanted_by(frozenset(node.failed))
        node.director.step(want, slots, self.now)
        for slot, (was, new) in enumerate(zip(old, node.director.slots, strict=True)):
            if new.current != want[slot]:
                raise PromiseBrokenError("a table that is not the wanted one")
            if new.moved and not was.moved:
                node.unsettled_since[slot] = self.now
            elif not new.moved:
                node.unsettled_since.pop(slot, None)

    def sweep(self) -> None:
        for node in self.nodes:
            self.apply(node, node.director.sweep(self.protocols.__getitem__, self.now))
        self.check_agreement()

    def status(self, node: LoadBalancer, key: bytes, weight: int) -> Status:
        if key in node.failed:
            return Status.FAILED
        return Status.SERVING if weight else Status.DRAINING

    def wanted_by(self, failed: frozenset[bytes]) -> list[int]:
        chosen = table_of(frozenset(self.weights.items()), failed & set(self.weights))
        return [self.handles[key] if key is not None else 0 for key in chosen]

    def check_agreement(self) -> None:
        """Nodes of one view forward a flow alike in slots settled on both."""
        for one, two in zip(self.nodes, self.nodes[1:], strict=False):
            if one.failed != two.failed:
                continue
            for a, b in zip(one.director.slots, two.director.slots, strict=True):
                if not a.moved and not b.moved and a.current != b.current:
                    raise PromiseBrokenError("two LB nodes of one view disagree in a settled slot")

    # What clients do.

    def open_flows(self, count: int) -> None:
        for _ in range(count):
            reuse = self.done and self.choices.random() < 0.3
            key = self.done.pop() if reuse else self.next_flow
            if not reuse:
                self.next_flow += 1
                tcp = self.choices.random() < 0.7
                self.protocols[key] = Protocol.TCP if tcp else Protocol.UDP
            self.open(key)

    def open(self, key: int) -> None:
        protocol = self.protocols[key]
        packet = Packet(key, key * 7919 % SIZE, protocol)
        opening = Packet(key, packet.slot, protocol, opens=protocol is Protocol.TCP)
        director = self.nodes[self.announcer].director
        known = may_go_where_it_went(opening, director)
        refused = director.refused
        backend = director.forward(opening, self.now)
        self.counted["flows"] += 1
        if backend is None:
            self.counted["nobody to serve it"] += 1
            self.done.append(key)
            return
        if not known:
            check_new(opening, backend, director, self.now, full=director.refused > refused)
        packets = self.choices.choice((2, 5, 20, 60))
        unremembered = director.refused > refused
        self.flows[key] = Flow(packet, backend, self.now, packets, self.now, unremembered)
        self.schedule(key, IDLE[protocol])

    def schedule(self, key: int, longest: int) -> None:
        heappush(self.due, (self.now + self.choices.randint(1, longest), key))

    def advance(self, seconds: int) -> None:
        end = self.now + seconds
        while self.due and self.due[0][0] <= end:
            self.now, key = heappop(self.due)
            if key in self.flows:
                self.send(self.flows[key])
        self.now = end

    def send(self, flow: Flow) -> None:
        """One more packet of an established flow; now and then a forged RST, at its end a FIN."""
        flow.packets_left -= 1
        key, last = flow.packet.flow, flow.packets_left <= 0
        tcp = flow.packet.protocol is Protocol.TCP
        closes = tcp and (last or self.choices.random() < 0.05)
        packet = Packet(key, flow.packet.slot, flow.packet.protocol, closes=closes)
        if not self.arrives(flow, packet):
            return
        if last:
            self.finish(key)
        else:
            entry = self.nodes[self.announcer].director.flows.get(key)
            closing = closes or (entry is not None and entry.closing)
            self.schedule(key, CLOSING_S if closing else IDLE[flow.packet.protocol])

    def arrives(self, flow: Flow, packet: Packet) -> bool:
        """Whether the flow is still on its backend, which lives."""
        node = self.nodes[self.announcer]
        was_unremembered, last_seen = flow.unremembered, flow.last_seen
        backend = self.forward(flow, packet, node.director)
        if backend == flow.backend:
            return True
        settled_since = node.unsettled_since.get(packet.slot, self.now) >= last_seen
        if was_unremembered and (packet.protocol is Protocol.UDP or settled_since):
            self.allowed["the memory was full"] += 1
            self.finish(packet.flow)
            return False
        slot = node.director.slots[packet.slot]
        raise PromiseBrokenError(
            f"{flow} of a living backend went to {backend}, {slot}, now {self.now}"
        )

    def forward(self, flow: Flow, packet: Packet, director: Director) -> int | None:
        refused = director.refused
        backend = director.forward(packet, self.now)
        flow.unremembered = director.refused > refused
        flow.last_seen = self.now
        return backend

    def finish(self, key: int) -> None:
        self.flows.pop(key, None)
        self.done.append(key)

    def end_flows_on(self, handle: int) -> None:
        for key in [key for key, flow in self.flows.items() if flow.backend == handle]:
            self.finish(key)

    def take_over(self, old: LoadBalancer, new: LoadBalancer) -> None:
        """Each flow's next packet comes to another node. Which may break, and do they?"""
        for flow in list(self.flows.values()):
            reason = flow.lucky or may_break(flow, old, new, self.now)
            flow.lucky = reason
            if self.forward(flow, flow.packet, new.director) == flow.backend:
                self.schedule(flow.packet.flow, CLOSING_S)
                continue
            if reason is None:
                raise PromiseBrokenError(f"{flow} broke by a failover")
            self.allowed[reason] += 1
            self.finish(flow.packet.flow)
