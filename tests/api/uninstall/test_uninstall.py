"""What the pre-delete hook does, with the real operator and the real API server.

The test plays what is not here: the Deployment's and the DaemonSet's controllers, and kubelets.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import yaml
from dsr_api.base import LEASE_PREFIX, WITHDRAWAL_FINALIZER
from dsr_operator import kinds, uninstall
from dsr_operator.uninstall import DAEMON_SET, DEPLOYMENT

from lab.controlplane import ControlPlane
from tests.api.kubectl import kubectl
from tests.api.operator.process import OperatorProcess
from tests.api.operator.world import Json, World, condition
from tests.chart.helm import one, template

DEPLOYED, DAEMONS, HOOK = "dsr-operator", "dsr-operator-node", "dsr-operator-uninstall"


@pytest.fixture
def chart(control_plane: ControlPlane, world: World) -> Iterator[list[Json]]:
    """The chart in the world's namespace, its workloads and the hook's rights applied."""
    rendered = template(namespace=world.namespace)
    for deployment in (d for d in rendered if d["kind"] == "Deployment"):
        deployment["spec"]["replicas"] = 1
    rights = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    applied = [d for d in rendered if d["kind"] in ("Deployment", "DaemonSet", *rights)]
    config, stdin = control_plane.kubeconfig, yaml.safe_dump_all(applied)
    kubectl(config, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=stdin)
    yield rendered
    kubectl(config, "delete", "--ignore-not-found", "-f", "-", stdin=stdin)


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


async def run_hook(plane: ControlPlane, world: World, chart: list[Json]) -> tuple[int, str]:
    """What the hook's Job runs, under the hook's own rights: exit code and log."""
    job = one(chart, "Job")["spec"]["template"]["spec"]
    (container,) = job["containers"]
    account = job["serviceAccountName"]
    token = kubectl(plane.kubeconfig, "create", "token", "-n", world.namespace, account).strip()
    environment = {
        **os.environ,
        "KUBECONFIG": str(plane.token_kubeconfig(f"hook-{world.namespace}", token)),
        "POD_NAME": "hook",
        "POD_NAMESPACE": world.namespace,
    }
    command: list[str] = container["command"] + container["args"]
    assert command[0] == "dsr-operator"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dsr_operator.main", *command[1:]),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_withdraws_in_order_cleans_the_nodes_and_leaves_the_users_objects(
    control_plane: ControlPlane, world: World, operator: OperatorProcess, chart: list[Json]
) -> None:
    await world.service()
    await world.until_condition("Ready", "True")
    spec = (await world.get(kinds.SERVICE, "web", world.namespace) or {})["spec"]
    order: list[str] = []
    async with playing(
        play_deployment(world, operator),
        play_daemon_set(world, order),
        watch_plans(world, order),
    ):
        code, said = await run_hook(control_plane, world, chart)
    assert code == 0, said
    assert order == ["up", "stopped", "withdrawn", "gone", "cleaned"], said

    service = await world.get(kinds.SERVICE, "web", world.namespace)
    assert service is not None
    assert service["spec"] == spec
    assert "deletionTimestamp" not in service["metadata"]
    assert WITHDRAWAL_FINALIZER not in service["metadata"].get("finalizers", ())
    ready = condition(service, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Uninstalled")
    assert "vips" not in service["status"]
    for node in world.nodes:
        assert await world.get(kinds.REPORT, node) is None


async def test_twice_is_fine_and_so_is_nothing_to_do(
    control_plane: ControlPlane, world: World, chart: list[Json]
) -> None:
    for kind, name in ((DEPLOYMENT, DEPLOYED), (DAEMON_SET, DAEMONS)):
        await world.delete(kind, name, world.namespace)
    for _ in range(2):
        code, said = await run_hook(control_plane, world, chart)
        assert code == 0, said
    leases = await world.client.request("GET", kinds.LEASE.path(world.namespace))
    names = [lease["metadata"]["name"] for lease in leases["items"]]
    assert [name for name in names if name.startswith(LEASE_PREFIX)] == []


async def test_says_what_is_left_when_time_is_up(
    control_plane: ControlPlane, world: World, operator: OperatorProcess, chart: list[Json]
) -> None:
    await world.service()
    await world.until_condition("Ready", "True")
    world.acking.clear()
    (container,) = one(chart, "Job")["spec"]["template"]["spec"]["containers"]
    container["args"].append("--timeout=8")
    async with playing(play_deployment(world, operator), play_daemon_set(world, [])):
        code, said = await run_hook(control_plane, world, chart)
    assert code == 1
    assert "not finished within 8 s, in step withdraw" in said
    assert f"{world.namespace}/web" in said


async def test_a_node_that_is_down_is_named_and_holds_nothing_up(
    world: World,
    chart: list[Json],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(uninstall, "PATIENCE", 1.0)
    labels = one(chart, "DaemonSet")["spec"]["template"]["metadata"]["labels"]
    containers = [{"name": "node", "image": "none"}]
    pod = {
        "metadata": {"name": "silent", "labels": labels},
        "spec": {"nodeName": world.name("rs1"), "containers": containers},
    }
    await world.create(uninstall.POD, pod, world.namespace)
    installation = uninstall.Installation(world.namespace, DEPLOYED, DAEMONS, "test")
    async with playing(play_daemon_set(world, [], unclean=1)):
        await uninstall.clean_nodes(world.client, installation)
    assert f"were not cleaned: {world.name('rs1')}; reboot them" in caplog.text
