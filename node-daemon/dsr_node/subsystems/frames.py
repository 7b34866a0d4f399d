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
_SOLICITED = 0x40  # in the first byte of the flags
_ICMPV6 = 58
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
    """What an ARP packet or a neighbour advertisement says of its own sender.

    None for anything else, for what must be ignored (RFC 4861, 7.1.2), and for a MAC that is no
    single machine's or not the one the frame came from: nobody speaks for another here.
    """
    kind = int.from_bytes(frame[12:14], "big")
    heard = None
    if kind == _ARP:
        heard = _read_arp(frame)
    elif kind == _IPV6:
        heard = _read_advertisement(frame)
    if heard is None or heard.mac != frame[6:12]:
        return None
    return heard if any(heard.mac) and not heard.mac[0] & 1 else None


def _read_arp(frame: bytes) -> Heard | None:
    """A reply, or an announcement: a request that asks for its sender's own address."""
    if len(frame) < 14 + _ARP_BODY.size:
        return None
    *ethernet_ipv4, operation, mac, sender, _, target = _ARP_BODY.unpack_from(frame, 14)
    tells = operation == _REPLY or (operation == _REQUEST and sender == target)
    if ethernet_ipv4 != [1, 0x0800, 6, 4] or not tells or sender == bytes(4):
        return None
    return Heard(socket.inet_ntop(socket.AF_INET, sender), mac)


def _read_advertisement(frame: bytes) -> Heard | None:
    length = int.from_bytes(frame[18:20], "big")
    source, destination, message = frame[22:38], frame[38:54], frame[54 : 54 + length]
    if len(message) < length or length < 24 or length % 8 or frame[14] >> 4 != 6:
        return None
    # A router lowers the hop limit, so 255 comes from this segment; the checksum takes in source
    # and destination.
    if frame[20] != _ICMPV6 or frame[21] != 255 or message[:2] != bytes([_ADVERTISEMENT, 0]):
        return None
    if _checksum(source + destination + struct.pack("!II", length, _ICMPV6) + message):
        return None
    flags, target, options = message[4], message[8:24], _options(message[24:])
    if _is_group(source) or _is_group(target) or not any(source) or not any(target):
        return None
    if options is None or (_is_group(destination) and flags & _SOLICITED):
        return None
    mac = options.get(_TARGET_MAC, frame[6:12])
    return Heard(socket.inet_ntop(socket.AF_INET6, target), mac)


def _is_group(address: bytes) -> bool:
    return address[0] == 0xFF


def _options(data: bytes) -> dict[int, bytes] | None:
    """The values of neighbour discovery options; None where one has no length or too long a one."""
    found = {}
    while data:
        size = 8 * data[1]
        if not 0 < size <= len(data):
            return None
        found[data[0]] = data[2:size]
        data = data[size:]
    return found


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
    pseudo = addresses + struct.pack("!II", length, _ICMPV6)
    checksum = _checksum(pseudo + bytes([kind, 0, 0, 0]) + body)
    header = struct.pack("!IHBB", 0x60000000, length, _ICMPV6, 255) + addresses
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
