"""Asking a server that is just starting whether it is there yet."""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass
from pathlib import Path

ANSWER_TIMEOUT = 5.0
"""Seconds for one answer; a server that starts on a busy machine may stall for long."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, or why there was none (status 0)."""

    status: int
    body: str


def get(host: str, port: int, path: str, *, tls: ssl.SSLContext | None = None) -> Answer:
    """One GET. No connection is an answer too: it is what one expects of a server that starts."""
    # http.client, for urllib and its like would go through a proxy named in the environment.
    connection: http.client.HTTPConnection
    if tls is None:
        connection = http.client.HTTPConnection(host, port, timeout=ANSWER_TIMEOUT)
    else:
        connection = http.client.HTTPSConnection(host, port, timeout=ANSWER_TIMEOUT, context=tls)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return Answer(response.status, response.read().decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, f"{type(error).__name__}: {error}")
    finally:
        connection.close()


def client_context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """Trusts `ca` alone and shows a client certificate."""
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(certificate, key)
    return context
