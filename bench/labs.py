"""A lab for one benchmark, gone afterwards, and bulk writes to its API server."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dsr_api.base import GROUP, VERSION
from dsr_node.api.client import Client, Resource
from rich.console import Console

from lab.laboratory import Lab
from lab.progress import ConsoleProgress
from lab.settings import lab_names

SERVICES = Resource(GROUP, VERSION, "dsrservices", "DSRService", "default")
POOLS = Resource(GROUP, VERSION, "dsraddresspools", "DSRAddressPool")

AT_ONCE = 16
"""Writes under way at a time."""

Document = dict[str, Any]


@contextmanager
def fresh_lab(name: str, *, lbs: int, backends: int) -> Iterator[Lab]:
    """A lab that is up; what is left of an earlier one of that name goes first.

    It is taken down however this ends, by Ctrl-C and SIGTERM too. Raises LabError.
    """
    progress = ConsoleProgress(Console(stderr=True))
    if name in lab_names():
        Lab.open(name).down()
    with ended_by_sigterm():
        lab = Lab.create(name, lbs=lbs, backends=backends)
        try:
            lab.up(progress)
            yield lab
        finally:
            with progress.step("lab down"):
                lab.down()


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM unwinds the stack as Ctrl-C does, so that everything is cleaned up."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def service_spec(vip: str, **more: object) -> Document:
    """HTTP on one VIP: every node with role=lb directs, every one with role=web serves."""
    return {
        "vips": [vip],
        "ports": [{"name": "http", "port": 80}],
        "backends": {"nodeSelector": {"matchLabels": {"role": "web"}}},
        "loadBalancerNodes": {"nodeSelector": {"matchLabels": {"role": "lb"}}},
        **more,
    }


SEGMENT = ("10.77.0.0/24", "fd77::/64")
"""All of a lab's segment."""


async def apply_pool(client: Client, addresses: Iterable[str] = SEGMENT) -> None:
    """A pool for every namespace."""
    await client.apply(POOLS, "bench", {"spec": {"addresses": list(addresses)}})


async def apply_services(client: Client, services: Mapping[str, str]) -> None:
    """Services by name, each with its VIP, as fast as the API server takes them."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, vip: str) -> None:
        async with free:
            await client.apply(SERVICES, name, {"spec": service_spec(vip)})

    async with asyncio.TaskGroup() as group:
        for name, vip in services.items():
            group.create_task(one(name, vip))
