"""VIPs on lo, /32 and /128.

They carry our own IFA_PROTO (Linux 5.18+) and, for IPv4, the label "lo:dsr" that `ip addr` shows;
an address with neither was put there by somebody else: it serves as well, and is never removed.
On an older kernel an IPv6 address cannot be marked, and is refused.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from dsr_node.subsystems import rtnl
from dsr_node.subsystems.base import Change, SubsystemError, difference

PROTOCOL = 0xD5
"""IFA_PROTO of our addresses; the kernel's own are 1 to 3 (linux/if_addr.h)."""

LABEL = "lo:dsr"

_LO = 1
"""lo has index 1 in every network namespace."""

_IFADDRMSG = struct.Struct("=BBBBI")
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL, _IFA_CACHEINFO, _IFA_PROTO = 1, 2, 3, 6, 11
_IFA_F_NODAD = 0x02
_SCOPE_GLOBAL, _SCOPE_HOST = 0, 254
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
            dumped = netlink.dump(rtnl.RTM_GETADDR, _IFADDRMSG.pack(0, 0, 0, 0, _LO))
        every, ours = set(), set()
        for message in dumped:
            family, prefix, _, _, index = _IFADDRMSG.unpack_from(message.body)
            if index != _LO or prefix != (32 if family == socket.AF_INET else 128):
                continue
            found = rtnl.attributes(message.body, _IFADDRMSG.size)
            address = socket.inet_ntop(family, found.get(_IFA_LOCAL) or found[_IFA_ADDRESS])
            every.add(address)
            if _is_ours(found):
                ours.add(address)
        return Held(frozenset(every), frozenset(ours))

    def diff(self, wanted: frozenset[str], held: Held) -> Change[str]:
        """Addresses to add, and those of ours to remove."""
        return difference(wanted, held.all, held.ours)

    def add(self, addresses: Iterable[str]) -> dict[str, str]:
        """Puts addresses on lo; those that the kernel refuses come back with its reason."""
        todo = sorted(addresses)
        outcomes = _request(rtnl.RTM_NEWADDR, rtnl.CREATE | rtnl.EXCLUSIVE, todo)
        return {
            address: f"the kernel refuses it on lo: {error.strerror}"
            for address, error in zip(todo, outcomes, strict=True)
            if error is not None and not isinstance(error, FileExistsError)
        }

    def remove(self, addresses: Iterable[str]) -> None:
        """Takes addresses off lo. Raises SubsystemError if any is still there."""
        todo = sorted(addresses)
        outcomes = _request(rtnl.RTM_DELADDR, 0, todo)
        failed = [
            f"{address} ({error.strerror})"
            for address, error in zip(todo, outcomes, strict=True)
            if error is not None and error.errno != errno.EADDRNOTAVAIL
        ]
        if failed:
            raise SubsystemError(f"{len(failed)} addresses stay on lo, the first: {failed[0]}")


def _is_ours(found: dict[int, bytes]) -> bool:
    if found.get(_IFA_PROTO) == bytes([PROTOCOL]):
        return True
    return found.get(_IFA_LABEL, b"").rstrip(b"\0") == LABEL.encode()


def _request(kind: int, flags: int, addresses: list[str]) -> list[OSError | None]:
    if not addresses:
        return []
    with rtnl.Rtnl() as netlink:
        return netlink.request([(kind, flags, _body(address)) for address in addresses])


def _body(address: str) -> bytes:
    """An address message.

    The kernel must never choose a VIP as source of the node's own traffic: IPv4 has scope host,
    IPv6 is deprecated (preferred lifetime 0; RFC 6724 rule 3).
    """
    if ":" in address:
        packed = socket.inet_pton(socket.AF_INET6, address)
        lifetimes = struct.pack("=IIII", 0, _FOREVER, 0, 0)
        return (
            _IFADDRMSG.pack(socket.AF_INET6, 128, _IFA_F_NODAD, _SCOPE_GLOBAL, _LO)
            + rtnl.attribute(_IFA_LOCAL, packed)
            + rtnl.attribute(_IFA_CACHEINFO, lifetimes)
            + rtnl.attribute(_IFA_PROTO, bytes([PROTOCOL]))
        )
    packed = socket.inet_pton(socket.AF_INET, address)
    return (
        _IFADDRMSG.pack(socket.AF_INET, 32, 0, _SCOPE_HOST, _LO)
        + rtnl.attribute(_IFA_LOCAL, packed)
        + rtnl.attribute(_IFA_ADDRESS, packed)
        + rtnl.attribute(_IFA_LABEL, LABEL.encode() + b"\0")
        + rtnl.attribute(_IFA_PROTO, bytes([PROTOCOL]))
    )
