"""What the XDP dataplane of this node should hold: plain frozen values, made by node_state().

Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d; MACs are 6 bytes; ports and
protocols are host integers. Times are CLOCK_MONOTONIC.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

TCP = 6
UDP = 17
FOREVER = 2**64 - 1
"""An `announced` lease without end."""

_MAPPED = bytes(10) + b"\xff\xff"


def address16(text: str) -> bytes:
    """The map form of an IPv4 or IPv6 address. Raises ValueError for anything else."""
    address = ipaddress.ip_address(text)
    return _MAPPED + address.packed if address.version == 4 else address.packed


def address_text(address: bytes) -> str:
    """The canonical text of an address in map form."""
    if address[:12] == _MAPPED:
        return str(ipaddress.IPv4Address(address[12:]))
    return str(ipaddress.IPv6Address(address))


@dataclass(frozen=True, slots=True, order=True)
class FrontendKey:
    """One (VIP, protocol, port) that this node forwards."""

    vip: bytes
    protocol: int
    port: int

    def __str__(self) -> str:
        name = {TCP: "TCP", UDP: "UDP"}.get(self.protocol, str(self.protocol))
        return f"{address_text(self.vip)} {self.port}/{name}"


@dataclass(frozen=True, slots=True, order=True)
class PoolKey:
    """The backends of one family (4 or 6) of one plan."""

    plan: str
    family: int

    def __str__(self) -> str:
        return f"{self.plan} IPv{self.family}"


@dataclass(frozen=True, slots=True, order=True)
class BackendKey:
    """A new machine on an old address is another backend (docs/architecture.md, slot rule 8)."""

    address: bytes
    node_uid: str = ""

    def __bytes__(self) -> bytes:
        """What the table's choice depends on: the same on every LB node."""
        return self.address + self.node_uid.encode()


@dataclass(frozen=True, slots=True)
class Backend:
    """A backend as this node sees it now.

    weight 0 drains. `local`: its packets go up this node's own stack. Elsewhere they leave through
    interface `ifindex` from `source_mac` (that interface's own) to `mac`; None: not resolved, as
    good as failed. `failed`: it loses its own slots (docs/architecture.md, slot rule 1).
    """

    key: BackendKey
    weight: int = 1
    local: bool = False
    ifindex: int = 0
    mac: bytes | None = None
    source_mac: bytes = bytes(6)
    failed: bool = False

    @property
    def draining(self) -> bool:
        """It keeps its flows and gets no new ones."""
        return self.weight == 0

    @property
    def down(self) -> bool:
        """Failed, or no way to it: nothing can be sent there."""
        return self.failed or (not self.local and self.mac is None)


@dataclass(frozen=True, slots=True)
class PreviousBackend:
    """A backend of the plan before its last change."""

    key: BackendKey
    weight: int


@dataclass(frozen=True, slots=True)
class Pool:
    """One weighted Maglev table and its backends.

    `seed` (64 bits), `size` (slots, a prime) and `table_version` are the plan's; a pool that
    changes one of them is another pool. `previous` and `moved_at` (whole seconds) say what a node
    without a pinned table takes as settled (docs/architecture.md, slot rule 11); None: nothing has
    moved of late. `host`: this node serves the plan's VIPs as a backend as well, so the peer guard
    applies.
    """

    key: PoolKey
    seed: int
    size: int
    backends: tuple[Backend, ...]
    table_version: int = 1
    previous: tuple[PreviousBackend, ...] = ()
    moved_at: int | None = None
    tcp_idle_s: int = 900
    udp_idle_s: int = 120
    host: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Peer:
    """Another LB node, as seen on the wire: a MAC of it and an address it sends from itself."""

    mac: bytes
    address: bytes


@dataclass(frozen=True, slots=True, order=True)
class Attachment:
    """An interface the program runs on. `mac` answers ARP and NS; frames to other MACs pass."""

    name: str
    ifindex: int
    mac: bytes


@dataclass(frozen=True, slots=True)
class DirectorState:
    """All of it. Every frontend's pool must be in `pools`.

    `vips`: addresses directed here (malformed packets and fragments to them are dropped).
    `announced`: VIP -> nanoseconds until which this node answers ARP / NS for it, or FOREVER.
    """

    frontends: Mapping[FrontendKey, PoolKey] = field(default_factory=dict)
    pools: Mapping[PoolKey, Pool] = field(default_factory=dict)
    vips: frozenset[bytes] = frozenset()
    peers: frozenset[Peer] = frozenset()
    announced: Mapping[bytes, int] = field(default_factory=dict)
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """What could not be done, and what to do about it. `plan` is "" where the whole node is
    concerned; `interface` is set where one interface is. `reason` is CamelCase."""

    reason: str
    message: str
    plan: str = ""
    interface: str = ""
