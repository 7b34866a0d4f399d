"""Drives the daemon's side of the API in tests: objects written, snapshots awaited."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dsr_api.base import API_VERSION
from dsr_node.api.access import from_kubeconfig
from dsr_node.api.client import Client
from dsr_node.source import Snapshot
from dsr_node.source.api import ApiSource
from dsr_node.source.disk import PlanFiles

from tests.api.kubectl import kubectl

CRDS = Path(__file__).resolve().parents[3] / "crds"
PLAN_CRD = "dsrplans.dsr-operator.io"


def plan(name: str, *hosts: str, vips: tuple[str, ...] = ("192.0.2.1",)) -> dict[str, Any]:
    namespace, service = name.split(".")
    return {
        "apiVersion": API_VERSION,
        "kind": "DSRPlan",
        "metadata": {"name": name},
        "spec": {
            "service": {"namespace": namespace, "name": service},
            "vips": list(vips),
            "hosts": list(hosts),
        },
    }


async def run(kubeconfig: Path, *arguments: str, stdin: str | None = None) -> str:
    """kubectl beside the event loop."""
    return await asyncio.to_thread(kubectl, kubeconfig, *arguments, stdin=stdin)


async def apply(kubeconfig: Path, *documents: dict[str, Any]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    await run(kubeconfig, "apply", "--server-side", "-f", "-", stdin=text)


async def serve_crds(kubeconfig: Path) -> None:
    await run(kubeconfig, "apply", "--server-side", "-f", str(CRDS))
    await run(kubeconfig, "wait", "--for=condition=Established", "crd", PLAN_CRD)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Look again and again, for what tells nobody when it changes."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is looked at sets no event
            await asyncio.sleep(0.02)


@asynccontextmanager
async def beside(*coroutines: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Tasks that run meanwhile; one that has failed fails the test."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Reading:
    """A source that runs, and all it has said."""

    def __init__(self, source: ApiSource) -> None:
        self.source = source
        self.snapshots: list[Snapshot] = []
        self._news = asyncio.Event()

    @property
    def last(self) -> Snapshot:
        return self.snapshots[-1]

    @property
    def problem(self) -> str:
        return self.source.watch.health.problem

    async def read(self) -> None:
        async for snapshot in self.source.snapshots():
            self.snapshots.append(snapshot)
            self._news.set()

    async def until(self, condition: Callable[[Snapshot], object], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not self.snapshots or not condition(self.last):
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def reading(kubeconfig: Path, directory: Path) -> AsyncIterator[Reading]:
    """A source of plans of this user, with `directory` for the last plans."""
    async with Client(from_kubeconfig(kubeconfig)) as client:
        read = Reading(ApiSource(client, PlanFiles(directory), "lb1"))
        tasks = [
            asyncio.create_task(each)
            for each in (read.source.watch.run(), read.source.saver.run(), read.read())
        ]
        try:
            yield read
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
