"""The HTTP endpoint of a daemon."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import NoReturn

import msgspec
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from dsr_node.observe.metrics import exposition
from dsr_node.observe.sight import Sight
from dsr_node.observe.view import full_view, health, readiness
from dsr_node.subsystems.xdp.stats import Stats

RETRY = 5.0
"""Seconds between two tries to listen."""

COUNTERS_AGE = 5.0
"""Seconds for which counters are told again: reading them keeps a pass waiting."""

log = logging.getLogger(__name__)


class Endpoint:
    """Answers what it is asked from what can be seen then."""

    def __init__(self, sight: Sight) -> None:
        self._sight = sight
        self._stats: Stats | None = None
        self._read_at = -COUNTERS_AGE
        self._one_reads = asyncio.Lock()

    def app(self) -> web.Application:
        """The endpoint, not yet listening."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/state", self._state)
        return app

    async def run(self, address: str, port: int) -> NoReturn:
        """Serves until cancelled. Where it cannot listen it tells so and tries again: a node
        forwards whether anyone can look at it or not."""
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await self._listen(runner, address, port)
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()
        raise AssertionError("nobody sets the event")

    async def _listen(self, runner: web.AppRunner, address: str, port: int) -> None:
        failing = False
        while True:
            try:
                await web.TCPSite(runner, address, port).start()
            except OSError as error:
                if not failing:
                    log.warning(
                        "no metrics and health here: %s. Free it or choose another: "
                        "--listen-address, --listen-port",
                        error,
                    )
                failing = True
                await asyncio.sleep(RETRY)
            else:
                log.info("metrics and health on %s port %d", address, port)
                return

    async def _metrics(self, _: web.Request) -> web.Response:
        stats = await self._counters()
        # The text of thousands of services takes a moment to write.
        body = await asyncio.to_thread(exposition, self._sight, stats)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _counters(self) -> Stats | None:
        async with self._one_reads:
            if time.monotonic() - self._read_at >= COUNTERS_AGE:
                try:
                    self._stats = await self._sight.engine.stats()
                except OSError as error:
                    log.warning("the counters of the dataplane cannot be read: %s", error)
                    self._stats = None
                self._read_at = time.monotonic()
            return self._stats

    async def _healthz(self, _: web.Request) -> web.Response:
        return _verdict(*health(time.monotonic() - self._sight.passes.ended_at))

    async def _readyz(self, _: web.Request) -> web.Response:
        return _verdict(*readiness(self._sight))

    async def _state(self, _: web.Request) -> web.Response:
        view = full_view(self._sight, time.monotonic())
        body = await asyncio.to_thread(msgspec.json.encode, view)
        return web.Response(body=body, content_type="application/json")


def _verdict(good: bool, text: str) -> web.Response:  # noqa: FBT001 - a pair taken apart
    return web.Response(status=200 if good else 503, text=text + "\n")
