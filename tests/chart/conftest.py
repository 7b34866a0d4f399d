"""A control plane for helm alone: it starts without any CRD of ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.controlplane import ControlPlane


@pytest.fixture(scope="session")
def empty_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path_factory.mktemp("empty-cluster"))
    plane.start()
    try:
        yield plane
    finally:
        plane.stop()
