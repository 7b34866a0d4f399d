"""One operator with many services, on a real API server, with simulated daemons. See scale.py."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
from dsr_api.base import LEASE_DURATION, LEASE_PREFIX
from dsr_api.service import DSRService
from dsr_node.api.access import from_kubeconfig
from dsr_node.api.client import NODES, PLANS, Client, leases
from dsr_node.api.watch import Watch

from bench import process
from bench.labs import SERVICES, apply_pool, apply_services
from lab import chart, cluster_objects, names, network
from lab.api import Api
from lab.cluster import binaries
from lab.controlplane import ControlPlane
from lab.errors import LabError

CRDS = chart.ROOT / "crds"
LBS = 2
START_SECONDS = 300.0
ACK_PERIOD = 1.0
"""Seconds between two writes of a DSRNode, as dsr-node has it."""


@dataclass(frozen=True)
class OperatorScale:
    """What the operator took. Times in seconds from the start of the process, memory in MB.

    `all_ready`: from nothing until all services are Ready, daemons acknowledging once a second.
    `restarted`: an operator that takes over has looked at each service once. Each with its CPU time
    by then, which a busy machine does not change much.
    """

    all_ready: float
    all_ready_cpu: float
    restarted: float
    cpu: float
    idle_percent: float
    memory: process.Memory


class Daemons:
    """The API side of node daemons that carry everything out at once."""

    def __init__(self, client: Client, api: Api, backends: int) -> None:
        self._client = client
        self._api = api
        self._members = [m for m in names.members(LBS, backends) if m.in_cluster]
        self._plans = Watch(client, PLANS, lambda _: None)

    async def run(self) -> None:
        """Until cancelled."""
        for member in self._members:
            await asyncio.to_thread(cluster_objects.register, self._api, member)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._plans.run())
            group.create_task(self._beat())
            for member in self._members:
                group.create_task(self._acknowledge(member.name))

    async def _acknowledge(self, node: str) -> None:
        told = -1
        await self._client.apply(NODES, node, {})
        while True:
            revision = self._plans.mirror.revision
            if self._plans.listed and revision != told:
                status = {"appliedRevision": revision, "kernel": "simulated"}
                await self._client.apply(NODES, node, {"status": status}, "status")
                told = revision
            await asyncio.sleep(ACK_PERIOD)

    async def _beat(self) -> None:
        while True:
            for member in self._members:
                spec = {
                    "holderIdentity": member.name,
                    "leaseDurationSeconds": LEASE_DURATION,
                    "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                }
                lease = leases(chart.NAMESPACE)
                await self._client.apply(lease, LEASE_PREFIX + member.name, {"spec": spec})
                await asyncio.to_thread(cluster_objects.keep, self._api, member)
            await asyncio.sleep(5)


class Operator:
    """`dsr-operator run`."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self._log = log
        entry_point = Path(sys.executable).parent / "dsr-operator"
        self._argv = [str(entry_point), "run", f"--kubeconfig={kubeconfig}"]
        self._argv += [f"--namespace={chart.NAMESPACE}", "--listen=127.0.0.1:0"]

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """From its start to its end, by SIGTERM."""
        with self._log.open("wb") as file, subprocess.Popen(self._argv, stderr=file) as running:
            try:
                yield running
            finally:
                running.send_signal(signal.SIGTERM)

    def require(self, running: subprocess.Popen[bytes]) -> None:
        """Raise LabError, with its last words, if it has ended."""
        if running.poll() is not None:
            words = self._log.read_text().splitlines()[-3:]
            raise LabError("the operator has ended: " + "\n".join(words))

    def looks(self) -> float:
        """How many times it has looked at a service; 0 before it listens."""
        found = re.search(r"listening on port (\d+)", self._log.read_text())
        if found is None:
            return 0.0
        url = f"http://127.0.0.1:{found[1]}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        count = re.search(r"^dsr_operator_reconcile_seconds_count (\S+)$", text, re.MULTILINE)
        return float(count[1]) if count else 0.0


@contextmanager
def control_plane() -> Iterator[tuple[ControlPlane, Path]]:
    """A control plane with our CRDs, and a directory beside it."""
    directory = Path(tempfile.mkdtemp(prefix="dsr-bench-scale-"))
    plane = ControlPlane(directory / "control-plane")
    kubectl = [str(binaries().kubectl), f"--kubeconfig={plane.kubeconfig}"]
    try:
        plane.start()
        network.run([*kubectl, "apply", "--server-side", "-f", str(CRDS)])
        network.run([*kubectl, "wait", "--for=condition=Established", "crd", "--all"])
        network.run([*kubectl, "create", "namespace", chart.NAMESPACE])
        yield plane, directory
    finally:
        plane.stop()
        shutil.rmtree(directory)


@asynccontextmanager
async def _cluster(plane: ControlPlane, backends: int) -> AsyncIterator[Client]:
    """A client of a cluster with live daemons."""
    async with Client(from_kubeconfig(plane.kubeconfig)) as client:
        daemons = asyncio.create_task(Daemons(client, Api(plane.kubeconfig), backends).run())
        try:
            yield client
        finally:
            daemons.cancel()
            await asyncio.wait([daemons])


def measure(count: int, backends: int, idle_seconds: float) -> OperatorScale:
    """One operator with `count` services of `backends` each. Raises LabError."""
    with control_plane() as (plane, directory):
        operator = Operator(plane.kubeconfig, directory / "operator.log")
        return asyncio.run(_measure(plane, operator, count, backends, idle_seconds))


async def _measure(
    plane: ControlPlane, operator: Operator, count: int, backends: int, idle_seconds: float
) -> OperatorScale:
    async with _cluster(plane, backends) as client:
        await apply_pool(client, ["10.78.0.0/16"])
        await apply_services(client, {f"s{n}": _vip(n) for n in range(count)})
        with operator.running() as running:
            all_ready = await _until_all_ready(client, count, partial(operator.require, running))
            all_ready_cpu = process.cpu_seconds(running.pid)
        with operator.running() as running:
            restarted = await _until_looked_at(operator, count, partial(operator.require, running))
            cpu = process.cpu_seconds(running.pid)
            await asyncio.sleep(10)  # gauges, audit: what a start brings along is over
            idle = await asyncio.to_thread(process.idle_percent, running.pid, idle_seconds)
            memory = process.memory(running.pid)
            return OperatorScale(all_ready, all_ready_cpu, restarted, cpu, idle, memory)


def _vip(number: int) -> str:
    return f"10.78.{1 + number // 250}.{1 + number % 250}"


def _is_ready(document: bytes) -> bool:
    service = msgspec.json.decode(document, type=DSRService)
    return any(c.type == "Ready" and c.status == "True" for c in service.status.conditions)


async def _until_all_ready(client: Client, count: int, require: Callable[[], None]) -> float:
    began = time.monotonic()
    services = Watch(client, SERVICES, _is_ready)
    following = asyncio.create_task(services.run())
    try:
        while (ready := sum(services.mirror.objects.values())) < count:
            if time.monotonic() - began > START_SECONDS:
                raise LabError(f"{ready} of {count} services are Ready in {START_SECONDS:.0f} s")
            require()
            await asyncio.sleep(0.1)
    finally:
        following.cancel()
    return time.monotonic() - began


async def _until_looked_at(operator: Operator, count: int, require: Callable[[], None]) -> float:
    began = time.monotonic()
    while (looks := await asyncio.to_thread(operator.looks)) < count:
        if time.monotonic() - began > START_SECONDS:
            raise LabError(f"the operator has looked {looks:.0f} times at {count} services")
        require()
        await asyncio.sleep(0.05)
    return time.monotonic() - began
