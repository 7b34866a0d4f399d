"""Watch against a server that says what the test tells it to: what a real one does only rarely."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from dsr_node.api import client as client_module
from dsr_node.api import watch as watch_module
from dsr_node.api.access import Access
from dsr_node.api.client import PLANS, Client
from dsr_node.api.watch import Watch

Answer = Callable[[web.Request], Any]


def thing(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def page(version: int, *items: dict[str, Any], more: str = "") -> Answer:
    body = {"metadata": {"resourceVersion": str(version), "continue": more}, "items": items}

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body)

    return answer


def status(code: int) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"code": code, "reason": "R", "message": "m"}, status=code)

    return answer


def stream(*chunks: bytes, then: str = "hang") -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if then == "hang":
            await asyncio.Event().wait()
        if then == "break" and request.transport:
            request.transport.abort()
        return response

    return answer


def line(kind: str, item: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


class Server:
    """Gives its answers one after the other; the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, str]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        response: web.StreamResponse = await answer(request)
        return response

    def watched_from(self) -> list[str]:
        return [query["resourceVersion"] for query in self.asked if "watch" in query]

    def lists(self) -> int:
        return sum("watch" not in query for query in self.asked)


@asynccontextmanager
async def watching(server: Server) -> AsyncIterator[Watch[str]]:
    app = web.Application()
    app.router.add_get(PLANS.path(), server.handle)
    async with TestServer(app) as http:
        tls = ssl.create_default_context()
        access = Access(str(http.make_url("")).rstrip("/"), lambda: tls, lambda: "")
        async with Client(access) as client:
            watch = Watch(client, PLANS, lambda item: json.loads(item)["metadata"]["name"])
            task = asyncio.create_task(watch.run())
            try:
                yield watch
                if task.done():
                    task.result()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is looked at sets no event
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsr_node.api.backoff.FIRST", 0.01)
    monkeypatch.setattr(client_module, "WATCH_SILENCE", 0.5)


async def test_pages_are_one_list() -> None:
    server = Server(page(7, thing("a", 1), more="next"), page(7, thing("b", 2)), stream())
    async with watching(server) as watch:
        await until(server.watched_from)
        assert set(watch.mirror.objects) == {"a", "b"}
        assert server.asked[1]["continue"] == "next"
        assert server.watched_from() == ["7"]


async def test_a_list_that_expires_between_pages_begins_anew_and_shows_nothing_by_halves() -> None:
    server = Server(
        page(7, thing("a", 1), more="next"), status(410), page(9, thing("b", 8)), stream()
    )
    async with watching(server) as watch:
        await until(server.watched_from)
        assert set(watch.mirror.objects) == {"b"}


async def test_events_in_any_chunks() -> None:
    text = line("ADDED", thing("a", 8)) + line("BOOKMARK", thing("", 9))
    server = Server(page(7), stream(text[:5], text[5:40], text[40:]))
    async with watching(server) as watch:
        await until(lambda: watch.mirror.revision == 9)
        assert set(watch.mirror.objects) == {"a"}


async def test_a_broken_watch_goes_on_where_it_was() -> None:
    first = stream(line("ADDED", thing("a", 8)), line("BOOKMARK", thing("", 12)), then="break")
    server = Server(page(7), first, stream())
    async with watching(server) as watch:
        await until(lambda: len(server.watched_from()) == 2)
        assert server.watched_from() == ["7", "12"]
        assert server.lists() == 1
        assert set(watch.mirror.objects) == {"a"}


async def test_a_silent_watch_is_dead() -> None:
    server = Server(page(7), stream(), stream())
    async with watching(server) as watch:
        await until(lambda: "Timeout" in watch.health.problem)
        await until(lambda: len(server.watched_from()) == 2)


@pytest.mark.parametrize("code", [403, 404])
async def test_what_cannot_be_read_keeps_all_and_is_listed_when_it_can(code: int) -> None:
    ended = stream(line("ADDED", thing("a", 8)), then="end")
    server = Server(page(7), ended, status(code))
    async with watching(server) as watch:
        await until(lambda: server.lists() == 3)
        assert str(code) in watch.health.problem
        assert set(watch.mirror.objects) == {"a"}
        server.answers = [page(20), stream()]
        await until(lambda: not watch.mirror.objects)


async def test_an_error_event_is_an_error() -> None:
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    server = Server(page(7), stream(line("ERROR", gone)), page(30, thing("a", 29)), stream())
    async with watching(server) as watch:
        await until(lambda: server.watched_from() == ["7", "30"])
        assert set(watch.mirror.objects) == {"a"}
        assert not watch.health.problem


async def test_a_watch_that_ends_at_once_is_no_busy_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsr_node.api.backoff.FIRST", 0.2)
    server = Server(page(7), stream(then="end"))
    async with watching(server) as watch:
        await until(lambda: "at once" in watch.health.problem)
        await asyncio.sleep(0.5)
        assert len(server.watched_from()) < 6


async def test_a_normal_end_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "SHORTEST_WATCH", 0.0)
    server = Server(page(7), stream(then="end"), stream())
    async with watching(server) as watch:
        await until(lambda: len(server.watched_from()) == 2)
        assert watch.health.problem == ""


async def test_what_is_no_json_is_no_crash() -> None:
    async def nonsense(_: web.Request) -> web.Response:
        return web.Response(text="<html>a proxy's page</html>")

    server = Server(nonsense, page(7, thing("a", 1)), stream())
    async with watching(server) as watch:
        await until(lambda: watch.mirror.objects)
