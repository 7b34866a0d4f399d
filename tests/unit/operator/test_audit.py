"""What the audit makes of a list that differs from the cache."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from dsr_operator import audit, kinds
from dsr_operator.audit import Audit
from dsr_operator.cache import Cache
from dsr_operator.client import Client
from dsr_operator.metrics import Metrics

from tests.unit.operator.server import serving

Json = dict[str, Any]


def pool(name: str, uid: str, revision: int, *addresses: str) -> Json:
    meta = {"name": name, "uid": uid, "resourceVersion": str(revision)}
    return {"metadata": meta, "spec": {"addresses": list(addresses)}}


async def test_a_store_restored_from_a_backup_is_followed_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "PAUSES", (0.0,))
    served = [
        pool("same", "a", 10, "192.0.2.0/24"),
        pool("changed", "b", 20, "198.51.100.0/24"),
        pool("remade", "c", 30, "203.0.113.0/24"),
    ]

    async def handle(request: web.Request) -> web.StreamResponse:
        listed = served if request.path == kinds.POOL.path() else []
        return web.json_response({"items": listed})

    cache = Cache(lambda _: None, time.monotonic)
    for known in (
        served[0],
        pool("changed", "b", 90, "10.0.0.0/8"),
        pool("remade", "later", 91, "10.0.0.0/8"),
        pool("new", "d", 92, "10.0.0.0/8"),
    ):
        cache.put(kinds.POOL, known)
    client = Client()
    async with serving(handle, tmp_path, monkeypatch):
        await Audit(client, cache, Metrics()).once()
        await client.close()
    versions = {name: (v.uid, v.revision) for (_, name), v in cache.versions[kinds.POOL].items()}
    assert versions == {"same": ("a", 10), "changed": ("b", 20), "remade": ("c", 30)}
    firsts = {name: str(found.ranges[0][0]) for name, found in cache.pools.items()}
    assert firsts == {"same": "192.0.2.0", "changed": "198.51.100.0", "remade": "203.0.113.0"}
