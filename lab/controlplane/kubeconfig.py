"""Kubeconfig files: self-contained, so that they work from every folder and network namespace."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from lab.controlplane.files import write_private
from lab.controlplane.pki import Pair


def write_with_certificate(path: Path, server: str, ca_pem: bytes, user: str, pair: Pair) -> None:
    """A kubeconfig whose user shows a client certificate."""
    credentials = {
        "client-certificate-data": _base64(pair.certificate),
        "client-key-data": _base64(pair.key),
    }
    _write(path, server, ca_pem, user, credentials)


def write_with_token(path: Path, server: str, ca_pem: bytes, user: str, token: str) -> None:
    """A kubeconfig whose user shows a bearer token."""
    _write(path, server, ca_pem, user, {"token": token})


def _write(path: Path, server: str, ca_pem: bytes, user: str, credentials: dict[str, str]) -> None:
    cluster = {"server": server, "certificate-authority-data": _base64(ca_pem)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
        "current-context": "lab",
    }
    # JSON is YAML too, and needs no library.
    write_private(path, json.dumps(config, indent=2).encode() + b"\n")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
