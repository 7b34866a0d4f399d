"""A small Kubernetes client: get, list, watch and server-side apply. The daemon needs no more."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
from dsr_api.base import GROUP, NODE_FIELD_MANAGER, VERSION

from dsr_node.api.access import Access
from dsr_node.api.errors import ApiError, GoneError, UnreachableError, from_status

CONNECT_TIMEOUT = 3.0
REQUEST_TIMEOUT = 10.0
"""Seconds for an answer as a whole; watches have their own rule."""

WATCH_SILENCE = 90.0
"""Seconds without a word after which a watch is taken for dead: kube-apiserver sends a bookmark
each minute."""

KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}
"""A server that went without a word (its machine died) is noticed by the kernel after 25 s, long
before an idle watch would time out. TCP_USER_TIMEOUT is in ms, see tcp(7)."""

PAGE = 500
"""Objects a list answer holds at most."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object. `group` "" for the core API, `namespace` "" for cluster-scoped ones.

    `only`: the name of the one object that list and watch ask for, "" for all of them.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespace: str = ""
    only: str = ""

    @property
    def api_version(self) -> str:
        """As manifests and references write it: "v1", "coordination.k8s.io/v1"."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def selection(self) -> dict[str, str]:
        """Parameters of list and watch."""
        return {"fieldSelector": f"metadata.name={self.only}"} if self.only else {}

    def path(self, name: str = "", subresource: str = "") -> str:
        """URL path of the collection, of one object, or of its subresource."""
        parts = ["apis" if self.group else "api", self.api_version]
        if self.namespace:
            parts += ["namespaces", self.namespace]
        return "/" + "/".join([*parts, self.plural, *(p for p in (name, subresource) if p)])


PLANS = Resource(GROUP, VERSION, "dsrplans", "DSRPlan")
NODES = Resource(GROUP, VERSION, "dsrnodes", "DSRNode")
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "")


def core_node(name: str) -> Resource:
    """The one Node of this name."""
    return Resource("", "v1", "nodes", "Node", only=name)


def leases(namespace: str) -> Resource:
    """The Leases of one namespace."""
    return Resource("coordination.k8s.io", "v1", "leases", "Lease", namespace)


class OwnerReference(msgspec.Struct, frozen=True, rename="camel"):
    """A metav1.OwnerReference: the garbage collector deletes an object whose owner is no more."""

    api_version: str
    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Items stay raw: each is decoded by itself, so that a bad one takes no other along."""

    items: tuple[msgspec.Raw, ...]
    revision: int


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: tuple[msgspec.Raw, ...] = ()


class WatchEvent(msgspec.Struct, frozen=True):
    """ADDED, MODIFIED, DELETED or BOOKMARK, and the object as JSON."""

    type: str
    object: msgspec.Raw


class _Cause(msgspec.Struct, frozen=True):
    reason: str = ""


class _Details(msgspec.Struct, frozen=True):
    causes: tuple[_Cause, ...] = ()


class _Status(msgspec.Struct, frozen=True):
    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details = _Details()


class Client:
    """An async context manager; all methods raise the errors of `dsr_node.api.errors`."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._session: aiohttp.ClientSession | None = None
        self.addresses: set[str] = set()
        """All at which the API server has been called so far, whether it answered or not."""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=self._socket),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, sock_connect=CONNECT_TIMEOUT),
            headers={"User-Agent": NODE_FIELD_MANAGER, "Accept": "application/json"},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session:
            await self._session.close()

    async def get(self, resource: Resource, name: str) -> dict[str, Any]:
        """One object."""
        async with self._request("GET", resource.path(name)) as answer:
            document: dict[str, Any] = msgspec.json.decode(await answer.read())
            return document

    async def list(self, resource: Resource) -> Listing:
        """A full list, got in pages, all of one resourceVersion and the most recent one.

        No resourceVersion is asked for, so that an API server whose cache lags cannot show a past
        in which plans are missing. Raises GoneError when a page came too late for the next one.
        """
        params = {"limit": str(PAGE), **resource.selection()}
        items: list[msgspec.Raw] = []
        while True:
            async with self._request("GET", resource.path(), params=params) as answer:
                page = msgspec.json.decode(await answer.read(), type=_Page)
            items += page.items
            if not page.metadata.continue_:
                return Listing(tuple(items), int(page.metadata.resource_version))
            params["continue"] = page.metadata.continue_

    @asynccontextmanager
    async def watch(
        self, resource: Resource, resource_version: str, seconds: int
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Events after `resource_version`, with bookmarks, until the server ends it in `seconds`.

        Entered when the server has said yes. Raises, also from the iterator, GoneError when the
        version is too old, and UnreachableError when the server falls silent.
        """
        params = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(seconds),
            **resource.selection(),
        }
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT, sock_read=WATCH_SILENCE
        )
        what = resource.path()
        async with self._request("GET", what, params=params, timeout=timeout) as answer:
            yield _events(answer, f"watch {what}")

    async def apply(
        self,
        resource: Resource,
        name: str,
        fields: Mapping[str, Any],
        subresource: str = "",
        owners: Sequence[OwnerReference] = (),
    ) -> dict[str, Any]:
        """Server-side apply of all fields that are ours; makes the object if it is missing.

        Fields and owners that we applied before and leave out now are taken away. (A subresource
        has no owners to take, and that of a missing object raises NotFoundError.)
        """
        document = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name} | ({"ownerReferences": owners} if owners else {}),
            **fields,
        }
        async with self._request(
            "PATCH",
            resource.path(name, subresource),
            params={"fieldManager": NODE_FIELD_MANAGER, "force": "true"},
            data=msgspec.json.encode(document),
            headers={"Content-Type": "application/apply-patch+yaml"},
        ) as answer:
            written: dict[str, Any] = msgspec.json.decode(await answer.read())
            return written

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer below 400; what goes wrong, also while it is read, becomes an error of ours."""
        if self._session is None:
            raise RuntimeError("use the client as an async context manager")
        headers = options.pop("headers", {})
        what = f"{method} {path}"
        try:
            if token := self._access.token():
                headers = {**headers, "Authorization": f"Bearer {token}"}
            async with self._session.request(
                method,
                self._access.server + path,
                headers=headers,
                ssl=self._access.tls(),
                **options,
            ) as answer:
                if answer.status >= 400:
                    body, retry = await answer.read(), answer.headers.get("Retry-After", "")
                    raise _error(what, body, answer.status, retry)
                yield answer
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise UnreachableError(f"{what} at {self._access.server}: {_why(error)}") from error
        except msgspec.DecodeError as error:
            raise UnreachableError(f"{what}: the answer is no Kubernetes JSON: {error}") from error

    def _socket(self, target: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, (host, *_) = target
        self.addresses.add(str(host))
        return _kept_alive(family, kind, protocol)


async def _events(answer: aiohttp.ClientResponse, what: str) -> AsyncIterator[WatchEvent]:
    rest = b""
    async for data in answer.content.iter_any():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            event = msgspec.json.decode(line, type=WatchEvent)
            if event.type == "ERROR":
                raise _error(what, bytes(event.object))
            yield event


def _why(error: Exception) -> str:
    """Short and without addresses of objects, which aiohttp's own texts are full of."""
    kind = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"{kind}: {error.strerror}"
    return f"{kind}: {error}"


def _error(what: str, body: bytes, http_status: int = 0, retry_after: str = "") -> ApiError:
    try:
        status = msgspec.json.decode(body, type=_Status)
    except msgspec.DecodeError:
        status = _Status(message=body[:200].decode(errors="replace"))
    if any(cause.reason == "ResourceVersionTooLarge" for cause in status.details.causes):
        return GoneError(f"{what}: {status.message}")
    return from_status(http_status or status.code, what, status.reason, status.message, retry_after)


def _kept_alive(family: int, kind: int, protocol: int) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made
