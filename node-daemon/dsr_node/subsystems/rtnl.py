"""rtnetlink with pyroute2's messages and sockets, many requests to a send.

Every pass reads all addresses three times, and pyroute2 takes 50 us to decode one. So the kernel
is read every time, but what equal bytes mean is worked out once (the `lru_cache`s of readers).
pyroute2's IPRoute either waits for the answer to each request or does not tell which request an
error belongs to: sending and receiving are done here, on its IPRSocket, which needs no event loop.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Self

from pyroute2.iproute.parsers import get_header
from pyroute2.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    nlmsg,
    nlmsgerr,
)
from pyroute2.netlink.rtnl import RTM_GETADDR
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.iprsocket import IPRSocket

REMEMBERED = 1 << 14
"""Entries whose meaning is kept, of each kind; half a kilobyte each."""

_BATCH = 200
"""Requests to a send. All answers must fit into the receive buffer, 416 KiB by default
(net.core.rmem_max, doubled), where an error takes less than 1 KiB."""

_LARGEST = 1 << 18
_HEADER = 16
_LENGTH_AND_TYPE = 6

Request = tuple[int, int, nlmsg]
"""Type, flags besides NLM_F_REQUEST, message."""


class Rtnl:
    """A socket for requests and dumps. Blocking; every answer is read before the call returns."""

    def __init__(self) -> None:
        self._socket = IPRSocket(strict_check=True)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def dump(self, kind: int, request: nlmsg) -> list[bytes]:
        """All entries that a dump request selects, for decoded(); the same entry, the same bytes.

        A dump that changed while it was read is read again. Raises OSError with the kernel's errno.
        """
        while True:
            found, interrupted = self._dump_once(kind, request)
            if not interrupted:
                return found

    def _dump_once(self, kind: int, request: nlmsg) -> tuple[list[bytes], bool]:
        self._send([(kind, NLM_F_DUMP, request)])
        found: list[bytes] = []
        interrupted = False
        while True:
            for header, message in self._receive():
                if header["sequence_number"] != self._sequence:
                    continue
                interrupted |= bool(header["flags"] & NLM_F_DUMP_INTR)
                if header["type"] == NLMSG_ERROR:
                    raise _error(message) or OSError(errno.EBADMSG, "an acknowledged dump")
                if header["type"] == NLMSG_DONE:
                    return found, interrupted
                # Flags, sequence number and port are of this dump, not of the entry.
                blank = bytes(_HEADER - _LENGTH_AND_TYPE)
                found.append(message[:_LENGTH_AND_TYPE] + blank + message[_HEADER:])

    def ask(self, kind: int, request: nlmsg) -> bytes:
        """The one answer to a request that is no dump, for decoded(). Raises OSError."""
        self._send([(kind, 0, request)])
        while True:
            for header, message in self._receive():
                if header["sequence_number"] == self._sequence:
                    if header["type"] == NLMSG_ERROR:
                        raise _error(message) or OSError(errno.EBADMSG, "no answer but an ACK")
                    return message

    def request(self, requests: Iterable[Request]) -> list[OSError | None]:
        """Carries out requests; per request None or the kernel's error."""
        waiting = iter(requests)
        outcomes: list[OSError | None] = []
        while batch := list(islice(waiting, _BATCH)):
            outcomes += self._request_batch(batch)
        return outcomes

    def _request_batch(self, batch: Sequence[Request]) -> list[OSError | None]:
        first = self._sequence + 1
        self._send([(kind, flags | NLM_F_ACK, message) for kind, flags, message in batch])
        outcomes: dict[int, OSError | None] = {}
        while len(outcomes) < len(batch):
            for header, message in self._receive():
                sequence = header["sequence_number"]
                if header["type"] == NLMSG_ERROR and first <= sequence:
                    outcomes[sequence - first] = _error(message)
        return [outcomes[place] for place in range(len(batch))]

    def _send(self, requests: Sequence[Request]) -> None:
        data = bytearray()
        for kind, flags, message in requests:
            self._sequence += 1
            message["header"] = {
                "type": kind,
                "flags": flags | NLM_F_REQUEST,
                "sequence_number": self._sequence,
            }
            message.encode()
            data += message.data
        self._socket.send(data)

    def _receive(self) -> Iterator[tuple[dict[str, int], bytes]]:
        """The messages of one datagram, each with its header decoded."""
        data: bytes = self._socket.recv(_LARGEST)
        offset = 0
        while offset < len(data):
            header = get_header(data, offset)
            yield header, data[offset : offset + header["length"]]
            offset += (header["length"] + 3) & ~3


def decoded(message_class: type[nlmsg], data: bytes) -> nlmsg:
    """A pyroute2 message from what dump() and ask() return."""
    message = message_class(data)
    message.decode()
    return message


def _error(data: bytes) -> OSError | None:
    """What an NLMSG_ERROR says; None for an ACK."""
    number = -decoded(nlmsgerr, data)["error"]
    return OSError(number, os.strerror(number)) if number else None


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address of this node. `protocol`: its IFA_PROTO, 0 for none; `label`: "" for none."""

    index: int
    address: str
    length: int
    label: str
    protocol: int


def read_addresses(netlink: Rtnl, index: int = 0) -> list[InterfaceAddress]:
    """The addresses of the interface with an index; 0: of all interfaces. Raises OSError."""
    request = ifaddrmsg()
    request["index"] = index
    return [_address(entry) for entry in netlink.dump(RTM_GETADDR, request)]


@lru_cache(REMEMBERED)
def _address(entry: bytes) -> InterfaceAddress:
    message = decoded(ifaddrmsg, entry)
    return InterfaceAddress(
        index=message["index"],
        address=message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"),
        length=message["prefixlen"],
        label=message.get_attr("IFA_LABEL", ""),
        protocol=message.get_attr("IFA_PROTO", 0),
    )


class RtnlEvents:
    """A non-blocking socket that hears of changes; `fileno()` is for the event loop."""

    def __init__(self, groups: int) -> None:
        """`groups`: pyroute2's RTMGRP_*."""
        self._netlink = IPRSocket()
        self._socket: socket.socket = self._netlink.socket
        self._socket.bind((0, groups))  # the kernel chooses the port: no other process has it
        self._socket.settimeout(0)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stops listening."""
        self._netlink.close()

    def drain(self) -> bool:
        """Reads away what is waiting; whether there was anything.

        What the events say is not looked at: the reader reads the kernel instead, so that events
        lost to a full buffer (ENOBUFS) cost nothing.
        """
        heard = False
        while True:
            try:
                self._socket.recv(_LARGEST)
            except BlockingIOError:
                return heard
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            heard = True
