"""Who leads: the holder of a Kubernetes Lease, in the way of client-go's leader election.

A Lease counts as expired when this process has seen it unchanged for its whole duration; clocks
of different machines are never compared.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from datetime import UTC, datetime
from typing import Any

from dsr_api.base import decode

from dsr_operator import kinds
from dsr_operator.client import ApiError, Client, UnreachableError
from dsr_operator.core import Lease

log = logging.getLogger(__name__)

LEASE_NAME = "dsr-operator"
DURATION = 15
RENEW_DEADLINE = 10.0
"""Seconds without a renewal after which the leader stops, well before others may start."""
RETRY = 2.0


class LostLeadershipError(Exception):
    """This process led and does no more; it must end, for another one may write now."""


class Leader:
    """One candidate. `identity` must differ between all candidates of a cluster."""

    def __init__(self, client: Client, namespace: str, identity: str) -> None:
        self._client = client
        self._namespace = namespace
        self._identity = identity
        self._renewed: float | None = None
        self._rival: tuple[str, float] = ("", 0.0)
        self.elected = asyncio.Event()

    def leads(self) -> bool:
        """Whether this process may write at this moment."""
        return self._renewed is not None and time.monotonic() - self._renewed < RENEW_DEADLINE

    async def run(self) -> None:
        """Become leader and stay it. Raises LostLeadershipError when that fails for too long."""
        log.info("leader election: candidate %s", self._identity)
        while True:
            started = time.monotonic()
            try:
                # Half of it, so that one lost packet does not end a leader.
                async with asyncio.timeout(min(RENEW_DEADLINE / 2, self._time_left())):
                    if await self._try():
                        self._renewed = started
            except (ApiError, UnreachableError) as error:
                log.warning("leader election: %s", error)
            except TimeoutError:
                log.warning("leader election: the API server does not answer")
            self._note_elected()
            await asyncio.sleep(min(RETRY, self._time_left()))

    def _note_elected(self) -> None:
        if self.leads() and not self.elected.is_set():
            log.info("leader election: %s leads", self._identity)
            self.elected.set()
        if self.elected.is_set() and not self.leads():
            raise LostLeadershipError(
                f"the Lease {self._namespace}/{LEASE_NAME} could not be renewed for"
                f" {RENEW_DEADLINE:.0f} s"
            )

    def _time_left(self) -> float:
        """Seconds until this leader must end unless it renews; a candidate has no end of time."""
        if not self.elected.is_set() or self._renewed is None:
            return math.inf
        return max(0.0, self._renewed + RENEW_DEADLINE - time.monotonic())

    async def _try(self) -> bool:
        """One round: True if the Lease is ours now."""
        path = kinds.LEASE.path(self._namespace, LEASE_NAME)
        try:
            document = await self._client.request("GET", path)
        except ApiError as error:
            if error.status != 404:
                raise
            body = self._document({"metadata": {"name": LEASE_NAME}}, None)
            await self._client.request("POST", kinds.LEASE.path(self._namespace), body=body)
            return True
        lease = decode(Lease, document)
        if self._held_by_another(lease):
            if self.elected.is_set():
                raise LostLeadershipError(f"{lease.spec.holder_identity} leads now")
            return False
        # The resourceVersion in the document makes this fail (409) if another was quicker.
        await self._client.request("PUT", path, body=self._document(document, lease))
        return True

    def _held_by_another(self, lease: Lease) -> bool:
        holder = lease.spec.holder_identity or ""
        if holder in ("", self._identity):
            return False
        version, since = self._rival
        now = time.monotonic()
        if version != lease.metadata.resource_version:
            self._rival = (lease.metadata.resource_version, now)
            return True
        return now - since < (lease.spec.lease_duration_seconds or DURATION)

    def _document(self, document: dict[str, Any], lease: Lease | None) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = lease is not None and lease.spec.holder_identity == self._identity
        transitions = (lease.spec.lease_transitions or 0) if lease else 0
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": DURATION,
            "acquireTime": lease.spec.acquire_time if lease and ours else now,
            "renewTime": now,
            "leaseTransitions": transitions if ours or lease is None else transitions + 1,
        }
        return {
            "apiVersion": kinds.LEASE.api_version,
            "kind": kinds.LEASE.name,
            "metadata": document["metadata"],
            "spec": spec,
        }

    async def release(self) -> None:
        """Give the Lease up on the way out, so that the next leader need not wait for its end."""
        if not self.leads():
            return
        self._renewed = None
        path = kinds.LEASE.path(self._namespace, LEASE_NAME)
        try:
            document = await self._client.request("GET", path)
            if document["spec"].get("holderIdentity") == self._identity:
                document["spec"]["holderIdentity"] = ""
                await self._client.request("PUT", path, body=document)
                log.info("leader election: %s has given up the Lease", self._identity)
        except (ApiError, UnreachableError) as error:
            log.warning("leader election: the Lease is left to expire: %s", error)
