"""The HTTP endpoint of a daemon."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from dataclasses import dataclass
from typing import NoReturn

import msgspec
from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from dsr_node.api.report import Identity
from dsr_node.observe.metrics import NodeCollector, registry
from dsr_node.observe.sight import Sight
from dsr_node.observe.view import full_view, health, readiness
from dsr_node.state.report import Report

RETRY = 5.0
"""Seconds between two tries to listen."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen; port 0 is any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Listen:
        """From "ADDRESS:PORT", IPv6 addresses in brackets. Raises ValueError, saying so."""
        host, _, port = text.rpartition(":")
        try:
            address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
            number = _port(port)
        except ValueError as error:
            raise ValueError(
                f"{text!r} is no ADDRESS:PORT, as 127.0.0.1:9787 or [::]:9787 is: {error}"
            ) from error
        return cls(str(address), number)


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise ValueError(f"{number} is no port")
    return number


class Observer:
    """A Reporter that shows the last report, and what else can be seen, by HTTP."""

    def __init__(self, sight: Sight, me: Identity) -> None:
        self._sight = sight
        self._me = me
        self._collector = NodeCollector(sight, me)
        self._registry, self._pass_duration = registry(self._collector)
        self._reported_at = time.monotonic()

    def report(self, report: Report) -> None:
        """See Reporter."""
        self._collector.report = report
        self._reported_at = time.monotonic()
        self._pass_duration.observe(report.pass_seconds)

    def app(self) -> web.Application:
        """The endpoint, not yet listening."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/state", self._state)
        return app

    async def run(self, listen: Listen) -> NoReturn:
        """Serves until cancelled. Where it cannot listen it tells so and tries again: a node
        forwards whether anyone can look at it or not."""
        runner = web.AppRunner(self.app(), access_log=None)
        await runner.setup()
        try:
            await self._listen(runner, listen)
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()
        raise AssertionError("nobody sets the event")

    async def _listen(self, runner: web.AppRunner, listen: Listen) -> None:
        failing = False
        while True:
            try:
                await web.TCPSite(runner, listen.host, listen.port, shutdown_timeout=1).start()
            except OSError as error:
                if not failing:
                    log.warning(
                        "no metrics and health here: %s. Free it or choose another: "
                        "--listen ADDRESS:PORT",
                        error,
                    )
                failing = True
                await asyncio.sleep(RETRY)
            else:
                log.info("metrics and health on %s port %d", listen.host, listen.port)
                return

    async def _metrics(self, _: web.Request) -> web.Response:
        try:
            self._collector.stats = await self._sight.stats()
        except OSError as error:
            log.warning("the counters of the dataplane cannot be read: %s", error)
            self._collector.stats = None
        # The text of thousands of services takes a moment to write.
        body = await asyncio.to_thread(generate_latest, self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _: web.Request) -> web.Response:
        return _verdict(*health(time.monotonic() - self._reported_at))

    async def _readyz(self, _: web.Request) -> web.Response:
        return _verdict(*readiness(self._collector.report, self._sight))

    async def _state(self, _: web.Request) -> web.Response:
        view = full_view(self._sight, self._collector.report, self._me, time.monotonic())
        body = await asyncio.to_thread(msgspec.json.encode, view)
        return web.Response(body=body, content_type="application/json")


def _verdict(good: bool, text: str) -> web.Response:  # noqa: FBT001 - a pair taken apart
    return web.Response(status=200 if good else 503, text=text + "\n")
