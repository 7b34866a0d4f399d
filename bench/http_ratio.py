"""HTTP through the VIP against the same client talking to the same backend directly.

    python -m bench.http_ratio

One client, one LB node, one backend. Pairs of runs, one each way, with the way that goes first
alternating; the ratio is taken pair by pair, so that what slows this machine down slows both.

First as much as goes: all CPUs are busy, and the LB node's work is missing to client and backend,
which on machines of their own it would not be. Then at a fixed rate, where there is time for all.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
from dsr_node.api.access import from_kubeconfig
from dsr_node.api.client import Client
from rich.console import Console
from rich.progress import track

from bench import report
from bench.labs import SERVICES, apply_pool, fresh_lab, service_spec
from lab import names
from lab.laboratory import Lab
from lab.namespaces import program
from lab.node import Node
from lab.traffic import Load, Outcome

NAME = "bench-http"
VIP = names.VIPS[0]
GOAL = 0.95
SCRIPT = """
done = function(summary, latency, requests)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format('\\n{"requests": %d, "bytes": %d, "microseconds": %d, "failed": %d}\\n',
        summary.requests, summary.bytes, summary.duration, failed))
end
"""
"""wrk's own summary is made for people."""


@dataclass(frozen=True)
class Case:
    """One kind of traffic. `unit`: of what `value` gives, a second."""

    name: str
    path: str
    connections: int
    unit: str
    header: str = "Connection: keep-alive"

    def value(self, result: dict[str, int]) -> float:
        """Requests a second, or MB a second."""
        seconds = result["microseconds"] / 1e6
        if self.unit == "MB/s":
            return result["bytes"] / 1e6 / seconds
        return result["requests"] / seconds


CASES = (
    Case("requests, connections kept", "/", 32, "1/s"),
    Case("requests, a connection each", "/", 32, "1/s", "Connection: close"),
    Case("download of 50 MB files", "/big", 4, "MB/s"),
)


PACED_RATE, PACED_COUNT = 500, 1500


@dataclass(frozen=True)
class Pair:
    """One run each way."""

    direct: float
    vip: float

    @property
    def ratio(self) -> float:
        """VIP over direct."""
        return self.vip / self.direct


class Wrk:
    """wrk on the client. `failed` counts what wrk counts as an error, over all runs."""

    def __init__(self, client: Node, script: Path, seconds: int) -> None:
        self.failed = 0
        self._client = client
        self._script = script
        self._seconds = seconds

    def run(self, case: Case, address: str) -> float:
        """One run; what `case.value` makes of it."""
        options = [
            "--threads=1",
            f"--connections={case.connections}",
            f"--duration={self._seconds}",
        ]
        argv = [program("wrk"), *options, f"--script={self._script}", "--header", case.header]
        output = self._client.run([*argv, f"http://{address}{case.path}"])
        result: dict[str, int] = json.loads(output.strip().splitlines()[-1])
        self.failed += result["failed"]
        return case.value(result)

    def pair(self, case: Case, backend: str, number: int) -> Pair:
        """Both ways; odd pairs begin with the VIP."""
        if number % 2:
            vip = self.run(case, VIP)
            return Pair(self.run(case, backend), vip)
        return Pair(self.run(case, backend), self.run(case, VIP))


@contextmanager
def _script() -> Iterator[Path]:
    with tempfile.NamedTemporaryFile("w", suffix=".lua", prefix="dsr-bench-") as file:
        file.write(SCRIPT)
        file.flush()
        yield Path(file.name)


async def _set_up(lab: Lab) -> None:
    async with Client(from_kubeconfig(lab.home.kubeconfig)) as client:
        await apply_pool(client)
        await client.apply(SERVICES, "web", {"spec": service_spec(VIP)})


def measure(lab: Lab, pairs: int, seconds: int) -> tuple[dict[Case, list[Pair]], int]:
    """The pairs of each case, and how many requests failed in all."""
    asyncio.run(_set_up(lab))
    lab.kubectl("wait", "--for=condition=Ready", "dsr/web", "--timeout=30s")
    backend = lab.nodes["rs1"].member.ipv4
    found: dict[Case, list[Pair]] = {case: [] for case in CASES}
    with _script() as script:
        wrk = Wrk(lab.nodes["client"], script, seconds)
        for case in CASES:
            wrk.pair(case, backend, 0)  # warms up
        rounds = track(range(pairs), "pairs", console=Console(stderr=True))
        for number in rounds:
            for case in CASES:
                found[case].append(wrk.pair(case, backend, number))
    return found, wrk.failed


def _hop(case: Case, pairs: list[Pair]) -> str:
    """Microseconds that a request takes longer: what the way through the LB node costs."""
    if case.unit != "1/s":
        return ""
    return f"{1e6 * median(1 / pair.vip - 1 / pair.direct for pair in pairs):.1f}"


def paced(lab: Lab, pairs: int) -> dict[str, list[Outcome]]:
    """Single connections at a fixed rate, by way."""
    client, backend = lab.nodes["client"], lab.nodes["rs1"].member.ipv4
    ways = {"direct": backend, "VIP": VIP}
    found: dict[str, list[Outcome]] = {name: [] for name in ways}
    for number in range(pairs):
        for name in sorted(ways, reverse=bool(number % 2)):
            load = Load(client, "http", [ways[name]], rate=PACED_RATE, count=PACED_COUNT)
            found[name].append(load.wait(60))
    return found


def show_paced(found: dict[str, list[Outcome]]) -> None:
    """The table at a fixed rate."""
    title = f"{PACED_RATE} requests/s, a connection each ({len(found['VIP'])} alternating runs)"
    table = report.table(title, "", "asked", "answered", "p50 ms", "p99 ms")
    for name, outcomes in found.items():
        counts = [str(sum(getattr(o, each) for o in outcomes)) for each in ("asked", "answered")]
        times = [f"{median(o.percentile(percent) for o in outcomes):.2f}" for percent in (50, 99)]
        table.add_row(name, *counts, *times)
    report.console().print(table)


def show(found: dict[Case, list[Pair]], failed: int) -> None:
    """The table of what goes at most."""
    count = len(found[CASES[0]])
    title = f"HTTP through the VIP against directly ({count} alternating pairs, medians)"
    columns = ("", "unit", "direct", "VIP", "ratio", "of all pairs", f"goal >= {GOAL}", "hop us")
    table = report.table(title, *columns)
    for case, pairs in found.items():
        ratios = [pair.ratio for pair in pairs]
        middle = median(ratios)
        table.add_row(
            case.name,
            case.unit,
            f"{median(pair.direct for pair in pairs):.0f}",
            f"{median(pair.vip for pair in pairs):.0f}",
            f"{middle:.3f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
            report.verdict(middle >= GOAL),
            _hop(case, pairs),
        )
    out = report.console()
    out.print(table)
    out.print(f"Requests that failed: {failed}")


@click.command()
@click.option("--pairs", default=12, show_default=True, help="pairs of runs, each kind of traffic")
@click.option("--seconds", default=2, show_default=True, help="length of one run")
def main(pairs: int, seconds: int) -> None:
    """HTTP through the VIP against directly."""
    with fresh_lab(NAME, lbs=1, backends=1) as lab:
        found, failed = measure(lab, pairs, seconds)
        at_a_rate = paced(lab, 4)
    show(found, failed)
    show_paced(at_a_rate)


if __name__ == "__main__":
    main()
