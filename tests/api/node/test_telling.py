"""What a daemon writes: its Lease and its DSRNode."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import msgspec
import pytest
from dsr_api.node import DSRNode, PlanNotApplied
from dsr_node.api import lease, peers
from dsr_node.api.access import from_kubeconfig
from dsr_node.api.client import NODES, Client, leases
from dsr_node.api.lease import LeaseRenewal
from dsr_node.api.own import OwnNode
from dsr_node.api.peers import Peers
from dsr_node.api.report import Identity, NodeReporter
from dsr_node.api.watch import Watch
from dsr_node.state.report import Report

from lab.controlplane import ControlPlane
from tests.api.node.reading import beside, run, until

ME = Identity(kernel="6.1.0", boot_id="b", daemon_version="1")


def not_read(client: Client, directory: Path) -> OwnNode:
    """A Node of which nothing is known yet."""
    return OwnNode(client, "lb1", directory / "node.json")


@pytest.fixture
def quick_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_RENEWAL", 0.2)
    monkeypatch.setattr(peers, "LEASE_DURATION", 1.0)
    monkeypatch.setattr(peers, "OWN_SILENCE", 0.7)
    monkeypatch.setattr(peers, "LOOK", 0.05)


async def test_the_lease_is_made_renewed_and_made_again(
    plane: ControlPlane, quick_leases: None, tmp_path: Path
) -> None:
    admin = plane.kubeconfig
    async with Client(from_kubeconfig(admin)) as client:
        reporter = NodeReporter(client, "lb1", ME, not_read(client, tmp_path))
        renewal = LeaseRenewal(
            client, "default", "lb1", not_read(client, tmp_path), reporter.reported
        )
        async with beside(renewal.run(), reporter.run()):
            await asyncio.sleep(0.5)  # what must not happen in this time is a renewal
            assert renewal.renewed_at is None, "nothing has been reported yet"
            reporter.report(Report(revision=7))
            await until(lambda: renewal.renewed_at)
            status = (await client.get(NODES, "lb1"))["status"]
            assert status["appliedRevision"] == 7
            first = await client.get(leases("default"), "dsr-node.lb1")
            assert first["spec"]["holderIdentity"] == "lb1"
            assert first["spec"]["leaseDurationSeconds"] == 15
            before = renewal.renewed_at
            await until(lambda: renewal.renewed_at != before)
            second = await client.get(leases("default"), "dsr-node.lb1")
            assert second["spec"]["renewTime"] > first["spec"]["renewTime"]
            await run(admin, "delete", "lease", "dsr-node.lb1")
            before = renewal.renewed_at
            await until(lambda: renewal.renewed_at != before)
            await client.get(leases("default"), "dsr-node.lb1")
    await run(admin, "delete", "lease", "dsr-node.lb1")
    await run(admin, "delete", "dsrnode", "lb1")


async def test_a_silent_peer_is_stale_and_no_outage_makes_one(
    plane: ControlPlane, quick_leases: None, tmp_path: Path
) -> None:
    admin = plane.kubeconfig
    changes: list[frozenset[str]] = []
    async with Client(from_kubeconfig(admin)) as client:
        node = not_read(client, tmp_path)
        reported = asyncio.Event()
        reported.set()
        own, peer = (
            LeaseRenewal(client, "default", name, node, reported) for name in ("lb1", "lb2")
        )
        seen = Peers(client, "default", "lb1")
        async with beside(
            own.run(), seen.watch.run(), seen.run(lambda: changes.append(seen.stale))
        ):
            async with beside(peer.run()):
                await until(lambda: len(seen.watch.mirror.objects) == 2)
                plane.kill("apiserver")
                await asyncio.to_thread(plane.restart, "apiserver")
                await until(lambda: not seen.watch.health.problem)
                began = own.renewed_at
                await until(lambda: own.renewed_at and began and own.renewed_at > began + 1.5)
                assert changes == []
            await until(lambda: seen.stale)
            assert seen.stale == {"lb2"}
            async with beside(peer.run()):
                await until(lambda: not seen.stale)
    assert changes == [frozenset({"lb2"}), frozenset()]
    await run(admin, "delete", "lease", "dsr-node.lb1", "dsr-node.lb2")


def decoded(item: bytes) -> DSRNode:
    return msgspec.json.decode(item, type=DSRNode)


async def test_dsrnode_is_made_and_written_once_a_second_at_most(
    plane: ControlPlane, tmp_path: Path
) -> None:
    admin = plane.kubeconfig
    loop = asyncio.get_running_loop()
    async with Client(from_kubeconfig(admin)) as client:
        reporter = NodeReporter(client, "lb1", ME, not_read(client, tmp_path))
        nodes = Watch(client, NODES, decoded)
        writes: list[tuple[float, int]] = []

        async def record() -> None:
            while True:
                await nodes.changed.wait()
                nodes.changed.clear()
                if node := nodes.mirror.objects.get("lb1"):
                    writes.append((loop.time(), node.status.applied_revision))

        async with beside(nodes.run(), record(), reporter.run()):
            await until(lambda: nodes.listed)
            began = loop.time()
            for revision in range(1, 41):
                reporter.report(Report(revision=revision, concerns_us=True))
                await asyncio.sleep(0.05)
            await until(lambda: writes and writes[-1][1] == 40)
            statuses = [(at, revision) for at, revision in writes if revision]
            assert statuses[0][0] - began < 0.5, "the first one is immediate"
            assert len(statuses) <= 4
            gaps = [b[0] - a[0] for a, b in itertools.pairwise(statuses)]
            assert all(gap > 0.8 for gap in gaps)

            version = (await client.get(NODES, "lb1"))["metadata"]["resourceVersion"]
            reporter.report(Report(revision=40, concerns_us=True))
            await asyncio.sleep(1.5)
            assert (await client.get(NODES, "lb1"))["metadata"]["resourceVersion"] == version

            await run(admin, "delete", "dsrnode", "lb1")
            problem = PlanNotApplied("shop.web", "NoUplink", "none")
            reporter.report(Report(revision=40, problems=(problem,)))
            await until(lambda: "lb1" in nodes.mirror.objects and writes[-1][1] == 40)
            written = json.loads(await run(admin, "get", "dsrnode", "lb1", "-o", "json"))
            assert written["status"]["plansNotApplied"]["items"][0]["plan"] == "shop.web"
            assert written["status"]["bootID"] == "b"
