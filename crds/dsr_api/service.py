"""DSRService: what the user wants."""

from __future__ import annotations

from typing import Literal

import msgspec

from dsr_api.base import ApiStruct, Condition, LabelSelector, Metadata

Protocol = Literal["TCP", "UDP"]
Dataplane = Literal["XDP"]
ForwardingMethod = Literal["L2"]
Scheduler = Literal["Maglev"]
AnnouncementMode = Literal["L2", "None"]


class Port(ApiStruct, frozen=True):
    """One port of the service, on every VIP of it."""

    port: int
    protocol: Protocol = "TCP"
    name: str = ""


class BackendAddress(ApiStruct, frozen=True):
    """A real server outside the cluster. Weight 0 to 65535; 0 drains."""

    address: str
    weight: int = 1


class ServiceReference(ApiStruct, frozen=True):
    """A core Service in the DSRService's namespace, whose endpoints are node addresses."""

    name: str


class BackendSource(ApiStruct, frozen=True):
    """Where the backends come from: exactly one of the fields is set (the CRD sees to it)."""

    node_selector: LabelSelector | None = None
    service: ServiceReference | None = None
    addresses: tuple[BackendAddress, ...] | None = None


class Forwarding(ApiStruct, frozen=True):
    """How a packet gets from the LB node to the backend."""

    method: ForwardingMethod = "L2"


class LoadBalancerNodes(ApiStruct, frozen=True):
    """The nodes that direct. An empty selector selects all nodes."""

    node_selector: LabelSelector = LabelSelector()


class Announcement(ApiStruct, frozen=True):
    """How clients' routers learn where a VIP is."""

    mode: AnnouncementMode = "L2"


class FlowIdleTimeout(ApiStruct, frozen=True, omit_defaults=False):
    """Seconds without a packet after which a flow may be forgotten."""

    tcp_seconds: int = 900
    udp_seconds: int = 120


class DSRServiceSpec(ApiStruct, frozen=True):
    """See crds/dsrservices.yaml, whose descriptions `kubectl explain dsr.spec` prints."""

    vips: tuple[str, ...]
    ports: tuple[Port, ...]
    backends: BackendSource
    dataplane: Dataplane = "XDP"
    forwarding: Forwarding = Forwarding()
    scheduler: Scheduler = "Maglev"
    load_balancer_nodes: LoadBalancerNodes = LoadBalancerNodes()
    announcement: Announcement = Announcement()
    drain_timeout_seconds: int = 300
    flow_idle_timeout: FlowIdleTimeout = FlowIdleTimeout()


class BackendCounts(ApiStruct, frozen=True, omit_defaults=False):
    """total: all known ones; healthy: ready and reachable from the LB nodes; draining: weight 0."""

    total: int = 0
    healthy: int = 0
    draining: int = 0


class LoadBalancerCounts(ApiStruct, frozen=True, omit_defaults=False):
    """total: LB nodes selected; programmed: those that have applied the current plan."""

    total: int = 0
    programmed: int = 0


class DSRServiceStatus(ApiStruct, frozen=True):
    """Written by the operator alone. `summary` fields exist for `kubectl get -o wide`."""

    observed_generation: int = 0
    vips: tuple[str, ...] = ()
    backends: BackendCounts = BackendCounts()
    load_balancers: LoadBalancerCounts = LoadBalancerCounts()
    conditions: tuple[Condition, ...] = ()
    summary: DSRServiceSummary | None = None


class DSRServiceSummary(ApiStruct, frozen=True):
    """The printer columns' texts: "192.0.2.10", "80/TCP,53/UDP", "4/4", "2/2"."""

    vips: str = ""
    ports: str = ""
    backends: str = ""
    load_balancers: str = ""


class DSRService(ApiStruct, frozen=True):
    """The user's object (namespaced, short name dsr)."""

    metadata: Metadata
    spec: DSRServiceSpec
    status: DSRServiceStatus = msgspec.field(default_factory=DSRServiceStatus)
