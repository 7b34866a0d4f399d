"""`dsr-operator uninstall`, the chart's pre-delete hook: every VIP withdrawn, every node clean.

1. The operator's Deployment is scaled to none, so that nobody compiles plans any more.
2. An operator in this process sees every DSRService as deleted, and withdraws them in the order in
   which it always does. The objects stay as the users wrote them, without our finalizer.
3. The daemons' DaemonSet is deleted, and a pod runs `dsr-node --cleanup` on each node: cleaning.py.
4. What the daemons have told is deleted: DSRNodes and Leases.

Helm puts back what was scaled down or deleted when the release is rolled back; nothing of Helm's is
changed in any other way, for that it would leave as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dsr_api.base import LEASE_PREFIX, WITHDRAWAL_FINALIZER

from dsr_operator import cleaning, kinds
from dsr_operator.app import Config, Operator
from dsr_operator.cache import Cache
from dsr_operator.client import APPLY, ApiError
from dsr_operator.compile import reasons
from dsr_operator.kinds import Kind
from dsr_operator.patient import PatientClient
from dsr_operator.writes import APPLY_QUERY

log = logging.getLogger(__name__)

DEPLOYMENT = Kind("Deployment", "apps", "v1", "deployments", namespaced=True)

MERGE_PATCH = "application/merge-patch+json"

POLL = 0.5

UNINSTALLED = "Uninstalled"
LAST_WORD = "the DSR operator was uninstalled; install it again, or delete this object"

Json = dict[str, Any]


class UninstallError(Exception):
    """It could not be finished. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Names of what the chart has made. `identity`: this process in the leader election;
    `cleanup`: the PodTemplate of what cleans a node."""

    namespace: str
    deployment: str
    daemon_set: str
    cleanup: str
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
    client = PatientClient()
    steps: tuple[Callable[[PatientClient, Installation], Awaitable[None]], ...] = (
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
            " and uninstall again; to keep the installation instead, `helm rollback` to the last"
            " revision that was deployed"
        ) from None
    finally:
        await client.close()


async def stop_operators(client: PatientClient, installation: Installation) -> None:
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


async def withdraw(client: PatientClient, installation: Installation) -> None:
    """Run an operator until no plan and no finalizer of ours is left."""
    if not (left := await _left(client)):
        log.info("nothing is to be withdrawn")
        return
    log.info("withdrawing %s", ", ".join(sorted(left)))
    config = Config(installation.namespace, installation.identity, "127.0.0.1", 0)
    watching = asyncio.create_task(_until_nothing_is_left(client))
    try:
        while not watching.done():
            operator = Operator(config, WithdrawingCache)
            await operator.start()
            code = await operator.until(watching)
            if code == 0 and not watching.done():
                raise UninstallError("the withdrawal was interrupted by a signal: uninstall again")
            if not watching.done():
                log.warning("the withdrawal has failed, see the messages above; once more")
                await asyncio.sleep(POLL)
        await watching
    finally:
        watching.cancel()
    for service in await client.items(kinds.SERVICE.path()):
        await _tell(client, service)
    log.info("everything is withdrawn")


async def _tell(client: PatientClient, service: Json) -> None:
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


async def _until_nothing_is_left(client: PatientClient) -> None:
    told: set[str] = set()
    while left := await _left(client):
        if left != told:
            log.info("left: %s", ", ".join(sorted(left)))
            told = left
        await asyncio.sleep(POLL)


async def _left(client: PatientClient) -> set[str]:
    """What is not withdrawn yet, as words for people. Without their CRDs there is nothing."""
    plans = {f"plan {p['metadata']['name']}" for p in await client.items(kinds.PLAN.path())}
    services = {
        f"{meta['namespace']}/{meta['name']}"
        for service in await client.items(kinds.SERVICE.path())
        if WITHDRAWAL_FINALIZER in (meta := service["metadata"]).get("finalizers", ())
    }
    return plans | services


async def clean_nodes(client: PatientClient, installation: Installation) -> None:
    """Undo on every node what its daemon did."""
    await cleaning.clean_nodes(
        client, installation.namespace, installation.daemon_set, installation.cleanup
    )


async def forget_nodes(client: PatientClient, installation: Installation) -> None:
    """Delete the DSRNodes and the daemons' Leases."""
    leases = await client.items(kinds.LEASE.path(installation.namespace))
    reports = await client.items(kinds.REPORT.path())
    paths = [kinds.REPORT.path(name=report["metadata"]["name"]) for report in reports]
    paths += [
        kinds.LEASE.path(installation.namespace, lease["metadata"]["name"])
        for lease in leases
        if lease["metadata"]["name"].startswith(LEASE_PREFIX)
    ]
    for path in paths:
        await client.delete(path)
    log.info("uninstalled; CRDs and the users' objects stay")
