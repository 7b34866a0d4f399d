"""The maps' keys and values as numpy sees them, and the constants of bpf/consts.h.

tests/packet/test_layout.py compiles the C headers and holds the two together.
"""

from __future__ import annotations

import struct

import numpy as np

from dsr_node.subsystems.xdp.state import FrontendKey, Peer

CHUNK_SLOTS = 1 << 20
MAX_CHUNKS = 64

FRONTEND_HOST = 1
BACKEND_LOCAL = 1
BACKEND_DOWN = 2
BACKEND_DRAINING = 4
FLOW_CLOSING = 1
CLOSING_S = 60

FLOWS_FULL = 8
DROP_REASONS = {
    0: "malformed",
    1: "truncated",
    2: "fragment",
    3: "extension_headers",
    4: "icmp_inner",
    5: "no_backend",
    6: "backend_gone",
    7: "backend_down",
    9: "sent_back",
}
"""Key of `drops` -> name in metrics. FLOWS_FULL is in the same map, and no drop."""

ADDRESS = np.dtype("V16")
FRONTEND_KEY = np.dtype([("vip", "V16"), ("port", ">u2"), ("protocol", "u1"), ("pad", "u1")])
FRONTEND_INFO = np.dtype([("pool", "u4"), ("flags", "u4")])
POOL = np.dtype(
    [
        ("seed", "u8"),
        ("chunk", "u4"),
        ("offset", "u4"),
        ("size", "u4"),
        ("tcp_idle_s", "u4"),
        ("udp_idle_s", "u4"),
        ("flags", "u4"),
    ]
)
BACKEND = np.dtype(
    [
        ("generation", "u4"),
        ("ifindex", "u4"),
        ("mac", "V6"),
        ("flags", "u2"),
        ("source_mac", "V6"),
        ("pad", "u2"),
    ]
)
FLOW = np.dtype(
    [
        ("source", "V16"),
        ("destination", "V16"),
        ("source_port", ">u2"),
        ("destination_port", ">u2"),
        ("protocol", "u1"),
        ("pad", "V3"),
    ]
)
FLOW_ENTRY = np.dtype(
    [("handle", "u4"), ("pool", "u4"), ("slot", "u4"), ("last_seen_s", "u4"), ("flags", "u4")]
)
PEER = np.dtype([("mac", "V6"), ("pad", "u2"), ("address", "V16")])
INTERFACE = np.dtype([("mac", "V6"), ("pad", "u2")])
STATS = np.dtype([("packets", "u8"), ("bytes", "u8")])
OWNER = np.dtype([("identity", "V16"), ("pool", "u4"), ("pad", "u4")])

_FRONTEND = struct.Struct(">16sHBx")
_PEER = struct.Struct("6s2x16s")


def pack_frontend(key: FrontendKey) -> bytes:
    """A key of `frontends`."""
    return _FRONTEND.pack(key.vip, key.port, key.protocol)


def unpack_frontends(keys: bytes) -> list[FrontendKey]:
    """Many keys of `frontends`, one behind the other."""
    return [FrontendKey(vip, protocol, port) for vip, port, protocol in _FRONTEND.iter_unpack(keys)]


def pack_peer(peer: Peer) -> bytes:
    """A key of `peers`."""
    return _PEER.pack(peer.mac, peer.address)


def unpack_peers(keys: bytes) -> list[Peer]:
    """Many keys of `peers`, one behind the other."""
    return [Peer(mac, address) for mac, address in _PEER.iter_unpack(keys)]
