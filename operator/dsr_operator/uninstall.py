"""`dsr-operator uninstall`, the chart's pre-delete hook: every VIP withdrawn, every node clean.

1. The operator's Deployment is scaled to none, so that nobody compiles plans any more.
2. An operator in this process sees every DSRService as deleted, and withdraws them in the order in
   which it always does. The objects stay as the users wrote them, without our finalizer.
3. The daemons' pods are replaced by pods that run `dsr-node --cleanup` once and then do nothing.
4. What the daemons have told is deleted: DSRNodes and Leases.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dsr_api.base import LEASE_PREFIX, WITHDRAWAL_FINALIZER

from dsr_operator import kinds
from dsr_operator.app import Config, Operator
from dsr_operator.cache import Cache
from dsr_operator.client import APPLY, ApiError, Client
from dsr_operator.compile import reasons
from dsr_operator.kinds import Kind
from dsr_operator.writes import APPLY_QUERY

log = logging.getLogger(__name__)

DEPLOYMENT = Kind("Deployment", "apps", "v1", "deployments", namespaced=True)
DAEMON_SET = Kind("DaemonSet", "apps", "v1", "daemonsets", namespaced=True)
POD = Kind("Pod", "", "v1", "pods", namespaced=True)

MERGE_PATCH = "application/merge-patch+json"

POLL = 0.5
PATIENCE = 60.0
"""Seconds without any progress after which nodes that do not answer are left as they are."""

UNINSTALLED = "Uninstalled"
LAST_WORD = "the DSR operator was uninstalled; install it again, or delete this object"

IDLE = ("sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait")
"""Until the DaemonSet is deleted. As process 1 it would not end by SIGTERM without the trap."""

Json = dict[str, Any]


class UninstallError(Exception):
    """It could not be finished. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Names of what the chart has made. `identity`: this process in the leader election."""

    namespace: str
    deployment: str
    daemon_set: str
    identity: str


class WithdrawingCache(Cache):
    """Shows every DSRService as if its user had deleted it."""

    def put(self, kind: Kind, document: Mapping[str, Any]) -> None:
        """Like Cache.put."""
        super().put(kind, _as_deleted(document) if kind is kinds.SERVICE else document)


def _as_deleted(document: Mapping[str, Any]) -> Json:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {**document, "metadata": {"deletionTimestamp": now, **document["metadata"]}}


async def uninstall(installation: Installation, seconds: float) -> None:
    """Do all steps; to do it again is safe.

    Raises UninstallError (also after these seconds), ApiError and UnreachableError.
    """
    client = Client()
    steps: tuple[Callable[[Client, Installation], Awaitable[None]], ...] = (
        stop_operators,
        withdraw,
        clean_nodes,
        forget_nodes,
    )
    step = steps[0]
    try:
        async with asyncio.timeout(seconds):
            for step in steps:
                await step(client, installation)
    except TimeoutError:
        raise UninstallError(
            f"not finished within {seconds:.0f} s, in step {step.__name__}: see the messages above,"
            " and uninstall again; to keep the installation instead, run helm upgrade"
        ) from None
    finally:
        await client.close()


async def stop_operators(client: Client, installation: Installation) -> None:
    """Scale the operator's Deployment to none and wait until its pods are gone."""
    path = DEPLOYMENT.path(installation.namespace, installation.deployment)
    log.info("stopping the operator (Deployment %s)", installation.deployment)
    try:
        await client.request(
            "PATCH", f"{path}/scale", body={"spec": {"replicas": 0}}, content_type=MERGE_PATCH
        )
        while not _stopped(await client.request("GET", path)):  # noqa: ASYNC110 - others' state
            await asyncio.sleep(POLL)
    except ApiError as error:
        if error.status != 404:
            raise
        log.info("there is none")


def _stopped(deployment: Json) -> bool:
    status = deployment.get("status", {})
    seen = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    return bool(seen and not status.get("replicas"))


async def withdraw(client: Client, installation: Installation) -> None:
    """Run an operator until no plan and no finalizer of ours is left."""
    if not (left := await _left(client)):
        log.info("nothing is to be withdrawn")
        return
    log.info("withdrawing %s", ", ".join(sorted(left)))
    config = Config(installation.namespace, installation.identity, "127.0.0.1", 0)
    operator = Operator(config, WithdrawingCache)
    await operator.start()
    done = asyncio.Event()
    watching = asyncio.create_task(_watch_left(client, done))
    try:
        if await operator.until(done) != 0:
            raise UninstallError("the withdrawal has failed: see the messages above, and try again")
    finally:
        watching.cancel()
    for service in await _items(client, kinds.SERVICE.path()):
        await _tell(client, service)
    log.info("everything is withdrawn")


async def _tell(client: Client, service: Json) -> None:
    """The last word in a withdrawn DSRService's status, in place of all that was there."""
    conditions = [
        {**condition, "reason": UNINSTALLED, "message": LAST_WORD}
        for condition in service.get("status", {}).get("conditions", [])
        if condition["reason"] == reasons.WITHDRAWING
    ]
    if not conditions:
        return
    meta = service["metadata"]
    identity = {key: meta[key] for key in ("name", "namespace", "uid")}
    status = {"observedGeneration": meta["generation"], "conditions": conditions}
    document = {
        "apiVersion": kinds.SERVICE.api_version,
        "kind": kinds.SERVICE.name,
        "metadata": identity,
        "status": status,
    }
    path = kinds.SERVICE.path(meta["namespace"], meta["name"], "status")
    try:
        await client.request("PATCH", path, query=APPLY_QUERY, body=document, content_type=APPLY)
    except ApiError as error:
        if error.status != 404:
            raise


async def _watch_left(client: Client, done: asyncio.Event) -> None:
    told: set[str] = set()
    while left := await _left(client):
        if left != told:
            log.info("left: %s", ", ".join(sorted(left)))
            told = left
        await asyncio.sleep(POLL)
    done.set()


async def _left(client: Client) -> set[str]:
    """What is not withdrawn yet, as words for people. Without their CRDs there is nothing."""
    plans = {f"plan {p['metadata']['name']}" for p in await _items(client, kinds.PLAN.path())}
    services = {
        f"{meta['namespace']}/{meta['name']}"
        for service in await _items(client, kinds.SERVICE.path())
        if WITHDRAWAL_FINALIZER in (meta := service["metadata"]).get("finalizers", ())
    }
    return plans | services


async def _items(client: Client, path: str, **query: str) -> list[Json]:
    try:
        answer = await client.request("GET", path, query=query)
    except ApiError as error:
        if error.status != 404:
            raise
        return []
    return list(answer["items"])


async def clean_nodes(client: Client, installation: Installation) -> None:
    """Have every daemon's pod replaced by one that cleans its node; wait for them.

    A node that is down cannot be cleaned and does not hold up the rest: it is named.
    """
    path = DAEMON_SET.path(installation.namespace, installation.daemon_set)
    log.info("cleaning the nodes (DaemonSet %s)", installation.daemon_set)
    try:
        daemons = await client.request("GET", path)
        patch = {"spec": cleaning(daemons["spec"])}
        daemons = await client.request("PATCH", path, body=patch, content_type=MERGE_PATCH)
    except ApiError as error:
        if error.status != 404:
            raise
        log.info("there is none")
        return
    progress, since = -1, time.monotonic()
    while (clean := _clean(daemons)) is not True:
        if clean != progress:
            log.info("%d of %d nodes are clean", clean, _wanted(daemons))
            progress, since = clean, time.monotonic()
        elif time.monotonic() - since > PATIENCE:
            await _name_unclean(client, installation, daemons)
            return
        await asyncio.sleep(POLL)
        daemons = await client.request("GET", path)
    log.info("all nodes are clean")


def cleaning(spec: Json) -> Json:
    """The parts of a DaemonSet's spec to change, so that its pods clean their nodes. Pure."""
    container = {
        key: value
        for key, value in spec["template"]["spec"]["containers"][0].items()
        if key not in ("ports", "startupProbe", "livenessProbe", "readinessProbe")
    }
    arguments = [*container.get("args", ()), "--cleanup"]
    cleanup = {**container, "name": "cleanup", "args": arguments}
    idle = {**container, "command": list(IDLE), "args": []}
    everywhere = {"maxUnavailable": "100%", "maxSurge": 0}
    return {
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": everywhere},
        "template": {"spec": {"initContainers": [cleanup], "containers": [idle]}},
    }


def _wanted(daemons: Json) -> int:
    return int(daemons.get("status", {}).get("desiredNumberScheduled", 0))


def _clean(daemons: Json) -> int | bool:
    """True if all nodes are clean, else how many are."""
    status = daemons.get("status", {})
    if status.get("observedGeneration", 0) < daemons["metadata"]["generation"]:
        return 0
    updated = status.get("updatedNumberScheduled", 0)
    clean = int(min(updated, status.get("numberAvailable", 0)))
    return True if clean >= _wanted(daemons) else clean


async def _name_unclean(client: Client, installation: Installation, daemons: Json) -> None:
    labels = daemons["spec"]["selector"]["matchLabels"]
    pods = await _items(
        client,
        POD.path(installation.namespace),
        labelSelector=",".join(f"{key}={value}" for key, value in labels.items()),
    )
    unclean = sorted(pod["spec"].get("nodeName", "?") for pod in pods if not _ready(pod))
    log.warning(
        "these nodes do not answer and were not cleaned: %s; reboot them, or run"
        " `dsr-node --cleanup` there",
        ", ".join(unclean),
    )


def _ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


async def forget_nodes(client: Client, installation: Installation) -> None:
    """Delete the DSRNodes and the daemons' Leases."""
    leases = await _items(client, kinds.LEASE.path(installation.namespace))
    reports = await _items(client, kinds.REPORT.path())
    paths = [kinds.REPORT.path(name=report["metadata"]["name"]) for report in reports]
    paths += [
        kinds.LEASE.path(installation.namespace, lease["metadata"]["name"])
        for lease in leases
        if lease["metadata"]["name"].startswith(LEASE_PREFIX)
    ]
    for path in paths:
        try:
            await client.request("DELETE", path)
        except ApiError as error:
            if error.status != 404:
                raise
    log.info("uninstalled; CRDs and the users' objects stay")
