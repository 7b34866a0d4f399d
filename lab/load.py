"""A load generator that counts honestly: what was asked, who answered, what failed, when and why.

Run as `python -m lab.load KIND ADDRESS... [options]` on a node; prints one JSON object at the end.
It ends by itself after --seconds or --count, or as soon as its standard input is closed.

- `http`: a new connection for every request, at a steady rate whatever the answers do.
- `udp`: a new socket for every datagram, likewise; nothing is sent twice.
- `long`: --connections that stay open, each asking once in --interval; one that breaks is counted,
  and not opened again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

HTTP_PORT, UDP_PORT = 80, 53
TIMEOUT = 3.0
"""Seconds for an answer; SYNs are sent again by the kernel after 1 s."""
KEPT_FAILURES = 50


@dataclass
class Tally:
    """What has happened. Times are seconds since the epoch; a failure bears that of its asking."""

    asked: int = 0
    answered: int = 0
    failed: int = 0
    by_backend: Counter[str] = field(default_factory=Counter)
    by_address: Counter[str] = field(default_factory=Counter)
    first_answer: float | None = None
    milliseconds: list[float] = field(default_factory=list)
    failures: list[tuple[float, str]] = field(default_factory=list)

    def success(self, address: str, backend: str, started: float) -> None:
        """One answer."""
        self.first_answer = self.first_answer or time.time()
        self.answered += 1
        self.by_backend[backend] += 1
        self.by_address[address] += 1
        self.milliseconds.append((time.monotonic() - started) * 1000)

    def failure(self, address: str, reason: str, started: float) -> None:
        """One request without an answer."""
        self.failed += 1
        if len(self.failures) < KEPT_FAILURES:
            asked_at = time.time() - (time.monotonic() - started)
            self.failures.append((asked_at, f"{address}: {reason}"))


async def ask_http(address: str, tally: Tally) -> None:
    """One request on a connection of its own."""
    tally.asked += 1
    started = time.monotonic()
    writer = None
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(address, HTTP_PORT)
            backend = await _exchange(reader, writer, address)
        tally.success(address, backend, started)
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
        tally.failure(address, type(error).__name__, started)
    finally:
        if writer is not None:
            writer.close()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str
) -> str:
    """Ask, and return the name in the answer. Raises ValueError for anything but a 200."""
    host = f"[{address}]" if ":" in address else address
    writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    if not head.startswith("HTTP/1.1 200 "):
        raise ValueError(head.splitlines()[0])
    headers = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if line)
    return (await reader.readexactly(int(headers["content-length"]))).decode().strip()


async def ask_udp(address: str, tally: Tally) -> None:
    """One datagram from a socket of its own."""
    tally.asked += 1
    started = time.monotonic()
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asker:
        asker.setblocking(False)  # noqa: FBT003  the standard library's signature
        try:
            # Connected, so that the kernel drops an answer from any other address than the VIP.
            asker.connect((address, UDP_PORT))
            async with asyncio.timeout(TIMEOUT):
                await loop.sock_sendall(asker, b"who are you?")
                backend = (await loop.sock_recv(asker, 2048)).decode()
            tally.success(address, backend, started)
        except (OSError, TimeoutError) as error:
            tally.failure(address, type(error).__name__, started)


async def keep_asking(address: str, tally: Tally, interval: float) -> None:
    """One connection, for as long as it lasts."""
    started = time.monotonic()
    writer = None
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(address, HTTP_PORT)
        while True:
            tally.asked += 1
            started = time.monotonic()
            async with asyncio.timeout(TIMEOUT):
                backend = await _exchange(reader, writer, address)
            tally.success(address, backend, started)
            await asyncio.sleep(interval)
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
        tally.failure(address, type(error).__name__, started)
    finally:
        if writer is not None:
            writer.close()


async def at_a_steady_rate(options: argparse.Namespace, tally: Tally) -> None:
    """Ask the addresses in turn, whether or not those before have answered."""
    ask = ask_http if options.kind == "http" else ask_udp
    started = time.monotonic()
    addresses = itertools.cycle(options.addresses)
    async with asyncio.TaskGroup() as group:
        for number in itertools.islice(itertools.count(), options.count):
            ahead = started + number / options.rate - time.monotonic()
            if await _stop_within(ahead, options):
                return
            group.create_task(ask(next(addresses), tally))


async def with_long_connections(options: argparse.Namespace, tally: Tally) -> None:
    """Hold the connections until the end."""
    addresses = itertools.islice(itertools.cycle(options.addresses), options.connections)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(keep_asking(each, tally, options.interval)) for each in addresses
        ]
        while not await _stop_within(options.interval, options):
            pass
        for task in tasks:
            task.cancel()


async def _stop_within(seconds: float, options: argparse.Namespace) -> bool:
    """Wait; true if it is time to end."""
    stop: asyncio.Event = options.stop
    if seconds > 0:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
    return stop.is_set()


async def run(options: argparse.Namespace) -> Tally:
    """Generate the load and return the tally."""
    options.stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.call_later(options.seconds, options.stop.set)
    loop.add_reader(sys.stdin, _when_closed, options.stop)
    tally = Tally()
    await (with_long_connections if options.kind == "long" else at_a_steady_rate)(options, tally)
    loop.remove_reader(sys.stdin)
    return tally


def _when_closed(stop: asyncio.Event) -> None:
    if not os.read(0, 1):
        stop.set()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m lab.load")
    parser.add_argument("kind", choices=("http", "udp", "long"))
    parser.add_argument("addresses", nargs="+")
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--count", type=int)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--interval", type=float, default=0.5)
    print(json.dumps(vars(asyncio.run(run(parser.parse_args())))))


if __name__ == "__main__":
    main()
