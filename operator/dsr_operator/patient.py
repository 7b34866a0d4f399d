"""A client for what is done once and has nobody to start it again: it asks until it is answered."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from dsr_operator.client import ApiError, Client, UnreachableError

log = logging.getLogger(__name__)

PAUSE = 1.0
TOO_MANY_REQUESTS, INTERNAL_ERROR = 429, 500


class PatientClient(Client):
    """Like Client, but never gives up on an API server that is away or ill; the caller sets a time.

    A request may thus have been carried out twice: make only such as bear that.
    """

    async def request(self, method: str, path: str, **rest: Any) -> dict[str, Any]:
        """Like Client.request; raises ApiError for refusals that stay."""
        while True:
            try:
                return await super().request(method, path, **rest)
            except UnreachableError as error:
                log.warning("%s; again in %.0f s", error, PAUSE)
            except ApiError as error:
                if error.status < INTERNAL_ERROR and error.status != TOO_MANY_REQUESTS:
                    raise
                log.warning("%s; again in %.0f s", error, PAUSE)
            await asyncio.sleep(PAUSE)

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
