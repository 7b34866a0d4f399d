"""Reads this node's links, addresses and default routes from the kernel."""

from __future__ import annotations

import socket
from collections import defaultdict
from dataclasses import replace
from functools import lru_cache

from pyroute2.arp import ARPHRD_ETHER
from pyroute2.netlink.rtnl import RTM_GETLINK, RTM_GETROUTE
from pyroute2.netlink.rtnl.ifinfmsg import IFF_UP, ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from dsr_node.state.types import Link, Network
from dsr_node.subsystems import rtnl

_LO = 1
_SKIP_STATS = 8
"""RTEXT_FILTER_SKIP_STATS (linux/rtnetlink.h)."""

_FAR_AWAY = ("240.0.0.1", "3fff::1")
"""Addresses that nobody routes specially (RFC 1112 class E, RFC 9637 documentation): the route to
them is the default route. Asking for it costs the same in a kernel with a million routes."""


def read_network() -> Network:
    """Links except lo, with their addresses. Raises OSError."""
    with rtnl.Rtnl() as netlink:
        addresses: dict[int, list[str]] = defaultdict(list)
        for found in rtnl.read_addresses(netlink):
            if found.index != _LO:
                addresses[found.index].append(f"{found.address}/{found.length}")
        links = [
            replace(link, addresses=tuple(sorted(addresses.get(link.index, ()))))
            for link in _links(netlink)
            if link.index != _LO
        ]
        ipv4, ipv6 = (_interface_towards(netlink, address) for address in _FAR_AWAY)
        links.sort(key=lambda link: link.index)
        return Network(tuple(links), default_ipv4=ipv4, default_ipv6=ipv6)


def _links(netlink: rtnl.Rtnl) -> list[Link]:
    request = ifinfmsg()
    request["attrs"] = [("IFLA_EXT_MASK", _SKIP_STATS)]
    return [_link(entry) for entry in netlink.dump(RTM_GETLINK, request)]


@lru_cache(rtnl.REMEMBERED)
def _link(entry: bytes) -> Link:
    """A link, without its addresses."""
    message = rtnl.decoded(ifinfmsg, entry)
    kind = message.get_nested("linkinfo", "kind") or ""
    ethernet = message["ifi_type"] == ARPHRD_ETHER
    return Link(
        name=message.get_attr("IFLA_IFNAME"),
        index=message["index"],
        mac=message.get_attr("IFLA_ADDRESS", "") if ethernet else "",
        kind=kind,
        parent=message.get_attr("IFLA_LINK", 0) if kind == "vlan" else 0,
        up=bool(message["flags"] & IFF_UP),
    )


def _interface_towards(netlink: rtnl.Rtnl, address: str) -> int:
    """The index of the interface of the route to an address; 0 where there is none."""
    request = rtmsg()
    family, bits = (socket.AF_INET6, 128) if ":" in address else (socket.AF_INET, 32)
    request |= {"family": family, "dst_len": bits, "attrs": [("RTA_DST", address)]}
    try:
        reply = netlink.ask(RTM_GETROUTE, request)
    except OSError:
        return 0  # ENETUNREACH, EHOSTUNREACH, EACCES (prohibit) and the like: no way there
    index: int = rtnl.decoded(rtmsg, reply).get_attr("RTA_OIF", 0)
    return index
