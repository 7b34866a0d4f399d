"""The few requests that the lab itself makes of the API server: as an administrator, by JSON."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
import time
import urllib.parse
from pathlib import Path
from typing import Any

from lab.errors import LabError

TIMEOUT = 10.0
"""Seconds for one answer."""
ATTEMPTS = 10
MERGE_PATCH = "application/merge-patch+json"

Document = dict[str, Any]


class ApiError(LabError):
    """The API server refused; `status` is the HTTP status, 0 when there was no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """A client with the credentials of one of lab.controlplane's kubeconfigs."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_bytes())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        url = urllib.parse.urlsplit(cluster["server"])
        self._host, self._port = url.hostname or "", url.port or 443
        ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=ca)
        with tempfile.NamedTemporaryFile() as file:
            # ssl reads a certificate and its key from files alone.
            for each in ("client-certificate-data", "client-key-data"):
                file.write(base64.b64decode(user[each]) + b"\n")
            file.flush()
            self._tls.load_cert_chain(file.name)

    def get(self, path: str) -> Document:
        """One object, or a list."""
        return self.request("GET", path)

    def create(self, path: str, body: Document) -> Document:
        """POST; raises ApiError with status 409 if it is there already."""
        return self.request("POST", path, body)

    def merge(self, path: str, body: Document) -> Document:
        """A merge patch (RFC 7386)."""
        return self.request("PATCH", path, body, MERGE_PATCH)

    def delete(self, path: str) -> Document:
        """DELETE, in the background as kubectl asks for it."""
        return self.request("DELETE", path)

    def request(
        self, method: str, path: str, body: Document | None = None, kind: str = "application/json"
    ) -> Document:
        """One request, repeated while the server says "later" (429). Raises ApiError."""
        for attempt in range(ATTEMPTS):
            try:
                return self._once(method, path, body, kind)
            except ApiError as error:
                if error.status != http.HTTPStatus.TOO_MANY_REQUESTS or attempt == ATTEMPTS - 1:
                    raise
            # What the server asks for (Retry-After) where a CRD's storage is not ready yet.
            time.sleep(1)
        raise AssertionError("the last attempt returns or raises")

    def _once(self, method: str, path: str, body: Document | None, kind: str) -> Document:
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=TIMEOUT, context=self._tls
        )
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": kind})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(0, f"{method} {path}: {error}") from error
        finally:
            connection.close()
        document: Document = json.loads(text)
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise ApiError(answer.status, f"{method} {path}: {document.get('message', text)}")
        return document
