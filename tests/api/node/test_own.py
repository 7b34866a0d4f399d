"""A daemon and its own Node object, on a real API server with a real garbage collector."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from dsr_node.api import lease, watch
from dsr_node.api.access import from_kubeconfig
from dsr_node.api.client import NODES, Client, Resource, leases
from dsr_node.api.errors import NotFoundError
from dsr_node.api.lease import LeaseRenewal
from dsr_node.api.own import OwnNode
from dsr_node.api.report import Identity, NodeReporter
from dsr_node.api.watch import Watch
from dsr_node.state.report import Report

from lab.controlplane import ControlPlane
from tests.api.node.reading import beside, run, until

ANNOTATION = "dsr-operator.io/uplink"
LEASES = leases("default")
COLLECTED = 60.0
"""Seconds for the garbage collector, which looks for new kinds of objects each 30 s."""


@pytest_asyncio.fixture
async def admin(plane: ControlPlane) -> AsyncIterator[Path]:
    """Of a cluster with Nodes own1 and own2."""
    await make_nodes(plane.kubeconfig, "own1", "own2")
    yield plane.kubeconfig
    plane.start()
    await run(plane.kubeconfig, "delete", "node", "own1", "own2", "--ignore-not-found")


async def make_nodes(kubeconfig: Path, *names: str) -> None:
    for name in names:
        document = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        await run(kubeconfig, "create", "-f", "-", stdin=json.dumps(document))


@asynccontextmanager
async def own_node(kubeconfig: Path, file: Path) -> AsyncIterator[tuple[OwnNode, list[str]]]:
    """Running; and its uplinks at each call back."""
    async with Client(from_kubeconfig(kubeconfig)) as client:
        own = OwnNode(client, "own1", file)
        uplinks: list[str] = []
        async with beside(own.watch.run(), own.run(lambda: uplinks.append(own.uplink))):
            yield own, uplinks


async def test_the_annotation_is_followed_and_other_nodes_are_not_heard_of(
    admin: Path, tmp_path: Path
) -> None:
    async with own_node(admin, tmp_path / "node.json") as (own, uplinks):
        await own.settled()
        assert own.uplink == ""
        await run(admin, "annotate", "node", "own2", f"{ANNOTATION}=eth9")
        await run(admin, "annotate", "node", "own1", f"{ANNOTATION}=eth1")
        await until(lambda: own.uplink == "eth1")
        await run(admin, "label", "node", "own1", "a=b")
        await run(admin, "annotate", "node", "own1", f"{ANNOTATION}-")
        await until(lambda: own.uplink == "")
        assert uplinks == ["", "eth1", ""]
        assert set(own.watch.mirror.objects) == {"own1"}


async def test_an_unreadable_node_keeps_the_last_uplink_also_over_a_start(
    plane: ControlPlane, admin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "WATCH_SECONDS", (1, 1))
    file = tmp_path / "node.json"
    role = ("create", "clusterrole", "node-reader", "--verb=list,watch", "--resource=nodes")
    binding = ("create", "clusterrolebinding", "node-reader", "--clusterrole=node-reader")
    await run(admin, *role)
    await run(admin, *binding, "--user=daemon")
    await run(admin, "annotate", "node", "own1", f"{ANNOTATION}=eth1")
    daemon = plane.kubeconfig_for("daemon")
    try:
        async with own_node(daemon, file) as (own, uplinks):
            await until(lambda: own.uplink == "eth1")
            await until(file.exists)
            await run(admin, "delete", "clusterrolebinding", "node-reader")
            await until(lambda: "403" in own.watch.health.problem)
            await run(admin, "annotate", "--overwrite", "node", "own1", f"{ANNOTATION}=eth2")
            assert (own.uplink, own.present.is_set(), uplinks) == ("eth1", True, ["eth1"])
        async with own_node(daemon, file) as (own, _):
            await until(lambda: "403" in own.watch.health.problem)
            assert own.uplink == "eth1"
            await run(admin, *binding, "--user=daemon")
            await until(lambda: own.uplink == "eth2")
    finally:
        await run(admin, "delete", "clusterrole,clusterrolebinding", "node-reader")


async def test_without_an_api_server_a_start_goes_by_the_file(
    plane: ControlPlane, admin: Path, tmp_path: Path
) -> None:
    file = tmp_path / "node.json"
    await run(admin, "annotate", "node", "own1", f"{ANNOTATION}=eth1")
    async with own_node(admin, file) as (own, _):
        await until(file.exists)
    plane.kill("apiserver")
    async with own_node(admin, file) as (own, uplinks):
        await asyncio.wait_for(own.settled(), 0.5)
        assert own.uplink == "eth1"
        await asyncio.to_thread(plane.restart, "apiserver")
        await until(lambda: own.watch.listed and not own.watch.changed.is_set())
        assert uplinks == []


class Written:
    """DSRNode and Lease of own1, as the API has them."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def owners(self) -> list[str | None]:
        return [
            await self._owner(NODES, "own1"),
            await self._owner(LEASES, "dsr-node.own1"),
        ]

    async def _owner(self, resource: Resource, name: str) -> str | None:
        """The UID of the Node it belongs to; "": nobody; None: it does not exist."""
        try:
            document = await self._client.get(resource, name)
        except NotFoundError:
            return None
        references: list[dict[str, Any]] = document["metadata"].get("ownerReferences", [])
        assert all((r["kind"], r["name"]) == ("Node", "own1") for r in references)
        return "".join(reference["uid"] for reference in references)

    async def until(self, expected: list[str | None], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while await self.owners() != expected:  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0.05)


async def made_within(seconds: float, client: Client) -> set[str]:
    """DSRNodes and Leases that come into being meanwhile, be it for a moment only. (Several
    renewals are due in that time, and a write of DSRNode.)"""
    seen: set[str] = set()

    def note(item: bytes) -> None:
        seen.add(str(json.loads(item)["metadata"]["name"]))

    watches = [Watch(client, resource, note) for resource in (NODES, LEASES)]
    async with beside(*(each.run() for each in watches)):
        await until(lambda: all(each.listed for each in watches))
        before = set(seen)
        await asyncio.sleep(seconds)
        return seen - before


async def uid_of(kubeconfig: Path) -> str:
    return await run(kubeconfig, "get", "node", "own1", "-o", "jsonpath={.metadata.uid}")


async def test_dsrnode_and_lease_belong_to_the_node_go_with_it_and_follow_a_new_one(
    admin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_RENEWAL", 0.2)
    async with Client(from_kubeconfig(admin)) as client:
        own = OwnNode(client, "own1", tmp_path / "node.json")
        reporter = NodeReporter(client, "own1", Identity("6.1.0", "b", "1"), own)
        renewal = LeaseRenewal(client, "default", "own1", own, reporter.reported)
        written = Written(client)
        async with beside(reporter.run(), renewal.run()):
            reporter.report(Report(revision=1, concerns_us=True))
            await written.until(["", ""])
            async with beside(own.watch.run(), own.run(reporter.node_changed)):
                first = await uid_of(admin)
                await written.until([first, first])

                await run(admin, "delete", "node", "own1")
                await written.until([None, None], COLLECTED)
                reporter.report(Report(revision=2, concerns_us=True))
                assert not await made_within(1.5, client)
                assert await written.owners() == [None, None]

                await make_nodes(admin, "own1")
                second = await uid_of(admin)
                assert second != first
                await written.until([second, second])
                node = await client.get(NODES, "own1")
                assert node["status"]["appliedRevision"] == 2
