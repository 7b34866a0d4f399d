"""An operator that meets what a newer release has written: rolled back, or not upgraded yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from dsr_operator import kinds

from lab.controlplane import ControlPlane
from tests.api.conftest import CRDS
from tests.api.kubectl import kubectl
from tests.api.operator.process import OperatorProcess
from tests.api.operator.world import World


@pytest.fixture
async def newer(own_plane: ControlPlane) -> AsyncIterator[World]:
    """A world whose CRDs know a scheduler that this operator does not."""
    for path in sorted(CRDS.glob("*.yaml")):
        text = path.read_text().replace("enum: [Maglev]", "enum: [Maglev, Quantum]")
        await asyncio.to_thread(kubectl, own_plane.kubeconfig, "apply", "-f", "-", stdin=text)
    async with World.made() as world:
        yield world


async def test_an_unreadable_plan_stays_and_an_unreadable_service_can_go(
    newer: World, own_plane: ControlPlane, tmp_path: Path
) -> None:
    world = newer
    operator = OperatorProcess(own_plane.kubeconfig, world.namespace, tmp_path / "operator.log")
    operator.start()
    try:
        await operator.ready()
        await world.service()
        await world.service("other", ports=[{"port": 81}])
        for name in ("web", "other"):
            await world.until_condition("Ready", "True", name=name)
        assert operator.stop() == 0
        quantum: Any = {"spec": {"scheduler": "Quantum"}}
        await world.merge(kinds.PLAN, f"{world.namespace}.web", quantum)
        await world.merge(kinds.SERVICE, "other", quantum, world.namespace)
        before = await world.plan()
        operator.start()
        await operator.ready()
        await world.until_condition("Ready", "False", "PlanUnreadable")
        await world.until_condition("Ready", "False", "InvalidSpec", name="other")
        await world.merge(
            kinds.SERVICE, "web", {"spec": {"drainTimeoutSeconds": 5}}, world.namespace
        )
        await world.delete(kinds.SERVICE, "other", world.namespace)
        await world.until_no_plan("other")
        await world.until_gone("other")
        assert await world.plan() == before
    finally:
        operator.stop()
