"""ICMP errors about what a backend has sent follow the flow to that backend."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

from tests.packet import frames
from tests.packet.agree import agree
from tests.packet.conftest import MakeHarness
from tests.packet.frames import (
    PEERED,
    SCENE,
    WEB,
    error,
    errors,
    ethernet,
    ip,
    reply,
    transport,
)
from tests.packet.harness import Harness, Slot
from tests.packet.oracle import DROP, PASS, TX, Balanced


@pytest.fixture(scope="module")
def harness(make_lasting_harness: MakeHarness) -> Harness:
    return make_lasting_harness(SCENE)


@pytest.mark.parametrize("name", ["TCP", "UDP"])
@pytest.mark.parametrize(
    ("family", "kind"),
    [(family, kind) for family in (4, 6) for kind in errors(family)],
    ids=lambda value: value.summary() if isinstance(value, Packet) else str(value),
)
def test_every_error_follows_its_flow(
    harness: Harness, family: int, kind: Packet, name: str
) -> None:
    assert agree(harness, SCENE, error(family, reply(family, name), kind)).backend == WEB


def test_it_is_the_flow_seen_from_the_client(make_harness: MakeHarness) -> None:
    asked: list[Balanced] = []

    def choose(balanced: Balanced) -> int:
        asked.append(balanced)
        return WEB

    scene = replace(SCENE, choose=choose)
    harness = make_harness(scene)
    agree(harness, scene, error(6, reply(6)))
    agree(harness, scene, bytes(ethernet() / ip(6) / transport("TCP")))
    assert asked[0].flow == asked[1].flow
    assert asked[0].is_error


INNER: dict[str, tuple[Packet, str]] = {
    "later fragment": (reply(4, frag=100), "icmp_inner"),
    "first fragment has ports": (reply(4, flags="MF"), ""),
    "no IP": (Raw(b"\xff" * 64), "icmp_inner"),
    "IP without ports": (Raw(bytes(reply(4))[:22]), "icmp_inner"),
    "only the ports": (Raw(bytes(reply(4))[:24]), ""),
}


@pytest.mark.parametrize("what", INNER)
def test_inner_packets_that_name_no_flow(harness: Harness, what: str) -> None:
    inner, reason = INNER[what]
    outcome = agree(harness, SCENE, error(4, inner))
    assert (outcome.verdict, outcome.drop) == ((DROP, reason) if reason else (TX, ""))


def test_inner_extension_headers(harness: Harness) -> None:
    ends = {"src": frames.VIP6, "dst": frames.CLIENT6}
    ports = transport("TCP", sport=frames.PORT, dport=frames.CLIENT_PORT)
    options = ip(6, [IPv6ExtHdrDestOpt()], **ends) / ports
    assert agree(harness, SCENE, error(6, options)).verdict == TX
    fragment = ip(6, [IPv6ExtHdrFragment(m=1)], **ends) / ports
    assert agree(harness, SCENE, error(6, fragment)).drop == "icmp_inner"


PASSED: dict[str, bytes] = {
    "about another port": error(4, reply(4) / Raw(b"")).replace(b"\x00\x50", b"\x00\x51"),
    "about another address": error(4, reply(4, src=frames.OTHER4)),
    "to another address": error(4, reply(4), dst=frames.OTHER4),
    "about a ping": error(4, ip(4, src=frames.VIP4, dst=frames.CLIENT4) / ICMP()),
    "a redirect": error(4, reply(4), ICMP(type=5)),
}


@pytest.mark.parametrize("what", PASSED)
def test_errors_that_are_none_of_ours_pass(harness: Harness, what: str) -> None:
    assert agree(harness, SCENE, PASSED[what]).verdict == PASS


def test_the_peer_guard_holds_for_errors(make_harness: MakeHarness) -> None:
    balanced = ethernet(src=frames.PEER_MAC) / ip(4, src="203.0.113.1") / ICMP(type=3) / reply(4)
    assert agree(make_harness(PEERED), PEERED, bytes(balanced)).verdict == PASS


def test_an_error_is_not_remembered(make_harness: MakeHarness) -> None:
    moved = Slot(WEB, WEB, moved=True)
    harness = make_harness(SCENE, [moved])
    agree(harness, SCENE, error(4, reply(4)))
    assert harness.flows() == {}
