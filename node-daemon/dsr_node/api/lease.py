"""This node's Lease: the word to all others that this daemon lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NoReturn

from dsr_api.base import LEASE_DURATION, LEASE_PREFIX, LEASE_RENEWAL

from dsr_node.api.backoff import Backoff
from dsr_node.api.client import Client, OwnerReference, leases
from dsr_node.api.errors import ApiError, ForbiddenError
from dsr_node.api.own import OwnNode

log = logging.getLogger(__name__)


class LeaseRenewal:
    """Renews Lease `dsr-node.NODE` each LEASE_RENEWAL seconds, making it where it is missing.

    It belongs to the Node, and is not written while that is known to be no more. The first renewal
    waits for `reported`: until this daemon has said what it has carried out, what the one before
    has said still stands, and need not be true any more (after a boot nothing of it is).
    `renewed_at`: loop time of the last renewal that the API server has confirmed, None before.
    """

    def __init__(
        self, client: Client, namespace: str, node: str, own: OwnNode, reported: asyncio.Event
    ) -> None:
        self.renewed_at: float | None = None
        self._client = client
        self._reported = reported
        self._own = own
        self._resource = leases(namespace)
        self._node = node
        self._backoff = Backoff()

    async def run(self) -> NoReturn:
        """Endless. A renewal that fails is tried again at the latest when the next one is due."""
        loop = asyncio.get_running_loop()
        failing = False
        await self._reported.wait()
        while True:
            await self._own.present.wait()
            began = loop.time()
            wait = float(LEASE_RENEWAL)
            try:
                async with asyncio.timeout(LEASE_RENEWAL):
                    await self._renew()
            except (ApiError, TimeoutError) as error:
                if isinstance(error, ApiError):
                    wait = min(wait, self._backoff.failed(error))
                if not failing:
                    log.warning("the Lease of this node is not renewed: %s", error or "timed out")
                failing = True
            else:
                self._backoff.succeeded()
                self.renewed_at = loop.time()
                failing = False
            await asyncio.sleep(max(0.0, began + wait - loop.time()))

    async def _renew(self) -> None:
        owners = self._own.owners
        try:
            await self._apply(owners)
        except ForbiddenError:
            if not owners:
                raise
            # Where OwnerReferencesPermissionEnforcement is on, only who may delete an object may
            # change its owners later. That others see this daemon alive matters more.
            await self._apply(())

    async def _apply(self, owners: Sequence[OwnerReference]) -> None:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = {
            "holderIdentity": self._node,
            "leaseDurationSeconds": LEASE_DURATION,
            "renewTime": now,
        }
        name = LEASE_PREFIX + self._node
        await self._client.apply(self._resource, name, {"spec": spec}, owners=owners)
