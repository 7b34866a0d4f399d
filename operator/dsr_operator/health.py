"""The HTTP endpoint: /healthz, /readyz, /metrics.

/healthz fails when only a restart helps: a watch that died, a reconcile loop that hangs. That the
API server is away is not such a case. /readyz fails while the cache is not complete, and while the
API server cannot be reached.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from dsr_operator.metrics import Metrics

Check = Callable[[], list[str]]
"""What is wrong, in words; empty if nothing is."""


class Health:
    """Serves until stopped. Raises OSError at start if the address cannot be listened on."""

    def __init__(self, metrics: Metrics, healthy: Check, ready: Check) -> None:
        self._metrics = metrics
        self._checks = {"/healthz": healthy, "/readyz": ready}
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port (that which the system chose, if 0 was asked for)."""
        app = web.Application()
        app.add_routes([web.get(path, self._answer) for path in self._checks])
        app.add_routes([web.get("/metrics", self._scrape)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host or None, port)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the listener."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        wrong = self._checks[request.path]()
        if wrong:
            return web.Response(status=503, text="\n".join(wrong) + "\n")
        return web.Response(text="ok\n")

    async def _scrape(self, _: web.Request) -> web.Response:
        body = generate_latest(self._metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
