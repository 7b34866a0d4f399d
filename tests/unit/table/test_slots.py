"""next_table and first_table are the model's next_slot and first_slot, on whole tables."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from dsr_node.table import SlotTable, first_table, handles_of, next_table, pack, unpack, word
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.director import Director, Slot, first_slot, next_slot
from tests.model.simulation import play
from tests.unit.table.test_rules import WorldMachine

IDLE = 150
some_handles = st.sampled_from((0, 1, 2, 3, 5 << 20 | 4, 0x7FFFFFFF))


def slots_of(table: SlotTable) -> list[Slot]:
    parts = unpack(table.words)
    columns = (parts.current, parts.settled, parts.moved, table.moved_at)
    return [Slot(*each) for each in zip(*(column.tolist() for column in columns), strict=True)]


def table_of(slots: Sequence[Slot]) -> SlotTable:
    return SlotTable(
        words=pack(
            np.array([slot.current for slot in slots], dtype=np.uint32),
            np.array([slot.settled for slot in slots], dtype=np.uint32),
            np.array([slot.moved for slot in slots], dtype=bool),
        ),
        moved_at=np.array([slot.moved_at for slot in slots], dtype=np.uint32),
    )


class TableDirector(Director):
    """The model with its tables made by the code, and compared with the model's own."""

    def start(
        self, wanted: Sequence[int], previous: Sequence[int] | None, moved_at: int, now: int
    ) -> None:
        super().start(wanted, previous, moved_at, now)
        before = None if previous is None else np.array(previous, dtype=np.uint32)
        table = first_table(np.array(wanted, dtype=np.uint32), before, moved_at, now)
        assert slots_of(table) == self.slots
        self.slots = slots_of(table)

    def step(self, wanted: Sequence[int], busy: Iterable[int], now: int) -> None:
        old = table_of(self.slots)
        is_busy = np.zeros(len(self.slots), dtype=bool)
        is_busy[sorted(busy)] = True
        super().step(wanted, busy, now)
        living = [handle for handle in self.backends if self.lives(handle)]
        idle = max(self.tcp_idle, self.udp_idle)
        table = next_table(old, np.array(wanted, dtype=np.uint32), living, is_busy, now, idle)
        assert slots_of(table) == self.slots
        self.slots = slots_of(table)


class CodeMachine(WorldMachine):
    make = TableDirector


TestTheCode = CodeMachine.TestCase
TestTheCode.settings = settings(max_examples=50, stateful_step_count=30)


@pytest.mark.parametrize("room", [10**9, 40])
def test_the_code_keeps_every_flow_the_model_keeps(room: int) -> None:
    for seed in range(100, 106):
        play(seed, TableDirector, room=room)


slots = st.builds(
    lambda current, settled, moved, moved_at: Slot(
        current, settled if moved else current, moved, moved_at
    ),
    some_handles,
    some_handles,
    st.booleans(),
    st.integers(0, 400),
)


@given(
    st.lists(st.tuples(slots, some_handles, st.booleans()), min_size=1, max_size=20),
    st.sets(some_handles.filter(bool)),
    st.integers(0, 200),
)
def test_one_step_is_the_models_step(
    rows: list[tuple[Slot, int, bool]], living: set[int], later: int
) -> None:
    now = 400 + later
    table = next_table(
        table_of([slot for slot, _, _ in rows]),
        np.array([want for _, want, _ in rows], dtype=np.uint32),
        living,
        np.array([busy for _, _, busy in rows]),
        now,
        IDLE,
    )
    expected = [
        next_slot(slot, want, living.__contains__, busy, now, IDLE) for slot, want, busy in rows
    ]
    assert slots_of(table) == expected


@given(st.lists(st.tuples(some_handles, some_handles), min_size=1), st.integers(-500, 500))
def test_the_first_table_is_the_models(pairs: list[tuple[int, int]], moved_at: int) -> None:
    wanted = np.array([want for want, _ in pairs], dtype=np.uint32)
    previous = np.array([before for _, before in pairs], dtype=np.uint32)
    table = first_table(wanted, previous, moved_at, 300)
    assert slots_of(table) == [first_slot(w, p, moved_at, 300) for w, p in pairs]
    fresh = first_table(wanted, None, moved_at, 300)
    assert slots_of(fresh) == [first_slot(w, None, moved_at, 300) for w, _ in pairs]


@given(st.lists(slots, min_size=1, max_size=30), st.integers(400, 2000))
def test_a_settled_table_with_the_same_wanted_stays_as_it_is(all_: list[Slot], now: int) -> None:
    living = {slot.current for slot in all_} | {slot.settled for slot in all_}
    wanted = np.array([slot.current for slot in all_], dtype=np.uint32)
    idle = np.zeros(len(all_), dtype=bool)
    settled = next_table(table_of(all_), wanted, living, idle, now + IDLE + 1, IDLE)
    assert settled.unsettled() == 0
    again = next_table(settled, wanted, living, idle, now + 5000, IDLE)
    assert np.array_equal(again.words, settled.words)
    assert np.array_equal(again.moved_at, settled.moved_at)


def test_the_old_table_is_not_written_to() -> None:
    old = table_of([Slot(1, 1, moved=False, moved_at=0)])
    before = old.words.copy()
    next_table(old, np.array([2], dtype=np.uint32), {1, 2}, np.array([True]), 9, IDLE)
    assert np.array_equal(old.words, before)


def test_another_size_has_no_history() -> None:
    old = table_of([Slot(1, 1, moved=False, moved_at=0)])
    with pytest.raises(ValueError, match="start anew"):
        next_table(old, np.array([1, 1], dtype=np.uint32), {1}, np.array([True]), 9, IDLE)


def test_a_slot_that_returns_home_is_still_moved_until_its_flows_are_gone() -> None:
    """The one that a simpler text gets wrong: flows opened meanwhile are elsewhere."""
    living = {1, 2}
    table = table_of([Slot(1, 1, moved=False, moved_at=0)])
    busy, free = np.array([True]), np.array([False])
    table = next_table(table, np.array([2], dtype=np.uint32), living, busy, 10, IDLE)
    assert slots_of(table) == [Slot(2, 1, moved=True, moved_at=10)]
    home = np.array([1], dtype=np.uint32)
    table = next_table(table, home, living, busy, 20, IDLE)
    assert slots_of(table) == [Slot(1, 1, moved=True, moved_at=20)]
    assert slots_of(next_table(table, home, living, free, 170, IDLE))[0].moved
    assert slots_of(next_table(table, home, living, busy, 900, IDLE))[0].moved
    table = next_table(table, home, living, free, 171, IDLE)
    assert slots_of(table) == [Slot(1, 1, moved=False, moved_at=20)]


@given(st.integers(0, word.MAX_GENERATION), st.integers(1, word.MAX_ID))
def test_a_handle_is_its_parts(generation: int, backend_id: int) -> None:
    handle = word.handle(generation, backend_id)
    assert word.generation(handle) == generation
    assert word.backend_id(handle) == backend_id
    assert 0 < handle < 2**31


@pytest.mark.parametrize(("generation", "backend_id"), [(0, 0), (2048, 1), (-1, 1), (0, 1 << 20)])
def test_a_part_that_does_not_fit_is_refused(generation: int, backend_id: int) -> None:
    with pytest.raises(ValueError, match="at most"):
        word.handle(generation, backend_id)


@given(st.lists(st.tuples(some_handles, some_handles, st.booleans()), min_size=1))
def test_words_have_the_bits_that_the_datapath_reads(rows: list[tuple[int, int, bool]]) -> None:
    table = table_of([Slot(current, settled, moved, 0) for current, settled, moved in rows])
    expected = [current | settled << 32 | moved << 63 for current, settled, moved in rows]
    assert table.words.tolist() == expected
    assert slots_of(table) == [Slot(*row, moved_at=0) for row in rows]


def test_handles_stand_for_indices() -> None:
    chosen = np.array([1, -1, 0], dtype=np.int32)
    assert handles_of(chosen, [7, 9]).tolist() == [9, 0, 7]
    assert handles_of(np.array([-1], dtype=np.int32), []).tolist() == [0]


def test_random_histories_at_full_size_follow_the_model() -> None:
    chance = random.Random(5)
    size, living = 4093, [1, 2, 3, 4]
    model = [Slot(1, 1, moved=False, moved_at=0)] * size
    table = table_of(model)
    for now in range(0, 2000, 100):
        wanted = [chance.choice(living) if chance.random() < 0.1 else s.current for s in model]
        busy = np.array([chance.random() < 0.3 for _ in range(size)])
        alive = {handle for handle in living if chance.random() < 0.8}
        table = next_table(table, np.array(wanted, dtype=np.uint32), alive, busy, now, IDLE)
        model = [
            next_slot(slot, want, alive.__contains__, bool(b), now, IDLE)
            for slot, want, b in zip(model, wanted, busy, strict=True)
        ]
        assert slots_of(table) == model
