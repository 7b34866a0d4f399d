"""DSRNode: what one node can do and has done. Written by that node's daemon alone."""

from __future__ import annotations

from typing import Literal

import msgspec

from dsr_api.base import ApiStruct, Metadata

LIST_CAP = 32
"""Entries a capped list of DSRNode.status holds at most; `more` counts the rest."""

XdpMode = Literal["Native", "Generic", "Unavailable"]

MAC_NOT_RESOLVED = "MACNotResolved"
"""Reason in unhealthyBackends: nobody answers for the address."""

# Reasons in plansNotApplied about forwarding or announcing: a node holds the VIPs all the same.
ADDRESS_CONFLICT = "AddressConflict"
DATAPLANE_UNAVAILABLE = "DataplaneUnavailable"
FRONTEND_TAKEN = "FrontendTaken"
NO_BACKEND_OF_FAMILY = "NoBackendOfFamily"
NO_ROOM = "NoRoom"
NO_TABLE = "NoTable"
NO_UPLINK = "NoUplink"
TABLE_VERSION_UNKNOWN = "TableVersionUnknown"
XDP_BUSY = "XdpBusy"
XDP_UNAVAILABLE = "XdpUnavailable"

DIRECTING = frozenset(
    {
        ADDRESS_CONFLICT,
        DATAPLANE_UNAVAILABLE,
        FRONTEND_TAKEN,
        NO_BACKEND_OF_FAMILY,
        NO_ROOM,
        NO_TABLE,
        NO_UPLINK,
        TABLE_VERSION_UNKNOWN,
        XDP_BUSY,
        XDP_UNAVAILABLE,
    }
)
"""All of them. Any other reason counts as "the VIPs are not there"."""

FOR_ALL_DIRECTORS = frozenset({ADDRESS_CONFLICT, NO_BACKEND_OF_FAMILY})
"""Those of them that are no fault of the node: another director could do no better."""


VIP_IS_VITAL = "VIPIsVital"
"""A VIP that would cut the node off from its gateway, its DNS server or the API server."""


class Uplink(ApiStruct, frozen=True):
    """An interface that carries VIP traffic. `xdp_mode` tells how XDP runs on it, if it should."""

    name: str
    mac: str = ""
    addresses: tuple[str, ...] = ()
    xdp_mode: XdpMode = "Unavailable"
    message: str = ""


class PlanNotApplied(ApiStruct, frozen=True):
    """A plan (or one VIP of it) that this node could not carry out in full."""

    plan: str
    reason: str
    message: str
    vip: str = ""


class PlansNotApplied(ApiStruct, frozen=True, omit_defaults=False):
    """The first LIST_CAP of them; `more` counts the rest. Those whose reason is not in DIRECTING
    come first, then by plan and VIP: what the operator must not miss is cut off last.

    The empty list is written too: server-side apply makes a map that loses its last field null, and
    the schema refuses that.
    """

    items: tuple[PlanNotApplied, ...] = ()
    more: int = 0


class UnhealthyBackend(ApiStruct, frozen=True):
    """A backend that this LB node sends nothing to. `plan` "": in each plan that has it, which is
    said once, that a dead machine of many plans does not fill the list."""

    plan: str
    address: str
    reason: str
    message: str = ""


class UnhealthyBackends(ApiStruct, frozen=True, omit_defaults=False):
    """The first LIST_CAP of them, by address and plan; `more` counts the rest. See above."""

    items: tuple[UnhealthyBackend, ...] = ()
    more: int = 0


class DSRNodeStatus(ApiStruct, frozen=True):
    """`applied_revision`: the highest DSRPlan resourceVersion up to which this node has carried
    out all that concerns it, except the plans in `plans_not_applied`."""

    applied_revision: int = 0
    plans_not_applied: PlansNotApplied = PlansNotApplied()
    unhealthy_backends: UnhealthyBackends = UnhealthyBackends()
    announcing: int = 0
    kernel: str = ""
    boot_id: str = msgspec.field(default="", name="bootID")
    daemon_version: str = ""
    uplinks: tuple[Uplink, ...] = ()


class DSRNode(ApiStruct, frozen=True):
    """Cluster-scoped, short name dsrnode, named after its Node."""

    metadata: Metadata
    status: DSRNodeStatus = msgspec.field(default_factory=DSRNodeStatus)
