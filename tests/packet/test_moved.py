"""The rules of moved slots: the program and the daemon's sweep against tests/model/director.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from dsr_node.subsystems.xdp import layout
from dsr_node.table.flowhash import flow_hash, slot_of
from dsr_node.table.word import handle
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model import director as model
from tests.packet.conftest import MakeHarness
from tests.packet.frames import SCENE, error, reply, segment
from tests.packet.harness import SEED, SMALL, Harness, Slot
from tests.packet.oracle import DROP, Backend, Balanced, expect

CAPACITY, SIZE = 5, 3
TCP_IDLE, UDP_IDLE = 155, 95
"""Time passes in steps of 10 s here, so no second more or less crosses a time-out."""

OLD, NEW, THIRD = (handle(3, id_) for id_ in (1, 2, 3))
HANDLES = (OLD, NEW, THIRD)
FLAGS = {"opens": "S", "data": "A", "closes": "FA", "resets": "R", "answers": "SA"}
SCENE_OF_THREE = replace(
    SCENE, backends={each: Backend(mac=bytes([2, 0, 0, 0, 1, each & 255])) for each in HANDLES}
)


@dataclass(frozen=True)
class Sent:
    """A packet of one of some flows."""

    port: int
    name: str = "TCP"
    what: str = "data"

    def frame(self) -> bytes:
        fields: dict[str, Any] = {"flags": FLAGS[self.what]} if self.name == "TCP" else {}
        return segment(4, self.name, sport=self.port, **fields)


class Both:
    """The program and the model, on the same table, backends and flows."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        harness.forget(harness.flows())
        self.now = 10_000
        self.model = model.Director(
            slots=[model.Slot(OLD, OLD, moved=False, moved_at=0)] * SIZE,
            backends=dict.fromkeys(HANDLES, model.Status.SERVING),
            capacity=CAPACITY,
            tcp_idle=TCP_IDLE,
            udp_idle=UDP_IDLE,
        )
        self.flows: dict[bytes, Balanced] = {}
        self.numbers: dict[bytes, int] = {}
        self.set_slots([Slot(OLD, OLD)] * SIZE)
        harness.set_backends(SCENE_OF_THREE.backends)

    def set_slots(self, slots: Sequence[Slot]) -> None:
        self.harness.set_table(slots, TCP_IDLE, UDP_IDLE)
        self.model.slots = [
            model.Slot(each.current, each.settled, each.moved, self.now - each.moved_ago)
            for each in slots
        ]

    def move(self, to: int, settled: int = OLD, ago: int = 0) -> None:
        self.set_slots([Slot(to, settled, moved=True, moved_ago=ago)] * SIZE)

    def set_status(self, of: int, status: model.Status | None) -> None:
        """None: it has left, its id is of another generation."""
        backend = SCENE_OF_THREE.backends[of]
        if status is None:
            self.model.backends.pop(of, None)
            self.harness.set_backends({of + (1 << 20): backend})
            return
        self.model.backends[of] = status
        down, draining = status is model.Status.FAILED, status is model.Status.DRAINING
        self.harness.set_backends({of: replace(backend, down=down, draining=draining)})

    def advance(self, seconds: int) -> None:
        self.now += seconds
        self.harness.age(seconds)

    def send(self, sent: Sent) -> int | None:
        """The backend that both chose for a packet, None where both dropped it."""
        return self.run(sent.frame())

    def run(self, frame: bytes) -> int | None:
        refused = self.model.refused
        outcome = expect(replace(SCENE_OF_THREE, choose=self.choose), frame)
        self.harness.new_drops()
        run = self.harness.run(frame)
        drops = self.harness.new_drops()
        assert drops.pop("flows_full", 0) == self.model.refused - refused
        lives = outcome.backend and self.model.lives(outcome.backend)
        if lives:
            assert (run.verdict, run.frame) == (outcome.verdict, outcome.frame)
        else:
            assert run.verdict == DROP
            assert drops.total() == 1
        self.check_memory()
        return outcome.backend if lives else None

    def choose(self, asked: Balanced) -> int:
        """The model's choice, also for a backend that does not live."""
        key = asked.flow.key()
        number = self.numbers.setdefault(key, len(self.numbers))
        self.flows[key] = asked
        slot = slot_number(asked)
        opens = asked.tcp_flags & 0x17 == 2
        protocol = model.Protocol(asked.flow.protocol)
        packet = model.Packet(number, slot, protocol, opens, bool(asked.tcp_flags & 5))
        word = self.model.slots[slot]
        if not word.moved:
            return word.current
        if not asked.is_error:
            return self.model.choose_moved(packet, word, self.now)
        entry = self.model.recall(packet)
        return entry.backend if entry else self.model.unremembered(packet, word, self.now)

    def check_memory(self) -> None:
        known = {
            self.numbers[key]: (int(entry["handle"]), int(entry["slot"]), bool(entry["flags"] & 1))
            for key, entry in self.harness.flows().items()
        }
        assert known == {
            number: (entry.backend, entry.slot, entry.closing)
            for number, entry in self.model.flows.items()
        }

    def sweep(self) -> None:
        protocols = {
            number: model.Protocol(self.flows[key].flow.protocol)
            for key, number in self.numbers.items()
        }
        dead = [n for n, e in self.model.flows.items() if e.backend not in self.model.backends]
        for number in dead:  # the daemon does not keep what can never be followed again
            del self.model.flows[number]
        busy = self.model.sweep(protocols.__getitem__, self.now)
        self.model.step([slot.current for slot in self.model.slots], busy, self.now)
        self.harness.sweep()
        self.check_memory()
        assert self.harness.slots() == [(s.current, s.settled, s.moved) for s in self.model.slots]


def slot_number(asked: Balanced) -> int:
    flow = asked.flow
    ports = (flow.source_port, flow.destination_port, flow.protocol)
    return slot_of(flow_hash(flow.source, flow.destination, *ports, SEED), SIZE)


@pytest.fixture(scope="module")
def harness(make_lasting_harness: MakeHarness) -> Harness:
    return make_lasting_harness(SCENE_OF_THREE, limits=replace(SMALL, flows=CAPACITY))


@pytest.fixture
def both(harness: Harness) -> Both:
    return Both(harness)


OPEN, DATA, CLOSE = (Sent(40001, "TCP", what) for what in ("opens", "data", "closes"))
DATAGRAM = Sent(40002, "UDP")


def test_a_settled_slot_remembers_nothing(both: Both) -> None:
    for sent in (OPEN, DATA, CLOSE, DATAGRAM):
        assert both.send(sent) == OLD
    assert both.harness.flows() == {}


def test_a_new_connection_goes_to_current_and_stays_there(both: Both) -> None:
    both.move(NEW)
    assert [both.send(OPEN), both.send(DATA)] == [NEW, NEW]
    both.move(THIRD)
    assert [both.send(DATA), both.send(OPEN)] == [NEW, NEW]


def test_an_old_connection_goes_to_settled_and_stays_there(both: Both) -> None:
    both.move(NEW)
    assert both.send(DATA) == OLD
    both.move(THIRD, settled=NEW)
    assert both.send(DATA) == OLD


@pytest.mark.parametrize("what", ["closes", "resets", "answers"])
def test_only_a_bare_syn_opens(both: Both, what: str) -> None:
    both.move(NEW)
    assert both.send(Sent(40001, "TCP", what)) == OLD


@pytest.mark.parametrize("status", [model.Status.DRAINING, model.Status.FAILED, None])
def test_a_new_connection_leaves_a_backend_that_takes_none(
    both: Both, status: model.Status | None
) -> None:
    both.move(NEW)
    assert both.send(DATA) == OLD
    both.set_status(OLD, status)
    assert both.send(DATA) == (OLD if status is model.Status.DRAINING else NEW)
    assert both.send(OPEN) == NEW


def test_udp_goes_to_settled_for_one_idle_time(both: Both) -> None:
    both.move(NEW)
    assert both.send(DATAGRAM) == OLD
    both.advance(UDP_IDLE + 5)
    assert both.send(Sent(40003, "UDP")) == NEW
    assert both.send(DATAGRAM) == OLD
    assert both.send(DATA) == OLD, "TCP has no such end"


def test_a_dead_settled_backend_gives_way_to_current(both: Both) -> None:
    both.move(NEW)
    both.set_status(OLD, model.Status.FAILED)
    assert [both.send(DATA), both.send(DATAGRAM)] == [NEW, NEW]


def test_fin_shortens_the_memory_and_a_new_connection_lengthens_it(both: Both) -> None:
    both.move(NEW)
    assert [both.send(DATA), both.send(CLOSE)] == [OLD, OLD]
    both.advance(50)
    both.send(DATA)
    both.advance(50)
    both.sweep()
    assert len(both.harness.flows()) == 1, "a later packet renews it"
    both.send(OPEN)
    both.advance(100)
    both.sweep()
    assert len(both.harness.flows()) == 1
    both.send(CLOSE)
    both.advance(70)
    both.sweep()
    assert both.harness.flows() == {}


def test_a_full_memory_sends_new_flows_to_settled_and_counts_them(both: Both) -> None:
    both.move(NEW)
    for port in range(CAPACITY):
        assert both.send(Sent(41000 + port, "TCP", "opens")) == NEW
    assert both.send(OPEN) == OLD
    assert both.send(DATAGRAM) == OLD
    assert both.model.refused == 2
    assert both.send(Sent(41000)) == NEW, "those remembered stay"


def test_a_slot_settles_when_no_old_flow_is_left(both: Both) -> None:
    both.move(NEW)
    both.send(DATA)
    both.advance(TCP_IDLE - 5)
    both.send(DATA)
    both.advance(20)
    both.sweep()
    assert {moved for _, _, moved in both.harness.slots()} == {True, False}
    both.advance(TCP_IDLE + 5)
    both.sweep()
    assert both.harness.slots() == [(NEW, NEW, False)] * SIZE


def test_an_error_follows_the_memory_and_leaves_none(both: Both) -> None:
    both.move(NEW)
    about = error(4, reply(4))
    assert both.run(about) == OLD
    assert both.harness.flows() == {}
    assert both.send(Sent(40000, "TCP", "opens")) == NEW
    assert both.run(about) == NEW


def test_memory_of_another_pool_is_none(both: Both) -> None:
    both.move(NEW)
    assert both.send(OPEN) == NEW
    key, entry = both.harness.flows().popitem()
    entry["pool"] = 1
    both.harness.maps["flows"].update(key, entry.tobytes())
    both.model.flows.clear()
    assert both.send(DATA) == OLD


EVENTS = st.one_of(
    st.tuples(
        st.just("send"),
        st.builds(
            Sent,
            st.integers(40000, 40007),
            st.sampled_from(["TCP", "TCP", "UDP"]),
            st.sampled_from(sorted(FLAGS)),
        ),
    ),
    st.tuples(st.just("advance"), st.integers(1, 20).map(lambda n: 10 * n)),
    st.tuples(
        st.just("status"),
        st.tuples(st.sampled_from(HANDLES), st.sampled_from([*model.Status, None])),
    ),
    st.tuples(st.just("step"), st.lists(st.sampled_from(HANDLES), min_size=SIZE, max_size=SIZE)),
    st.tuples(st.just("sweep"), st.none()),
    st.tuples(st.just("error"), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(events=st.lists(EVENTS, max_size=40))
def test_any_sequence_is_as_the_model_says(harness: Harness, events: list[tuple[str, Any]]) -> None:
    both = Both(harness)
    for what, value in events:
        match what:
            case "send":
                both.send(value)
            case "advance":
                both.advance(value)
            case "status":
                both.set_status(*value)
            case "step":
                both.model.step(value, range(SIZE), both.now)
                both.set_slots(
                    [
                        Slot(s.current, s.settled, s.moved, both.now - s.moved_at)
                        for s in both.model.slots
                    ]
                )
            case "sweep":
                both.sweep()
            case "error":
                both.run(error(4, reply(4)))


def test_the_program_hashes_as_the_table_does(make_harness: MakeHarness) -> None:
    """Every flow falls into the slot that dsr_node.table.flowhash says."""
    harness = make_harness(SCENE_OF_THREE, [Slot(NEW, OLD, moved=True)] * 61)
    for port in range(30):
        for family in (4, 6):
            harness.run(segment(family, "UDP", sport=port * 2000 + 7))
            ((key, entry),) = harness.flows().items()
            source, destination = key[:16], key[16:32]
            ports = int.from_bytes(key[32:34], "big"), int.from_bytes(key[34:36], "big")
            expected = slot_of(flow_hash(source, destination, *ports, 17, SEED), 61)
            assert int(entry["slot"]) == expected
            assert int(entry["flags"]) & layout.FLOW_CLOSING == 0
            harness.forget([key])
