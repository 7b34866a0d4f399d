"""The life of one DSRService against the real API server: made, ready, changed, gone."""

from __future__ import annotations

import pytest
from dsr_operator import kinds

from tests.api.operator.process import OperatorProcess
from tests.api.operator.world import World

pytestmark = pytest.mark.usefixtures("operator")


async def test_a_service_becomes_ready_step_by_step(
    world: World, operator: OperatorProcess
) -> None:
    hosts = {world.name("rs1"), world.name("rs2")}
    world.acking -= hosts
    await world.service()
    plan = await world.until_plan(lambda p: set(p["hosts"]) == hosts)
    assert plan["vips"] == [world.vip()]
    assert "frontends" not in plan
    assert "backends" not in plan
    await world.until_condition("Ready", "False", "WaitingForBackends")

    world.acking.add(world.name("rs1"))
    plan = await world.until_plan(lambda p: p.get("backends"))
    assert [b["address"] for b in plan["backends"]] == [world.address("rs1")]
    assert len(plan["frontends"]) == 1

    world.acking.add(world.name("rs2"))
    await world.until_condition("Ready", "True", "Ready")
    found = await world.get(kinds.SERVICE, "web", world.namespace)
    assert found is not None
    assert found["status"]["summary"] == {
        "ports": "80/TCP",
        "backends": "2/2",
        "loadBalancers": "1/1",
    }
    assert set(await world.events()) >= {"Accepted", "Ready"}
