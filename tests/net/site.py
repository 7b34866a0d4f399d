"""A client, LB nodes and real servers on one segment, with the daemon as `dsr-node --plans`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import yaml
from dsr_api.base import API_VERSION, Metadata
from dsr_api.plan import Director, DSRPlan, DSRPlanSpec, Frontend, PlanBackend, PlanService

from tests.net.segment import Lan, Machine, lan, until, wire

DSR_NODE = str(Path(sys.executable).with_name("dsr-node"))
VIP4, VIP6 = "10.77.9.1", "fd77::9:1"
URLS = (f"http://{VIP4}:8080/", f"http://[{VIP6}]:8080/")
NUMBERS = {"client": 1, "lb1": 11, "lb2": 12, "rs1": 21, "rs2": 22}

_SERVER = """
import http.server, os, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = (sys.argv[1] + "\\n").encode() * int(self.path.strip("/") or 1)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 512
Server(("::", 8080), Handler).serve_forever()
"""

_LISTENING = ("ss", "-Htln", "sport", "= :8080")

_NO_REPORT: dict[str, Any] = {
    "announcing": [],
    "problems": [],
    "unhealthy": [],
    "repairs": {},
    "errors": {},
    "alarm": "",
}

_LOAD = """
import http.client, sys, time
vip, seconds = sys.argv[1], float(sys.argv[2])
end = time.monotonic() + seconds
done = failed = 0
while time.monotonic() < end:
    connection = http.client.HTTPConnection(vip, 8080, timeout=5)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
        done += 1
    except OSError as error:
        failed += 1
        print(error, file=sys.stderr)
    finally:
        connection.close()
print(done, failed)
"""


class Node:
    """A machine with a daemon and its state directory."""

    def __init__(self, machine: Machine, plans: Path, directory: Path) -> None:
        self.machine = machine
        self.state_dir = directory / f"{machine.name}-state"
        self.log = directory / f"{machine.name}.log"
        self.bpffs = "/sys/fs/bpf/dsr-operator"
        self._plans = plans
        self._process: subprocess.Popen[bytes] | None = None

    def _command(self, *options: str) -> list[str]:
        places = ("--state-dir", str(self.state_dir), "--bpffs", self.bpffs)
        name = ("--node-name", self.machine.name)
        return self.machine.command(DSR_NODE, *name, *places, *options)

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = self._command("--plans", str(self._plans))
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """The exit status. `nsenter` becomes the daemon, so this is the daemon's own pid."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(10)

    def cleanup(self) -> subprocess.CompletedProcess[str]:
        command = self._command("--cleanup")
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def state(self) -> dict[str, Any]:
        """What the daemon shows of itself."""
        shown = self.machine.run("curl", "-sf", "http://127.0.0.1:9787/state", check=False)
        found: dict[str, Any] = json.loads(shown or "{}")
        return {**found, "report": found.get("report") or _NO_REPORT}

    def announcing(self) -> list[str]:
        return list(self.state()["report"]["announcing"])

    def problems(self, reason: str) -> list[str]:
        """Their messages."""
        told = self.state()["report"]["problems"]
        return [each["message"] for each in told if each["reason"] == reason]

    def logged(self, text: str) -> bool:
        return self.log.exists() and text in self.log.read_text()


class Site:
    """All of it. Plans are files in one directory that all daemons read."""

    def __init__(self, network: Lan, directory: Path) -> None:
        self.plans = directory / "plans"
        self.plans.mkdir()
        self.machines = {name: network.machine(name, i) for name, i in NUMBERS.items()}
        self.client = self.machines["client"]
        self.nodes = {
            name: Node(machine, self.plans, directory)
            for name, machine in self.machines.items()
            if name != "client"
        }
        for name in ("rs1", "rs2"):
            self.serve(name)

    def serve(self, name: str) -> None:
        """Starts a web server that answers with its machine's name."""
        self.spawn(name, sys.executable, "-c", _SERVER, name)
        until(partial(self.machines[name].run, *_LISTENING), "a web server")

    def spawn(self, name: str, *command: str) -> subprocess.Popen[str]:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(self.machines[name].command(*command), text=True, **pipes)

    def start(self, *names: str) -> None:
        for name in names or self.nodes:
            self.nodes[name].start()

    def put(self, plan: DSRPlan) -> None:
        """Writes a plan's file as a whole."""
        document = {"apiVersion": API_VERSION, "kind": "DSRPlan", **msgspec.to_builtins(plan)}
        draft = self.plans / f".{plan.metadata.name}.draft"
        draft.write_text(yaml.safe_dump(document))
        draft.replace(self.plans / f"{plan.metadata.name}.yaml")

    def attach_foreign_program(self, machine: Machine) -> None:
        """As another product's XDP program would sit on the uplink."""
        machine.run("ip", "link", "set", "eth0", "xdp", "object", str(wire()), "section", "xdp")

    def get(self, url: str, seconds: float = 2.0) -> str:
        """What the client gets; "" for no answer."""
        curl = ("curl", "-sg", "--noproxy", "*", "--max-time", str(seconds), url)
        return self.client.run(*curl, check=False).strip()

    def answers(self, url: str) -> float:
        """Waits for the first answer; how long that took."""
        return until(lambda: self.get(url, 0.3), f"an answer from {url}")

    def load(self, seconds: float, vip: str = VIP4) -> subprocess.Popen[str]:
        return self.spawn("client", sys.executable, "-c", _LOAD, vip, str(seconds))

    def answering(self, vip: str) -> str:
        """The name of the machine whose MAC the client has for a VIP, asked anew."""
        self.client.run("ip", "neighbour", "flush", "dev", "eth0")
        ping = "-6" if ":" in vip else "-4"
        self.client.run("ping", ping, "-c1", "-W1", vip, check=False)
        shown = self.client.run("ip", "neighbour", "show", vip, "dev", "eth0")
        macs = {machine.mac(): name for name, machine in self.machines.items()}
        return next((name for mac, name in macs.items() if mac in shown), "")


def web(
    name: str = "shop.web",
    *,
    vips: tuple[str, ...] = (VIP4, VIP6),
    directors: tuple[str, ...] = ("lb1", "lb2"),
    hosts: tuple[str, ...] = ("rs1", "rs2"),
    backends: tuple[str, ...] | None = None,
    **spec: Any,
) -> DSRPlan:
    """The plan of a service on port 8080 with both families of each host as backends."""
    given = hosts if backends is None else backends
    addresses = [f"10.77.0.{NUMBERS[host]}" for host in given]
    addresses += [f"fd77::{NUMBERS[host]}" for host in given]
    return DSRPlan(
        metadata=Metadata(name=name),
        spec=DSRPlanSpec(
            service=PlanService(namespace="shop", name=name),
            vips=vips,
            frontends=tuple(Frontend(vip=vip, protocol="TCP", port=8080) for vip in vips),
            directors=tuple(
                Director(
                    node=node, addresses=(f"10.77.0.{NUMBERS[node]}", f"fd77::{NUMBERS[node]}")
                )
                for node in directors
            ),
            hosts=hosts,
            backends=tuple(PlanBackend(address=address) for address in addresses),
            **spec,
        ),
    )


@contextmanager
def site(directory: Path) -> Iterator[Site]:
    """A site of this test's own. All its processes end with its namespaces."""
    with lan() as network:
        try:
            yield Site(network, directory)
        finally:
            for log in sorted(directory.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()}")
