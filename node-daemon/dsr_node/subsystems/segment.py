"""Raw sockets on an uplink: questions and announcements go out, answers come in."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import ipaddress
import socket
import struct
from collections.abc import Callable, Iterable, Iterator

from dsr_node.state.types import Link
from dsr_node.state.uplink import reaches
from dsr_node.subsystems.frames import NOBODY_IPV4, NOBODY_IPV6, Heard, mac_bytes, read

_ETH_P_ARP, _ETH_P_IPV6 = 0x0806, 0x86DD
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _PACKET_MR_ALLMULTI = 263, 1, 2
_RECEIVE_BUFFER = 4 << 20

_FRAME = 1514
_LDH, _LDB, _LD, _JEQ, _JEQ_X, _JSET, _TAX, _RET = 0x28, 0x30, 0x20, 0x15, 0x1D, 0x45, 0x07, 0x06
_PACKET_TYPE, _OTHERHOST = 0xFFFFF004, 3  # SKF_AD_OFF + SKF_AD_PKTTYPE (linux/filter.h)
_REJECT = 255

Instruction = tuple[int, int, int, int]
"""Of classic BPF: code, jump if true, jump if false, operand. A jump of _REJECT ends the frame."""


def _is(load: int, offset: int, value: int) -> list[Instruction]:
    return [(load, 0, 0, offset), (_JEQ, 0, _REJECT, value)]


def _same(load: int, offset: int, other: int) -> list[Instruction]:
    return [(load, 0, 0, offset), (_TAX, 0, 0, 0), (load, 0, 0, other), (_JEQ_X, 0, _REJECT, 0)]


def _program(*parts: list[Instruction]) -> tuple[Instruction, ...]:
    """Accepts what none of the parts rejects: the rest of the segment's traffic does not wake the
    daemon. What is accepted is looked at by frames.read()."""
    flat = [*(each for part in parts for each in part), (_RET, 0, 0, _FRAME), (_RET, 0, 0, 0)]
    last = len(flat) - 1

    def away(at: int, jump: int) -> int:
        return last - at - 1 if jump == _REJECT else jump

    return tuple(
        (code, away(at, true), away(at, false), operand)
        for at, (code, true, false, operand) in enumerate(flat)
    )


_TO_US = [(_LD, 0, 0, _PACKET_TYPE), (_JEQ, _REJECT, 0, _OTHERHOST)]
"""Neither flooded by a switch nor of a VLAN that is not this interface's."""

_GRATUITOUS = _same(_LD, 28, 38)  # sender address, target address

ARP_THAT_TELLS = _program(
    _TO_US,
    _is(_LD, 14, 0x00010800),  # of Ethernet and IPv4
    _is(_LDH, 18, 0x0604),
    _same(_LDH, 6, 22),  # the frame's source is the sender's MAC
    _same(_LD, 8, 24),
    [(_LDB, 0, 0, 22), (_JSET, _REJECT, 0, 1)],  # which is no group's
    [(_LDH, 0, 0, 20), (_JEQ, len(_GRATUITOUS) + 1, 0, 2), (_JEQ, 0, _REJECT, 1)],
    _GRATUITOUS,
)
NEIGHBOUR_ADVERTISEMENT = _program(
    _TO_US,
    _is(_LDH, 20, 58 << 8 | 255),  # ICMPv6, and no router has lowered the hop limit
    _is(_LDH, 54, 136 << 8),  # type, code
    [(_LDB, 0, 0, 62), (_JEQ, _REJECT, 0, 0xFF)],  # for no group
)


class Segment:
    """The segment an uplink is on."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.mac = mac_bytes(link.mac)
        self._arp = _raw_socket(link.name, _ETH_P_ARP, ARP_THAT_TELLS)
        self._ndp = _raw_socket(link.name, _ETH_P_IPV6, NEIGHBOUR_ADVERTISEMENT)
        membership = struct.pack("=iHH8s", link.index, _PACKET_MR_ALLMULTI, 0, b"")
        # A NIC's multicast filter would else keep solicitations for VIPs from the XDP program.
        self._ndp.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """What to wait on for answers."""
        return self._arp, self._ndp

    def close(self) -> None:
        """Closes the sockets; the interface leaves all-multicast with them."""
        for sock in self.sockets:
            sock.close()

    def source_for(self, address: str) -> str:
        """The address of ours to ask from: one in the same subnet, else nobody's."""
        target = ipaddress.ip_address(address)
        if reaches(self.link, target):
            for text in self.link.addresses:
                interface = ipaddress.ip_interface(text)
                if target in interface.network:
                    return str(interface.ip)
        return NOBODY_IPV6 if target.version == 6 else NOBODY_IPV4

    def send(self, frame: bytes) -> None:
        """Sends a frame. One that the device has no room for is as lost as one on the wire."""
        sock = self._arp if frame[12:14] == b"\x08\x06" else self._ndp
        try:
            sock.send(frame)
        except OSError:
            return  # ENETDOWN, ENOBUFS, ENXIO: callers ask again, and take silence as an answer

    def receive(self) -> Iterator[Heard]:
        """What has come in since the last call."""
        for sock in self.sockets:
            while frame := _next_frame(sock):
                heard = read(frame)
                if heard and heard.mac != self.mac:
                    yield heard


def _next_frame(sock: socket.socket) -> bytes | None:
    while True:
        try:
            return sock.recv(_FRAME)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.ENETDOWN:  # told once after the link went down
                raise


def _raw_socket(name: str, protocol: int, program: tuple[Instruction, ...]) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.settimeout(0)
    attach_filter(sock, program)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    sock.bind((name, protocol))
    return sock


def attach_filter(sock: socket.socket, program: tuple[Instruction, ...]) -> None:
    """Lets through to a socket what a classic BPF program accepts (socket(7))."""
    instructions = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(instructions)
    filter_program = struct.pack("@HL", len(program), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_program)


class Segments:
    """The segments in use, and who hears what is said on them."""

    def __init__(self, hear: Callable[[int, Heard], None]) -> None:
        self._hear = hear
        self._open: dict[int, Segment] = {}

    def __getitem__(self, ifindex: int) -> Segment:
        return self._open[ifindex]

    def __contains__(self, ifindex: int) -> bool:
        return ifindex in self._open

    def keep(self, links: Iterable[Link]) -> None:
        """Opens and closes segments so that exactly these are open. Raises OSError."""
        wanted = {link.index: link for link in links}
        loop = asyncio.get_running_loop()
        for ifindex, segment in list(self._open.items()):
            if wanted.get(ifindex) != segment.link:
                for sock in segment.sockets:
                    loop.remove_reader(sock)
                segment.close()
                del self._open[ifindex]
        for ifindex, link in wanted.items():
            if ifindex not in self._open:
                segment = self._open[ifindex] = Segment(link)
                for sock in segment.sockets:
                    loop.add_reader(sock, self._receive, segment)

    def receive(self) -> None:
        """Hears all that is waiting: nobody is called silent whose answer lies in a buffer."""
        for segment in self._open.values():
            self._receive(segment)

    def _receive(self, segment: Segment) -> None:
        for heard in segment.receive():
            self._hear(segment.link.index, heard)
