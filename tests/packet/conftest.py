from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dsr_node.subsystems.xdp.limits import Limits

from tests.packet.bpffs import private_bpffs
from tests.packet.harness import SMALL, Harness, Slot
from tests.packet.oracle import Scene

MakeHarness = Callable[..., Harness]


@pytest.fixture(scope="module")
def bpffs() -> Iterator[Path]:
    with private_bpffs() as root:
        yield root


@pytest.fixture(scope="module")
def make_harness(bpffs: Path) -> Iterator[MakeHarness]:
    """A harness of its own maps, with a scene and a settled table on one backend."""
    made: list[Harness] = []

    def make(scene: Scene, slots: list[Slot] | None = None, limits: Limits = SMALL) -> Harness:
        harness = Harness(bpffs / f"director{len(made)}", limits)
        made.append(harness)
        harness.set_scene(scene)
        handle = next(iter(scene.backends), 0)
        harness.set_table(slots or [Slot(handle, handle)])
        return harness

    yield make
    for each in made:
        each.close()
