"""A client for what is done once and has nobody to start it again: it asks until it is answered."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from dsr_operator.client import ApiError, Client, UnreachableError

log = logging.getLogger(__name__)

PAUSE = 1.0
TOO_MANY_REQUESTS, INTERNAL_ERROR = 429, 500
FORBIDDEN = 403
WAKING = 10.0
"""Seconds after it was away for which an API server may refuse what it allows: it has not read all
roles yet."""


class PatientClient(Client):
    """Like Client, but never gives up on an API server that is away or ill; the caller sets a time.

    A request may thus have been carried out twice: make only such as bear that.
    """

    def __init__(self) -> None:
        super().__init__()
        self._away_at = float("-inf")

    async def request(self, method: str, path: str, **rest: Any) -> dict[str, Any]:
        """Like Client.request; raises ApiError for refusals that stay."""
        while True:
            try:
                return await super().request(method, path, **rest)
            except UnreachableError as error:
                self._away_at = time.monotonic()
                log.warning("%s; again in %.0f s", error, PAUSE)
            except ApiError as error:
                if not self._passes(error.status):
                    raise
                log.warning("%s; again in %.0f s", error, PAUSE)
            await asyncio.sleep(PAUSE)

    def _passes(self, status: int) -> bool:
        """Whether a refusal is one that will not last."""
        waking = time.monotonic() - self._away_at < WAKING
        return (
            status >= INTERNAL_ERROR
            or status == TOO_MANY_REQUESTS
            or (status == FORBIDDEN and waking)
        )

    async def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """The objects of a list; none where the kind is not served."""
        try:
            answer = await self.request("GET", path, query=query)
        except ApiError as error:
            if error.status != 404:
                raise
            return []
        return list(answer["items"])

    async def delete(self, path: str) -> None:
        """Delete an object; fine if it is gone."""
        try:
            await self.request("DELETE", path)
        except ApiError as error:
            if error.status != 404:
                raise
