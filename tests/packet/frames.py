"""A scene with one service on IPv4 and IPv6, and frames for it made by scapy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from dsr_node.subsystems.xdp.state import address16
from dsr_node.table.word import handle
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.packet.oracle import Backend, Scene

VIP4, VIP6 = "192.0.2.10", "2001:db8::10"
OTHER4, OTHER6 = "192.0.2.99", "2001:db8::99"  # of nobody here
CLIENT4, CLIENT6 = "198.51.100.7", "2001:db8:1::7"
PEER4 = "192.0.2.3"
MAC, CLIENT_MAC, PEER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:99", "02:00:00:00:00:03"
PORT, CLIENT_PORT = 80, 40000
WEB = handle(5, 7)


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


VIPS = {4: address16(VIP4), 6: address16(VIP6)}
SCENE = Scene(
    mac=mac(MAC),
    vips=frozenset(VIPS.values()),
    frontends=frozenset((vip, protocol, PORT) for vip in VIPS.values() for protocol in (6, 17)),
    backends={WEB: Backend()},
    choose=lambda _: WEB,
)
PEERED = replace(
    SCENE,
    host=True,
    peers=frozenset({(mac(PEER_MAC), address16(PEER4))}),
)

TAGS: dict[str, list[Packet]] = {
    "untagged": [],
    "vlan": [Dot1Q(vlan=10, prio=3)],
    "qinq": [Dot1AD(vlan=100), Dot1Q(vlan=10)],
    "two 802.1Q": [Dot1Q(vlan=5), Dot1Q(vlan=6)],
}
EXTENSIONS: dict[str, list[Packet]] = {
    "none": [],
    "hop by hop": [IPv6ExtHdrHopByHop()],
    "destination options": [IPv6ExtHdrDestOpt()],
    "routing at its end": [IPv6ExtHdrRouting(segleft=0)],
    "atomic fragment": [IPv6ExtHdrFragment(m=0, offset=0, id=77)],
    "all": [
        IPv6ExtHdrHopByHop(),
        IPv6ExtHdrDestOpt(),
        IPv6ExtHdrRouting(segleft=0),
        IPv6ExtHdrFragment(m=0, offset=0),
        IPv6ExtHdrDestOpt(),
        IPv6ExtHdrDestOpt(),
    ],
}


def ethernet(tags: list[Packet] | None = None, **fields: str) -> Packet:
    frame = Ether(**{"dst": MAC, "src": CLIENT_MAC, **fields})
    for tag in tags or []:
        frame /= tag.copy()
    return frame


def ip(family: int, extensions: Sequence[Packet] = (), **fields: Any) -> Packet:
    if family == 4:
        return IP(**{"src": CLIENT4, "dst": VIP4, **fields})
    packet = IPv6(**{"src": CLIENT6, "dst": VIP6, **fields})
    for extension in extensions:
        packet /= extension.copy()
    return packet


def transport(name: str, **fields: Any) -> Packet:
    layer = TCP if name == "TCP" else UDP
    return layer(**{"sport": CLIENT_PORT, "dport": PORT, **fields}) / Raw(b"payload")


def segment(family: int = 4, name: str = "TCP", **fields: Any) -> bytes:
    return bytes(ethernet() / ip(family) / transport(name, **fields))


def reply(family: int, name: str = "TCP", **fields: Any) -> Packet:
    """What a backend has sent from the VIP, and an ICMP error is about."""
    ends = {"src": VIP4, "dst": CLIENT4} if family == 4 else {"src": VIP6, "dst": CLIENT6}
    return ip(family, **{**ends, **fields}) / transport(name, sport=PORT, dport=CLIENT_PORT)


def errors(family: int) -> Iterator[Packet]:
    """Every ICMP error that concerns a flow, without the packet it is about."""
    if family == 4:
        yield from (ICMP(type=3, code=code) for code in (0, 1, 3, 4))
        yield from (ICMP(type=kind, code=0) for kind in (11, 12))
    else:
        yield from (
            ICMPv6DestUnreach(code=4),
            ICMPv6PacketTooBig(mtu=1400),
            ICMPv6TimeExceeded(),
            ICMPv6ParamProblem(),
        )


def error(family: int, about: Packet, kind: Packet | None = None, **fields: Any) -> bytes:
    """An ICMP error from a router on the way."""
    router = {"src": "203.0.113.1"} if family == 4 else {"src": "2001:db8:ffff::1"}
    head = kind or next(errors(family))
    return bytes(ethernet() / ip(family, **{**router, **fields}) / head / about)
