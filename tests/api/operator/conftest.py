"""The operator as a subprocess against the real API server; the test plays the node daemons."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.controlplane import ControlPlane
from tests.api.operator.process import OperatorProcess
from tests.api.operator.world import World


@pytest.fixture
async def world(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """A namespace, a pool and nodes of the test's own; all gone afterwards."""
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    async with World.made() as made:
        yield made


@pytest.fixture
async def operator(
    control_plane: ControlPlane, world: World, tmp_path: Path
) -> AsyncIterator[OperatorProcess]:
    """One operator that leads."""
    process = OperatorProcess(control_plane.kubeconfig, world.namespace, tmp_path / "operator.log")
    process.start()
    try:
        await process.ready()
        yield process
    finally:
        process.stop()


@pytest.fixture
async def own_plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ControlPlane]:
    """A control plane that this test alone may break; without our CRDs."""
    plane = ControlPlane(tmp_path / "plane")
    await asyncio.to_thread(plane.start)
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    try:
        yield plane
    finally:
        await asyncio.to_thread(plane.stop)
