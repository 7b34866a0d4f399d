"""UDP: answers each datagram with this node's name, from the address it was sent to.

Run as `python -m lab.echo NAME PORT`.
"""

from __future__ import annotations

import socket
import sys


def serve(name: str, port: int) -> None:
    """Answer for ever, IPv4 and IPv6."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # A wildcard socket answers from the address that routing picks; under DSR it must be the
        # VIP. IPV6_PKTINFO (RFC 3542) tells the address asked, and sets that of the answer.
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        server.bind(("::", port))
        while True:
            _, control, _, client = server.recvmsg(2048, socket.CMSG_SPACE(20))
            answer_from = [(level, kind, data[:16] + bytes(4)) for level, kind, data in control]
            server.sendmsg([name.encode()], answer_from, 0, client)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
