"""Rule 11: which backends a director without a table starts from."""

from __future__ import annotations

from collections.abc import Iterable

from dsr_api.plan import PlanBackend
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.operator.model import START, Cluster, view
from tests.unit.operator.test_sequence import plan, running

IDLE = 900
"""Seconds of the longer flow idle time-out of a DSRService that names none."""


def weigh(cluster: Cluster, node: str, weight: int) -> None:
    cluster.nodes[node] = view(node, weight=str(weight))
    cluster.settle()


def weights(backends: Iterable[PlanBackend]) -> dict[str, int]:
    """By the last digit of the address: a is 1."""
    return {"0abc"[int(b.address[-1])]: b.weight for b in backends}


def test_nothing_has_moved_before_there_was_a_table() -> None:
    cluster = running()
    assert plan(cluster).previous_backends == ()
    assert plan(cluster).backends_changed_at is None


def test_each_backend_is_as_before_its_own_changes_of_late() -> None:
    cluster = running()
    weigh(cluster, "a", 5)
    assert weights(plan(cluster).previous_backends) == {"a": 1, "b": 1, "c": 1}
    cluster.now += 600
    weigh(cluster, "b", 7)
    first = plan(cluster).backends_changed_at
    assert weights(plan(cluster).previous_backends) == {"a": 1, "b": 1, "c": 1}
    cluster.now += 300
    cluster.settle()
    assert weights(plan(cluster).previous_backends) == {"a": 5, "b": 1, "c": 1}
    assert plan(cluster).backends_changed_at == first
    cluster.now += 600
    cluster.settle()
    assert plan(cluster).previous_backends == ()
    assert plan(cluster).backends_changed_at is None


def test_what_was_not_there_before_has_weight_0() -> None:
    cluster = running()
    cluster.nodes["d"] = view("d", director=False)
    cluster.settle()
    cluster.acknowledge("d")
    cluster.settle()
    before = {b.address: b.weight for b in plan(cluster).previous_backends}
    assert before == {"10.0.0.1": 1, "10.0.0.2": 1, "10.0.0.3": 1, "10.0.0.4": 0}


def test_the_next_end_of_a_change_is_looked_at_in_time() -> None:
    cluster = running()
    weigh(cluster, "a", 5)
    began = cluster.now - START
    cluster.now += 100
    weigh(cluster, "b", 5)
    for name in "abc":
        cluster.acknowledge(name)
    cluster.settle()
    assert cluster.compile().wake_at == began + IDLE


changes = st.tuples(
    st.sampled_from((0, 1, 60, 300, 500, IDLE, 2000)), st.sampled_from("abc"), st.integers(0, 3)
)


@settings(max_examples=150, deadline=None)
@given(st.lists(changes, max_size=12))
def test_no_change_counts_for_longer_than_flows_live(history: list[tuple[int, str, int]]) -> None:
    """However often others change: the model keeps one chain of changes for each backend."""
    cluster = running()
    present = dict.fromkeys("abc", 1)
    chains: dict[str, tuple[float, int]] = {}
    for pause, node, weight in history:
        cluster.now += pause
        cluster.settle()
        chains = {n: c for n, c in chains.items() if c[0] + IDLE > cluster.now}
        if weight != present[node] and any(present.values()):
            chains[node] = (cluster.now, chains[node][1] if node in chains else present[node])
        present[node] = weight
        weigh(cluster, node, weight)
        expected = present | {n: was for n, (_, was) in chains.items()} if chains else {}
        known = weights(plan(cluster).previous_backends)
        assert {n: known.get(n, 0) for n in expected} == expected
        assert bool(known) == bool(chains)
