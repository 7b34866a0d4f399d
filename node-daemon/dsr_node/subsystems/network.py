"""Reads this node's links, addresses and default routes from the kernel."""

from __future__ import annotations

import socket
import struct
from collections import defaultdict

from dsr_node.state.types import Link, Network
from dsr_node.subsystems import rtnl
from dsr_node.subsystems.frames import mac_text

_LO = 1
_IFINFOMSG = struct.Struct("=BxHiII")
_IFADDRMSG = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINK, _IFLA_LINKINFO, _IFLA_EXT_MASK = 1, 3, 5, 18, 29
_IFLA_INFO_KIND = 1
_SKIP_STATS = 8
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF = 1, 4
_IFF_UP = 1

_FAR_AWAY = ("240.0.0.1", "3fff::1")
"""Addresses that nobody routes specially (RFC 1112 class E, RFC 9637 documentation): the route to
them is the default route. Asking for it costs the same in a kernel with a million routes."""


def read_network() -> Network:
    """Links except lo, with their addresses. Raises OSError."""
    with rtnl.Rtnl() as netlink:
        addresses = _addresses(netlink)
        skip_stats = rtnl.attribute(_IFLA_EXT_MASK, struct.pack("=I", _SKIP_STATS))
        dumped = netlink.dump(rtnl.RTM_GETLINK, _IFINFOMSG.pack(0, 0, 0, 0, 0) + skip_stats)
        links = (_link(message.body, addresses) for message in dumped)
        ipv4, ipv6 = (_interface_towards(netlink, address) for address in _FAR_AWAY)
        found = sorted((link for link in links if link.index != _LO), key=lambda link: link.index)
        return Network(tuple(found), default_ipv4=ipv4, default_ipv6=ipv6)


def _addresses(netlink: rtnl.Rtnl) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for message in netlink.dump(rtnl.RTM_GETADDR, _IFADDRMSG.pack(0, 0, 0, 0, 0)):
        family, prefix, _, _, index = _IFADDRMSG.unpack_from(message.body)
        if index == _LO:
            continue
        values = rtnl.attributes(message.body, _IFADDRMSG.size)
        address = socket.inet_ntop(family, values.get(_IFA_LOCAL) or values[_IFA_ADDRESS])
        found[index].append(f"{address}/{prefix}")
    return found


def _link(body: bytes, addresses: dict[int, list[str]]) -> Link:
    _, _, index, flags, _ = _IFINFOMSG.unpack_from(body)
    values = rtnl.attributes(body, _IFINFOMSG.size)
    info = rtnl.attributes(values.get(_IFLA_LINKINFO, b""), 0)
    kind = info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
    parent = int.from_bytes(values.get(_IFLA_LINK, b""), "little") if kind == "vlan" else 0
    mac = values.get(_IFLA_ADDRESS, b"")
    return Link(
        name=values[_IFLA_IFNAME].rstrip(b"\0").decode(),
        index=index,
        mac=mac_text(mac) if len(mac) == 6 else "",
        kind=kind,
        parent=parent,
        up=bool(flags & _IFF_UP),
        addresses=tuple(sorted(addresses.get(index, ()))),
    )


def _interface_towards(netlink: rtnl.Rtnl, address: str) -> int:
    """The index of the interface of the route to an address; 0 where there is none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    body = _RTMSG.pack(family, 8 * len(packed), 0, 0, 0, 0, 0, 0, 0)
    try:
        reply = netlink.ask(rtnl.RTM_GETROUTE, body + rtnl.attribute(_RTA_DST, packed))
    except OSError:
        return 0  # ENETUNREACH, EHOSTUNREACH, EACCES (prohibit) and the like: no way there
    return int.from_bytes(rtnl.attributes(reply.body, _RTMSG.size).get(_RTA_OIF, b""), "little")
