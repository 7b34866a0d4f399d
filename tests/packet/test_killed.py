"""A daemon killed between any two steps of a change: the next one finds its way from there."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from dsr_node.subsystems.xdp import apply as applying
from dsr_node.subsystems.xdp.state import DirectorState
from dsr_node.table.word import unpack

from tests.packet.frames import segment
from tests.packet.test_subsystem import (
    DNS,
    LIMITS,
    VIP4,
    WEB,
    Node,
    backend,
    bpffs,
    pool,
    state,
    wanted_handles,
)

__all__ = ["bpffs"]

ROOMY = replace(LIMITS, pools=8, backends=32)
LARGE = state(
    pool(WEB, backend(1), backend(2, weight=0), backend(3), size=4093), pool(DNS, backend(1))
)
SMALL = replace(
    state(pool(WEB, backend(2), backend(3), size=61, seed=5), pool(DNS, backend(4), size=61)),
    vips=frozenset({VIP4}),
    peers=frozenset(),
)


class Killed(BaseException):
    """What nothing catches."""


@contextmanager
def watched(at_line: Callable[[int], None]) -> Iterator[None]:
    """Calls with the number of each line of apply.py before it runs: every write of apply() is a
    line of its own."""

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != applying.__file__:
            return None
        if event == "line":
            at_line(frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


class Killer:
    """Ends the process, as far as it concerns the maps, at the next place it has not been at: a
    line that runs for the first or the second time."""

    def __init__(self) -> None:
        self.places: set[tuple[int, int]] = set()

    def kills(self, node: Node, desired: DirectorState) -> bool:
        changes = node.xdp.diff(desired, node.xdp.read())
        runs: Counter[int] = Counter()

        def at_line(number: int) -> None:
            runs[number] += 1
            place = (number, runs[number])
            if runs[number] <= 2 and place not in self.places:
                self.places.add(place)
                raise Killed

        try:
            with watched(at_line):
                node.xdp.apply(changes)
        except Killed:
            return True
        return False


def expect(node: Node, desired: DirectorState) -> None:
    """The maps hold what is desired, and nothing that is nobody's."""
    assert not node.hold(desired)
    seen = node.observed()
    assert len(seen.pool_index) == len(desired.pools)
    for of in desired.pools.values():
        assert unpack(node.words(of)).current.tolist() == wanted_handles(node, of)
    owned = sum(map(any, seen_owners(node)))
    assert owned == sum(len(of.backends) for of in desired.pools.values())


def seen_owners(node: Node) -> list[bytes]:
    assert node.xdp._dataplane is not None
    owners: list[bytes] = node.xdp._dataplane.backend_owners["identity"].tolist()
    return owners


def remember_flows(node: Node, desired: DirectorState) -> None:
    """Some of LARGE's slots have moved, so flows are remembered, in slots that SMALL has not."""
    if desired is LARGE:
        for port in range(60):
            node.send(segment(4, sport=1000 + port))


@pytest.mark.parametrize(
    ("start", "end"), [(LARGE, SMALL), (SMALL, LARGE)], ids=["large-small", "small-large"]
)
def test_whoever_is_killed_leaves_nothing_that_the_next_one_cannot_mend(
    bpffs: Path, start: DirectorState, end: DirectorState
) -> None:
    killer, killed = Killer(), True
    with Node(bpffs / "dsr", ROOMY) as node:
        while killed:
            node.hold(state(pool(WEB, backend(1), backend(2), backend(3), size=4093)))
            node.hold(start)
            remember_flows(node, start)
            killed = killer.kills(node, end)
            with Node(node.pins, ROOMY) as again:
                again.observed()
                again.xdp.sweep(time.monotonic())
                again.hold(end)
                expect(again, end)
                again.hold(state(pool(DNS, backend(1), backend(2), backend(7), size=61)))
                again.hold(state(pool(DNS, backend(1), backend(2, weight=0), size=61)))
                again.xdp.sweep(time.monotonic())
    assert len(killer.places) > 50
