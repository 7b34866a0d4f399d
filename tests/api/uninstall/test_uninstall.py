"""What the pre-delete hook does, with the real operator and the real API server.

The test plays what is not here: the Deployment's and the DaemonSet's controllers, and kubelets.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dsr_api.base import LEASE_PREFIX, WITHDRAWAL_FINALIZER
from dsr_operator import kinds
from dsr_operator.uninstall import DAEMON_SET, DEPLOYMENT

from lab.controlplane import ControlPlane
from tests.api.operator.process import OperatorProcess
from tests.api.operator.world import World, condition
from tests.chart.helm import one, template

DEPLOYED, DAEMONS = "dsr-operator", "dsr-operator-node"


async def install(world: World) -> None:
    """The chart's two workloads, in the world's own namespace."""
    chart = template()
    for kind, name in ((DEPLOYMENT, DEPLOYED), (DAEMON_SET, DAEMONS)):
        document = one(chart, kind.name, name)
        document["metadata"]["namespace"] = world.namespace
        if kind is DEPLOYMENT:
            document["spec"]["replicas"] = 1
        await world.create(kind, document, world.namespace)


async def play_deployment(world: World, operator: OperatorProcess) -> None:
    """Runs while it is to run; its status says so."""
    running = True
    while True:
        deployment = await world.client.request("GET", DEPLOYMENT.path(world.namespace, DEPLOYED))
        if running and deployment["spec"]["replicas"] == 0:
            await asyncio.to_thread(operator.stop)
            running = False
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": int(running),
        }
        await world.merge(DEPLOYMENT, DEPLOYED, {"status": status}, world.namespace, "status")
        await asyncio.sleep(0.1)


async def play_daemon_set(world: World, order: list[str], *, unclean: int = 0) -> None:
    """Pods follow the template at once, but for some nodes that do not answer."""
    while True:
        daemons = await world.client.request("GET", DAEMON_SET.path(world.namespace, DAEMONS))
        clean = daemons["spec"]["template"]["spec"].get("initContainers")
        if clean and "cleaned" not in order:
            order.append("cleaned")
        status = {
            "observedGeneration": daemons["metadata"]["generation"],
            "desiredNumberScheduled": 3,
            "currentNumberScheduled": 3,
            "updatedNumberScheduled": 3 - unclean,
            "numberAvailable": 3 - unclean,
            "numberMisscheduled": 0,
            "numberReady": 3 - unclean,
        }
        await world.merge(DAEMON_SET, DAEMONS, {"status": status}, world.namespace, "status")
        await asyncio.sleep(0.1)


async def watch_plans(world: World, order: list[str]) -> None:
    """Notes each step of the plan."""
    while True:
        plan = await world.plan()
        step = (
            "gone"
            if plan is None
            else "up"
            if plan.get("frontends")
            else "stopped"
            if plan.get("vips")
            else "withdrawn"
        )
        if step not in order:
            order.append(step)
        await asyncio.sleep(0.01)


@asynccontextmanager
async def playing(*parts: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


async def run_uninstall(plane: ControlPlane, world: World, seconds: float) -> tuple[int, str]:
    """`dsr-operator uninstall` as the hook runs it: exit code and log."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dsr_operator.main", "uninstall"),
        *(f"--kubeconfig={plane.kubeconfig}", f"--namespace={world.namespace}"),
        *(f"--deployment={DEPLOYED}", f"--daemon-set={DAEMONS}"),
        *("--identity=uninstall", f"--timeout={seconds}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_withdraws_in_order_cleans_the_nodes_and_leaves_the_users_objects(
    control_plane: ControlPlane, world: World, operator: OperatorProcess
) -> None:
    await install(world)
    await world.service()
    await world.until_condition("Ready", "True")
    spec = (await world.get(kinds.SERVICE, "web", world.namespace) or {})["spec"]
    order: list[str] = []
    async with playing(
        play_deployment(world, operator),
        play_daemon_set(world, order),
        watch_plans(world, order),
    ):
        code, said = await run_uninstall(control_plane, world, 60)
    assert code == 0, said
    assert order == ["up", "stopped", "withdrawn", "gone", "cleaned"], said

    service = await world.get(kinds.SERVICE, "web", world.namespace)
    assert service is not None
    assert service["spec"] == spec
    assert "deletionTimestamp" not in service["metadata"]
    assert WITHDRAWAL_FINALIZER not in service["metadata"].get("finalizers", ())
    assert condition(service, "Ready")["status"] == "False"
    for node in world.nodes:
        assert await world.get(kinds.REPORT, node) is None


async def test_nothing_to_do_and_twice_is_fine(control_plane: ControlPlane, world: World) -> None:
    for _ in range(2):
        code, said = await run_uninstall(control_plane, world, 20)
        assert code == 0, said
    world_leases = await world.client.request("GET", kinds.LEASE.path(world.namespace))
    names = [lease["metadata"]["name"] for lease in world_leases["items"]]
    assert [name for name in names if name.startswith(LEASE_PREFIX)] == []


async def test_says_what_is_left_when_time_is_up(
    control_plane: ControlPlane, world: World, operator: OperatorProcess
) -> None:
    await install(world)
    await world.service()
    await world.until_condition("Ready", "True")
    world.acking.clear()
    async with playing(play_deployment(world, operator), play_daemon_set(world, [])):
        code, said = await run_uninstall(control_plane, world, 8)
    assert code == 1
    assert "not finished within 8 s, in step withdraw" in said
    assert f"{world.namespace}/web" in said
