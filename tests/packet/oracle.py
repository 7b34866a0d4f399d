"""What the director must do with a frame, in plain Python: the packet-level oracle.

It reads frames byte by byte from the RFCs and knows nothing of the C program. Which backend a flow
goes to is the caller's business (`choose`): tests/model/director.py, or a fixed answer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

PASS, DROP, TX, REDIRECT = 2, 1, 3, 4
TCP, UDP = 6, 17
ICMP, ICMPV6 = 1, 58
FIN, SYN, RST, ACK = 1, 2, 4, 16

VLAN = (0x8100, 0x88A8)
EXTENSIONS = (0, 43, 44, 60)
ICMP_ERRORS = (3, 11, 12)
ICMPV6_ERRORS = (1, 2, 3, 4)
MOST_EXTENSIONS = 6


@dataclass(frozen=True)
class Backend:
    """What a handle stands for."""

    mac: bytes = b"\x02\0\0\0\0\x64"
    source_mac: bytes = b"\x02\0\0\0\0\x01"
    ifindex: int = 1
    local: bool = False
    down: bool = False
    draining: bool = False


@dataclass(frozen=True)
class Flow:
    """As the client sends it; addresses have 16 bytes."""

    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    protocol: int

    def key(self) -> bytes:
        """The key of the map `flows`."""
        ports = struct.pack(">HHB3x", self.source_port, self.destination_port, self.protocol)
        return self.source + self.destination + ports


@dataclass(frozen=True)
class Balanced:
    """A packet of a flow that `choose` is asked about."""

    flow: Flow
    tcp_flags: int = 0
    is_error: bool = False


@dataclass(frozen=True)
class Scene:
    """All that decides, except the table. `announced`: seconds from now, None without end."""

    mac: bytes = b"\x02\0\0\0\0\x01"
    ingress: int = 1
    frontends: frozenset[tuple[bytes, int, int]] = frozenset()
    vips: frozenset[bytes] = frozenset()
    host: bool = False
    peers: frozenset[tuple[bytes, bytes]] = frozenset()
    announced: dict[bytes, int | None] = field(default_factory=dict)
    backends: dict[int, Backend] = field(default_factory=dict)
    choose: Callable[[Balanced], int] = lambda _: 0


@dataclass(frozen=True)
class Outcome:
    """`drop`: the counter's name. `length`: bytes that counters see, where there was a choice."""

    verdict: int
    frame: bytes
    drop: str = ""
    backend: int = 0
    length: int = 0


class _NotOursError(Exception):
    """No business of the director's."""


@dataclass
class _BadError(Exception):
    """To be dropped if it is to a VIP."""

    reason: str
    destination: bytes


@dataclass(frozen=True)
class _Transport:
    """An IP packet up to its transport header; offsets are in the frame."""

    source: bytes
    destination: bytes
    protocol: int
    offset: int
    end: int
    hop_limit: int
    extended: bool


def expect(scene: Scene, frame: bytes) -> Outcome:
    """What must come of a frame."""
    try:
        ethertype, l3 = _link(frame)
        if ethertype == 0x0806:
            return _arp(scene, frame, l3)
        packet = _ip(frame, ethertype, l3)
        return _icmp(scene, frame, packet) or _direct(
            scene, frame, packet, _transport(frame, packet)
        )
    except _NotOursError:
        return Outcome(PASS, frame)
    except _BadError as bad:
        if bad.destination in scene.vips and frame[:6] == scene.mac:
            return Outcome(DROP, frame, drop=bad.reason)
        return Outcome(PASS, frame)


def _link(frame: bytes) -> tuple[int, int]:
    offset = 12
    for _ in range(3):
        if len(frame) < offset + 2:
            raise _NotOursError
        (ethertype,) = struct.unpack_from(">H", frame, offset)
        if ethertype not in VLAN or offset == 20:
            return ethertype, offset + 2
        offset += 4
    raise AssertionError("two tags at most")


def _ip(frame: bytes, ethertype: int, l3: int) -> _Transport:
    if ethertype == 0x0800:
        return _ipv4(frame, l3)
    if ethertype == 0x86DD:
        return _ipv6(frame, l3)
    raise _NotOursError


def mapped(address: bytes) -> bytes:
    return bytes(10) + b"\xff\xff" + address


def _ipv4(frame: bytes, l3: int) -> _Transport:
    header = frame[l3 : l3 + 20]
    if len(header) < 20 or header[0] >> 4 != 4:
        raise _NotOursError
    source, destination = mapped(header[12:16]), mapped(header[16:20])
    size, total = (header[0] & 15) * 4, int.from_bytes(header[2:4], "big")
    if size < 20 or total < size:
        raise _BadError("malformed", destination)
    if l3 + total > len(frame):
        raise _BadError("truncated", destination)
    if int.from_bytes(header[6:8], "big") & 0x3FFF:
        raise _BadError("fragment", destination)
    return _Transport(
        source, destination, header[9], l3 + size, l3 + total, header[8], extended=False
    )


def _ipv6(frame: bytes, l3: int) -> _Transport:
    header = frame[l3 : l3 + 40]
    if len(header) < 40 or header[0] >> 4 != 6:
        raise _NotOursError
    source, destination = header[8:24], header[24:40]
    end = l3 + 40 + int.from_bytes(header[4:6], "big")
    if end > len(frame):
        raise _BadError("truncated", destination)
    protocol, offset = _extensions(frame, l3 + 40, header[6], destination)
    if offset > end:
        raise _BadError("malformed", destination)
    return _Transport(
        source, destination, protocol, offset, end, header[7], extended=offset > l3 + 40
    )


def _extensions(frame: bytes, offset: int, header: int, destination: bytes) -> tuple[int, int]:
    for _ in range(MOST_EXTENSIONS):
        if header not in EXTENSIONS:
            return header, offset
        if len(frame) < offset + 8:
            raise _BadError("truncated", destination)
        following, length, _, segments_left = frame[offset : offset + 4]
        if header == 44:
            if int.from_bytes(frame[offset + 2 : offset + 4], "big") & 0xFFF9:
                raise _BadError("fragment", destination)
            length = 0
        if header == 43 and segments_left:
            raise _BadError("extension_headers", destination)
        header, offset = following, offset + 8 + 8 * length
    if header in EXTENSIONS:
        raise _BadError("extension_headers", destination)
    return header, offset


def _transport(frame: bytes, packet: _Transport) -> Balanced:
    length = packet.end - packet.offset
    if packet.protocol not in (TCP, UDP):
        raise _NotOursError
    needed = 20 if packet.protocol == TCP else 8
    if length < needed:
        raise _BadError("malformed", packet.destination)
    header = frame[packet.offset : packet.offset + needed]
    source_port, destination_port = struct.unpack_from(">HH", header)
    if packet.protocol == TCP:
        claimed, flags = (header[12] >> 4) * 4, header[13]
    else:
        claimed, flags = int.from_bytes(header[4:6], "big"), 0
    if not needed <= claimed <= length:
        raise _BadError("malformed", packet.destination)
    flow = Flow(packet.source, packet.destination, source_port, destination_port, packet.protocol)
    return Balanced(flow, flags)


def _direct(scene: Scene, frame: bytes, packet: _Transport, asked: Balanced) -> Outcome:
    flow = asked.flow
    frontend = (flow.destination, flow.protocol, flow.destination_port)
    if frontend not in scene.frontends or frame[:6] != scene.mac:
        raise _NotOursError
    if scene.host and _from_peer(scene, frame[6:12], packet.source):
        raise _NotOursError
    length = packet.end
    handle = scene.choose(asked)
    backend = scene.backends.get(handle)
    if not handle:
        return Outcome(DROP, frame, drop="no_backend", length=length)
    if backend is None:
        return Outcome(DROP, frame, drop="backend_gone", length=length)
    if backend.down:
        return Outcome(DROP, frame, drop="backend_down", length=length)
    if backend.local:
        return Outcome(PASS, frame, backend=handle, length=length)
    if backend.mac == frame[6:12]:
        return Outcome(DROP, frame, drop="sent_back", length=length)
    verdict = TX if backend.ifindex == scene.ingress else REDIRECT
    sent = backend.mac + backend.source_mac + frame[12:]
    return Outcome(verdict, sent, backend=handle, length=length)


def _from_peer(scene: Scene, mac: bytes, source: bytes) -> bool:
    return any(peer == mac for peer, _ in scene.peers) and (mac, source) not in scene.peers


# ICMP, and neighbour discovery in it.


def _icmp(scene: Scene, frame: bytes, packet: _Transport) -> Outcome | None:
    if packet.protocol not in (ICMP, ICMPV6):
        return None
    is_v4 = packet.destination[:12] == bytes(10) + b"\xff\xff"
    if (packet.protocol == ICMP) != is_v4:
        return None
    if not is_v4 and (answer := _solicitation(scene, frame, packet)):
        return answer
    if len(frame) < packet.offset + 8:
        raise _BadError("truncated", packet.destination)
    if frame[packet.offset] not in (ICMP_ERRORS if is_v4 else ICMPV6_ERRORS):
        raise _NotOursError
    flow = _inner(frame, packet.offset + 8, packet, is_v4=is_v4)
    if flow.destination != packet.destination:
        raise _NotOursError
    return _direct(scene, frame, packet, Balanced(flow, 0, is_error=True))


def _inner(frame: bytes, at: int, outer: _Transport, *, is_v4: bool) -> Flow:
    """The flow, seen from the client, of the packet that an error is about."""
    unclear = _BadError("icmp_inner", outer.destination)
    size = 20 if is_v4 else 40
    header = frame[at : at + size]
    if len(header) < size or header[0] >> 4 != (4 if is_v4 else 6):
        raise unclear
    if is_v4:
        sender, receiver = mapped(header[12:16]), mapped(header[16:20])
        protocol, offset = header[9], at + (header[0] & 15) * 4
        if header[0] & 15 < 5 or int.from_bytes(header[6:8], "big") & 0x1FFF:
            raise unclear
    else:
        sender, receiver = header[8:24], header[24:40]
        try:
            protocol, offset = _extensions(frame, at + 40, header[6], b"")
        except _BadError:
            raise unclear from None
    if protocol not in (TCP, UDP):
        raise _NotOursError
    if len(frame) < offset + 4:
        raise unclear
    port_there, port_here = struct.unpack_from(">HH", frame, offset)
    return Flow(receiver, sender, port_here, port_there, protocol)


def _is_for(scene: Scene, frame: bytes) -> bool:
    return frame[:6] == scene.mac or bool(frame[0] & 1)


def _announces(scene: Scene, vip: bytes) -> bool:
    seconds = scene.announced.get(vip, 0)
    return seconds is None or seconds > 0


def _solicitation(scene: Scene, frame: bytes, packet: _Transport) -> Outcome | None:
    """RFC 4861, 7.1.1 and 7.2.4. None: it is something else."""
    body = frame[packet.offset : packet.offset + 24]
    if packet.extended or packet.end < packet.offset + 24 or len(body) < 24:
        return None
    if body[0] != 135 or body[1] or packet.hop_limit != 255:
        return None
    vip = body[8:24]
    if not _is_for(scene, frame) or not _announces(scene, vip):
        raise _NotOursError
    asker, flags = packet.source, 0x60
    mac = frame[6:12]
    if asker == bytes(16):
        asker, flags = bytes.fromhex("ff02" + "00" * 13 + "01"), 0x20
        mac = bytes.fromhex("333300000001")
    answer = struct.pack(">BBHB3x", 136, 0, 0, flags) + vip + b"\x02\x01" + scene.mac
    pseudo = vip + asker + struct.pack(">II", len(answer), ICMPV6)
    answer = answer[:2] + _checksum(pseudo + answer) + answer[4:]
    l3 = packet.offset - 40
    header = frame[l3 : l3 + 4] + struct.pack(">HBB", len(answer), ICMPV6, 255) + vip + asker
    return Outcome(TX, mac + scene.mac + frame[12:l3] + header + answer)


def _checksum(data: bytes) -> bytes:
    """RFC 1071."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def _arp(scene: Scene, frame: bytes, l3: int) -> Outcome:
    """RFC 826; RFC 5227 for probes, whose sender address is zero."""
    arp = frame[l3 : l3 + 28]
    if len(arp) < 28 or arp[:8] != bytes.fromhex("0001080006040001"):
        raise _NotOursError
    sender_mac, sender, vip = arp[8:14], arp[14:18], arp[24:28]
    if sender == vip or not _is_for(scene, frame) or not _announces(scene, mapped(vip)):
        raise _NotOursError
    reply = arp[:6] + b"\0\x02" + scene.mac + vip + sender_mac + sender
    return Outcome(TX, sender_mac + scene.mac + frame[12:l3] + reply + frame[l3 + 28 :])
