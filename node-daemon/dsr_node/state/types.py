"""The values that go into node_state() and come out of it. Frozen, comparable, no I/O.

Addresses are canonical strings ("192.0.2.10", "2001:db8::10"); MACs are lower-case
"aa:bb:cc:dd:ee:ff", "" where unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dsr_api.node import PlanNotApplied, UnhealthyBackend

from dsr_node.subsystems.xdp.state import FOREVER, DirectorState


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface. `addresses` are "ADDRESS/PREFIX"; `parent` is the index of the lower
    device of a VLAN, 0 for others; `kind` is IFLA_INFO_KIND ("veth", "vlan", ..., "" for a NIC)."""

    name: str
    index: int
    mac: str = ""
    kind: str = ""
    parent: int = 0
    up: bool = True
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    """Links (without lo) and default routes of this node: what the uplink choice needs.

    `default_ipv4`, `default_ipv6`: index of the interface of the default route of lowest metric, 0
    where there is none. `gateways`: the next hops of both routes.
    """

    links: tuple[Link, ...] = ()
    default_ipv4: int = 0
    default_ipv6: int = 0
    gateways: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Target:
    """An address that is asked for on an interface's segment: of a neighbour whose MAC this node
    keeps resolved (a backend or a peer director), or a VIP."""

    address: str
    ifindex: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What the resolver knows of a target. `mac` is the last one seen, also when it is gone.

    alive None: not yet known (being asked for the first time).
    """

    mac: str = ""
    alive: bool | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What this kernel and its neighbourhood say.

    - `uplink`: the operator's override ("" for the choice by address and route).
    - `stale_peers`: nodes whose Lease this daemon has itself seen go stale while it could reach the
      API (docs/architecture.md, liveness). Empty without an API.
    - `answers`: VIP -> the MAC that answered when the segment was asked for it, "" when nobody
      did but nodes that were directors then. A VIP that is not in it has not been asked yet.
    - `xdp_errors`: interface -> why XDP cannot run there; "" stands for the whole node.
    - `lease_until`: CLOCK_MONOTONIC ns up to which this node may answer ARP / NS while it has
      peers. Without an API nobody can see a daemon's death (only a node's), so it has no end.
    - `epoch`: wall clock at CLOCK_MONOTONIC 0, in seconds.
    - `vital`: address -> what this node would lose with it ("the default gateway"): on lo it would
      be the node's own, and nobody could tell the daemon any more to let go of it.
    """

    node: str
    network: Network = Network()
    uplink: str = ""
    neighbours: Mapping[Target, Neighbour] = field(default_factory=dict)
    stale_peers: frozenset[str] = frozenset()
    answers: Mapping[str, str] = field(default_factory=dict)
    xdp_errors: Mapping[str, str] = field(default_factory=dict)
    lease_until: int = FOREVER
    epoch: int = 0
    vital: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Announcement:
    """A VIP that this node answers for, and what the segment was told of it with.

    `mac` is that of interface `ifindex`, `among` names the directors that share the VIPs out while
    this holds. When either becomes another, caches may hold a MAC that is of the past or will be,
    so that the segment is told anew: after a take-over that only one side has noticed, too.
    """

    vip: str
    ifindex: int
    mac: str
    among: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeState:
    """What this kernel should hold.

    - `addresses`: VIPs on lo. `sysctls`: path below /proc/sys/net -> least value.
    - `to_ask`: VIPs that this node may have to announce: the segment is asked before.
    - `announcements`: VIPs this node announces now (asked, nobody else has them, and this node is
      the announcer). The director's map holds the same ones.
    - `director`: the desired value of the XDP subsystem.
    - `problems`: what cannot be done and why, sorted by plan and VIP.
    - `uplinks`: interfaces that carry VIP traffic.
    """

    addresses: frozenset[str] = frozenset()
    sysctls: Mapping[str, int] = field(default_factory=dict)
    targets: frozenset[Target] = frozenset()
    to_ask: frozenset[Target] = frozenset()
    announcements: frozenset[Announcement] = frozenset()
    director: DirectorState = field(default_factory=DirectorState)
    problems: tuple[PlanNotApplied, ...] = ()
    unhealthy: tuple[UnhealthyBackend, ...] = ()
    uplinks: tuple[str, ...] = ()
