"""A small cluster of the test's own inside the shared one. The test plays the node daemons."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from dsr_api.base import LEASE_PREFIX
from dsr_operator import kinds
from dsr_operator.client import ApiError, Client, UnreachableError
from dsr_operator.kinds import Kind

Json = dict[str, Any]

MERGE = "application/merge-patch+json"
_subnets = itertools.count(1)


class World:
    """Names and addresses are unique for each instance, so that tests do not meet.

    `acking`: nodes whose daemon reports at once that it has applied everything.
    `renewing`: nodes whose daemon renews its Lease. `tenant`: where DSRServices are; Leases stay
    in `namespace`, the operator's.
    """

    def __init__(self) -> None:
        self.client = Client()
        self.namespace = f"t-{uuid.uuid4().hex[:8]}"
        self.tenant = self.namespace
        self.net = f"10.{os.getpid() % 200 + 1}.{next(_subnets) % 250}"
        self.nodes: list[str] = []
        self.acking: set[str] = set()
        self.renewing: set[str] = set()
        self._created: list[tuple[Kind, str, str]] = []

    @classmethod
    @asynccontextmanager
    async def made(cls) -> AsyncIterator[World]:
        """With its namespace, a pool for it, and one LB node and two backend nodes."""
        world = cls()
        await world.create(kinds.NAMESPACE, {"metadata": {"name": world.namespace}})
        await world.pool(world.namespace, [f"{world.net}.128/25", "2001:db8::/64"])
        for name, role in (("lb1", "lb"), ("rs1", "rs"), ("rs2", "rs")):
            await world.node(name, role)
        tasks = [asyncio.create_task(world._renew()), asyncio.create_task(world._acknowledge())]
        try:
            yield world
        finally:
            await world._clean()
            for task in tasks:
                task.cancel()
            await world.client.close()

    # Objects

    async def create(self, kind: Kind, document: Json, namespace: str = "") -> Json:
        """Create an object, to be removed at the end."""
        body = {"apiVersion": kind.api_version, "kind": kind.name, **document}
        made = await self.client.request("POST", kind.path(namespace), body=body)
        self._created.append((kind, namespace, document["metadata"]["name"]))
        return made

    async def pool(self, namespace: str, addresses: list[str]) -> None:
        """A pool for one namespace, named after it."""
        labels = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
        spec = {"addresses": addresses, "namespaceSelector": labels}
        await self.create(kinds.POOL, {"metadata": {"name": namespace}, "spec": spec})

    async def move_out(self) -> None:
        """From now on DSRServices are in a namespace of their own."""
        self.tenant = f"{self.namespace}-b"
        await self.create(kinds.NAMESPACE, {"metadata": {"name": self.tenant}})
        await self.pool(self.tenant, [f"{self.net}.128/25"])

    def name(self, node: str) -> str:
        """The full name of a node of this world."""
        return f"{node}.{self.namespace}"

    async def node(self, name: str, role: str) -> None:
        """A Node with a live daemon that applies everything at once."""
        full = self.name(name)
        self.nodes.append(full)
        labels = {"role": f"{role}-{self.namespace}"}
        await self.create(kinds.NODE, {"metadata": {"name": full, "labels": labels}})
        address = f"{self.net}.{len(self.nodes) + 1}"
        status = {"addresses": [{"type": "InternalIP", "address": address}]}
        await self.merge(kinds.NODE, full, {"status": status}, subresource="status")
        await self.create(kinds.REPORT, {"metadata": {"name": full}})
        lease = {"metadata": {"name": LEASE_PREFIX + full}, "spec": _renewal(full)}
        await self.create(kinds.LEASE, lease, self.namespace)
        self.acking.add(full)
        self.renewing.add(full)

    def address(self, name: str) -> str:
        """The InternalIP of a node."""
        return f"{self.net}.{self.nodes.index(self.name(name)) + 2}"

    def vip(self, number: int = 1) -> str:
        """An address of the pool."""
        return f"{self.net}.{127 + number}"

    def selector(self, role: str) -> Json:
        """Of all nodes of a role."""
        return {"nodeSelector": {"matchLabels": {"role": f"{role}-{self.namespace}"}}}

    def spec(self, **changes: Any) -> Json:
        """A DSRService's spec that can be met."""
        return {
            "vips": [self.vip()],
            "ports": [{"port": 80}],
            "backends": self.selector("rs"),
            "loadBalancerNodes": self.selector("lb"),
            **changes,
        }

    async def service(self, name: str = "web", **changes: Any) -> Json:
        """Create a DSRService of the tenant."""
        document = {"metadata": {"name": name}, "spec": self.spec(**changes)}
        return await self.create(kinds.SERVICE, document, self.tenant)

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Json | None:
        """An object; None if there is none."""
        try:
            return await self.client.request("GET", kind.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def merge(
        self, kind: Kind, name: str, patch: Json, namespace: str = "", subresource: str = ""
    ) -> Json:
        """A merge patch."""
        path = kind.path(namespace, name, subresource)
        return await self.client.request("PATCH", path, body=patch, content_type=MERGE)

    async def delete(
        self, kind: Kind, name: str, namespace: str = "", policy: str = "Background"
    ) -> None:
        """Ask for deletion."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy}
        await self.client.request("DELETE", kind.path(namespace, name), body=body)

    # What is waited for

    async def plan(self, name: str = "web") -> Json | None:
        """The spec of a service's plan."""
        found = await self.get(kinds.PLAN, f"{self.tenant}.{name}")
        return None if found is None else found["spec"]

    async def until_plan(
        self, holds: Callable[[Json], Any], name: str = "web", seconds: float = 15.0
    ) -> Json:
        """Wait until the plan exists and something holds for its spec."""
        return await self.until(lambda: self.plan(name), holds, seconds)

    async def until_no_plan(self, name: str = "web", seconds: float = 15.0) -> None:
        """Wait until the plan is gone."""
        deadline = time.monotonic() + seconds
        while (left := await self.plan(name)) is not None:
            assert time.monotonic() < deadline, left
            await asyncio.sleep(0.02)

    async def until_gone(self, name: str = "web", seconds: float = 15.0) -> None:
        """Wait until the DSRService is gone."""
        deadline = time.monotonic() + seconds
        while (left := await self.get(kinds.SERVICE, name, self.tenant)) is not None:
            assert time.monotonic() < deadline, left
            await asyncio.sleep(0.02)

    async def until_condition(
        self, kind: str, status: str, reason: str = "", name: str = "web", seconds: float = 15.0
    ) -> str:
        """Wait for a condition of a DSRService; returns its message."""

        def holds(document: Json) -> bool:
            found = condition(document, kind)
            return found.get("status") == status and (not reason or found["reason"] == reason)

        document = await self.until(
            lambda: self.get(kinds.SERVICE, name, self.tenant), holds, seconds
        )
        return str(condition(document, kind)["message"])

    async def until(
        self,
        ask: Callable[[], Any],
        holds: Callable[[Json], Any],
        seconds: float = 15.0,
    ) -> Json:
        """Ask again and again until the answer is there and satisfies."""
        deadline = time.monotonic() + seconds
        while True:
            answer = await ask()
            if answer is not None and holds(answer):
                return dict(answer)
            assert time.monotonic() < deadline, answer
            await asyncio.sleep(0.02)

    async def events(self, name: str = "web") -> list[str]:
        """The reasons of the Events on a DSRService."""
        query = {"fieldSelector": f"involvedObject.name={name}"}
        path = kinds.EVENT.path(self.tenant)
        answer = await self.client.request("GET", path, query=query)
        return [item["reason"] for item in answer["items"]]

    async def until_event(self, reason: str, name: str = "web", seconds: float = 15.0) -> None:
        """Wait for an Event on a DSRService: it comes after the status that it tells of."""
        deadline = time.monotonic() + seconds
        while reason not in (seen := await self.events(name)):
            assert time.monotonic() < deadline, seen
            await asyncio.sleep(0.02)

    # What daemons do

    async def report(self, node: str, **status: Any) -> None:
        """Write a part of a DSRNode's status."""
        await self.merge(kinds.REPORT, self.name(node), {"status": status}, subresource="status")

    async def highest_revision(self) -> int:
        """The highest resourceVersion of all plans."""
        plans = await self.client.request("GET", kinds.PLAN.path())
        return max((int(p["metadata"]["resourceVersion"]) for p in plans["items"]), default=0)

    async def _acknowledge(self) -> None:
        told: dict[str, int] = {}
        while True:
            try:
                revision = await self.highest_revision()
                for node in sorted(self.acking):
                    if told.get(node) != revision:
                        await self.report(node.split(".")[0], appliedRevision=revision)
                        told[node] = revision
            except (UnreachableError, ApiError):
                told.clear()
            await asyncio.sleep(0.03)

    async def _renew(self) -> None:
        while True:
            for node in sorted(self.renewing):
                try:
                    await self.merge(
                        kinds.LEASE, LEASE_PREFIX + node, {"spec": _renewal(node)}, self.namespace
                    )
                except (UnreachableError, ApiError):
                    continue
            await asyncio.sleep(2.0)

    async def _clean(self) -> None:
        """Remove everything, finalizers first: the operator may not be there to do so."""
        services = await self.client.request("GET", kinds.SERVICE.path(self.tenant))
        for item in services["items"]:
            name = item["metadata"]["name"]
            await _forgiving(
                self.merge(kinds.SERVICE, name, {"metadata": {"finalizers": None}}, self.tenant)
            )
            await _forgiving(self.delete(kinds.SERVICE, name, self.tenant))
            await _forgiving(self.delete(kinds.PLAN, f"{self.tenant}.{name}"))
        for kind, namespace, name in reversed(self._created):
            await _forgiving(self.delete(kind, name, namespace))


def condition(document: Json, kind: str) -> Json:
    """One condition of an object; empty if it has none of that type."""
    listed = document.get("status", {}).get("conditions", [])
    return next((c for c in listed if c["type"] == kind), {})


async def _forgiving(request: Any) -> None:
    try:
        await request
    except ApiError as error:
        if error.status not in (404, 409):
            raise


def _renewal(node: str) -> Json:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"holderIdentity": node, "leaseDurationSeconds": 15, "renewTime": now}
