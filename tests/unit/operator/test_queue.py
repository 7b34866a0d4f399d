"""The work queue: each key once, at its time, never twice at a time."""

from __future__ import annotations

import asyncio

import pytest
from dsr_operator.queue import WorkQueue

A, B = ("shop", "a"), ("shop", "b")


async def test_a_key_asked_for_often_is_handed_out_once() -> None:
    queue = WorkQueue()
    queue.add([A, A], 0.0)
    queue.add([A], 0.01)
    assert await queue.get() == A
    queue.done(A)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.05)


async def test_the_earlier_time_wins_and_order_is_by_time() -> None:
    queue = WorkQueue()
    queue.add([A], 30.0)
    queue.add([B], 0.02)
    queue.add([A], 0.0)
    assert [await queue.get(), await queue.get()] == [A, B]


async def test_who_waits_is_woken_by_a_new_key() -> None:
    queue = WorkQueue()
    getting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add([A], 0.0)
    assert await asyncio.wait_for(getting, 1.0) == A


async def test_a_key_in_work_waits_until_it_is_done() -> None:
    queue = WorkQueue()
    queue.add([A], 0.0)
    assert await queue.get() == A
    queue.add([A], 0.0)
    getting = asyncio.create_task(queue.get())
    await asyncio.sleep(0.02)
    assert not getting.done()
    queue.done(A)
    assert await asyncio.wait_for(getting, 1.0) == A


async def test_all_workers_together_lose_and_repeat_nothing() -> None:
    queue = WorkQueue()
    keys = [("shop", str(i)) for i in range(200)]
    seen: list[tuple[str, str]] = []

    async def work() -> None:
        while True:
            key = await queue.get()
            await asyncio.sleep(0)
            seen.append(key)
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(8)]
    queue.add(keys, 0.0)
    async with asyncio.timeout(5):
        while len(seen) < len(keys):  # noqa: ASYNC110 - what the workers do is what is waited for
            await asyncio.sleep(0.001)
    assert sorted(seen) == sorted(keys)
    assert len(queue) == 0
    for worker in workers:
        worker.cancel()
