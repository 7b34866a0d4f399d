"""The slot rules (docs/architecture.md) keep every flow they promise to keep.

`tests.model.director` is what the datapath does, `tests.model.world` is what may happen to it.
Here chance plays, and hypothesis does; and since a test that cannot fail proves nothing, each rule
is taken away once (`weakened`), and the same play has to notice.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.model.director import Director
from tests.model.promises import PromiseBrokenError
from tests.model.simulation import play
from tests.model.world import World
from tests.unit.table.weakened import WEAKENED

PLENTY = 10**9
SCARCE = 40
"""Flows that a director may remember: some dozens are in moved slots at a time."""


@pytest.mark.parametrize("room", [PLENTY, SCARCE])
def test_no_flow_breaks_that_should_not(room: int) -> None:
    flows = 0
    for seed in range(8):
        flows += play(seed, room=room).counted["flows"]
    assert flows > 10_000, "the simulation plays no traffic to speak of"


def test_only_a_full_memory_breaks_flows_where_nothing_else_may() -> None:
    """One LB node, always up, its tables pinned: rule 11 and other nodes' views do not apply."""
    world = World(random.Random(1), nodes=1)
    for _ in range(4):
        world.join()
    for key in [*sorted(world.weights), *sorted(world.weights)]:
        for weight in (0, 1):
            world.open_flows(200)
            world.reweigh(key, weight)
            world.open_flows(200)
            world.advance(40)
            world.sweep()
    assert not world.allowed
    assert world.counted["nobody to serve it"] == 0


def test_a_full_memory_is_counted_and_met() -> None:
    nodes = [node.director for seed in range(4) for node in play(seed, room=SCARCE).nodes]
    assert sum(node.refused for node in nodes) > 100
    assert max(len(node.flows) for node in nodes) <= SCARCE


def test_rule_11_costs_the_moved_share_of_new_connections_and_no_more() -> None:
    world = World(random.Random(3), nodes=2)
    for _ in range(3):
        world.join()
    world.advance(1000)
    world.sweep()
    world.open_flows(2000)
    old = dict(world.flows)
    world.join()
    moved = {i for i, slot in enumerate(world.nodes[0].director.slots) if slot.moved}
    world.open_flows(2000)
    new = {key: flow for key, flow in world.flows.items() if key not in old}
    in_moved = sum(flow.packet.slot in moved for flow in new.values())
    world.failover(1)
    assert world.flows.keys() >= old.keys(), "a connection from before the move broke"
    broken = world.allowed["opened since the slot moved (rule 11)"]
    assert world.allowed.total() == broken
    assert 0 < broken <= in_moved
    assert 0.2 < in_moved / len(new) < 0.35, "a fourth backend moves about a quarter"


@pytest.mark.parametrize("director", WEAKENED, ids=lambda director: director.__name__)
def test_a_weakened_rule_is_noticed(director: type[Director]) -> None:
    with pytest.raises(PromiseBrokenError):
        play_many(director)


def play_many(director: type[Director]) -> None:
    for seed in range(20):
        play(seed, director, room=SCARCE if seed % 2 else PLENTY)


class WorldMachine(RuleBasedStateMachine):
    """Hypothesis in the place of chance: it shrinks what breaks to the shortest story."""

    make = Director

    @initialize(seed=st.integers(0, 999), backends=st.integers(1, 4), scarce=st.booleans())
    def start(self, seed: int, backends: int, scarce: bool) -> None:
        self.world = World(random.Random(seed), self.make, room=8 if scarce else PLENTY)
        for _ in range(backends):
            self.world.join()

    @rule(count=st.integers(1, 60), seconds=st.integers(0, 100))
    def traffic(self, count: int, seconds: int) -> None:
        self.world.open_flows(count)
        self.world.advance(seconds)

    @rule(seconds=st.integers(1, 400))
    def time_passes(self, seconds: int) -> None:
        self.world.advance(seconds)
        self.world.sweep()

    @precondition(lambda self: len(self.world.weights) < 6)
    @rule(weight=st.sampled_from((0, 1, 5)))
    def join(self, weight: int) -> None:
        self.world.join(weight)

    @precondition(lambda self: self.world.weights)
    @rule(data=st.data(), weight=st.sampled_from((0, 1, 2, 65535)))
    def reweigh(self, data: st.DataObject, weight: int) -> None:
        self.world.reweigh(data.draw(st.sampled_from(sorted(self.world.weights))), weight)

    @precondition(lambda self: self.world.weights)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.world.leave(data.draw(st.sampled_from(sorted(self.world.weights))))

    @precondition(lambda self: self.world.weights)
    @rule(data=st.data(), index=st.integers(0, 2))
    def health_turns(self, data: st.DataObject, index: int) -> None:
        node = self.world.nodes[index]
        key = data.draw(st.sampled_from(sorted(self.world.weights)))
        turn = self.world.recover if key in node.failed else self.world.fail
        turn(node, key)

    @rule(to=st.integers(0, 2))
    def failover(self, to: int) -> None:
        if to != self.world.announcer:
            self.world.failover(to)

    @rule(index=st.integers(0, 2))
    def a_node_loses_its_maps(self, index: int) -> None:
        self.world.lose_pins(index)


TestTheRules = WorldMachine.TestCase
TestTheRules.settings = settings(max_examples=100, stateful_step_count=30)
