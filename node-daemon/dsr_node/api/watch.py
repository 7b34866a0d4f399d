"""One resource kept in memory as the API has it: list, watch, and what to do when either fails."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

import msgspec

from dsr_node.api.backoff import Backoff
from dsr_node.api.client import Client, Resource, WatchEvent
from dsr_node.api.errors import ApiError, GoneError, UnavailableError, UnreachableError

WATCH_SECONDS = (240, 300)
"""A watch ends after a random time in between, so that daemons do not come back all at once."""

SHORTEST_WATCH = 1.0
"""A watch that ended sooner and without a word was no success: back off before the next one."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class _Metadata(msgspec.Struct, rename="camel"):
    """What every event has. A bookmark is an object with a resourceVersion and nothing else."""

    resource_version: str
    name: str = ""


class _Partial(msgspec.Struct):
    metadata: _Metadata


class Mirror(Generic[T]):
    """What list and watch have told. Pure: no clock, no I/O.

    - `objects`: by name; `decode` makes them, and they are the same ones as long as the API's are.
    - `revision`: the resourceVersion up to which all is known (list, events and bookmarks).
    """

    def __init__(self, decode: Callable[[bytes], T]) -> None:
        self.objects: dict[str, T] = {}
        self.revision = 0
        self._decode = decode
        self._versions: dict[str, str] = {}

    def listed(self, items: Iterable[msgspec.Raw], revision: int) -> bool:
        """A full list: what is not in it is no more. True if anything changed."""
        before = dict(self._versions)
        there = {self._take(item) for item in items}
        for name in self.objects.keys() - there:
            del self.objects[name], self._versions[name]
        self.revision = revision
        return self._versions != before

    def event(self, event: WatchEvent) -> bool:
        """One event of a watch; True if an object changed.

        Raises GoneError when the version went backwards: etcd was restored from a backup, and
        only a new list tells what there is.
        """
        metadata = msgspec.json.decode(event.object, type=_Partial).metadata
        revision = int(metadata.resource_version)
        if revision < self.revision:
            raise GoneError(f"resourceVersion went back from {self.revision} to {revision}")
        self.revision = revision
        if event.type == "BOOKMARK":
            return False
        if event.type != "DELETED":
            self._take(event.object)
            return True
        self._versions.pop(metadata.name, None)
        return self.objects.pop(metadata.name, None) is not None

    def _take(self, item: msgspec.Raw) -> str:
        metadata = msgspec.json.decode(item, type=_Partial).metadata
        name = metadata.name
        if self._versions.get(name) != metadata.resource_version:
            self.objects[name] = self._decode(bytes(item))
            self._versions[name] = metadata.resource_version
        return name


@dataclass
class Health:
    """Whether the API can be read now. Times are of time.monotonic().

    `problem`: "" while a watch runs, else why not. `since`: when it last became so. `heard`: the
    last word of the server (answer, event, bookmark), None before the first.
    """

    problem: str = "not asked yet"
    since: float = 0.0
    heard: float | None = None

    def good(self) -> None:
        """The server has spoken."""
        self.heard = time.monotonic()
        if self.problem:
            self.problem, self.since = "", self.heard

    def bad(self, problem: str) -> None:
        """It has not, or has refused."""
        if not self.problem:
            self.since = time.monotonic()
        self.problem = problem


class Watch(Generic[T]):
    """`run` keeps `mirror` current and sets `changed`; the reader waits for it and clears it.

    `listed` becomes true with the first full list. On any error the mirror stays as it is
    (docs/architecture.md, rule 7). After 410, 403 or 404 it lists again; a watch broken off goes
    on where it was.
    """

    def __init__(self, client: Client, resource: Resource, decode: Callable[[bytes], T]) -> None:
        self.mirror = Mirror(decode)
        self.health = Health()
        self.changed = asyncio.Event()
        self.listed = False
        self._client = client
        self._resource = resource
        self._backoff = Backoff()
        self._must_list = True

    async def run(self) -> NoReturn:
        """Endless; ends by being cancelled."""
        while True:
            try:
                if self._must_list:
                    await self._list()
                await self._follow()
            except ApiError as error:
                self._must_list |= not isinstance(error, UnavailableError)
                wait = self._backoff.failed(error)
                self._tell(error)
                await asyncio.sleep(wait)

    def _tell(self, error: ApiError) -> None:
        if isinstance(error, GoneError):
            log.info("%s: listing again: %s", self._resource.plural, error)
            return
        if not self.health.problem:
            log.warning("%s: keeping what is known: %s", self._resource.plural, error)
        else:
            log.debug("%s: still: %s", self._resource.plural, error)
        self.health.bad(str(error))

    def _good(self) -> None:
        if self.health.problem:
            log.info("%s: reading from the API", self._resource.plural)
        self.health.good()
        self._backoff.succeeded()

    async def _list(self) -> None:
        listing = await self._client.list(self._resource)
        changed = self.mirror.listed(listing.items, listing.revision)
        self._must_list = False
        self._good()
        if changed or not self.listed:
            self.listed = True
            self.changed.set()

    async def _follow(self) -> None:
        began, events = time.monotonic(), 0
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 - jitter, not a secret
        version = str(self.mirror.revision)
        async with self._client.watch(self._resource, version, seconds) as stream:
            self._good()
            async for event in stream:
                events += 1
                self.health.good()
                if self.mirror.event(event):
                    self.changed.set()
        if not events and time.monotonic() - began < SHORTEST_WATCH:
            raise UnreachableError("the watch ended at once")
