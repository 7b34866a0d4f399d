"""fill() and wanted() against the slow reference, and what the table is good for."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from dsr_node.table import backend_key, fill, maglev, native, wanted
from dsr_node.table.maglev import MOST_FILLS
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.model import table as model

SMALL = st.sampled_from((3, 7, 61, 127))
seeds = st.integers(0, 2**64 - 1)
weights = st.one_of(st.integers(0, 5), st.sampled_from((0, 1, 100, 65535)))
pools = st.dictionaries(st.binary(min_size=1, max_size=20), weights, max_size=9)


def keys_of(table: NDArray[np.int32], keys: list[bytes]) -> model.Table:
    return [keys[index] if index >= 0 else None for index in table]


def equal_backends(count: int) -> tuple[list[bytes], list[int]]:
    return [backend_key(f"10.0.{i >> 8}.{i & 255}", f"uid-{i}") for i in range(count)], [1] * count


@given(pools, seeds, SMALL)
def test_the_fill_is_the_references(pool: dict[bytes, int], seed: int, size: int) -> None:
    keys = list(pool)
    table = fill(keys, list(pool.values()), seed, size)
    assert keys_of(table, keys) == model.fill(pool, seed, size)


@given(pools, st.data(), seeds, SMALL)
def test_wanted_is_the_references(
    pool: dict[bytes, int], data: st.DataObject, seed: int, size: int
) -> None:
    keys = list(pool)
    failed = data.draw(st.sets(st.sampled_from(range(len(keys)))) if keys else st.just(set()))
    table = wanted(keys, list(pool.values()), failed, seed, size)
    expected = model.wanted(pool, {keys[i] for i in failed}, seed, size)
    assert keys_of(table, keys) == expected


@given(pools, st.data(), seeds, SMALL)
def test_the_order_of_the_backends_does_not_matter(
    pool: dict[bytes, int], data: st.DataObject, seed: int, size: int
) -> None:
    keys = list(pool)
    shuffled = data.draw(st.permutations(keys))
    one = fill(keys, [pool[key] for key in keys], seed, size)
    two = fill(shuffled, [pool[key] for key in shuffled], seed, size)
    assert keys_of(one, keys) == keys_of(two, shuffled)


@given(pools, seeds, SMALL)
def test_everyone_with_a_weight_has_a_slot_if_there_is_room(
    pool: dict[bytes, int], seed: int, size: int
) -> None:
    keys = list(pool)
    table = fill(keys, list(pool.values()), seed, size)
    weighted = {index for index, key in enumerate(keys) if pool[key]}
    owners = set(table.tolist()) - {-1}
    assert owners <= weighted
    assert len(owners) == min(len(weighted), size)
    assert (table == -1).all() if not weighted else (table >= 0).all()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), seeds)
def test_slots_are_in_proportion_to_weights(some: list[int], seed: int) -> None:
    """Turns are in proportion, so nobody is a whole turn off; one more for the first turns."""
    keys, _ = equal_backends(len(some))
    counts = np.bincount(fill(keys, some, seed, 4093), minlength=len(some))
    shares = 4093 * np.array(some) / sum(some)
    assert (abs(counts - shares) <= 1 + np.array(some) * len(some) / sum(some)).all()


def test_two_seeds_are_two_tables() -> None:
    keys, ones = equal_backends(10)
    differ = fill(keys, ones, 1, 4093) != fill(keys, ones, 2, 4093)
    assert differ.mean() == pytest.approx(0.9, abs=0.03)


def test_the_table_is_the_one_of_table_version_1() -> None:
    """Another table here is another TABLE_VERSION: LB nodes of two versions would disagree."""
    keys = [backend_key("192.0.2.1", "a"), backend_key("2001:db8::1", "b"), backend_key("10.1.2.3")]
    table = fill(keys, [1, 2, 3], 0x0123456789ABCDEF, 13)
    assert table.tolist() == [2, 2, 2, 1, 2, 0, 2, 1, 2, 0, 1, 2, 1]
    after = wanted(keys, [1, 2, 3], {2}, 0x0123456789ABCDEF, 13)
    assert after.tolist() == [1, 1, 0, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1]


@given(pools, st.data(), seeds, SMALL)
def test_exactly_the_share_of_whoever_fails_next_moves(
    pool: dict[bytes, int], data: st.DataObject, seed: int, size: int
) -> None:
    """In whatever order backends fail and return: the same failed set is the same table."""
    keys, all_weights = list(pool), list(pool.values())
    order = data.draw(st.permutations(range(len(keys))))
    owners = set(fill(keys, all_weights, seed, size).tolist())
    base = before = wanted(keys, all_weights, set(), seed, size)
    for count, fails in enumerate(order, 1):
        after = wanted(keys, all_weights, set(order[:count]), seed, size)
        alive = ~np.isin(base, order[: count - 1])
        if not owners <= set(order[:count]):
            moved = before != after
            assert (moved == (before == fails))[alive].all()
            assert count == MOST_FILLS + 1 or (moved == (before == fails)).all()
        before = after


@pytest.mark.parametrize(("dead", "most"), [(1, 2), (MOST_FILLS, MOST_FILLS + 1), (50, 1)])
def test_many_failures_cost_no_more_than_a_few_fills(
    dead: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fills = 0

    def counted(*arguments: Any) -> NDArray[np.int32]:
        nonlocal fills
        fills += 1
        return native.maglev_fill(*arguments)

    monkeypatch.setattr(maglev, "maglev_fill", counted)
    keys, ones = equal_backends(100)
    table = wanted(keys, ones, range(dead), 7, 4093)
    assert fills == most
    counts = np.bincount(table, minlength=100)
    assert not counts[:dead].any()
    assert counts[dead:].max() < 4 * 4093 / (100 - dead)


def test_a_failed_backend_that_leaves_the_plan_moves_little_more() -> None:
    """Its slots have gone where the plan's next table sends them."""
    keys, ones = equal_backends(10)
    failed = wanted(keys, ones, {4}, 7, 4093)
    left = fill(keys, [0 if i == 4 else 1 for i in range(10)], 7, 4093)
    mine = fill(keys, ones, 7, 4093) == 4
    assert (failed[mine] == left[mine]).all()
    assert (failed != left).mean() < 0.03


def test_imbalance_at_the_default_size() -> None:
    for seed in range(20):
        counts = np.bincount(fill(*equal_backends(10), seed, 4093))
        assert counts.max() / counts.mean() < 1.02


@pytest.mark.parametrize("count", range(2, 11))
def test_little_more_than_its_share_moves_when_one_leaves(count: int) -> None:
    keys, ones = equal_backends(count)
    moved = []
    for seed in range(10):
        before = fill(keys, ones, seed, 4093)
        after = fill(keys, [0, *ones[1:]], seed, 4093)
        moved.append((before != after).mean())
    assert np.mean(moved) <= 1.25 / count


def test_the_widest_weights_are_quick() -> None:
    keys, _ = equal_backends(1000)
    start = time.process_time()
    counts = np.bincount(fill(keys, [65535] + [1] * 999, 3, 65537), minlength=1000)
    assert time.process_time() - start < 0.5
    assert counts.min() == 1
    assert np.bincount(fill(keys[:2], [65535, 1], 3, 4093)).tolist() == [4092, 1]


def test_more_backends_than_slots() -> None:
    keys, ones = equal_backends(1000)
    assert np.bincount(fill(keys, ones, 3, 61)).max() == 1


def test_nobody() -> None:
    assert fill([], [], 3, 61).tolist() == [-1] * 61
    assert wanted([], [], set(), 3, 61).tolist() == [-1] * 61
    keys, _ = equal_backends(2)
    assert wanted(keys, [0, 1], {1}, 3, 61).tolist() == [-1] * 61


def test_a_backend_is_its_address_and_its_node() -> None:
    assert backend_key("192.0.2.1", "a") == backend_key("::ffff:192.0.2.1", "a")
    assert backend_key("192.0.2.1", "a") != backend_key("192.0.2.1", "b")


@pytest.mark.parametrize(
    ("keys", "some", "size", "words"),
    [
        ([b"a", b"a"], [1, 1], 61, "same key"),
        ([b"a"], [1, 1], 61, "1 keys but 2 weights"),
        ([b"a"], [65536], 61, "from 0 to 65535"),
        ([b"a"], [-1], 61, "from 0 to 65535"),
        ([b"a"], [1], 60, "prime"),
        ([b"a"], [1], 2, "prime"),
        ([b"a"], [1], 1048583, "prime"),
    ],
)
def test_what_makes_no_table(keys: list[bytes], some: list[int], size: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fill(keys, some, 1, size)
