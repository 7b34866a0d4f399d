"""The life of one DSRService against the real API server: made, ready, changed, gone."""

from __future__ import annotations

import asyncio
import re
from typing import Any

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
    assert not plan["backends"]
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
        "vips": ",".join(found["spec"]["vips"]),
        "ports": "80/TCP",
        "backends": "2/2",
        "loadBalancers": "1/1",
    }
    await world.until_event("Ready")
    assert "Accepted" in await world.events()


async def test_a_deleted_service_is_taken_off_in_order(world: World) -> None:
    await world.service()
    await world.until_condition("Ready", "True")
    world.acking.clear()
    await world.delete(kinds.SERVICE, "web", world.namespace)
    plan = await world.until_plan(lambda p: not p["frontends"])
    assert not plan["backends"]
    assert plan["vips"] == [world.vip()]
    message = await world.until_condition("Ready", "False", "Withdrawing")
    assert world.name("lb1") in message

    world.acking.add(world.name("lb1"))
    plan = await world.until_plan(lambda p: not p["vips"])
    assert len(plan["hosts"]) == 2
    assert await world.get(kinds.SERVICE, "web", world.namespace) is not None

    world.acking |= {world.name("rs1"), world.name("rs2")}
    await world.until_no_plan()
    await world.until_gone()
    assert "Withdrawn" in await world.events()


@pytest.mark.parametrize("policy", ["Foreground", "Orphan"])
async def test_foreground_deletion_waits_for_the_withdrawal(world: World, policy: str) -> None:
    await world.service()
    await world.until_condition("Ready", "True")
    world.acking.clear()
    await world.delete(kinds.SERVICE, "web", world.namespace, policy=policy)
    await world.until_plan(lambda p: not p["frontends"])
    assert await world.get(kinds.SERVICE, "web", world.namespace) is not None
    world.acking |= set(world.nodes)
    await world.until_no_plan()
    # Kubernetes' garbage collector ends a foreground deletion; a new CRD it knows after 30 s.
    await world.until_gone(seconds=60)


async def test_a_deleted_namespace_goes_once_its_services_are_withdrawn(world: World) -> None:
    await world.move_out()
    await world.service()
    await world.until_condition("Ready", "True")
    world.acking.clear()
    await world.delete(kinds.NAMESPACE, world.tenant)
    await world.until_plan(lambda p: not p["frontends"] and p["vips"])
    await world.until_condition("Ready", "False", "Withdrawing")
    world.acking |= set(world.nodes)
    await world.until_no_plan()
    await world.until_gone()
    async with asyncio.timeout(30):
        while await world.get(kinds.NAMESPACE, world.tenant) is not None:  # noqa: ASYNC110 - others'
            await asyncio.sleep(0.1)


async def test_a_removed_backend_drains_until_its_time(world: World) -> None:
    await world.service(drainTimeoutSeconds=2)
    await world.until_condition("Ready", "True")
    leaving = world.address("rs2")
    await world.merge(kinds.NODE, world.name("rs2"), {"metadata": {"labels": {"role": "none"}}})

    def drains(plan: dict[str, Any]) -> bool:
        return any(
            b["address"] == leaving and b.get("weight") == 0 and b.get("drainUntil")
            for b in plan["backends"]
        )

    await world.until_plan(drains)
    await world.until_plan(lambda p: leaving not in {b["address"] for b in p["backends"]})
    await world.until_plan(lambda p: p["hosts"] == [world.name("rs1")])


async def test_weight_annotations_are_honoured_and_bad_ones_told(world: World) -> None:
    await world.service()
    await world.until_condition("Ready", "True")
    rs1, rs2 = world.name("rs1"), world.name("rs2")

    async def annotate(node: str, weight: str) -> None:
        annotation = {"dsr-operator.io/weight": weight}
        await world.merge(kinds.NODE, node, {"metadata": {"annotations": annotation}})

    await annotate(rs1, "0")
    await world.until_plan(lambda p: weights(p)[world.address("rs1")] == 0)
    await annotate(rs1, "65535")
    await world.until_plan(lambda p: weights(p)[world.address("rs1")] == 65535)
    await annotate(rs2, "many")
    message = await world.until_condition("Degraded", "True", "InvalidWeight")
    assert rs2 in message
    await world.until_condition("Ready", "True")


def weights(plan: dict[str, Any]) -> dict[str, int]:
    return {b["address"]: b["weight"] for b in plan["backends"]}


async def test_a_removed_node_takes_its_backend_along(world: World) -> None:
    await world.service()
    await world.until_condition("Ready", "True")
    await world.delete(kinds.NODE, world.name("rs2"))
    await world.until_plan(lambda p: [b["node"] for b in p["backends"]] == [world.name("rs1")])


async def test_a_dead_node_is_told_and_holds_nothing_up(world: World) -> None:
    await world.service()
    await world.until_condition("Ready", "True")
    dead = world.name("rs2")
    world.renewing.discard(dead)
    world.acking.discard(dead)
    message = await world.until_condition("Degraded", "True", "NodeDown", seconds=30)
    assert dead in message
    await world.until_condition("Ready", "True")
    plan = await world.plan()
    assert plan is not None
    assert dead in {b["node"] for b in plan["backends"]}
    await world.delete(kinds.SERVICE, "web", world.namespace)
    await world.until_gone(seconds=5)


async def test_what_nodes_complain_about_is_shown(world: World) -> None:
    await world.service()
    await world.until_condition("Ready", "True")
    plan = f"{world.namespace}.web"
    conflict = {
        "plan": plan,
        "vip": world.vip(),
        "reason": "AddressConflict",
        "message": "02:00:00:00:00:99 answers for it",
    }
    await world.report("lb1", plansNotApplied={"items": [conflict]})
    message = await world.until_condition("Ready", "False", "AddressConflict")
    assert world.name("lb1") in message
    assert "02:00:00:00:00:99" in message
    sick = {
        "plan": plan,
        "address": world.address("rs1"),
        "reason": "MACNotResolved",
        "message": "no answer to ARP",
    }
    await world.report("lb1", plansNotApplied={"items": []}, unhealthyBackends={"items": [sick]})
    message = await world.until_condition("BackendsHealthy", "False", "SomeUnhealthy")
    assert world.address("rs1") in message
    assert "no answer to ARP" in message
    await world.until_condition("Ready", "True")
    await world.report("lb1", unhealthyBackends={"items": []})
    await world.until_condition("Degraded", "False")


async def test_a_quiet_cluster_is_not_written_to(world: World, operator: OperatorProcess) -> None:
    await world.service()
    await world.until_condition("Ready", "True")
    await world.until_condition("Degraded", "False")
    before = await writes(operator)
    heartbeat = {"type": "Ready", "status": "True", "reason": "t", "message": "t"}
    for number in range(5):
        status = {"conditions": [{**heartbeat, "message": f"beat {number}"}]}
        await world.merge(kinds.NODE, world.name("rs1"), {"status": status}, subresource="status")
        await world.report("rs1", announcing=number + 1)
    await world.until(
        lambda: world.get(kinds.REPORT, world.name("rs1")), lambda d: d["status"]["announcing"] == 5
    )
    await world.service("other", ports=[{"port": 81}])
    await world.until_condition("Ready", "True", name="other")
    plans, statuses = await writes(operator)
    assert plans - before[0] <= 3
    assert statuses - before[1] <= 5


async def writes(operator: OperatorProcess) -> tuple[int, int]:
    """Plans and statuses written so far."""
    _, text = await operator.get("/metrics")

    def count(what: str) -> int:
        pattern = rf'dsr_operator_writes_total{{result="done",what="{what}"}} (\S+)'
        found = re.search(pattern, text)
        return int(float(found.group(1))) if found else 0

    return count("plan"), count("status")
