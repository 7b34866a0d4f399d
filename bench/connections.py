"""Holds HTTP connections open, and says which backend each was on and how it ended.

Run as `python -m bench.connections ADDRESS... [options]` on a node; ends when standard input is
closed, and prints one JSON list of {"address", "backend", "answers", "broken"}: `broken` is null
for a connection that was good to the end, else [seconds since the epoch, what happened].
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import sys
import time
from dataclasses import asdict, dataclass

PORT = 80
TIMEOUT = 5.0
"""Seconds for an answer: two retransmissions of a lost packet fit in."""


@dataclass
class Connection:
    """One connection, over its whole life."""

    address: str
    backend: str = ""
    answers: int = 0
    broken: tuple[float, str] | None = None

    async def hold(self, interval: float) -> None:
        """Open it, and ask each interval, at a phase of its own, until it breaks."""
        await asyncio.sleep(random.uniform(0, interval))
        try:
            async with asyncio.timeout(TIMEOUT):
                reader, writer = await asyncio.open_connection(self.address, PORT)
            while True:
                async with asyncio.timeout(TIMEOUT):
                    await self._ask(reader, writer)
                await asyncio.sleep(interval)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
            self.broken = (time.time(), type(error).__name__)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.split("\r\n")
        if status.split()[1] != "200":
            raise ValueError(status)
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        await reader.readexactly(int(headers["content-length"]))
        self.backend = headers["x-backend"]
        self.answers += 1


async def run(options: argparse.Namespace) -> list[Connection]:
    """All connections until the end."""
    addresses = itertools.islice(itertools.cycle(options.addresses), options.connections)
    connections = [Connection(address) for address in addresses]
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, _when_closed, ended)
    tasks = [asyncio.create_task(each.hold(options.interval)) for each in connections]
    await ended.wait()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return connections


def _when_closed(ended: asyncio.Event) -> None:
    if not os.read(0, 1):
        ended.set()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.connections")
    parser.add_argument("addresses", nargs="+")
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--interval", type=float, default=0.5)
    connections = asyncio.run(run(parser.parse_args()))
    print(json.dumps([asdict(each) for each in connections]))


if __name__ == "__main__":
    main()
