"""Requests to the Kubernetes API: one at a time, no retries, errors with what the server said.

The watches have a client of their own (kopf's); both take their credentials from login().
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import aiohttp
import kopf

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"

TIMEOUT = aiohttp.ClientTimeout(total=10.0, connect=3.0)

log = logging.getLogger(__name__)


class ApiError(Exception):
    """The API server said no. `status` is the HTTP status, `reason` the Status object's."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class UnreachableError(Exception):
    """No answer: the connection failed, or took too long."""


def login() -> kopf.ConnectionInfo:
    """Credentials: those of KUBECONFIG if it is set, else the pod's service account.

    Raises kopf.LoginError if there is neither. Tokens are read anew each time, for they rotate.
    """
    settings = kopf.OperatorSettings()
    info = kopf.login_with_kubeconfig(settings=settings) or _login_in_pod(settings)
    if info is None:
        raise kopf.LoginError(
            "no credentials: set KUBECONFIG (or --kubeconfig), or run in a pod with a service"
            " account token"
        )
    return info


def _login_in_pod(settings: kopf.OperatorSettings) -> kopf.ConnectionInfo | None:
    """The service account, at the address the kubelet gives to each pod, as client-go does it.

    kopf takes the name kubernetes.default.svc, which resolves only where the cluster's DNS does.
    """
    info = kopf.login_with_service_account(settings=settings)
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    if info is None or host is None:
        return info
    authority = f"[{host}]" if ":" in host else host
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return replace(info, server=f"https://{authority}:{port}")


class Client:
    """A connection to the API server, logged in again when its token is refused."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._server = ""

    async def request(  # noqa: PLR0913 - the parts of an HTTP request
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> dict[str, Any]:
        """The parsed answer. Raises ApiError and UnreachableError."""
        headers = {"Content-Type": content_type, "Accept": accept}
        data = None if body is None else json.dumps(body).encode()
        try:
            status, answer = await self._send(method, path, query, data, headers)
            if status == 401:
                log.info("the API server refuses our credentials: reading them anew")
                await self.close()
                status, answer = await self._send(method, path, query, data, headers)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(f"{method} {path}: {error or type(error).__name__}") from error
        if status >= 400:
            reason = str(answer.get("reason") or status)
            raise ApiError(status, reason, f"{method} {path}: {answer.get('message', '')}")
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        data: bytes | None,
        headers: Mapping[str, str],
    ) -> tuple[int, dict[str, Any]]:
        session = self._ensure_session()
        url = self._server + path
        async with session.request(method, url, params=query, data=data, headers=headers) as answer:
            text = await answer.read()
            return answer.status, _parse(text)

    def _ensure_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            info = login()
            self._server = info.server.rstrip("/")
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=info.as_ssl_context()),
                headers={**info.as_http_headers(), "User-Agent": "dsr-operator"},
                timeout=TIMEOUT,
            )
        return self._session

    async def close(self) -> None:
        """End the connections; the next request opens new ones."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _parse(text: bytes) -> dict[str, Any]:
    """A JSON object; what a proxy in between says instead becomes a message."""
    try:
        answer = json.loads(text or b"{}")
    except ValueError:
        return {"message": text[:200].decode(errors="replace")}
    return answer if isinstance(answer, dict) else {"message": str(answer)[:200]}
