"""Reads this node's links, addresses, default routes and DNS servers."""

from __future__ import annotations

import socket
from collections import defaultdict
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from pyroute2.arp import ARPHRD_ETHER
from pyroute2.netlink import nlmsg_base
from pyroute2.netlink.rtnl import RTM_GETLINK, RTM_GETROUTE
from pyroute2.netlink.rtnl.ifinfmsg import IFF_UP, ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from dsr_node.state.types import Link, Network
from dsr_node.subsystems import rtnl

_LO = 1
_SKIP_STATS = 8
"""RTEXT_FILTER_SKIP_STATS (linux/rtnetlink.h)."""

RTM_F_FIB_MATCH = 0x2000
"""The route as it stands in the table, with all its ways (linux/rtnetlink.h)."""

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
        ipv4, ipv6 = (_route_to(netlink, address) for address in _FAR_AWAY)
        links.sort(key=lambda link: link.index)
        return Network(tuple(links), ipv4[0], ipv6[0], gateways=ipv4[1] | ipv6[1])


def nameservers(resolv_conf: Path = Path("/etc/resolv.conf")) -> frozenset[str]:
    """The DNS servers this node asks (resolv.conf(5)); none where there is no such file."""
    try:
        lines = resolv_conf.read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()  # libc takes the host itself then
    words = [line.split() for line in lines]
    return frozenset(each[1] for each in words if len(each) > 1 and each[0] == "nameserver")


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


def _route_to(netlink: rtnl.Rtnl, address: str) -> tuple[int, frozenset[str]]:
    """Interface and next hops of the route to an address; 0 and none where there is none.

    Of a route with several ways the interface of lowest index is taken, and all next hops.
    """
    request = rtmsg()
    family, bits = (socket.AF_INET6, 128) if ":" in address else (socket.AF_INET, 32)
    request |= {"family": family, "dst_len": bits, "flags": RTM_F_FIB_MATCH}
    request["attrs"] = [("RTA_DST", address)]
    try:
        route = rtnl.decoded(rtmsg, netlink.ask(RTM_GETROUTE, request))
    except OSError:
        return 0, frozenset()  # ENETUNREACH, EHOSTUNREACH, EACCES (prohibit) and the like: no way
    ways = route.get_attr("RTA_MULTIPATH", ())
    index: int = min((way["oif"] for way in ways), default=route.get_attr("RTA_OIF", 0))
    hops = [_next_hop(way) for way in (route, *ways)]
    return index, frozenset(hop for hop in hops if hop)


def _next_hop(way: nlmsg_base) -> str:
    """A gateway of the route's own family, or of the other one (RTA_VIA); "" for a link."""
    via = way.get_attr("RTA_VIA") or {}
    hop: str = way.get_attr("RTA_GATEWAY") or via.get("addr", "")
    return hop
