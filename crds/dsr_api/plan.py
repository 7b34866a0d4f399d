"""DSRPlan: what the operator has decided, in the form node daemons read.

One per DSRService, named "NAMESPACE.NAME" (a namespace has no dot, so the name is unambiguous).
The operator is the only writer. A plan's revision is its metadata.resourceVersion as a number.

A plan grows and shrinks in an order that never sends a packet to a node that cannot take it:
`hosts` gains a node before `backends` does and loses it after; `vips` gains an address before
`frontends` does and loses it after. Withdrawing a service is the same thing taken to its end:
first no frontends, then no vips and no hosts, then no plan.
"""

from __future__ import annotations

import msgspec

from dsr_api.base import ApiStruct, Metadata
from dsr_api.service import (
    AnnouncementMode,
    Dataplane,
    FlowIdleTimeout,
    ForwardingMethod,
    Protocol,
    Scheduler,
)

TABLE_VERSION = 1
"""Version of the table algorithm; LB nodes share slots only where they agree on it."""

DEFAULT_TABLE_SIZE = 4093
"""Slots of a service's table; a prime, as Maglev (Eisenbud et al., NSDI 2016, 3.4) demands."""


class PlanService(ApiStruct, frozen=True):
    """The DSRService that this plan was compiled from."""

    namespace: str
    name: str
    uid: str = ""
    generation: int = 0


class Frontend(ApiStruct, frozen=True, order=True):
    """One (VIP, protocol, port) that directors forward."""

    vip: str
    protocol: Protocol
    port: int


class PlanBackend(ApiStruct, frozen=True, order=True):
    """One real server that directors may send to. Identity: (address, node_uid).

    weight 0 drains: old flows stay, new ones go elsewhere. `drain_until` (RFC 3339) is the
    operator's own note of when it will take the backend out of the plan.
    `node` is set where a daemon of ours serves the VIP there. `changed_at` (RFC 3339) is a note as
    well, in `previous_backends`: when its weight became another than this.
    """

    address: str
    weight: int = 1
    node: str = ""
    node_uid: str = msgspec.field(default="", name="nodeUID")
    drain_until: str | None = None
    changed_at: str | None = None


class Director(ApiStruct, frozen=True, order=True):
    """One LB node, and the addresses by which its peers know it (Node InternalIPs).

    `announces`: VIPs are shared out among the directors that have it set; among all of them where
    none has. Without it a director still forwards what reaches it: it is new, about to leave, or
    says that it cannot direct this plan.
    """

    node: str
    addresses: tuple[str, ...] = ()
    announces: bool = True


class DSRPlanSpec(ApiStruct, frozen=True):
    """The compiled service.

    - `directors`: LB nodes, sorted by name; `former_directors`: nodes that were, and have not yet
      confirmed that they forward no more (the operator's own note; daemons ignore it).
    - `hosts`: nodes that hold `vips` on lo because they are (or were just now) backends.
      Directors hold them as well.
    - `previous_backends`, `backends_changed_at` (RFC 3339): the backends before the last change,
      for a director without a pinned table (docs/architecture.md, slot rule 11). Empty: nothing has
      moved of late.
    - `hash_seed`: 16 hex digits, made from the DSRService's UID.
    """

    service: PlanService
    vips: tuple[str, ...] = ()
    frontends: tuple[Frontend, ...] = ()
    directors: tuple[Director, ...] = ()
    former_directors: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    backends: tuple[PlanBackend, ...] = ()
    previous_backends: tuple[PlanBackend, ...] = ()
    backends_changed_at: str | None = None
    dataplane: Dataplane = "XDP"
    method: ForwardingMethod = "L2"
    scheduler: Scheduler = "Maglev"
    announcement: AnnouncementMode = "L2"
    hash_seed: str = "0000000000000000"
    table_version: int = TABLE_VERSION
    table_size: int = DEFAULT_TABLE_SIZE
    flow_idle_timeout: FlowIdleTimeout = FlowIdleTimeout()


class DSRPlan(ApiStruct, frozen=True):
    """Cluster-scoped, internal."""

    metadata: Metadata
    spec: DSRPlanSpec


def plan_name(namespace: str, name: str) -> str:
    """The name of the plan of a DSRService."""
    return f"{namespace}.{name}"
