"""How long a leader leads that is not answered any more."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from dsr_operator import leader
from dsr_operator.client import Client
from dsr_operator.leader import Leader, LostLeadershipError

from tests.unit.operator.server import serving


class Leases:
    """Keeps one Lease. `stalled`: takes requests and answers none of them."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.stalled = asyncio.Event()
        self.renewals = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.stalled.is_set():
            await asyncio.sleep(60)
        if request.method == "GET":
            found = self.lease is not None
            return web.json_response(self.lease or {}, status=200 if found else 404)
        self.lease = await request.json()
        assert self.lease is not None
        self.renewals += 1
        self.lease["metadata"]["resourceVersion"] = str(self.renewals)
        return web.json_response(self.lease)


async def test_a_leader_ends_by_its_own_clock_while_a_request_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader, "RENEW_DEADLINE", 1.0)
    monkeypatch.setattr(leader, "RETRY", 0.1)
    leases = Leases()
    client = Client()
    async with serving(leases.handle, tmp_path, monkeypatch):
        candidate = Leader(client, "here", "me")
        running = asyncio.create_task(candidate.run())
        while leases.renewals < 3:  # noqa: ASYNC110 - the server's state
            await asyncio.sleep(0.01)
        leases.stalled.set()
        stalled = time.monotonic()
        with pytest.raises(LostLeadershipError, match="could not be renewed"):
            await asyncio.wait_for(running, 5)
        assert time.monotonic() - stalled < 1.5
        assert not candidate.leads()
        await client.close()
