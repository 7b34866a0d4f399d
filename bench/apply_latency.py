"""From apply to the first HTTP reply through the VIP.

    python -m bench.apply_latency

In a lab with 1,000 other services, 50 more are applied one after the other. The clock runs from
before the request to the API server until a client, who has been trying all the time, has the first
whole HTTP reply. The pause in between is random: a daemon writes DSRNode once a second at most, and
a fixed pause would always meet it at the same moment.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import click
import msgspec
from dsr_api.plan import DSRPlan
from dsr_api.service import DSRService
from dsr_node.api.access import from_kubeconfig
from dsr_node.api.client import PLANS, Client, Resource

from bench import report
from bench.labs import SERVICES, apply_pool, apply_services, fresh_lab, service_spec
from lab import names
from lab.laboratory import Lab

NAME = "bench-apply"
LBS, BACKENDS = 2, 3
OTHERS = ipaddress.ip_network("10.78.0.0/16")
MEASURED = ipaddress.ip_network("10.77.0.128/25")
PAUSE = (1.5, 2.5)
"""Seconds between two applies."""
READY_SECONDS = 300
REPLY_SECONDS = 60
P50_GOAL, P99_GOAL = 500.0, 1500.0
"""Milliseconds."""

STEPS = ("accepted by the API server", "in a plan", "plan with frontends", "first reply", "Ready")


@dataclass
class Course:
    """When each of STEPS was first seen for one service, in seconds since the epoch."""

    applied: float = 0.0
    seen: dict[str, float] = field(default_factory=dict)

    def note(self, step: str, at: float | None = None) -> None:
        """The first time counts."""
        self.seen.setdefault(step, time.time() if at is None else at)

    def milliseconds(self, step: str) -> float:
        """From the apply."""
        return (self.seen[step] - self.applied) * 1000


class Watcher:
    """Follows plans and services, and notes the course of those that are measured."""

    def __init__(self, client: Client) -> None:
        self.courses: dict[str, Course] = {}
        self._client = client
        self._changed = asyncio.Condition()

    async def follow(self, resource: Resource, take: Callable[[bytes], None]) -> None:
        """All events from now on. Raises the client's errors: a benchmark with a gap is none."""
        listing = await self._client.list(resource)
        version = str(listing.revision)
        async with self._client.watch(resource, version, seconds=3600) as events:
            async for event in events:
                if event.type != "BOOKMARK":
                    take(bytes(event.object))
                    await self.tell()

    async def tell(self) -> None:
        """Something was noted."""
        async with self._changed:
            self._changed.notify_all()

    async def until(self, holds: Callable[[], bool], seconds: float) -> None:
        """Wait for what events bring about. Raises TimeoutError."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(holds)

    def take_plan(self, document: bytes) -> None:
        """An event about a plan."""
        plan = msgspec.json.decode(document, type=DSRPlan)
        course = self.courses.get(plan.spec.service.name)
        if course:
            course.note("in a plan")
            if plan.spec.frontends:
                course.note("plan with frontends")

    def take_service(self, document: bytes) -> None:
        """An event about a service."""
        service = msgspec.json.decode(document, type=DSRService)
        course = self.courses.get(service.metadata.name)
        if course and _ready(service):
            course.note("Ready")


def _ready(service: DSRService) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in service.status.conditions)


class Asker:
    """bench.first_reply on the client."""

    def __init__(self, lab: Lab) -> None:
        pipe = subprocess.PIPE
        argv = [sys.executable, "-m", "bench.first_reply"]
        self._process = lab.nodes["client"].popen(argv, stdin=pipe, stdout=pipe)

    async def begin(self, address: str) -> None:
        """Ask for an address, from now on."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(f"{address}\n")
        stdin.flush()

    async def reply(self) -> float:
        """When the reply came, in seconds since the epoch."""
        stdout = self._process.stdout
        assert stdout is not None
        line = await asyncio.to_thread(stdout.readline)
        return float(json.loads(line)["at"])

    def end(self) -> None:
        """It ends when nobody asks it anything more."""
        self._process.kill()
        self._process.communicate()


async def measure(lab: Lab, others: int, count: int) -> list[Course]:
    """The courses of `count` services, in a lab with `others` more."""
    async with Client(from_kubeconfig(lab.home.kubeconfig)) as client:
        await apply_pool(client, (str(OTHERS), str(MEASURED)))
        await _others(lab, client, others)
        asker = Asker(lab)
        try:
            async with _watching(client) as watcher:
                vips = [str(address) for address in MEASURED.hosts()][:count]
                for number, vip in enumerate(vips):
                    await asyncio.sleep(random.uniform(*PAUSE))
                    await _one(client, watcher, asker, f"measured-{number}", vip)
                return list(watcher.courses.values())
        finally:
            asker.end()


@asynccontextmanager
async def _watching(client: Client) -> AsyncIterator[Watcher]:
    watcher = Watcher(client)
    tasks = [
        asyncio.create_task(watcher.follow(PLANS, watcher.take_plan)),
        asyncio.create_task(watcher.follow(SERVICES, watcher.take_service)),
    ]
    try:
        yield watcher
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _one(client: Client, watcher: Watcher, asker: Asker, name: str, vip: str) -> None:
    await asker.begin(vip)
    await asyncio.sleep(0.1)  # the client's first request is out before there is anything
    course = watcher.courses[name] = Course(time.time())
    await client.apply(SERVICES, name, {"spec": service_spec(vip)})
    course.note("accepted by the API server")
    async with asyncio.timeout(REPLY_SECONDS):
        course.note("first reply", await asker.reply())
    await watcher.until(lambda: course.seen.keys() >= set(STEPS), REPLY_SECONDS)


async def _others(lab: Lab, client: Client, count: int) -> None:
    """Services that nobody asks, in VIPs of no subnet here: a default route makes the uplink."""
    for node in lab.nodes.values():
        if node.member.in_cluster:
            node.run(["ip", "route", "replace", "default", "via", names.HUB.ipv4])
    vips = (str(OTHERS[256 + number]) for number in range(count))
    services = {f"other-{number}": vip for number, vip in enumerate(vips)}
    started = time.monotonic()
    await apply_services(client, services)
    created = time.monotonic() - started
    deadline = started + READY_SECONDS
    while (ready := await _ready_count(client)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{ready} of {count} other services are Ready in {READY_SECONDS} s")
        await asyncio.sleep(0.5)
    took = time.monotonic() - started
    click.echo(f"{count} other services: created in {created:.1f} s, Ready in {took:.1f} s")


async def _ready_count(client: Client) -> int:
    listing = await client.list(SERVICES)
    return sum(_ready(msgspec.json.decode(item, type=DSRService)) for item in listing.items)


def show(courses: list[Course], others: int) -> None:
    """The table."""
    title = f"From apply, ms ({len(courses)} services, one by one, {others} others present)"
    table = report.table(title, "until", "min", "p50", "p90", "p99", "max")
    for step in STEPS:
        times = [course.milliseconds(step) for course in courses]
        table.add_row(step, *(f"{report.percentile(times, p):.0f}" for p in (0, 50, 90, 99, 100)))
    out = report.console()
    out.print(table)
    replies = [course.milliseconds("first reply") for course in courses]
    for percent, goal in ((50, P50_GOAL), (99, P99_GOAL)):
        found = report.percentile(replies, percent)
        what = f"p{percent} of the first reply < {goal:.0f} ms"
        report.goal(out, what, f"{found:.0f} ms", reached=found < goal)


@click.command()
@click.option("--others", default=1000, show_default=True, help="services present")
@click.option("--count", default=50, show_default=True, help="services measured (at most 126)")
def main(others: int, count: int) -> None:
    """Time from apply to the first reply through the VIP."""
    with fresh_lab(NAME, lbs=LBS, backends=BACKENDS) as lab:
        courses = asyncio.run(measure(lab, others, count))
    show(courses, others)


if __name__ == "__main__":
    main()
