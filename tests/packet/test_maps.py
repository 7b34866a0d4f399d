"""The thin layer over libbpf: batches, per-CPU values, arrays as memory, errors that help."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from dsr_node.bpf.libbpf import BpfError
from dsr_node.bpf.maps import ARRAY, HASH, MMAPABLE, PERCPU_ARRAY, Map, Shape, cpus
from dsr_node.bpf.objects import Object
from hypothesis import given, settings
from hypothesis import strategies as st

NO_PREALLOC = 1
Make = Callable[[Shape], Map]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Map] = []

    def create(shape: Shape) -> Map:
        made.append(Map.create("test", shape))
        return made[-1]

    yield create
    for each in made:
        each.close()


@settings(max_examples=40, deadline=None)
@given(
    held=st.dictionaries(st.integers(0, 200), st.integers(0, 2**63), max_size=60),
    deleted=st.lists(st.integers(0, 200), max_size=60),
)
def test_a_hash_in_batches_is_a_dictionary(held: dict[int, int], deleted: list[int]) -> None:
    shape = Shape(HASH, 4, 8, 64, NO_PREALLOC)
    target = Map.create("test", shape)
    try:
        if held:
            target.update_many(np.array([*held], "u4"), np.array([*held.values()], "u8"))
        target.delete_many(np.array(deleted, "u4"))
        keys, values = target.read_all("u4", "u8")
        expected = {key: value for key, value in held.items() if key not in deleted}
        assert dict(zip(keys.tolist(), values.tolist(), strict=True)) == expected
    finally:
        target.close()


def test_a_full_hash_says_so(make: Make) -> None:
    target = make(Shape(HASH, 4, 4, 2, NO_PREALLOC))
    with pytest.raises(BpfError, match="write to map test") as error:
        target.update_many(np.arange(3, dtype="u4"), np.arange(3, dtype="u4"))
    assert error.value.errno == errno.E2BIG
    assert len(target.read_all("u4", "u4")[0]) == 2


def test_a_large_hash_takes_several_reads(make: Make) -> None:
    target = make(Shape(HASH, 4, 4, 50_000, NO_PREALLOC))
    keys = np.arange(20_000, dtype="u4")
    target.update_many(keys, keys * 2)
    read, values = target.read_all("u4", "u4")
    assert sorted(read.tolist()) == keys.tolist()
    assert (values == read * 2).all()


def test_big_endian_keys_come_back_as_they_are(make: Make) -> None:
    target = make(Shape(HASH, 4, 4, 4, NO_PREALLOC))
    target.update_many(np.array([1], ">u4"), np.array([1], "u4"))
    assert target.read_all(">u4", "u4")[0].tobytes() == b"\0\0\0\1"


def test_an_array_is_memory(make: Make) -> None:
    target = make(Shape(ARRAY, 4, 4, 1000, MMAPABLE))
    memory = target.mapped("u4", writable=True)
    memory[999] = 7
    assert target.lookup((999).to_bytes(4, "little")) == (7).to_bytes(4, "little")
    target.update((3).to_bytes(4, "little"), (9).to_bytes(4, "little"))
    assert target.mapped("u4")[3] == 9
    with pytest.raises(ValueError, match="4 bytes"):
        target.mapped("u8")
    with pytest.raises(ValueError, match="read-only"):
        target.mapped("u4")[0] = 1


def test_values_of_each_cpu(make: Make) -> None:
    target = make(Shape(PERCPU_ARRAY, 4, 16, 3, 0))
    values = np.arange(3 * cpus() * 2, dtype="u8").reshape(3, cpus(), 2)
    target.update_many(np.arange(3, dtype="u4"), values)
    stats = np.dtype([("packets", "u8"), ("bytes", "u8")])
    assert (target.read_percpu(stats)["bytes"] == values[:, :, 1]).all()


def test_items_that_do_not_fit_are_refused(make: Make) -> None:
    target = make(Shape(HASH, 4, 8, 4, NO_PREALLOC))
    with pytest.raises(ValueError, match="do not fit"):
        target.update_many(np.zeros(1, "u8"), np.zeros(1, "u8"))


def test_an_object_that_does_not_load_says_why(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.bpf.o"
    nothing.write_bytes(b"this is no ELF file")
    with pytest.raises(BpfError, match=r"nothing\.bpf\.o"):
        Object(nothing)
