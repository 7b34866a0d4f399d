"""What a daemon makes of its own Node, fed by hand; and what it writes where owners are guarded."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from dsr_api.base import UPLINK_ANNOTATION
from dsr_node.api import own as own_module
from dsr_node.api.access import Access
from dsr_node.api.client import Client, core_node, leases
from dsr_node.api.lease import LeaseRenewal
from dsr_node.api.own import Known, OwnNode
from dsr_node.api.report import Identity, NodeReporter
from dsr_node.state.report import Report


def access(server: str = "https://192.0.2.1") -> Access:
    tls = ssl.create_default_context()
    return Access(server, lambda: tls, lambda: "")


class Told:
    """An OwnNode that runs, what the API says to it, and how often it called back."""

    def __init__(self, file: Path) -> None:
        self.own = OwnNode(Client(access()), "lb1", file)
        self.changes = 0
        self._version = 0

    def on_change(self) -> None:
        self.changes += 1

    async def node(self, uid: str = "u1", uplink: str | None = None, name: str = "lb1") -> None:
        self._version += 1
        metadata: dict[str, Any] = {"name": name, "uid": uid, "resourceVersion": str(self._version)}
        if uplink is not None:
            metadata["annotations"] = {UPLINK_ANNOTATION: uplink, "other": "x"}
        await self._listed(msgspec.Raw(json.dumps({"metadata": metadata}).encode()))

    async def no_node(self) -> None:
        await self._listed()

    async def _listed(self, *items: msgspec.Raw) -> None:
        self.own.watch.mirror.listed(items, self._version)
        self.own.watch.changed.set()
        await until(lambda: not self.own.watch.changed.is_set())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is looked at sets no event
            await asyncio.sleep(0)


def put(file: Path, content: bytes) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)


@asynccontextmanager
async def told(file: Path) -> AsyncIterator[Told]:
    made = Told(file)
    task = asyncio.create_task(made.own.run(made.on_change))
    try:
        yield made
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "node.json"


async def test_the_annotation_names_the_uplink_and_only_what_counts_is_a_change(file: Path) -> None:
    async with told(file) as it:
        assert (it.own.uplink, it.own.owners) == ("", ())
        await it.node()
        assert (it.own.uplink, it.changes) == ("", 1)
        await it.node(uplink="eth1")
        assert (it.own.uplink, it.changes) == ("eth1", 2)
        await it.node(uplink="eth1")  # a heartbeat of the kubelet's
        assert it.changes == 2
        await it.node()
        assert (it.own.uplink, it.changes) == ("", 3)


async def test_what_was_known_is_there_at_the_next_start(file: Path) -> None:
    async with told(file) as it:
        await it.node("u1", "eth1")
        await until(file.exists)
    later = OwnNode(Client(access()), "lb1", file)
    assert later.known == Known("u1", "eth1")
    await asyncio.wait_for(later.settled(), 0.5)


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"[]", b'{"uplink": "eth1"}'])
async def test_a_broken_file_is_none(file: Path, content: bytes) -> None:
    put(file, content)
    async with told(file) as it:
        assert it.own.known is None
        await it.node("u1", "eth1")
        assert it.own.uplink == "eth1"


async def test_a_file_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    put(tmp_path / "state", b"in the way")
    async with told(tmp_path / "elsewhere") as it:
        it.own._file = tmp_path / "state" / "node.json"
        await it.node("u1", "eth1")
        await it.node("u1", "eth2")
        assert it.own.uplink == "eth2"


async def test_a_node_that_is_gone_keeps_its_uplink_and_a_new_one_of_its_name_owns(
    file: Path,
) -> None:
    async with told(file) as it:
        await it.node("u1", "eth1")
        await it.no_node()
        assert not it.own.present.is_set()
        assert (it.own.uplink, it.changes) == ("eth1", 2)
        await it.node("u2")
        assert it.own.present.is_set()
        assert (it.own.uplink, it.changes) == ("", 3)
        (owner,) = it.own.owners
        assert (owner.api_version, owner.kind, owner.name, owner.uid) == ("v1", "Node", "lb1", "u2")


async def test_the_first_word_is_waited_for_but_not_for_long(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with told(file) as it:
        waiting = asyncio.create_task(it.own.settled())
        await asyncio.sleep(0)
        assert not waiting.done()
        await it.node("u1", "eth1")
        await asyncio.wait_for(waiting, 0.5)
    monkeypatch.setattr(own_module, "PATIENCE", 0.05)
    alone = OwnNode(Client(access()), "lb1", file.with_name("other.json"))
    await asyncio.wait_for(alone.settled(), 0.5)


def test_references_are_right_when_the_owner_is_among_them(file: Path) -> None:
    own = OwnNode(Client(access()), "lb1", file)
    assert own.is_owner_of({"metadata": {}})
    own.known = Known("u1")
    assert not own.is_owner_of({"metadata": {}})
    assert not own.is_owner_of({"metadata": {"ownerReferences": [{"uid": "u0"}]}})
    assert own.is_owner_of({"metadata": {"ownerReferences": [{"uid": "u1"}, {"uid": "x"}]}})


def test_one_object_of_the_core_api_is_asked_for() -> None:
    node = core_node("lb1")
    assert (node.path(), node.api_version) == ("/api/v1/nodes", "v1")
    assert node.selection() == {"fieldSelector": "metadata.name=lb1"}
    assert leases("ns").path() == "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
    assert leases("ns").selection() == {}


@asynccontextmanager
async def guarded(file: Path) -> AsyncIterator[tuple[OwnNode, Client, list[dict[str, Any]]]]:
    """A Node that is known, and what is written to a server that lets nobody change owners."""
    written: list[dict[str, Any]] = []

    async def patch(request: web.Request) -> web.Response:
        document = json.loads(await request.read())
        if "ownerReferences" in document["metadata"]:
            return web.json_response({"code": 403, "reason": "Forbidden"}, status=403)
        written.append(document)
        return web.json_response(document)

    app = web.Application()
    app.router.add_patch("/{path:.*}", patch)
    server = TestServer(app)
    await server.start_server()
    async with server, Client(access(str(server.make_url("")).rstrip("/"))) as client:
        own = OwnNode(client, "lb1", file)
        own.known = Known("u1")
        yield own, client, written


@asynccontextmanager
async def beside(coroutine: Coroutine[Any, Any, NoReturn]) -> AsyncIterator[None]:
    task = asyncio.create_task(coroutine)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_lease_whose_owner_may_not_be_changed_is_renewed_all_the_same(file: Path) -> None:
    async with guarded(file) as (own, client, written):
        reported = asyncio.Event()
        reported.set()
        renewal = LeaseRenewal(client, "ns", "lb1", own, reported)
        async with beside(renewal.run()):
            await until(lambda: renewal.renewed_at)
        assert written[0]["spec"]["holderIdentity"] == "lb1"
        assert client.addresses == {"127.0.0.1"}  # which must never become a VIP here


async def test_a_dsrnode_whose_owner_may_not_be_changed_is_written_without_delay(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsr_node.api.backoff.FIRST", 30.0)
    monkeypatch.setattr("dsr_node.api.report.LEAST_INTERVAL", 0.05)
    async with guarded(file) as (own, client, written):
        reporter = NodeReporter(client, "lb1", Identity("6.1.0", "b", "1"), own)
        async with beside(reporter.run()):
            for revision in (1, 2):
                reporter.report(Report(revision=revision, concerns_us=True))
                await until(lambda: len(written) == revision)  # noqa: B023 - awaited here
        assert [each["status"]["appliedRevision"] for each in written] == [1, 2]
