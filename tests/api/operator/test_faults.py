"""What breaks around the operator, and the operator itself."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from dsr_api.plan import DSRPlanSpec, PlanService
from dsr_operator import kinds
from dsr_operator.cache import Cache
from dsr_operator.client import ApiError
from dsr_operator.metrics import Metrics
from dsr_operator.writes import Writer

from lab.controlplane import ControlPlane
from tests.api.conftest import CRDS
from tests.api.kubectl import kubectl
from tests.api.operator.process import OperatorProcess
from tests.api.operator.world import World


async def test_a_killed_operator_finishes_the_withdrawal_when_it_is_back(
    world: World, operator: OperatorProcess
) -> None:
    await world.service()
    await world.until_condition("Ready", "True")
    world.acking.clear()
    await world.delete(kinds.SERVICE, "web", world.namespace)
    await world.until_plan(lambda p: not p["frontends"])
    operator.kill()
    operator.start()
    await operator.ready()
    plan = await world.plan()
    assert plan is not None
    assert plan["vips"]
    world.acking |= set(world.nodes)
    await world.until_no_plan()
    await world.until_gone()


async def test_a_plan_without_its_service_is_withdrawn(
    world: World, operator: OperatorProcess
) -> None:
    await world.service()
    await world.until_condition("Ready", "True")
    operator.kill()
    await world.merge(kinds.SERVICE, "web", {"metadata": {"finalizers": None}}, world.namespace)
    await world.delete(kinds.SERVICE, "web", world.namespace)
    await world.until_gone()
    world.acking.clear()
    operator.start()
    await operator.ready()
    await world.until_plan(lambda p: not p["frontends"] and p.get("vips"))
    world.acking |= set(world.nodes)
    await world.until_no_plan()


async def test_nothing_changes_while_the_operator_is_away_or_comes_back(
    world: World, operator: OperatorProcess
) -> None:
    await world.service()
    await world.until_condition("Ready", "True")
    before = await world.plan()
    operator.kill()
    operator.start()
    await operator.ready()
    await world.service("other", ports=[{"port": 81}])
    await world.until_condition("Ready", "True", name="other")
    assert await world.plan() == before


async def test_another_replica_takes_over(
    world: World, operator: OperatorProcess, control_plane: ControlPlane, tmp_path: Path
) -> None:
    second = OperatorProcess(control_plane.kubeconfig, world.namespace, tmp_path / "second.log")
    second.start()
    try:
        await second.printed("listening on port")
        assert operator.stop() == 0
        await second.printed("reconciling: ", seconds=10)
        await world.service()
        await world.until_condition("Ready", "True")
    finally:
        second.stop()


async def test_a_replica_waits_for_the_lease_of_a_killed_leader(
    world: World, operator: OperatorProcess, control_plane: ControlPlane, tmp_path: Path
) -> None:
    second = OperatorProcess(control_plane.kubeconfig, world.namespace, tmp_path / "second.log")
    second.start()
    try:
        await second.printed("listening on port")
        operator.kill()
        await world.service()
        await second.printed("reconciling: ", seconds=30)
        await world.until_condition("Ready", "True")
    finally:
        second.stop()


async def test_who_loses_the_lease_ends(world: World, operator: OperatorProcess) -> None:
    lease = {"spec": {"holderIdentity": "somebody-else"}}
    await world.merge(kinds.LEASE, "dsr-operator", lease, world.namespace)
    assert await operator.wait(15) == 1
    assert "somebody-else leads now" in operator.log
    operator.start()


async def test_a_plan_changed_by_hand_is_put_right(world: World, operator: OperatorProcess) -> None:
    await world.service()
    await world.until_condition("Ready", "True")
    await world.merge(kinds.PLAN, f"{world.namespace}.web", {"spec": {"announcement": "None"}})
    await world.until_plan(lambda p: p["announcement"] == "L2")


async def test_a_plan_made_too_late_overwrites_nobodys(world: World) -> None:
    cache = Cache(lambda _: None, time.monotonic)
    writer = Writer(world.client, cache, Metrics(), lambda: True)
    service = PlanService(namespace=world.namespace, name="web")
    full = DSRPlanSpec(service=service, vips=(world.vip(),), hosts=(world.name("rs1"),))
    await writer.apply_plan(full, None)
    with pytest.raises(ApiError, match="AlreadyExists"):
        await writer.apply_plan(DSRPlanSpec(service=service), None)
    assert (await world.plan() or {})["vips"] == [world.vip()]
    # What the creation owns does not outlast what is applied.
    await writer.apply_plan(DSRPlanSpec(service=service), cache.plans[f"{world.namespace}.web"])
    assert (await world.plan() or {})["vips"] == []
    await world.delete(kinds.PLAN, f"{world.namespace}.web")


async def test_health_pages_mean_something(world: World, operator: OperatorProcess) -> None:
    assert await operator.get("/healthz") == (200, "ok\n")
    assert await operator.get("/readyz") == (200, "ok\n")
    await world.service()
    await world.until_condition("Ready", "True")
    status, text = await operator.get("/metrics")
    assert status == 200
    assert "dsr_operator_is_leader 1.0" in text
    assert 'dsr_operator_writes_total{result="done",what="plan"}' in text


async def test_missing_crds_and_a_killed_api_server(
    own_plane: ControlPlane, tmp_path: Path
) -> None:
    process = OperatorProcess(own_plane.kubeconfig, "default", tmp_path / "operator.log")
    process.start()
    try:
        await process.printed("does not serve dsrservices.dsr-operator.io.*install")
        status, text = await process.get("/readyz")
        assert status == 503
        assert "DSRService" in text
        await asyncio.to_thread(kubectl, own_plane.kubeconfig, "apply", "-f", str(CRDS))
        await process.ready()
        process.stop()
        async with World.made() as world:
            await survive_a_killed_api_server(world, own_plane, tmp_path)
    finally:
        process.stop()


async def survive_a_killed_api_server(world: World, plane: ControlPlane, folder: Path) -> None:
    process = OperatorProcess(plane.kubeconfig, world.namespace, folder / "second.log")
    process.start()
    try:
        await process.ready()
        await world.service()
        await world.until_condition("Ready", "True")
        before = await world.plan()
        plane.kill("apiserver")
        # Longer than a Lease lasts, longer than a leader may go without renewing.
        await asyncio.sleep(20)
        assert await process.wait(1) == 1
        process.start()
        await process.printed("listening on port")
        await asyncio.to_thread(plane.restart, "apiserver")
        await process.ready()
        await world.service("other", ports=[{"port": 81}])
        await world.until_condition("Ready", "True", name="other")
        assert await world.plan() == before
        assert "is down" not in process.log
    finally:
        process.stop()
