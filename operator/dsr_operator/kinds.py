"""The kinds of objects that are watched, and their addresses in the Kubernetes API."""

from __future__ import annotations

from dataclasses import dataclass

from dsr_api.base import GROUP, VERSION

from dsr_operator.core import SERVICE_NAME_LABEL


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource. `label_selector` narrows what is watched, at the server."""

    name: str
    group: str
    version: str
    plural: str
    namespaced: bool
    label_selector: str = ""

    @property
    def api_version(self) -> str:
        """As in manifests."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of the collection (no name) or of one object."""
        root = f"/apis/{self.group}" if self.group else "/api"
        where = f"/namespaces/{namespace}" if namespace else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{root}/{self.version}{where}/{self.plural}{tail}"


SERVICE = Kind("DSRService", GROUP, VERSION, "dsrservices", namespaced=True)
POOL = Kind("DSRAddressPool", GROUP, VERSION, "dsraddresspools", namespaced=False)
PLAN = Kind("DSRPlan", GROUP, VERSION, "dsrplans", namespaced=False)
REPORT = Kind("DSRNode", GROUP, VERSION, "dsrnodes", namespaced=False)
NODE = Kind("Node", "", "v1", "nodes", namespaced=False)
NAMESPACE = Kind("Namespace", "", "v1", "namespaces", namespaced=False)
CORE_SERVICE = Kind("Service", "", "v1", "services", namespaced=True)
SLICE = Kind(
    "EndpointSlice",
    "discovery.k8s.io",
    "v1",
    "endpointslices",
    namespaced=True,
    label_selector=SERVICE_NAME_LABEL,
)
LEASE = Kind("Lease", "coordination.k8s.io", "v1", "leases", namespaced=True)
EVENT = Kind("Event", "", "v1", "events", namespaced=True)

WATCHED = (SERVICE, POOL, PLAN, REPORT, NODE, NAMESPACE, CORE_SERVICE, SLICE)
"""What the cache holds. Leases are polled instead, see liveness.py."""
