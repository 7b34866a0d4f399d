"""Packets that are cut, broken or in fragments: dropped with a reason where they are to a VIP."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrRouting
from scapy.packet import Packet, Raw

from tests.packet import frames
from tests.packet.agree import agree
from tests.packet.conftest import MakeHarness
from tests.packet.frames import EXTENSIONS, SCENE, TAGS, error, ethernet, ip, reply, transport
from tests.packet.harness import Harness
from tests.packet.oracle import DROP, PASS

WHOLE: dict[str, bytes] = {
    "TCP": bytes(ethernet() / ip(4) / transport("TCP")),
    "UDP in QinQ": bytes(ethernet(TAGS["qinq"]) / ip(4) / transport("UDP")),
    "TCP over IPv6": bytes(ethernet(TAGS["vlan"]) / ip(6) / transport("TCP")),
    "extension headers": bytes(ethernet() / ip(6, EXTENSIONS["all"]) / transport("UDP")),
    "ICMP error": error(4, reply(4)),
    "ICMPv6 error": error(6, reply(6)),
}


@pytest.fixture(scope="module")
def harness(make_lasting_harness: MakeHarness) -> Harness:
    return make_lasting_harness(SCENE)


@pytest.mark.parametrize("what", WHOLE)
def test_cut_at_every_length(harness: Harness, what: str) -> None:
    frame = WHOLE[what]
    for length in range(14, len(frame)):
        agree(harness, SCENE, frame[:length])


@settings(max_examples=400, deadline=None)
@given(
    what=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.integers(12, 200), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_any_bytes_changed(harness: Harness, what: str, changes: list[tuple[int, int]]) -> None:
    frame = bytearray(WHOLE[what])
    for position, value in changes:
        frame[position % (len(frame) - 12) + 12] = value
    agree(harness, SCENE, bytes(frame))


BROKEN: dict[str, tuple[Packet, str]] = {
    "header length 4": (ip(4, ihl=4) / transport("TCP"), "malformed"),
    "total length below the header": (ip(4, len=19) / transport("TCP"), "malformed"),
    "total length beyond the frame": (ip(4, len=1000) / transport("TCP"), "truncated"),
    "payload length beyond the frame": (ip(6, plen=1000) / transport("TCP"), "truncated"),
    "TCP header of 16 bytes": (ip(4) / transport("TCP", dataofs=4), "malformed"),
    "TCP header beyond the packet": (ip(6) / transport("TCP", dataofs=15), "malformed"),
    "UDP length of 7": (ip(4) / transport("UDP", len=7), "malformed"),
    "UDP length beyond the packet": (ip(6) / transport("UDP", len=100), "malformed"),
    "half a TCP header": (ip(4, proto=6) / Raw(bytes(10)), "malformed"),
    "half a UDP header": (ip(6, nh=17) / Raw(bytes(6)), "malformed"),
    "first fragment": (ip(4, flags="MF") / transport("TCP"), "fragment"),
    "later fragment": (ip(4, frag=100) / Raw(bytes(64)), "fragment"),
    "fragment of a ping": (ip(4, flags="MF", proto=1) / Raw(bytes(64)), "fragment"),
    "first IPv6 fragment": (ip(6, [IPv6ExtHdrFragment(m=1)]) / transport("TCP"), "fragment"),
    "later IPv6 fragment": (
        ip(6, [IPv6ExtHdrFragment(m=0, offset=9, nh=6)]) / Raw(bytes(64)),
        "fragment",
    ),
    "seven extension headers": (
        ip(6, [IPv6ExtHdrDestOpt()] * 7) / transport("TCP"),
        "extension_headers",
    ),
    "source route not at its end": (
        ip(6, [IPv6ExtHdrRouting(addresses=[frames.OTHER6], segleft=1)]) / transport("TCP"),
        "extension_headers",
    ),
    "extension header beyond the packet": (
        ip(6, nh=60) / Raw(bytes([6, 255]) + bytes(60)),
        "malformed",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_packets_to_a_vip_are_dropped_by_reason(harness: Harness, what: str) -> None:
    packet, reason = BROKEN[what]
    outcome = agree(harness, SCENE, bytes(ethernet() / packet))
    assert (outcome.verdict, outcome.drop) == (DROP, reason)


@pytest.mark.parametrize("what", BROKEN)
def test_broken_packets_to_others_pass(harness: Harness, what: str) -> None:
    packet = BROKEN[what][0].copy()
    packet.dst = frames.OTHER4 if packet.version == 4 else frames.OTHER6
    frame = bytes(ethernet() / packet)
    assert agree(harness, SCENE, frame).verdict == PASS
    packet.dst = frames.VIP4 if packet.version == 4 else frames.VIP6
    flooded = bytes(ethernet(dst="02:00:00:00:00:77") / packet)
    assert agree(harness, SCENE, flooded).verdict == PASS
