"""Which interface carries a VIP's traffic (docs/architecture.md, rule 11). Pure."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from dsr_api.base import UPLINK_ANNOTATION

from dsr_node.state.types import Link, Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

_OF_A_CNI = re.compile(
    r"lo$|veth|cali|cilium|lxc|flannel|cni|docker|br-[0-9a-f]{12}$|virbr|podman|kube-|nodelocaldns"
    r"|weave|antrea|ovn|ovs|azv|eni[0-9a-f]{11}$|gke[0-9a-f]{11}$|nerdctl"
)
_TUNNELS = frozenset(
    {"vxlan", "geneve", "ipip", "sit", "gre", "gretap", "ip6tnl", "ip6gre", "wireguard", "tun"}
    | {"dummy", "ifb", "vti", "nlmon"}
)


class Uplinks:
    """The uplink choice for one state of the network."""

    def __init__(self, network: Network, override: str = "") -> None:
        self._by_index = {link.index: link for link in network.links}
        self._override = override
        self._defaults = {4: network.default_ipv4, 6: network.default_ipv6}
        self._usable = [
            link
            for link in network.links
            if link.up and (link.name == override or not of_a_cni(link))
        ]
        self._subnets: list[tuple[Subnet, Link]] = []
        self.own: frozenset[Address] = frozenset(
            ipaddress.ip_interface(text).ip for link in network.links for text in link.addresses
        )
        for link in self._usable:
            self._subnets += [(subnet, link) for subnet in subnets(link)]
        self._subnets.sort(key=lambda pair: -pair[0].prefixlen)

    def missing(self, vip: Address) -> str:
        """Why of() has given None for a VIP, and what to do."""
        if self._override:
            return (
                f"this node has no interface {self._override!r} that is up; --uplink or the "
                f"Node's annotation {UPLINK_ANNOTATION} names it: correct the name, or take it away"
            )
        return (
            f"no interface of this node has a subnet that holds {vip}, and there is no usable "
            "default route of its family; name one with --uplink or the Node's annotation "
            f"{UPLINK_ANNOTATION}"
        )

    def of(self, vip: Address) -> Link | None:
        """The override, else the interface whose connected subnet holds the VIP (the longest
        prefix), else that of the default route of its family; None where there is none."""
        if self._override:
            return next((link for link in self._usable if link.name == self._override), None)
        for subnet, link in self._subnets:
            if vip in subnet:
                return link
        default = self._by_index.get(self._defaults[vip.version])
        return default if default in self._usable else None


def carrier_of(link: Link, network: Network) -> Link:
    """The interface XDP runs on for an uplink: of a VLAN its lower device, else itself."""
    if link.kind != "vlan":
        return link
    return next((lower for lower in network.links if lower.index == link.parent), link)


def of_a_cni(link: Link) -> bool:
    """Whether an interface belongs to a CNI, a container or a tunnel, by name or kind."""
    return link.kind in _TUNNELS or _OF_A_CNI.match(link.name) is not None


@lru_cache(maxsize=256)
def subnets(link: Link) -> tuple[Subnet, ...]:
    """The connected subnets of an interface; link-local ones and single addresses hold nobody."""
    found = (ipaddress.ip_interface(text) for text in link.addresses)
    return tuple(
        i.network
        for i in found
        if not i.ip.is_link_local and i.network.prefixlen < i.network.max_prefixlen
    )


def reaches(link: Link, address: Address) -> bool:
    """Whether an address is on the segment of an interface."""
    return any(address in subnet for subnet in subnets(link))
