"""One node daemon with many services, in a machine of its own. See scale.py."""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM

from dsr_api.base import API_VERSION, Metadata, encode
from dsr_api.plan import Director, DSRPlan, DSRPlanSpec, Frontend, PlanBackend, PlanService
from dsr_node.config import Config

from bench import process
from lab import network
from lab.errors import LabError
from lab.namespaces import Namespaces
from lab.observe import until

NODE, DAEMON = "lb1", "dsr-node"
PORT = 9787
SEGMENT = ipaddress.ip_network("10.79.0.0/16")
VIPS, REAL_SERVERS, OWN = 0x0100, 0xFE00, 0xFFFE
"""Offsets in the segment."""
MACHINES = 100
"""Real servers; each service has some of them."""
START_SECONDS = 120.0


@dataclass(frozen=True)
class NodeScale:
    """What a daemon took. Times in seconds from the start of the process, memory in MB.

    `ready`: all plans are in the kernel; `cpu`: its CPU time by then, which a busy machine does not
    change much. `announced`: all VIPs are. `restarted`: ready again after SIGTERM and a new start,
    with the maps still there.
    """

    ready: float
    cpu: float
    announced: float
    restarted: float
    idle_percent: float
    memory: process.Memory
    maps: float


def plan(number: int, backends: int) -> DSRPlan:
    """Service `number`, with one VIP."""
    vip = str(SEGMENT[VIPS + number])
    servers = {(number + step * 7) % MACHINES for step in range(backends)}
    return DSRPlan(
        metadata=Metadata(name=f"bench.{number}", resource_version="1"),
        spec=DSRPlanSpec(
            service=PlanService(namespace="bench", name=str(number)),
            vips=(vip,),
            frontends=(Frontend(vip=vip, protocol="TCP", port=80),),
            directors=(Director(node=NODE, addresses=(str(SEGMENT[OWN]),)),),
            backends=tuple(PlanBackend(address=str(SEGMENT[REAL_SERVERS + s])) for s in servers),
            hash_seed=f"{number:016x}",
        ),
    )


def write_plans(directory: Path, count: int, backends: int) -> None:
    """A file a plan, as JSON, which is what YAML readers read fastest."""
    directory.mkdir()
    for number in range(count):
        document = {"apiVersion": API_VERSION, "kind": "DSRPlan", **encode(plan(number, backends))}
        (directory / f"{number}.json").write_text(json.dumps(document))


@contextmanager
def machines() -> Iterator[tuple[Namespaces, Path]]:
    """An LB node on a cable to one machine that has the addresses of all real servers."""
    directory = Path(tempfile.mkdtemp(prefix="dsr-bench-scale-"))
    node, servers = (Namespaces(name, directory / name) for name in (NODE, "servers"))
    try:
        for each in (node, servers):
            each.start()
        network.ip_batch(
            None, f"link add eth0 netns {node.pid} type veth peer name eth0 netns {servers.pid}"
        )
        length = SEGMENT.prefixlen
        addresses = [SEGMENT[REAL_SERVERS + number] for number in range(MACHINES)]
        up = "link set eth0 up"
        network.ip_batch(node, f"addr add {SEGMENT[OWN]}/{length} dev eth0", up)
        network.ip_batch(servers, *(f"addr add {a}/{length} dev eth0" for a in addresses), up)
        yield node, directory
    finally:
        for each in (node, servers):
            each.kill()
            each.await_end()
        shutil.rmtree(directory)


class Daemon:
    """dsr-node on the machine, with plans from a directory."""

    def __init__(self, machine: Namespaces, plans: Path) -> None:
        self._machine = machine
        entry_point = Path(sys.executable).parent / DAEMON
        self._argv = [str(entry_point), f"--plans={plans}", f"--node-name={NODE}"]

    @property
    def pid(self) -> int:
        """Raises LabError, with its last words, if it has ended."""
        daemon = self._machine.daemon(DAEMON)
        pid = daemon.pid()
        if pid is None:
            raise LabError(f"dsr-node has ended: {daemon.tail(5)}")
        return pid

    def start(self, count: int) -> float:
        """Start it; seconds until it has carried out so many plans."""
        began = time.monotonic()
        self._machine.start_daemon(DAEMON, self._argv, {})
        until(f"{count} plans are carried out", lambda: self._ready(count), START_SECONDS)
        return time.monotonic() - began

    def stop(self) -> None:
        """SIGTERM; the kernel stays as it is."""
        daemon = self._machine.daemon(DAEMON)
        daemon.send(SIGTERM)
        if not daemon.wait(10):
            raise LabError("dsr-node does not end by SIGTERM")

    def metric(self, name: str) -> float:
        """The value of a metric, given with its labels."""
        _, text = self._get("/metrics")
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        if found is None:
            raise LabError(f"dsr-node has no metric {name}")
        return float(found[1])

    def _ready(self, count: int) -> bool:
        assert self.pid
        try:
            status, text = self._get("/readyz")
        except OSError:
            return False  # it does not listen yet
        return status == http.HTTPStatus.OK and text.startswith(f"{count} plans carried out")

    def _get(self, path: str) -> tuple[int, str]:
        with self._machine.entered():
            connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            finally:
                connection.close()


def map_megabytes(machine: Namespaces) -> float:
    """Kernel memory of all maps that are pinned on the machine."""
    argv = ["bpftool", "--json", "--bpffs", "map", "show"]
    maps = json.loads(network.run(machine.enter_all(argv)))
    sizes: list[int] = [
        each["bytes_memlock"]
        for each in maps
        if any(pin.startswith(f"{Config.bpffs}/") for pin in each.get("pinned", ()))
    ]
    return sum(sizes) / process.MEGABYTE


def measure(count: int, backends: int, idle_seconds: float) -> NodeScale:
    """One daemon with `count` services of `backends` each. Raises LabError."""
    with machines() as (machine, directory):
        plans = directory / "plans"
        write_plans(plans, count, backends)
        daemon = Daemon(machine, plans)
        began = time.monotonic()
        ready = daemon.start(count)
        cpu = process.cpu_seconds(daemon.pid)
        until(
            "all VIPs are announced",
            lambda: daemon.metric("dsr_node_announced_vips") == count,
            START_SECONDS,
        )
        announced = time.monotonic() - began
        _check(daemon, count)
        maps = map_megabytes(machine)
        daemon.stop()
        restarted = daemon.start(count)
        time.sleep(5)  # what a start brings along is over
        idle = process.idle_percent(daemon.pid, idle_seconds)
        return NodeScale(ready, cpu, announced, restarted, idle, process.memory(daemon.pid), maps)


def _check(daemon: Daemon, count: int) -> None:
    """A cold start that leaves something out is none."""
    applied = daemon.metric('dsr_node_plans{state="applied"}')
    unhealthy = daemon.metric("dsr_node_unhealthy_backends")
    if (applied, unhealthy) != (count, 0):
        raise LabError(
            f"{applied:.0f} of {count} plans applied, {unhealthy:.0f} backends unhealthy"
        )
