"""Typed views of the core Kubernetes objects that the operator reads: only the fields it reads.

Shapes are those of the Kubernetes API reference (core/v1, discovery.k8s.io/v1, coordination/v1).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

import msgspec
from dsr_api.base import WEIGHT_ANNOTATION, ApiStruct, Metadata

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
"""On an EndpointSlice: the Service it belongs to."""


class NodeAddress(ApiStruct, frozen=True):
    """core/v1 NodeAddress; `type` is InternalIP, ExternalIP, Hostname and so on."""

    type: str
    address: str


class NodeSystemInfo(ApiStruct, frozen=True):
    """core/v1 NodeSystemInfo; `boot_id` is the kernel's random/boot_id."""

    boot_id: str = msgspec.field(default="", name="bootID")


class NodeStatus(ApiStruct, frozen=True):
    """The part of a Node's status that says where it is, and since which boot."""

    addresses: tuple[NodeAddress, ...] | None = None
    node_info: NodeSystemInfo = NodeSystemInfo()


class Node(ApiStruct, frozen=True):
    """core/v1 Node."""

    metadata: Metadata
    status: NodeStatus = NodeStatus()


class EndpointConditions(ApiStruct, frozen=True):
    """discovery/v1 EndpointConditions; an absent `ready` or `serving` is to be read as true."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(ApiStruct, frozen=True):
    """discovery/v1 Endpoint: only its first address counts, by the API's own rule."""

    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()


class EndpointPort(ApiStruct, frozen=True):
    """discovery/v1 EndpointPort; no port means all ports."""

    port: int | None = None
    protocol: str | None = None


class EndpointSlice(ApiStruct, frozen=True):
    """discovery/v1 EndpointSlice."""

    metadata: Metadata
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[EndpointPort, ...] | None = None

    @property
    def service(self) -> str:
        """The name of the Service, in the slice's own namespace."""
        return self.metadata.labels.get(SERVICE_NAME_LABEL, "")


class NodeView(ApiStruct, frozen=True):
    """What matters about a Node. Two equal views mean that nothing of interest has changed.

    `internal`: InternalIPs in their order; `addresses`: every IP address of the node. Canonical.
    `weight`: the text of the weight annotation, unchecked.
    `boot_id`: "" where the kubelet tells none.
    """

    name: str
    uid: str
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    internal: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    weight: str | None = None
    boot_id: str = ""


def node_view(node: Node) -> NodeView:
    """The view of a Node. What is no IP address (host names) is left out."""
    listed = [
        (a.type, canonical)
        for a in node.status.addresses or ()
        if (canonical := canonical_address(a.address))
    ]
    return NodeView(
        name=node.metadata.name,
        uid=node.metadata.uid,
        labels=node.metadata.labels,
        internal=tuple(dict.fromkeys(a for t, a in listed if t == "InternalIP")),
        addresses=tuple(dict.fromkeys(a for _, a in listed)),
        weight=node.metadata.annotations.get(WEIGHT_ANNOTATION),
        boot_id=node.status.node_info.boot_id,
    )


def canonical_address(text: str) -> str | None:
    """The canonical text of an IP address (RFC 5952 for IPv6); None if it is none."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def family(address: str) -> int:
    """4 or 6, for a canonical address."""
    return 6 if ":" in address else 4


class LeaseSpec(ApiStruct, frozen=True):
    """coordination/v1 LeaseSpec; the times are RFC 3339 with microseconds."""

    holder_identity: str | None = None
    renew_time: str | None = None
    lease_duration_seconds: int | None = None
    lease_transitions: int | None = None
    acquire_time: str | None = None


class Lease(ApiStruct, frozen=True):
    """coordination/v1 Lease."""

    metadata: Metadata
    spec: LeaseSpec = msgspec.field(default_factory=LeaseSpec)
