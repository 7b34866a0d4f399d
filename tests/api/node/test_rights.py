"""The chart's rights for a daemon are what it needs, and other nodes' objects are out of reach."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest
from dsr_node.api.access import from_kubeconfig
from dsr_node.api.client import CRDS, NODES, PLANS, Client, OwnerReference, core_node, leases
from dsr_node.api.errors import ApiError, ForbiddenError
from dsr_node.source.api import PLAN_CRD

from lab.controlplane import ControlPlane, ensure_binaries
from tests.api.node.reading import run

CHART = Path(__file__).resolve().parents[3] / "charts" / "dsr-operator"
NAMESPACE = "dsr-operator"
TEMPLATES = ("rbac-node.yaml", "serviceaccounts.yaml", "admissionpolicy.yaml")


def rendered() -> str:
    helm = str(ensure_binaries(print).helm)
    only = [part for name in TEMPLATES for part in ("--show-only", f"templates/{name}")]
    command = [helm, "template", "dsr-operator", str(CHART), "--namespace", NAMESPACE, *only]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def token_of(plane: ControlPlane, node: str) -> Path:
    admin = plane.kubeconfig
    document = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}
    await run(admin, "apply", "-f", "-", stdin=json.dumps(document))
    accounts = await run(admin, "-n", NAMESPACE, "get", "serviceaccounts", "-o", "name")
    (account,) = [a.split("/")[1] for a in accounts.split() if a.endswith("-node")]
    bound = ("--bound-object-kind", "Node", "--bound-object-name", node)
    token = await run(admin, "-n", NAMESPACE, "create", "token", account, *bound)
    return plane.token_kubeconfig(f"daemon-{node}", token.strip())


async def test_a_daemon_under_the_charts_rights(plane: ControlPlane) -> None:
    admin = plane.kubeconfig
    await run(admin, "create", "namespace", NAMESPACE)
    await run(admin, "apply", "-f", "-", stdin=await asyncio.to_thread(rendered))
    async with Client(from_kubeconfig(await token_of(plane, "lb1"))) as client:
        listing = await client.list(PLANS)
        async with client.watch(PLANS, str(listing.revision), 1):
            pass
        await client.get(CRDS, PLAN_CRD)
        nodes = await client.list(core_node("lb1"))
        async with client.watch(core_node("lb1"), str(nodes.revision), 1):
            pass
        uid = (await client.get(core_node("lb1"), "lb1"))["metadata"]["uid"]
        owners = (OwnerReference("v1", "Node", "lb1", uid),)
        await client.apply(NODES, "lb1", {}, owners=owners)
        await client.apply(NODES, "lb1", {"status": {"appliedRevision": 1}}, "status")
        spec = {"holderIdentity": "lb1"}
        own_lease = (leases(NAMESPACE), "dsr-node.lb1", {"spec": spec})
        await client.apply(*own_lease, owners=owners)
        await client.list(leases(NAMESPACE))
        async with asyncio.timeout(10):  # a policy is in force some moments after it is written
            while not await refused(client, "lb2"):  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0.1)
        with pytest.raises(ForbiddenError, match="lb2"):
            await client.apply(leases(NAMESPACE), "dsr-node.lb2", {"spec": {}})
        await client.apply(*own_lease)
        await client.apply(*own_lease, owners=owners)
        with pytest.raises(ForbiddenError):
            await client.apply(PLANS, "shop.web", {"spec": {}})
        with pytest.raises(ForbiddenError):
            await client.apply(core_node("lb1"), "lb1", {"spec": {"unschedulable": True}})


async def refused(client: Client, node: str) -> bool:
    try:
        await client.apply(NODES, node, {})
    except ApiError as error:
        return isinstance(error, ForbiddenError)
    return False
