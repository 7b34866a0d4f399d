"""This daemon's own Node object: the uplink it names, and whose our objects are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from dsr_api.base import UPLINK_ANNOTATION, Metadata

from dsr_node.api.client import Client, OwnerReference, core_node
from dsr_node.api.watch import Watch
from dsr_node.source.disk import replace_file

PATIENCE = 2.0
"""Seconds that a daemon which knows nothing of its Node waits for it before it does without."""

log = logging.getLogger(__name__)


class Known(msgspec.Struct, frozen=True):
    """What counts of a Node. `uplink`: the interface its annotation names, "" for none."""

    uid: str
    uplink: str = ""


class _Node(msgspec.Struct):
    metadata: Metadata


def _known(item: bytes) -> Known:
    metadata = msgspec.json.decode(item, type=_Node).metadata
    return Known(metadata.uid, metadata.annotations.get(UPLINK_ANNOTATION, ""))


class OwnNode:
    """Watches one Node; `watch.run()` must run beside `run()`.

    - `known`: the last that was known of it, None before the first word. A Node that cannot be read
      or is gone changes nothing here (docs/architecture.md, rule 7), and `file` keeps it for the
      next start: else a daemon started without an API server would move the VIPs to another
      interface.
    - `present`: not set while the API says that there is no such Node. What a daemon writes about
      itself is then left alone: the garbage collector removes it.
    """

    def __init__(self, client: Client, node: str, file: Path) -> None:
        self.watch = Watch(client, core_node(node), _known)
        self.present = asyncio.Event()
        self.present.set()
        self._node = node
        self._file = file
        self.known = self._load()
        self._answered = asyncio.Event()

    @property
    def uplink(self) -> str:
        """See Known."""
        return self.known.uplink if self.known else ""

    @property
    def owners(self) -> tuple[OwnerReference, ...]:
        """The owners of what this daemon writes: its Node, once that is known."""
        if self.known is None:
            return ()
        return (OwnerReference("v1", "Node", self._node, self.known.uid),)

    def is_owner_of(self, document: Mapping[str, Any]) -> bool:
        """Whether an object has the owners it should have."""
        references = document["metadata"].get("ownerReferences", ())
        return {owner.uid for owner in self.owners} <= {each["uid"] for each in references}

    async def settled(self) -> None:
        """Returns as soon as something is known: from disk, or the API's first answer. After
        PATIENCE it has to do without."""
        if self.known is not None:
            return
        try:
            async with asyncio.timeout(PATIENCE):
                await self._answered.wait()
        except TimeoutError:
            log.warning("Node %s: no answer yet; the uplink is chosen by route", self._node)

    async def run(self, on_change: Callable[[], None]) -> NoReturn:
        """Endless; calls `on_change` when the Node has come, gone or changed in what counts."""
        while True:
            await self.watch.changed.wait()
            self.watch.changed.clear()
            before = (self.present.is_set(), self.known)
            self._take(self.watch.mirror.objects.get(self._node))
            self._answered.set()
            if (self.present.is_set(), self.known) != before:
                on_change()
            if self.known and self.known != before[1]:
                await asyncio.to_thread(self._store, self.known)

    def _take(self, now: Known | None) -> None:
        if now is None:
            log.warning("there is no Node %s: neither DSRNode nor Lease is written", self._node)
            self.present.clear()
            return
        self.present.set()
        if now.uplink != self.uplink:
            log.info("%s of the Node: %r", UPLINK_ANNOTATION, now.uplink)
        self.known = now

    def _load(self) -> Known | None:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Known)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            log.warning("%s: ignored, as it cannot be read: %s", self._file, error)
            return None

    def _store(self, known: Known) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._file, msgspec.json.encode(known))
        except OSError as error:
            log.warning("the uplink is not kept for a start without the API server: %s", error)
