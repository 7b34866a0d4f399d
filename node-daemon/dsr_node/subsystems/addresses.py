"""VIPs on lo, /32 and /128.

They carry our own IFA_PROTO and, for IPv4, the label "lo:dsr" that `ip addr` shows. An address
with neither was put there by somebody else: it serves as well, and is never removed. IFA_PROTO
exists from Linux 5.18 on, and this project needs 6.1.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL, nlmsg
from pyroute2.netlink.rtnl import RTM_DELADDR, RTM_NEWADDR, rt_scope
from pyroute2.netlink.rtnl.ifaddrmsg import IFA_F_NODAD, ifaddrmsg

from dsr_node.subsystems import rtnl
from dsr_node.subsystems.base import Change, SubsystemError, difference

PROTOCOL = 0xD5
"""IFA_PROTO of our addresses; the kernel's own are 1 to 3 (linux/if_addr.h)."""

LABEL = "lo:dsr"

_LO = 1
"""lo has index 1 in every network namespace."""

_FOREVER = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Held:
    """All single addresses on lo, and those of them that we made."""

    all: frozenset[str]
    ours: frozenset[str]


class Addresses:
    """The VIPs on lo."""

    name = "addresses"

    def read(self) -> Held:
        """The /32 and /128 addresses on lo. Raises OSError."""
        with rtnl.Rtnl() as netlink:
            single = [
                found
                for found in rtnl.read_addresses(netlink, _LO)
                if found.length == (128 if ":" in found.address else 32)
            ]
        ours = (f.address for f in single if f.protocol == PROTOCOL or f.label == LABEL)
        return Held(frozenset(f.address for f in single), frozenset(ours))

    def diff(self, wanted: frozenset[str], held: Held) -> Change[str]:
        """Addresses to add, and those of ours to remove."""
        return difference(wanted, held.all, held.ours)

    def add(self, addresses: Iterable[str]) -> dict[str, str]:
        """Puts addresses on lo; those that the kernel refuses come back with its reason."""
        todo = sorted(addresses)
        outcomes = _request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, _marked, todo)
        return {
            address: f"the kernel refuses it on lo: {error.strerror}"
            for address, error in zip(todo, outcomes, strict=True)
            if error is not None and not isinstance(error, FileExistsError)
        }

    def remove(self, addresses: Iterable[str]) -> None:
        """Takes addresses off lo. Raises SubsystemError if any is still there."""
        todo = sorted(addresses)
        outcomes = _request(RTM_DELADDR, 0, _message, todo)
        failed = [
            f"{address} ({error.strerror})"
            for address, error in zip(todo, outcomes, strict=True)
            if error is not None and error.errno != errno.EADDRNOTAVAIL
        ]
        if failed:
            raise SubsystemError(f"{len(failed)} addresses stay on lo, the first: {failed[0]}")


def _request(
    kind: int, flags: int, message: Callable[[str], nlmsg], addresses: list[str]
) -> list[OSError | None]:
    if not addresses:
        return []
    with rtnl.Rtnl() as netlink:
        return netlink.request((kind, flags, message(address)) for address in addresses)


def _message(address: str) -> nlmsg:
    """What names an address on lo."""
    message = ifaddrmsg()
    family, length = (socket.AF_INET6, 128) if ":" in address else (socket.AF_INET, 32)
    message |= {"index": _LO, "family": family, "prefixlen": length}
    message["attrs"] = [("IFA_LOCAL", address)]
    return message


def _marked(address: str) -> nlmsg:
    """What makes an address on lo, and ours.

    The kernel must never choose a VIP as source of the node's own traffic: IPv4 has scope host,
    IPv6 is deprecated (preferred lifetime 0; RFC 6724 rule 3).
    """
    message = _message(address)
    if message["family"] == socket.AF_INET6:
        message["flags"] = IFA_F_NODAD
        deprecated = {"ifa_preferred": 0, "ifa_valid": _FOREVER}
        message["attrs"].append(("IFA_CACHEINFO", deprecated))
    else:
        message["scope"] = rt_scope["host"]
        message["attrs"] += [("IFA_ADDRESS", address), ("IFA_LABEL", LABEL)]
    message["attrs"].append(("IFA_PROTO", PROTOCOL))
    return message
