"""What the pre-delete hook does, with the real operator and the real API server.

The test plays what is not here: the Deployment's controller, and kubelets.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from dsr_api.base import LEASE_PREFIX, WITHDRAWAL_FINALIZER
from dsr_operator import cleaning, kinds, uninstall
from dsr_operator.cleaning import DAEMON_SET, POD
from dsr_operator.leader import RENEW_DEADLINE
from dsr_operator.patient import PatientClient
from dsr_operator.uninstall import DEPLOYMENT

from lab.controlplane import ControlPlane
from tests.api.conftest import CRDS
from tests.api.kubectl import kubectl
from tests.api.operator.process import OperatorProcess
from tests.api.operator.world import Json, World, condition
from tests.chart.helm import one, template

DEPLOYED, DAEMONS, HOOK = "dsr-operator", "dsr-operator-node", "dsr-operator-uninstall"


@pytest.fixture
def chart(control_plane: ControlPlane, world: World) -> Iterator[list[Json]]:
    """The chart in the world's namespace, its workloads and the hook's rights applied."""
    with applied(control_plane, world) as rendered:
        yield rendered


@contextmanager
def applied(plane: ControlPlane, world: World) -> Iterator[list[Json]]:
    """See chart."""
    rendered = template(namespace=world.namespace)
    for deployment in (d for d in rendered if d["kind"] == "Deployment"):
        deployment["spec"]["replicas"] = 1
    rights = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    workloads = ("Deployment", "DaemonSet", "PodTemplate")
    documents = [d for d in rendered if d["kind"] in (*workloads, *rights)]
    config, stdin = plane.kubeconfig, yaml.safe_dump_all(documents)
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


async def play_kubelets(world: World, order: list[str], down: str = "") -> None:
    """A daemon ends when its pod is deleted, what cleans succeeds; one node is down. `order` gets
    a word for each of this world's nodes."""
    while True:
        listed = await world.client.request("GET", POD.path(world.namespace))
        pods = [p for p in listed["items"] if p["spec"]["nodeName"] != down]
        served = {p["spec"]["nodeName"] for p in pods if component(p) == "node"}
        for pod in pods:
            name = pod["metadata"]["name"]
            if component(pod) == "node" and "deletionTimestamp" in pod["metadata"]:
                now = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
                await world.client.request("DELETE", POD.path(world.namespace, name), body=now)
            elif component(pod) == "cleanup" and pod["status"]["phase"] == "Pending":
                node = pod["spec"]["nodeName"]
                alone = node not in served
                # Other tests' nodes are in this cluster as well, and are cleaned with the rest.
                if node in world.nodes:
                    order.append("cleaned" if alone else "two at once")
                status = {"phase": "Succeeded" if alone else "Failed"}
                await world.merge(POD, name, {"status": status}, world.namespace, "status")
        await asyncio.sleep(0.1)


def component(pod: Json) -> str:
    return str(pod["metadata"]["labels"]["app.kubernetes.io/component"])


async def make_daemons(world: World, chart: list[Json]) -> None:
    """The pods that the DaemonSet's controller would make."""
    daemons = await world.client.request("GET", DAEMON_SET.path(world.namespace, DAEMONS))
    owner = {key: daemons["metadata"][key] for key in ("name", "uid")}
    owner |= {"apiVersion": "apps/v1", "kind": "DaemonSet"}
    template = one(chart, "DaemonSet")["spec"]["template"]
    for node in world.nodes:
        meta = {
            "name": f"daemon-{node}",
            "labels": template["metadata"]["labels"],
            "ownerReferences": [owner],
        }
        pod = {"metadata": meta, "spec": {**template["spec"], "nodeName": node}}
        await world.create(POD, pod, world.namespace)


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
    await make_daemons(world, chart)
    order: list[str] = []
    async with playing(
        play_deployment(world, operator),
        play_kubelets(world, order),
        watch_plans(world, order),
    ):
        code, said = await run_hook(control_plane, world, chart)
    assert code == 0, said
    assert order == ["up", "stopped", "withdrawn", "gone", *["cleaned"] * 3], said

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
    async with playing(play_kubelets(world, [])):
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
    async with playing(play_deployment(world, operator), play_kubelets(world, [])):
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
    monkeypatch.setattr(cleaning, "PATIENCE", 3.0)
    await make_daemons(world, chart)
    down = world.name("rs1")
    client = PatientClient()
    order: list[str] = []
    try:
        async with playing(play_kubelets(world, order, down)):
            await uninstall.clean_nodes(client, installation(world))
    finally:
        await client.close()
    assert order == ["cleaned"] * 2
    assert f"were not cleaned: {down}; reboot them" in caplog.text


async def test_an_api_server_away_for_longer_than_a_leader_may_be_is_waited_for(
    own_plane: ControlPlane, tmp_path: Path
) -> None:
    await asyncio.to_thread(kubectl, own_plane.kubeconfig, "apply", "-f", str(CRDS))
    async with World.made() as world:
        operator = OperatorProcess(own_plane.kubeconfig, world.namespace, tmp_path / "operator.log")
        operator.start()
        try:
            await operator.ready()
            await world.service()
            await world.until_condition("Ready", "True")
        finally:
            operator.stop()
        with applied(own_plane, world) as chart:
            await world.delete(DEPLOYMENT, DEPLOYED, world.namespace)
            world.acking.clear()
            hook = asyncio.create_task(run_hook(own_plane, world, chart))
            await world.until_plan(lambda p: not p["frontends"])
            own_plane.kill("apiserver")
            await asyncio.sleep(RENEW_DEADLINE + 5)
            await asyncio.to_thread(own_plane.restart, "apiserver")
            world.acking |= set(world.nodes)
            async with playing(play_kubelets(world, [])):
                code, said = await hook
            assert code == 0, said
            assert "the withdrawal has failed, see the messages above; once more" in said
            assert await world.plan() is None


def installation(world: World) -> uninstall.Installation:
    return uninstall.Installation(world.namespace, DEPLOYED, DAEMONS, HOOK, "test")
