"""What the uninstall hook bears of an API server. The server is a real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from dsr_operator import patient
from dsr_operator.client import ApiError
from dsr_operator.patient import PatientClient

from tests.unit.operator.server import serving


class Ill:
    """An API server that gives these answers in turn; 0 cuts the connection."""

    def __init__(self) -> None:
        self.answers: list[int] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        status = self.answers.pop(0)
        if status == 0:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"items": [{"number": 1}]}, status=status or 500)


@pytest.fixture
async def ill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ill]:
    server = Ill()
    monkeypatch.setattr(patient, "PAUSE", 0.01)
    async with serving(server.handle, tmp_path, monkeypatch):
        yield server


@pytest.fixture
async def client() -> AsyncIterator[PatientClient]:
    made = PatientClient()
    yield made
    await made.close()


async def test_asks_again_until_there_is_an_answer(ill: Ill, client: PatientClient) -> None:
    ill.answers = [500, 503, 429, 0, 504, 200]
    assert await client.items("/things") == [{"number": 1}]
    assert ill.answers == []


async def test_a_refusal_is_an_answer(ill: Ill, client: PatientClient) -> None:
    ill.answers = [503, 403]
    with pytest.raises(ApiError, match="403"):
        await client.items("/things")
    ill.answers = [500, 404, 404]
    assert await client.items("/things") == []
    await client.delete("/things/one")
