"""ARP and neighbour solicitations for announced VIPs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from tests.packet import frames
from tests.packet.agree import agree
from tests.packet.conftest import MakeHarness
from tests.packet.frames import CLIENT4, CLIENT6, CLIENT_MAC, MAC, SCENE, TAGS, VIP4, VIP6, VIPS
from tests.packet.harness import Harness
from tests.packet.oracle import PASS, TX, Scene

FOREVER = replace(SCENE, announced=dict.fromkeys(VIPS.values()))
EXPIRED = replace(SCENE, announced=dict.fromkeys(VIPS.values(), -1))
LEASED = replace(SCENE, announced=dict.fromkeys(VIPS.values(), 60))
BROADCAST = "ff:ff:ff:ff:ff:ff"
GROUP_MAC, GROUP = "33:33:ff:00:00:10", "ff02::1:ff00:10"


@pytest.fixture(scope="module")
def harness(make_lasting_harness: MakeHarness) -> Harness:
    return make_lasting_harness(FOREVER)


def arp(tags: str = "untagged", dst: str = BROADCAST, **fields: Any) -> bytes:
    asked = {"hwsrc": CLIENT_MAC, "psrc": CLIENT4, "pdst": VIP4, **fields}
    return bytes(frames.ethernet(TAGS[tags], dst=dst) / ARP(**asked)).ljust(60, b"\0")


def solicitation(
    *options: Packet, tags: str = "untagged", mac: str = GROUP_MAC, tgt: str = VIP6, **fields: Any
) -> bytes:
    packet = frames.ethernet(TAGS[tags], dst=mac)
    packet /= IPv6(**{"src": CLIENT6, "dst": GROUP, "hlim": 255, **fields}) / ICMPv6ND_NS(tgt=tgt)
    for option in options:
        packet /= option
    return bytes(packet)


@pytest.mark.parametrize("tags", TAGS)
def test_an_arp_request_is_answered(harness: Harness, tags: str) -> None:
    outcome = agree(harness, FOREVER, arp(tags))
    assert outcome.verdict == TX
    answer = Ether(outcome.frame)
    assert (answer.src, answer.dst) == (MAC, CLIENT_MAC)
    arp_reply = answer[ARP]
    assert (arp_reply.op, arp_reply.psrc, arp_reply.hwsrc) == (2, VIP4, MAC)
    assert (arp_reply.pdst, arp_reply.hwdst) == (CLIENT4, CLIENT_MAC)


def test_a_probe_and_a_unicast_request_are_answered(harness: Harness) -> None:
    assert agree(harness, FOREVER, arp(psrc="0.0.0.0")).verdict == TX  # noqa: S104 (RFC 5227)
    assert agree(harness, FOREVER, arp(dst=MAC)).verdict == TX


@pytest.mark.parametrize(
    "frame",
    [
        arp(pdst=frames.OTHER4),
        arp(op=2),
        arp(psrc=VIP4),
        arp(dst="02:00:00:00:00:77"),
        arp(hwtype=6),
        arp(ptype=0x86DD),
        arp(hwlen=8),
        arp()[:41],
    ],
    ids=["other", "reply", "announcement", "flooded", "hwtype", "ptype", "hwlen", "short"],
)
def test_arp_that_is_no_question_to_us_passes(harness: Harness, frame: bytes) -> None:
    assert agree(harness, FOREVER, frame).verdict == PASS


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize(
    "options",
    [(), (ICMPv6NDOptSrcLLAddr(lladdr=CLIENT_MAC),), (ICMPv6NDOptSrcLLAddr(),) * 2],
    ids=["bare", "source option", "longer than the answer"],
)
def test_a_solicitation_is_answered(
    harness: Harness, tags: str, options: tuple[Packet, ...]
) -> None:
    outcome = agree(harness, FOREVER, solicitation(*options, tags=tags))
    assert outcome.verdict == TX
    answer = Ether(outcome.frame)
    assert (answer.src, answer.dst) == (MAC, CLIENT_MAC)
    assert (answer[IPv6].src, answer[IPv6].dst, answer[IPv6].hlim) == (VIP6, CLIENT6, 255)
    advertisement = answer[ICMPv6ND_NA]
    assert (advertisement.R, advertisement.S, advertisement.O) == (0, 1, 1)
    assert advertisement.tgt == VIP6
    assert answer[ICMPv6NDOptDstLLAddr].lladdr == MAC
    sent = advertisement.cksum
    del advertisement.cksum
    assert IPv6(bytes(answer[IPv6]))[ICMPv6ND_NA].cksum == sent


def test_duplicate_address_detection_is_answered_to_all(harness: Harness) -> None:
    outcome = agree(harness, FOREVER, solicitation(src="::"))
    answer = Ether(outcome.frame)
    assert (answer.dst, answer[IPv6].dst) == ("33:33:00:00:00:01", "ff02::1")
    assert (answer[ICMPv6ND_NA].S, answer[ICMPv6ND_NA].O) == (0, 1)


@pytest.mark.parametrize(
    "frame",
    [
        solicitation(tgt=frames.OTHER6),
        solicitation(hlim=64),
        solicitation(mac="02:00:00:00:00:77"),
        solicitation()[:-1],
        bytes(
            frames.ethernet(dst=GROUP_MAC)
            / IPv6(src=CLIENT6, dst=GROUP, hlim=255)
            / IPv6ExtHdrDestOpt()
            / ICMPv6ND_NS(tgt=VIP6)
        ),
    ],
    ids=["other", "from afar", "flooded", "short", "extended"],
)
def test_solicitations_that_are_none_of_ours_pass(harness: Harness, frame: bytes) -> None:
    assert agree(harness, FOREVER, frame).verdict == PASS


@pytest.mark.parametrize(
    ("scene", "verdict"),
    [(LEASED, TX), (EXPIRED, PASS), (SCENE, PASS)],
    ids=["leased", "expired", "not announced"],
)
def test_the_lease_decides(make_harness: MakeHarness, scene: Scene, verdict: int) -> None:
    harness = make_harness(scene)
    for frame in (arp(), solicitation()):
        assert agree(harness, scene, frame).verdict == verdict
