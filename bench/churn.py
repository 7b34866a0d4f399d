"""Backends come, drain, return and go while traffic runs: what fails, and what breaks.

    python -m bench.churn

New connections at a steady rate, and long ones that ask all the time. A long one that breaks is put
down to the backend it was on: those of a removed backend end with its drain timeout, as asked for;
any other is a failure of ours.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import click
from dsr_api.plan import DSRPlan
from dsr_node.api.access import from_kubeconfig
from dsr_node.api.client import Client
from rich.console import Console

from bench import report
from bench.labs import SERVICES, apply_pool, fresh_lab, service_spec
from lab import names, observe
from lab.laboratory import Lab
from lab.observe import until
from lab.progress import ConsoleProgress
from lab.traffic import Load, Outcome

NAME = "bench-churn"
LBS, BACKENDS = 2, 5
LATE, DRAINED, LEAVER = "rs5", "rs2", "rs3"
DRAIN_SECONDS = 6
SETTLE = 3.0
"""Seconds of load before a change, and after the LB nodes have it."""
WEIGHT = "dsr-operator.io/weight"
LABEL = "bench"


@dataclass(frozen=True)
class Step:
    """One change, what the client saw of it, and when."""

    what: str
    outcome: Outcome
    began: float
    ended: float


@dataclass(frozen=True)
class Held:
    """One long connection; see bench/connections.py."""

    address: str
    backend: str
    answers: int
    broken: tuple[float, str] | None


class Holder:
    """The long connections, from the client."""

    def __init__(self, lab: Lab, count: int) -> None:
        pipe = subprocess.PIPE
        argv = [sys.executable, "-m", "bench.connections", *names.VIPS, f"--connections={count}"]
        self._process = lab.nodes["client"].popen(argv, stdin=pipe, stdout=pipe)

    def stop(self) -> list[Held]:
        """End them, and return what became of each."""
        output, _ = self._process.communicate()
        return [Held(**each) for each in json.loads(output)]


class Churn:
    """One run in a lab."""

    def __init__(self, lab: Lab, rate: int, connections: int) -> None:
        self.steps: list[Step] = []
        self._lab = lab
        self._rate = rate
        self._half = connections // 2
        self._holders: list[Holder] = []
        self._progress = ConsoleProgress(Console(stderr=True))

    def run(self) -> list[Held]:
        """All changes, one after the other; what became of the long connections.

        Half of them are there from the beginning, the others come once a backend has been added.
        """
        try:
            self._holders.append(Holder(self._lab, self._half))
            self._change()
        finally:
            ended = [holder.stop() for holder in self._holders]
        return [each for held in ended for each in held]

    def _change(self) -> None:
        self._step("nothing changes", lambda: None)
        self._step(f"{LATE} is added", self._add)
        self._holders.append(Holder(self._lab, self._half))
        self._step(f"{DRAINED} is drained (weight 0)", lambda: self._weight("0"))
        self._step(f"{DRAINED} returns", lambda: self._weight("1"))
        self._step(f"{LEAVER} is removed ({DRAIN_SECONDS} s to drain)", self._remove)

    def _step(self, what: str, change: Callable[[], None]) -> None:
        with self._progress.step(what):
            began = time.time()
            load = Load(self._lab.nodes["client"], "http", names.VIPS, rate=self._rate)
            time.sleep(SETTLE)
            change()
            time.sleep(SETTLE)
            outcome = load.stop()
        self.steps.append(Step(what, outcome, began, time.time()))

    def _add(self) -> None:
        self._lab.kubectl("label", "node", LATE, f"{LABEL}=in")
        self._until(f"{LATE} is in use", lambda plan: LATE in _weights(plan))

    def _weight(self, weight: str) -> None:
        self._lab.kubectl("annotate", "node", DRAINED, "--overwrite", f"{WEIGHT}={weight}")
        self._until("the weight is in the plan", lambda p: _weights(p)[DRAINED] == int(weight))

    def _remove(self) -> None:
        self._lab.kubectl("label", "node", LEAVER, f"{LABEL}-")
        self._until(f"{LEAVER} drains", lambda plan: _weights(plan).get(LEAVER) == 0)
        self._until(f"{LEAVER} is out", lambda plan: LEAVER not in _weights(plan))

    def _until(self, what: str, holds: Callable[[DSRPlan], bool]) -> None:
        """The plan says so, and both LB nodes have carried it out."""

        def done() -> bool:
            plan = observe.plan(self._lab, "web")
            revision = int(plan.metadata.resource_version)
            return holds(plan) and all(
                observe.node_status(self._lab, f"lb{n}").status.applied_revision >= revision
                for n in range(1, LBS + 1)
            )

        until(what, done, 30)


def _weights(plan: DSRPlan) -> dict[str, int]:
    return {backend.node: backend.weight for backend in plan.spec.backends}


async def _set_up(lab: Lab) -> None:
    async with Client(from_kubeconfig(lab.home.kubeconfig)) as client:
        await apply_pool(client)
        spec = service_spec(names.VIPS[0]) | {
            "vips": list(names.VIPS),
            "backends": {"nodeSelector": {"matchLabels": {LABEL: "in"}}},
            "drainTimeoutSeconds": DRAIN_SECONDS,
        }
        await client.apply(SERVICES, "web", {"spec": spec})


def measure(lab: Lab, rate: int, connections: int) -> tuple[list[Step], list[Held]]:
    """What became of the requests, by step, and of the long connections."""
    first = [f"rs{n}" for n in range(1, BACKENDS + 1) if f"rs{n}" != LATE]
    lab.kubectl("label", "node", *first, f"{LABEL}=in")
    asyncio.run(_set_up(lab))
    lab.kubectl("wait", "--for=condition=Ready", "dsr/web", "--timeout=30s")
    churn = Churn(lab, rate, connections)
    held = churn.run()
    return churn.steps, held


def show(steps: list[Step], held: list[Held], rate: int) -> None:
    """The tables."""
    title = f"{rate} requests/s and {len(held)} long connections while backends change"
    columns = ("", "requests", "1/s", "failed", "p50 ms", "p99 ms", "broken: remaining", "removed")
    table = report.table(title, *columns)
    breaks = [(each.broken[0], each.backend) for each in held if each.broken]
    for step in steps:
        here = [backend for at, backend in breaks if step.began <= at < step.ended]
        times = [f"{step.outcome.percentile(p):.1f}" for p in (50, 99)]
        gone = here.count(LEAVER)
        achieved = step.outcome.asked / (step.ended - step.began)
        counts = (str(step.outcome.asked), f"{achieved:.0f}", str(step.outcome.failed))
        table.add_row(step.what, *counts, *times, str(len(here) - gone), str(gone))
    out = report.console()
    out.print(table)
    failed = sum(step.outcome.failed for step in steps)
    remaining = sum(backend != LEAVER for _, backend in breaks)
    report.goal(out, "failed requests: 0", f"{failed}", reached=not failed)
    goal = "broken connections to remaining backends: 0"
    report.goal(out, goal, f"{remaining} of {len(held)}", reached=not remaining)
    on = Counter(each.backend or "none" for each in held)
    out.print("Long connections by backend:", ", ".join(f"{b} {n}" for b, n in sorted(on.items())))
    for step in steps:
        for at, reason in step.outcome.failures[:5]:
            out.print(f"  [red]failed[/red] {step.what}, {at - step.began:.2f} s in: {reason}")
    for each in held:
        if each.broken and each.backend != LEAVER:
            at, reason = each.broken
            out.print(f"  [red]broken[/red] on {each.backend or 'none'} at {at:.2f}: {reason}")


@click.command()
@click.option("--rate", default=500, show_default=True, help="new connections a second")
@click.option("--connections", default=200, show_default=True, help="long connections")
def main(rate: int, connections: int) -> None:
    """Failed requests and broken connections while backends change."""
    with fresh_lab(NAME, lbs=LBS, backends=BACKENDS) as lab:
        steps, held = measure(lab, rate, connections)
    show(steps, held, rate)


if __name__ == "__main__":
    main()
