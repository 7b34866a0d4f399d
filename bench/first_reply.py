"""Asks for addresses until the first HTTP reply comes, and says when that was.

Run as `python -m bench.first_reply` on a node. Each line of standard input is an address to begin
with; each line of standard output is {"address": ..., "at": seconds since the epoch}. A new
connection is tried each INTERVAL, whether or not those before have come to anything.
"""

from __future__ import annotations

import asyncio
import json
import sys

from lab.load import Tally, ask_http

INTERVAL = 0.01


async def first_reply(address: str) -> None:
    """Ask until there is an answer, and print when it came."""
    tally = Tally()
    asking: set[asyncio.Task[None]] = set()
    while tally.first_answer is None:
        task = asyncio.create_task(ask_http(address, tally))
        asking.add(task)
        task.add_done_callback(asking.discard)
        await asyncio.sleep(INTERVAL)
    print(json.dumps({"address": address, "at": tally.first_answer}), flush=True)
    for task in asking:
        task.cancel()


async def main() -> None:
    """Until standard input is closed."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with asyncio.TaskGroup() as group:
        while line := await lines.readline():
            group.create_task(first_reply(line.decode().strip()))


if __name__ == "__main__":
    asyncio.run(main())
