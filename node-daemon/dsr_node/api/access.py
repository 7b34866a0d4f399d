"""Where the API server is and how this daemon shows who it is: in-cluster or by a kubeconfig."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

T = TypeVar("T")


class AccessError(Exception):
    """There is no usable way to the API server. The text says what to set."""


class FileValue(Generic[T]):
    """`parse` of a file's content, done again when the file has changed.

    The kubelet replaces a service-account token about once an hour, and the CA when it is rotated.
    """

    def __init__(self, path: Path, parse: Callable[[Path], T]) -> None:
        self._path = path
        self._parse = parse
        self._seen: tuple[int, int, int] | None = None
        self._value: T | None = None

    def __call__(self) -> T:
        """The present value. Raises OSError if the file cannot be read."""
        stat = self._path.stat()
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if self._value is None or seen != self._seen:
            self._value, self._seen = self._parse(self._path), seen
        return self._value


@dataclass(frozen=True)
class Access:
    """`server`: URL without a path. `tls` and `token` are asked before each request; token "" means
    that the client certificate says who we are."""

    server: str
    tls: Callable[[], ssl.SSLContext]
    token: Callable[[], str]


def _read_token(path: Path) -> str:
    return path.read_text().strip()


def in_cluster(
    environment: Mapping[str, str] = os.environ, directory: Path = SERVICE_ACCOUNT
) -> Access:
    """Access by the pod's service account. Raises AccessError outside a pod."""
    host, port = (environment.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
    if not host or not port or not (directory / "token").exists():
        raise AccessError(
            "no Kubernetes service account here: give --kubeconfig FILE, or --plans DIR to run "
            "without a cluster"
        )
    authority = f"[{host}]" if ":" in host else host
    return Access(
        f"https://{authority}:{port}",
        FileValue(directory / "ca.crt", lambda ca: ssl.create_default_context(cafile=ca)),
        FileValue(directory / "token", _read_token),
    )


def from_kubeconfig(path: Path) -> Access:
    """Access by the current context of a kubeconfig: token, tokenFile or client certificate.

    Raises AccessError, naming the field, for what it cannot use (exec plugins, basic auth).
    """
    try:
        document = yaml.safe_load(path.read_text())
        context = _named(document, "contexts", "context", document["current-context"])
        cluster = _named(document, "clusters", "cluster", context["cluster"])
        user = _named(document, "users", "user", context["user"])
        server = cluster["server"].rstrip("/")
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise AccessError(f"kubeconfig {path} cannot be used: {error!r}") from error
    context_tls = _tls(path, cluster, user)
    return Access(server, lambda: context_tls, _token(path, user))


def _named(document: Mapping[str, Any], plural: str, singular: str, name: str) -> dict[str, Any]:
    for entry in document[plural]:
        if entry["name"] == name:
            found: dict[str, Any] = entry.get(singular) or {}
            return found
    raise KeyError(f"{plural} has no {name!r}")


def _token(path: Path, user: Mapping[str, Any]) -> Callable[[], str]:
    if "tokenFile" in user:
        return FileValue(path.parent / user["tokenFile"], _read_token)
    token = str(user.get("token", ""))
    if not token and not {"client-certificate", "client-certificate-data"} & user.keys():
        raise AccessError(
            f"kubeconfig {path}: the user has none of token, tokenFile, client-certificate and "
            "client-certificate-data, which are all that is supported"
        )
    return lambda: token


def _tls(path: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    try:
        ca = _pem(path, cluster, "certificate-authority")
        context = ssl.create_default_context(cadata=ca.decode() if ca else None)
        if cluster.get("insecure-skip-tls-verify"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        certificate = _pem(path, user, "client-certificate")
        if certificate:
            key = _pem(path, user, "client-key") or b""
            # load_cert_chain takes only files; this one is ours alone and gone at once.
            with tempfile.NamedTemporaryFile() as file:
                file.write(certificate + b"\n" + key)
                file.flush()
                context.load_cert_chain(file.name)
    except (OSError, ValueError) as error:
        raise AccessError(f"kubeconfig {path}: {error}") from error
    return context


def _pem(path: Path, entry: Mapping[str, Any], field: str) -> bytes | None:
    """A PEM that stands in the kubeconfig itself or in a file beside it."""
    if data := entry.get(f"{field}-data"):
        return base64.b64decode(data)
    if name := entry.get(field):
        return (path.parent / str(name)).read_bytes()
    return None
