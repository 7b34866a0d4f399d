"""docs/architecture.md, rule 7: empty is not none."""

from __future__ import annotations

import pytest
from dsr_api.plan import DSRPlan
from dsr_node.source import Snapshot
from dsr_node.state.loss import HOLD, Plans, taken

from tests.unit.node.worlds import named, plan

FOUR = named(*(plan(f"ns.s{i}") for i in range(4)))


def without(*numbers: int) -> dict[str, DSRPlan]:
    return {name: each for name, each in FOUR.items() if int(name[-1]) not in numbers}


def test_half_may_go_at_once() -> None:
    after = taken(Plans(FOUR), Snapshot(without(0, 1)), 0)
    assert after == Plans(without(0, 1))
    assert not after.alarm


def test_more_than_half_waits_and_raises_an_alarm() -> None:
    after = taken(Plans(FOUR), Snapshot(without(0, 1, 2)), 100)
    assert after.in_force == FOUR
    assert after.held == {"ns.s0", "ns.s1", "ns.s2"}
    assert "3 of 4 plans" in after.alarm
    assert taken(after, Snapshot(without(0, 1, 2)), 100 + HOLD - 1).in_force == FOUR
    assert taken(after, Snapshot(without(0, 1, 2)), 100 + HOLD).in_force == without(0, 1, 2)


def test_the_clock_does_not_start_again_with_every_snapshot() -> None:
    after = taken(Plans(FOUR), Snapshot({}), 100)
    after = taken(after, Snapshot(without(0, 1, 2)), 120)
    assert after.since == 100


def test_what_comes_back_is_in_force_and_ends_the_alarm() -> None:
    after = taken(taken(Plans(FOUR), Snapshot({}), 100), Snapshot(FOUR), 101)
    assert after == Plans(FOUR)


def test_changes_of_the_others_are_taken_meanwhile() -> None:
    held = taken(Plans(FOUR), Snapshot({}), 100)
    changed = plan("ns.s3", ports=(81,))
    assert taken(held, Snapshot({"ns.s3": changed}), 101).in_force["ns.s3"] is changed


def test_plans_that_carry_nothing_may_go() -> None:
    empty = named(*(plan(f"ns.s{i}", vips=(), hosts=()) for i in range(4)))
    assert taken(Plans(empty), Snapshot({}), 0) == Plans()


@pytest.mark.parametrize("held", [frozenset[str](), frozenset({"ns.s0"})])
def test_an_incomplete_snapshot_removes_nothing(held: frozenset[str]) -> None:
    changed = plan("ns.s0", ports=(81,))
    after = taken(Plans(FOUR, held), Snapshot({"ns.s0": changed}, complete=False), 0)
    assert after.in_force == {**FOUR, "ns.s0": changed}
    assert not after.held
