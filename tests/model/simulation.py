"""A World left to chance: years of a service's life in seconds, for one seed."""

from __future__ import annotations

import random

from tests.model.director import Director
from tests.model.world import MakeDirector, World

MOST_BACKENDS = 7


def play(seed: int, make: MakeDirector = Director, *, steps: int = 300, room: int = 10**9) -> World:
    """A world after `steps` random events; raises PromiseBrokenError when a promise is not kept."""
    world = World(random.Random(seed), make, room=room)
    for _ in range(3):
        world.join()
    for _ in range(steps):
        one_event(world)
    return world


def one_event(world: World) -> None:
    """Mostly traffic; else a change of plan, health or LB node."""
    world.open_flows(world.choices.randint(0, 12))
    world.advance(world.choices.randint(0, 25))
    if world.choices.random() < 0.5:
        world.sweep()
    if world.choices.random() < 0.25:
        world.choices.choice((change_plan, change_health, change_node))(world)


def change_plan(world: World) -> None:
    keys = sorted(world.weights)
    key = world.choices.choice(keys) if keys else None
    what = world.choices.choice(("join", "weight", "drain", "leave"))
    if key is None or (what == "join" and len(keys) < MOST_BACKENDS):
        world.join(world.choices.choice((1, 1, 1, 3)))
    elif what == "weight":
        world.reweigh(key, world.choices.choice((1, 1, 2, 5)))
    elif what == "drain":
        world.reweigh(key, 0)
    elif what == "leave":
        world.leave(key)


def change_health(world: World) -> None:
    node = world.choices.choice(world.nodes)
    healthy = sorted(world.weights.keys() - node.failed)
    if node.failed and (len(healthy) < 2 or world.choices.random() < 0.6):
        world.recover(node, world.choices.choice(sorted(node.failed)))
    elif healthy:
        world.fail(node, world.choices.choice(healthy))


def change_node(world: World) -> None:
    index = world.choices.randrange(len(world.nodes))
    if world.choices.random() < 0.3:
        world.lose_pins(index)
    elif index != world.announcer:
        world.failover(index)
