"""kopf's part: watch every kind, and hand each event to the cache. Nothing is decided here."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import kopf
from dsr_api.base import GROUP

from dsr_operator import kinds
from dsr_operator.audit import Audit
from dsr_operator.cache import Cache
from dsr_operator.client import login
from dsr_operator.kinds import Kind


class Patience:
    """Seconds between attempts of kopf's requests, without end: 0.1, 0.3, 1, 1, 1, ...

    With an end, a watch whose attempts have all failed dies while the process lives.
    """

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.1, 0.3), itertools.repeat(1.0))


class NoEssence(kopf.DiffBaseStorage):
    """Spares kopf the deep copies of every object that only its change handlers, which we do not
    have, would look at: half of what an event costs."""

    def build(
        self,
        *,
        body: kopf.Body,  # noqa: ARG002 - kopf calls by name
        extra_fields: Iterable[kopf.FieldSpec] | None = None,  # noqa: ARG002
    ) -> kopf.BodyEssence:
        """Nothing of the object matters."""
        return kopf.BodyEssence({})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:  # noqa: ARG002
        """Nothing is kept."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is kept."""


def settings() -> kopf.OperatorSettings:
    """kopf leaves no trace on objects (event handlers only) and never gives up a watch."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    chosen.persistence.finalizer = f"{GROUP}/kopf"
    chosen.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    chosen.persistence.diffbase_storage = NoEssence()
    chosen.networking.error_backoffs = Patience()
    chosen.networking.connect_timeout = 3.0
    chosen.networking.request_timeout = 60.0
    chosen.watching.server_timeout = 300  # whole seconds, or the API server refuses it
    chosen.watching.reconnect_backoff = 0.1
    chosen.queueing.idle_timeout = 0.5
    for kind in kinds.WATCHED:
        if kind.label_selector:
            chosen.watching.label_selectors[kind.group, kind.plural] = kind.label_selector
    return chosen


def registry(cache: Cache, audit: Audit) -> kopf.OperatorRegistry:
    """One event handler for each kind, and the log-in."""
    made = kopf.OperatorRegistry()
    kopf.on.login(registry=made)(_login)
    for kind in kinds.WATCHED:
        _watch(made, kind, cache, audit)
    return made


async def _login(**_: Any) -> kopf.ConnectionInfo:
    return login()


def _watch(made: kopf.OperatorRegistry, kind: Kind, cache: Cache, audit: Audit) -> None:
    async def handle(event: kopf.RawEvent, **_: Any) -> None:
        if event["type"] == "DELETED":
            cache.drop(kind, event["object"])
            return
        if event["type"] is None and audit.synced.is_set():
            # A listing after the first: the watch was broken, and deletions went unseen.
            audit.ask(kind)
        cache.put(kind, event["object"])

    selector = (
        (kind.group, kind.version, kind.plural) if kind.group else (kind.version, kind.plural)
    )
    kopf.on.event(*selector, registry=made, id=f"watch-{kind.plural}")(handle)
