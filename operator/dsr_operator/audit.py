"""Whether the cache agrees with the API server, found out by listing and not by trust.

kopf's watches do not tell when the first listing is complete, do not tell what was deleted while a
watch was broken, and may die while the process lives. One remedy for all three: list the metadata
of a kind, and wait until the cache has all of it. Before every kind has agreed once, nothing is
written; what the list lacks is dropped; what the cache never gets means that the watch is dead.

A list never shows less than what was known before it was asked for, unless the API server's store
was restored from a backup: the cache then follows it back, which it does for no event of a watch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from dsr_operator import kinds
from dsr_operator.cache import Cache, ObjectKey, Version
from dsr_operator.client import METADATA_LIST, ApiError, Client, UnreachableError
from dsr_operator.kinds import Kind
from dsr_operator.metrics import Metrics

log = logging.getLogger(__name__)

PERIOD = 60.0
"""Seconds between two audits of a kind when nothing calls for one."""

PAUSES = (0.05, 0.05, 0.1, 0.1, 0.2, 0.5, 1.0, 1.0, 2.0)
"""Seconds for the cache to catch up with a list, after each comparison that found it behind."""

LISTS = 3
"""Lists of which each must name an object before it is said to be missing."""

DEAD_AFTER = 30.0
"""Seconds that a cache may be behind while the API server answers, before the process is ill."""

COMPLAINT_PERIOD = 30.0


class Audit:
    """Compares every kind with the API server, at the start, now and then, and when asked to."""

    def __init__(self, client: Client, cache: Cache, metrics: Metrics) -> None:
        self._client = client
        self._cache = cache
        self._metrics = metrics
        self._agreed: dict[Kind, float] = {}
        self._behind_since: dict[Kind, float] = {}
        self._asked = {kind: asyncio.Event() for kind in kinds.WATCHED}
        self._complained: dict[Kind, float] = {}
        self.synced = asyncio.Event()

    def ask(self, kind: Kind) -> None:
        """Have a kind audited soon: its watch has just listed everything anew."""
        self._asked[kind].set()

    def dead_watches(self) -> list[str]:
        """Kinds whose cache has been behind for longer than a live watch could be."""
        now = time.monotonic()
        return [k.name for k, since in self._behind_since.items() if now - since > DEAD_AFTER]

    def missing(self) -> list[str]:
        """Kinds that have not been listed in full yet."""
        return [k.name for k in kinds.WATCHED if k not in self._agreed]

    async def run(self) -> None:
        """Audit all kinds for ever."""
        async with asyncio.TaskGroup() as group:
            for kind in kinds.WATCHED:
                group.create_task(self._keep(kind), name=f"audit {kind.name}")

    async def once(self) -> None:
        """Audit all kinds one time, until they agree."""
        for kind in kinds.WATCHED:
            await self._insist(kind)

    async def _insist(self, kind: Kind) -> None:
        while True:
            if await self._audit(kind):
                return
            await asyncio.sleep(1.0)

    async def _keep(self, kind: Kind) -> None:
        while True:
            self._asked[kind].clear()
            agreed = await self._audit(kind)
            if agreed and not self.missing():
                self.synced.set()
            try:
                async with asyncio.timeout(PERIOD if agreed else 1.0):
                    await self._asked[kind].wait()
            except TimeoutError:
                continue
            await asyncio.sleep(1.0)

    async def _audit(self, kind: Kind) -> bool:
        """One audit; False if the API server gave no list or the cache stayed behind."""
        try:
            return await self._compare(kind)
        except ApiError as error:
            self._complain(kind, _advice(kind, error))
        except UnreachableError as error:
            self._complain(kind, str(error))
        return False

    async def _compare(self, kind: Kind) -> bool:
        before = dict(self._cache.versions[kind])
        suspects: set[ObjectKey] | None = None
        for _ in range(LISTS):
            listed = await self._list(kind)
            await self._go_back(kind, before, listed)
            behind, surplus = await self._catch_up(kind, before, listed)
            # An object deleted after the list is not missing: only who is so in each list counts.
            suspects = behind if suspects is None else suspects & behind
            if not suspects:
                self._drop(kind, surplus)
                self._note_agreed(kind)
                return True
        return self._note_behind(kind, suspects or set())

    async def _go_back(
        self, kind: Kind, before: Mapping[ObjectKey, Version], listed: Mapping[ObjectKey, Version]
    ) -> None:
        """Take what the list has in an older edition than the cache had before the list."""
        older = {k for k, v in listed.items() if k in before and v.revision < before[k].revision}
        if not older:
            return
        log.warning(
            "the API server has gone back in time (restored from a backup?): %d %s objects are"
            " older than they were",
            len(older),
            kind.name,
        )
        answer = await self._client.request("GET", kind.path(), query=_query(kind))
        for item in answer.get("items") or ():
            key, version = _version(item["metadata"])
            cached = self._cache.versions[kind].get(key)
            if key in older and cached is not None and version.revision < cached.revision:
                self._cache.forget(kind, key, cached.uid)
                self._cache.put(kind, item)

    async def _catch_up(
        self, kind: Kind, before: Mapping[ObjectKey, Version], listed: Mapping[ObjectKey, Version]
    ) -> tuple[set[ObjectKey], dict[ObjectKey, Version]]:
        """Give the watch time to bring the cache to the list; what it still lacks and has left."""
        for pause in PAUSES:
            behind = self._behind(kind, listed)
            surplus = self._surplus(kind, before, listed)
            if not behind and not surplus:
                break
            await asyncio.sleep(pause)
        return behind, surplus

    def _note_agreed(self, kind: Kind) -> None:
        self._agreed[kind] = time.monotonic()
        self._behind_since.pop(kind, None)
        self._metrics.watch_age.labels(kind.name).set_function(
            lambda: time.monotonic() - self._agreed[kind]
        )

    def _note_behind(self, kind: Kind, suspects: set[ObjectKey]) -> bool:
        self._behind_since.setdefault(kind, time.monotonic())
        some = ", ".join("/".join(filter(None, key)) for key in sorted(suspects)[:3])
        self._complain(kind, f"the watch lags behind the API server: {len(suspects)}, as {some}")
        return False

    def _behind(self, kind: Kind, listed: Mapping[ObjectKey, Version]) -> set[ObjectKey]:
        cached = self._cache.versions[kind]
        return {
            key
            for key, version in listed.items()
            if key not in cached or cached[key].revision < version.revision
        }

    def _surplus(
        self, kind: Kind, before: Mapping[ObjectKey, Version], listed: Mapping[ObjectKey, Version]
    ) -> dict[ObjectKey, Version]:
        """What the cache held before the first list, holds unchanged, and no list has."""
        cached = self._cache.versions[kind]
        return {k: v for k, v in before.items() if k not in listed and cached.get(k) == v}

    def _drop(self, kind: Kind, surplus: Mapping[ObjectKey, Version]) -> None:
        for key, version in surplus.items():
            log.info("%s %s/%s was deleted while nobody watched", kind.name, *key)
            self._cache.forget(kind, key, version.uid)

    async def _list(self, kind: Kind) -> dict[ObjectKey, Version]:
        answer = await self._client.request(
            "GET", kind.path(), query=_query(kind), accept=METADATA_LIST
        )
        return dict(_version(item["metadata"]) for item in answer.get("items") or ())

    def _complain(self, kind: Kind, message: str) -> None:
        now = time.monotonic()
        if now - self._complained.get(kind, -COMPLAINT_PERIOD) >= COMPLAINT_PERIOD:
            self._complained[kind] = now
            log.warning("waiting for %s objects: %s", kind.name, message)


def _query(kind: Kind) -> dict[str, str]:
    return {"labelSelector": kind.label_selector} if kind.label_selector else {}


def _version(meta: Mapping[str, Any]) -> tuple[ObjectKey, Version]:
    key = (meta.get("namespace", ""), meta["name"])
    return key, Version(meta["uid"], int(meta["resourceVersion"]))


def _advice(kind: Kind, error: ApiError) -> str:
    if error.status == 404:
        return (
            f"the API server does not serve {kind.plural}.{kind.group}: install the chart's CRDs"
            " (kubectl apply -f crds/)"
        )
    if error.status == 403:
        return f"{error.message}: check the operator's ClusterRole"
    return str(error)
