"""A control plane of our own for tests that break it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from lab.controlplane import ControlPlane
from tests.api.node.reading import run, serve_crds


@pytest.fixture(scope="session")
def own_control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path_factory.mktemp("node-control-plane"))
    plane.start()
    yield plane
    plane.stop()


@pytest_asyncio.fixture
async def plane(own_control_plane: ControlPlane) -> AsyncIterator[ControlPlane]:
    """Running, with our CRDs as they are in the repository, and without objects of them."""
    await serve_crds(own_control_plane.kubeconfig)
    await run(own_control_plane.kubeconfig, "delete", "dsrplans,dsrnodes", "--all")
    yield own_control_plane
    own_control_plane.start()
