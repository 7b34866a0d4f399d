"""ARP and neighbour discovery on the wire: frames built and read. Pure.

MACs are 6 bytes here, addresses are strings. ARP: RFC 826, probes and announcements RFC 5227.
Neighbour discovery: RFC 4861; duplicate address detection: RFC 4862.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

BROADCAST = b"\xff" * 6
NOBODY_IPV4 = "0.0.0.0"  # noqa: S104 - the sender address of an ARP probe, nothing is bound to it
NOBODY_IPV6 = "::"

_ARP, _IPV6 = 0x0806, 0x86DD
_ARP_BODY = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST, _REPLY = 1, 2
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_MAC, _TARGET_MAC = 1, 2
_OVERRIDE = 0x20000000
_ALL_NODES = "ff02::1"


@dataclass(frozen=True, slots=True)
class Heard:
    """Somebody on the segment says: this address is at this MAC."""

    address: str
    mac: bytes


def mac_text(mac: bytes) -> str:
    """ "aa:bb:cc:dd:ee:ff"."""
    return mac.hex(":")


def mac_bytes(text: str) -> bytes:
    """The 6 bytes of "aa:bb:cc:dd:ee:ff"."""
    return bytes.fromhex(text.replace(":", ""))


def solicited_node(address: str) -> str:
    """The multicast group at which an IPv6 address is asked for (RFC 4291, 2.7.1)."""
    low = socket.inet_pton(socket.AF_INET6, address)[-3:]
    group = bytes.fromhex("ff0200000000000000000001ff") + low
    return socket.inet_ntop(socket.AF_INET6, group)


def question(mac: bytes, source: str, target: str, ask: bytes | None = None) -> bytes:
    """Who has `target`? Asked at one MAC, or of the whole segment.

    `source` is an address of ours; NOBODY_IPV4 / NOBODY_IPV6 makes it an ARP probe or a DAD
    solicitation, which leaves no trace in anyone's cache.
    """
    if ":" not in target:
        return _arp((ask or BROADCAST, mac), _REQUEST, source, bytes(6), target)
    group = solicited_node(target)
    body = struct.pack("!I", 0) + _packed(target)
    if source != NOBODY_IPV6:
        body += bytes([_SOURCE_MAC, 1]) + mac
    destination = target if ask else group
    return _icmp6((ask or _group_mac(group), mac), source, destination, _SOLICITATION, body)


def announcements(mac: bytes, vip: str) -> tuple[bytes, ...]:
    """What tells the segment that `vip` is at `mac` now.

    ARP in both forms, for some devices heed only requests and some only replies.
    """
    if ":" not in vip:
        return (
            _arp((BROADCAST, mac), _REQUEST, vip, bytes(6), vip),
            _arp((BROADCAST, mac), _REPLY, vip, mac, vip),
        )
    body = struct.pack("!I", _OVERRIDE) + _packed(vip) + bytes([_TARGET_MAC, 1]) + mac
    return (_icmp6((_group_mac(_ALL_NODES), mac), vip, _ALL_NODES, _ADVERTISEMENT, body),)


def read(frame: bytes) -> Heard | None:
    """What an ARP packet or a neighbour advertisement says; None for anything else."""
    kind = int.from_bytes(frame[12:14], "big")
    if kind == _ARP and len(frame) >= 42:
        sender = frame[28:32]
        if sender == bytes(4):
            return None
        return Heard(socket.inet_ntop(socket.AF_INET, sender), frame[22:28])
    if kind == _IPV6 and len(frame) >= 78 and frame[20] == 58 and frame[54] == _ADVERTISEMENT:
        target = socket.inet_ntop(socket.AF_INET6, frame[62:78])
        return Heard(target, _target_mac(frame[78:]) or frame[6:12])
    return None


def _target_mac(options: bytes) -> bytes | None:
    while len(options) >= 8 and options[1]:
        if options[0] == _TARGET_MAC:
            return options[2:8]
        options = options[8 * options[1] :]
    return None


def _arp(
    ends: tuple[bytes, bytes], operation: int, sender: str, target_mac: bytes, target: str
) -> bytes:
    to, mac = ends
    body = _ARP_BODY.pack(
        1,
        0x0800,
        6,
        4,
        operation,
        mac,
        socket.inet_aton(sender),
        target_mac,
        socket.inet_aton(target),
    )
    return to + mac + _ARP.to_bytes(2, "big") + body


def _icmp6(
    ends: tuple[bytes, bytes], source: str, destination: str, kind: int, body: bytes
) -> bytes:
    to, mac = ends
    addresses = _packed(source) + _packed(destination)
    length = 4 + len(body)
    pseudo = addresses + struct.pack("!II", length, 58)
    checksum = _checksum(pseudo + bytes([kind, 0, 0, 0]) + body)
    header = struct.pack("!IHBB", 0x60000000, length, 58, 255) + addresses
    message = struct.pack("!BBH", kind, 0, checksum) + body
    return to + mac + _IPV6.to_bytes(2, "big") + header + message


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _group_mac(group: str) -> bytes:
    return b"\x33\x33" + _packed(group)[-4:]


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, address)
