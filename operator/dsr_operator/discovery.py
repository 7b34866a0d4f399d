"""Waiting until the API server serves every kind that we watch.

kopf looks once which kinds there are, and again only when a CRD changes. An API server that has
just started answers before it knows all of its kinds, so kopf must not be started too early.
"""

from __future__ import annotations

import asyncio
import logging

from dsr_operator import kinds
from dsr_operator.client import ApiError, Client, UnreachableError

log = logging.getLogger(__name__)

POLL = 0.5
COMPLAINT_POLLS = 60
"""Polls between two lines in the log: half a minute."""


async def wait_until_served(client: Client) -> None:
    """Return once all kinds are there. Says every half minute what is missing, and what to do."""
    polls = 0
    while trouble := await _trouble(client):
        if polls % COMPLAINT_POLLS == 0:
            log.warning("waiting: %s", trouble)
        polls += 1
        await asyncio.sleep(POLL)


async def _trouble(client: Client) -> str | None:
    try:
        groups = {g["name"] for g in (await client.request("GET", "/apis"))["groups"]}
        served = {}
        for group, version in sorted({(k.group, k.version) for k in kinds.WATCHED}):
            known = not group or group in groups
            served[group] = await _plurals(client, group, version) if known else set()
    except (ApiError, UnreachableError) as error:
        return f"the API server cannot be asked: {error}"
    missing = [f"{k.plural}.{k.group}" for k in kinds.WATCHED if k.plural not in served[k.group]]
    if not missing:
        return None
    return (
        f"the API server does not serve {', '.join(missing)}: install the CRDs"
        " (kubectl apply -f crds/, or the Helm chart)"
    )


async def _plurals(client: Client, group: str, version: str) -> set[str]:
    path = f"/apis/{group}/{version}" if group else f"/api/{version}"
    try:
        answer = await client.request("GET", path)
    except ApiError as error:
        if error.status == 404:
            return set()
        raise
    return {resource["name"] for resource in answer["resources"]}
