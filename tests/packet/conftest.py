from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dsr_node.subsystems.xdp.limits import Limits

from tests.packet.bpffs import private_bpffs
from tests.packet.harness import SMALL, Harness, Slot
from tests.packet.oracle import Scene

MakeHarness = Callable[..., Harness]
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def bpffs() -> Iterator[Path]:
    with private_bpffs() as root:
        yield root


@contextmanager
def _making(bpffs: Path) -> Iterator[MakeHarness]:
    made: list[Harness] = []

    def make(scene: Scene, slots: list[Slot] | None = None, limits: Limits = SMALL) -> Harness:
        harness = Harness(bpffs / f"director{next(_NUMBERS)}", limits)
        made.append(harness)
        harness.set_scene(scene)
        handle = next(iter(scene.backends), 0)
        harness.set_table(slots or [Slot(handle, handle)])
        return harness

    try:
        yield make
    finally:
        for each in made:
            each.close()


@pytest.fixture
def make_harness(bpffs: Path) -> Iterator[MakeHarness]:
    """A harness of its own maps, with a scene and a settled table on one backend."""
    with _making(bpffs) as make:
        yield make


@pytest.fixture(scope="module")
def make_lasting_harness(bpffs: Path) -> Iterator[MakeHarness]:
    """The same for all tests of a module. Each harness has 20 open files: only few may last."""
    with _making(bpffs) as make:
        yield make
