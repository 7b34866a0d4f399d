"""A pass that takes long: in parts, what matters most first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from dsr_node.subsystems.xdp import layout, subsystem, tables
from dsr_node.subsystems.xdp.changes import Changes
from dsr_node.subsystems.xdp.state import FOREVER, TCP, DirectorState, FrontendKey, Pool, PoolKey
from dsr_node.table.word import unpack

from tests.packet.test_subsystem import (
    LIMITS,
    VIP4,
    VIP6,
    Node,
    backend,
    bpffs,
    pool,
    wanted_handles,
)

__all__ = ["bpffs"]

SECOND = 10**9


@pytest.fixture
def node(bpffs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """Its parts end with the first table that has to be filled."""
    monkeypatch.setattr(tables, "PART_S", 0.0)
    with Node(bpffs / "dsr", replace(LIMITS, pools=8, backends=32)) as node:
        yield node


def town(*, failed: bool = False, seed: int = 0, lease: int = FOREVER) -> DirectorState:
    """Four pools of two backends each, all of which use backend 1."""
    pools = {
        key: pool(key, backend(1, failed=failed), backend(number), seed=seed)
        for number in (2, 3, 4, 5)
        for key in [PoolKey(f"shop.web-{number}", 4)]
    }
    frontends = {FrontendKey(VIP4, TCP, port): key for port, key in enumerate(pools, 80)}
    return DirectorState(frontends, pools, frozenset({VIP4}), announced={VIP4: lease})


class Parts:
    """The parts of hold(), each as it was and what the maps held after it."""

    def __init__(self, node: Node) -> None:
        self.changes: list[Changes] = []
        self.down: list[int] = []
        self.frontends: list[int] = []
        self.announced: list[dict[bytes, int]] = []
        self._node, self._apply = node, node.xdp.apply
        node.xdp.apply = self  # type: ignore[method-assign, assignment]  # watched, not replaced

    def __call__(self, changes: Changes) -> object:
        problems = self._apply(changes)
        seen = self._node.observed()
        self.changes.append(changes)
        self.down.append(int((seen.backends["flags"] & layout.BACKEND_DOWN != 0).sum()))
        self.frontends.append(len(seen.frontends))
        self.announced.append(dict(seen.announced))
        return problems


def test_what_has_failed_is_told_everywhere_before_the_second_table(node: Node) -> None:
    node.xdp.hold(town())
    parts = Parts(node)
    desired = town(failed=True)
    problems, changed = node.xdp.hold(desired)
    assert (problems, changed) == ((), True)
    assert [len(each.tables) for each in parts.changes] == [1, 1, 1, 1]
    assert parts.down == [4, 4, 4, 4]
    for of in desired.pools.values():
        assert unpack(node.words(of)).current.tolist() == wanted_handles(node, of)
    assert node.xdp.hold(desired) == ((), False)


def test_nothing_is_announced_or_removed_before_the_last_part(node: Node) -> None:
    parts = Parts(node)
    node.xdp.hold(town())
    assert parts.frontends == [1, 2, 3, 4]
    assert [set(each) for each in parts.announced] == [set(), set(), set(), {VIP4}]
    node.xdp.hold(town(seed=5))
    assert parts.frontends[4:] == [4, 4, 4, 4]
    assert [len(each.pools_out) for each in parts.changes[4:]] == [0, 0, 0, 4]


def test_leases_go_on_from_part_to_part(node: Node) -> None:
    """They end as long after their part as they should have after the beginning."""
    lease = time.monotonic_ns() + 12 * SECOND
    node.xdp.hold(town(lease=lease))
    parts = Parts(node)
    node.xdp.hold(replace(town(failed=True, lease=lease), announced={VIP4: lease, VIP6: FOREVER}))
    ends = [each[VIP4] for each in parts.announced]
    assert ends == sorted(set(ends))
    assert lease <= ends[0] < ends[-1] < lease + 10 * SECOND
    assert parts.announced[-1][VIP6] == FOREVER


def spoil(node: Node, of: Pool) -> None:
    """Somebody changes a table."""
    seen = node.observed()
    seen.chunks[0].words[: of.size * 4] = 0


def test_what_has_been_found_is_compared_again_after_a_while(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    desired = town()
    node.xdp.hold(desired)
    node.xdp.hold(desired)
    (of, *_) = desired.pools.values()
    before = unpack(node.words(of)).current.tolist()
    spoil(node, of)
    assert node.xdp.hold(desired) == ((), False)
    monkeypatch.setattr(subsystem, "COMPARE_S", 0)
    assert node.xdp.hold(desired) == ((), True)
    assert unpack(node.words(of)).current.tolist() == before


def test_another_value_is_compared_whatever_was_found(node: Node) -> None:
    desired = town()
    node.xdp.hold(desired)
    node.xdp.hold(desired)
    spoil(node, *list(desired.pools.values())[:1])
    assert node.xdp.hold(town()) == ((), True)
