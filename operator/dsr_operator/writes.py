"""Everything the operator writes. Each answer goes into the cache: we read our own writes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from dsr_api.base import OPERATOR_FIELD_MANAGER, WITHDRAWAL_FINALIZER, Metadata, encode
from dsr_api.plan import DSRPlan, DSRPlanSpec, plan_name
from dsr_api.service import DSRServiceStatus

from dsr_operator import kinds
from dsr_operator.cache import Cache
from dsr_operator.client import APPLY, JSON_PATCH, ApiError, Client
from dsr_operator.compile.events import Event
from dsr_operator.metrics import Metrics

log = logging.getLogger(__name__)

APPLY_QUERY = {"fieldManager": OPERATOR_FIELD_MANAGER, "force": "true"}


class NotLeadingError(Exception):
    """Another replica leads, or may: nothing was written."""


class Writer:
    """Writes while `may_write` says so. All methods raise ApiError, UnreachableError, and
    NotLeadingError."""

    def __init__(
        self, client: Client, cache: Cache, metrics: Metrics, may_write: Callable[[], bool]
    ) -> None:
        self._client = client
        self._cache = cache
        self._metrics = metrics
        self._may_write = may_write

    async def apply_plan(self, spec: DSRPlanSpec, current: DSRPlan | None) -> None:
        """Write a plan in place of `current`; refused (409) if that is not the present one.

        An apply would also create, and one that arrives late would overwrite what the next leader
        has made meanwhile: hence POST. What it owns passes to the apply with each change, for every
        field is always applied and all lists are atomic.
        """
        name = plan_name(spec.service.namespace, spec.service.name)
        metadata: dict[str, Any] = {"name": name}
        if current is not None:
            metadata["uid"] = current.metadata.uid
            metadata["resourceVersion"] = current.metadata.resource_version
        document = _document(kinds.PLAN, metadata, spec=_in_full(spec))
        if current is None:
            answer = await self._send("POST", "plan", kinds.PLAN.path(), document)
        else:
            answer = await self._send("PATCH", "plan", kinds.PLAN.path(name=name), document, APPLY)
        self._cache.put(kinds.PLAN, answer)
        taken = self._cache.plans.get(name)
        if taken is None or taken.spec != spec:
            raise ApiError(
                409,
                "NotTaken",
                f"DSRPlan {name} is not what was written: somebody else writes it, or its CRD is of"
                " another release (kubectl get --show-managed-fields tells who)",
            )

    async def delete_plan(self, plan: DSRPlan) -> None:
        """Delete exactly this edition of a plan. One that is gone already is no error."""
        meta = plan.metadata
        preconditions = {"uid": meta.uid, "resourceVersion": meta.resource_version}
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions}
        try:
            await self._send("DELETE", "plan", kinds.PLAN.path(name=meta.name), body)
        except ApiError as error:
            if error.status != 404:
                raise
        self._cache.forget(kinds.PLAN, ("", meta.name), meta.uid)

    async def apply_status(self, meta: Metadata, status: DSRServiceStatus) -> None:
        """Write the status of a DSRService; refused if it is another object of that name."""
        names = {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid}
        document = _document(kinds.SERVICE, names, status=encode(status))
        path = kinds.SERVICE.path(meta.namespace, meta.name, "status")
        self._learn(meta, await self._send("PATCH", "status", path, document, APPLY))

    async def add_finalizer(self, meta: Metadata) -> None:
        """Hold the DSRService until it is withdrawn. Refused if it has changed meanwhile."""
        await self._set_finalizers(meta, [*meta.finalizers, WITHDRAWAL_FINALIZER])

    async def remove_finalizer(self, meta: Metadata) -> None:
        """Let the DSRService go."""
        await self._set_finalizers(meta, [f for f in meta.finalizers if f != WITHDRAWAL_FINALIZER])

    async def _set_finalizers(self, meta: Metadata, finalizers: list[str]) -> None:
        patch = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": meta.resource_version},
            {"op": "add", "path": "/metadata/finalizers", "value": finalizers},
        ]
        path = kinds.SERVICE.path(meta.namespace, meta.name)
        self._learn(meta, await self._send("PATCH", "finalizer", path, patch, JSON_PATCH))

    def _learn(self, meta: Metadata, answer: dict[str, Any]) -> None:
        """Into the cache, unless the watch has told meanwhile that the object is gone."""
        known = self._cache.versions[kinds.SERVICE].get((meta.namespace, meta.name))
        if known is not None and known.uid == meta.uid:
            self._cache.put(kinds.SERVICE, answer)

    async def post_event(self, meta: Metadata, event: Event) -> None:
        """A Kubernetes Event on a DSRService. A namespace that is being deleted takes none."""
        document = _event(meta, event)
        try:
            await self._send("POST", "event", kinds.EVENT.path(meta.namespace), document)
        except ApiError as error:
            if error.status not in (403, 404, 409):
                raise
            log.debug("no Event on %s/%s: %s", meta.namespace, meta.name, error)

    async def _send(
        self,
        method: str,
        what: str,
        path: str,
        body: Any,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        if not self._may_write():
            raise NotLeadingError("the Lease is not ours (any more)")
        query = APPLY_QUERY if content_type == APPLY else {"fieldManager": OPERATOR_FIELD_MANAGER}
        if method == "DELETE":
            query = {}
        try:
            answer = await self._client.request(
                method, path, query=query, body=body, content_type=content_type
            )
        except Exception:
            self._metrics.writes.labels(what, "failed").inc()
            raise
        self._metrics.writes.labels(what, "done").inc()
        return answer


def _in_full(spec: DSRPlanSpec) -> dict[str, Any]:
    """With all fields, also those at their defaults: what somebody else has set gives way."""
    fields = zip(spec.__struct_fields__, spec.__struct_encode_fields__, strict=True)
    values = {encoded: msgspec.to_builtins(getattr(spec, name)) for name, encoded in fields}
    return {name: value for name, value in values.items() if value is not None}


def _document(kind: kinds.Kind, metadata: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, **rest}


def _event(meta: Metadata, event: Event) -> dict[str, Any]:
    """core/v1 Event. Its name is that of its content: told twice it is one Event (409)."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    content = f"{meta.uid} {event.reason} {event.message} {now}"
    suffix = hashlib.sha256(content.encode()).hexdigest()[:16]
    about = {
        "apiVersion": kinds.SERVICE.api_version,
        "kind": kinds.SERVICE.name,
        "namespace": meta.namespace,
        "name": meta.name,
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta.name[:200]}.{suffix}", "namespace": meta.namespace},
        "involvedObject": about,
        "type": event.type,
        "reason": event.reason,
        "message": event.message,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "source": {"component": OPERATOR_FIELD_MANAGER},
        "reportingComponent": OPERATOR_FIELD_MANAGER,
    }
