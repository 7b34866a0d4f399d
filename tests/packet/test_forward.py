"""Frames to frontends, and frames that are none of ours."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from dsr_node.table.word import handle
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6EchoRequest
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.packet import frames
from tests.packet.agree import agree
from tests.packet.conftest import MakeHarness
from tests.packet.frames import (
    EXTENSIONS,
    PEERED,
    SCENE,
    TAGS,
    WEB,
    ethernet,
    ip,
    segment,
    transport,
)
from tests.packet.harness import Harness, Slot
from tests.packet.oracle import DROP, PASS, REDIRECT, TX, Backend


@pytest.fixture(scope="module")
def harness(make_lasting_harness: MakeHarness) -> Harness:
    return make_lasting_harness(SCENE)


@pytest.mark.parametrize("name", ["TCP", "UDP"])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("tags", TAGS)
def test_a_frame_leaves_with_the_backends_mac_and_nothing_else_changed(
    harness: Harness, tags: str, family: int, name: str
) -> None:
    frame = bytes(ethernet(TAGS[tags]) / ip(family) / transport(name))
    outcome = agree(harness, SCENE, frame)
    backend = SCENE.backends[WEB]
    assert outcome.verdict == TX
    assert outcome.frame == backend.mac + backend.source_mac + frame[12:]


@pytest.mark.parametrize("name", ["TCP", "UDP"])
@pytest.mark.parametrize("extensions", EXTENSIONS)
def test_extension_headers_are_walked(harness: Harness, extensions: str, name: str) -> None:
    frame = bytes(ethernet() / ip(6, EXTENSIONS[extensions]) / transport(name))
    assert agree(harness, SCENE, frame).verdict == TX


def test_ipv4_options_and_low_ttl_do_not_matter(harness: Harness) -> None:
    for fields in ({"options": b"\x01" * 40}, {"ttl": 1}, {"ttl": 0}, {"tos": 0x2E}):
        frame = bytes(ethernet() / ip(4, **fields) / transport("TCP"))
        assert agree(harness, SCENE, frame).verdict == TX


NOT_OURS: dict[str, Packet] = {
    "another port": ethernet() / ip(4) / transport("TCP", dport=81),
    "another address": ethernet() / ip(4, dst=frames.OTHER4) / transport("TCP"),
    "another IPv6 address": ethernet() / ip(6, dst=frames.OTHER6) / transport("UDP"),
    "ping": ethernet() / ip(4) / ICMP(type=8),
    "ping6": ethernet() / ip(6) / ICMPv6EchoRequest(),
    "GRE": ethernet() / ip(4, proto=47) / Raw(bytes(20)),
    "ESP": ethernet() / ip(6, nh=50) / Raw(bytes(20)),
    "three tags": ethernet([Dot1Q(), Dot1Q(), Dot1Q()]) / ip(4) / transport("TCP"),
    "LLDP": Ether(dst="01:80:c2:00:00:0e", type=0x88CC) / Raw(bytes(50)),
    "flooded to us": ethernet(dst="02:00:00:00:00:77") / ip(4) / transport("TCP"),
    "IPv6 in an IPv4 frame": Ether(dst=frames.MAC, type=0x0800) / ip(6) / transport("TCP"),
    "IPv4 in an IPv6 frame": Ether(dst=frames.MAC, type=0x86DD) / ip(4) / transport("TCP"),
}


@pytest.mark.parametrize("what", NOT_OURS)
def test_what_is_not_ours_passes_untouched(harness: Harness, what: str) -> None:
    frame = bytes(NOT_OURS[what])
    outcome = agree(harness, SCENE, frame)
    assert (outcome.verdict, outcome.frame) == (PASS, frame)


def test_frames_and_bytes_are_counted_without_padding(make_harness: MakeHarness) -> None:
    harness = make_harness(SCENE)
    frame = bytes(ethernet() / ip(4) / transport("TCP"))
    for padding in (0, 100):
        agree(harness, SCENE, frame + bytes(padding))
    index = sorted(SCENE.frontends).index((frames.VIPS[4], 6, 80))
    assert harness.traffic("frontend_stats", index) == (2, 2 * len(frame))
    assert harness.traffic("backend_stats", 7) == (2, 2 * len(frame))


@pytest.mark.parametrize(
    ("backend", "verdict", "drop"),
    [
        (Backend(ifindex=2), REDIRECT, ""),
        (Backend(local=True), PASS, ""),
        (Backend(down=True), DROP, "backend_down"),
        (Backend(local=True, down=True), DROP, "backend_down"),
        (Backend(draining=True), TX, ""),
        (Backend(mac=frames.mac(frames.CLIENT_MAC)), DROP, "sent_back"),
        (Backend(mac=frames.mac(frames.CLIENT_MAC), ifindex=2), DROP, "sent_back"),
        (Backend(mac=frames.mac(frames.CLIENT_MAC), local=True), PASS, ""),
        (Backend(mac=frames.mac(frames.CLIENT_MAC)[:5] + b"\0"), TX, ""),
        (Backend(mac=b"\0" + frames.mac(frames.CLIENT_MAC)[1:]), TX, ""),
    ],
)
def test_what_kind_of_backend_it_is(
    make_harness: MakeHarness, backend: Backend, verdict: int, drop: str
) -> None:
    scene = replace(SCENE, backends={WEB: backend})
    outcome = agree(make_harness(scene), scene, segment())
    assert (outcome.verdict, outcome.drop) == (verdict, drop)


def test_no_packet_sees_half_of_a_backend_that_changes(make_harness: MakeHarness) -> None:
    """Neither value sends the packet on; the MAC of one with the flags of the other would."""
    sender = Backend(mac=frames.mac(frames.CLIENT_MAC))
    scene = replace(SCENE, backends={WEB: Backend(local=True)})
    harness = make_harness(scene)
    words = harness.dataplane.backends.view("u8").reshape(-1, 3)[:, 1]
    local = int(words[7])
    harness.set_backends({WEB: sender})
    back, done = int(words[7]), threading.Event()

    def change() -> None:
        while not done.is_set():
            for _ in range(1000):
                words[7] = local
                words[7] = back

    writer = threading.Thread(target=change)
    writer.start()
    try:
        sent = [harness.dataplane.program.run(segment(), repeat=50_000).frame for _ in range(40)]
    finally:
        done.set()
        writer.join()
    assert set(sent) == {segment()}


@pytest.mark.parametrize(
    ("chosen", "drop"), [(0, "no_backend"), (handle(4, 7), "backend_gone"), (handle(0, 63), "")]
)
def test_a_handle_without_a_backend_is_a_drop(
    make_harness: MakeHarness, chosen: int, drop: str
) -> None:
    scene = replace(
        SCENE, backends={WEB: Backend(), handle(0, 63): Backend()}, choose=lambda _: chosen
    )
    harness = make_harness(scene, [Slot(chosen, chosen)])
    assert agree(harness, scene, segment()).drop == drop


@pytest.mark.parametrize("family", [4, 6])
def test_two_directors_that_take_each_other_for_a_backend_do_not_pass_a_packet_round(
    make_harness: MakeHarness, family: int
) -> None:
    """As one forged ARP reply at each of them made them believe; neither serves the VIP itself."""
    ours, theirs = SCENE.mac, frames.mac(frames.PEER_MAC)
    here = replace(SCENE, backends={WEB: Backend(mac=theirs, source_mac=ours)})
    there = replace(SCENE, mac=theirs, backends={WEB: Backend(mac=ours, source_mac=theirs)})
    first = agree(make_harness(here), here, segment(family))
    assert first.verdict == TX
    second = agree(make_harness(there), there, first.frame)
    assert (second.verdict, second.drop) == (DROP, "sent_back")


def test_a_pool_without_a_table_is_a_drop(make_harness: MakeHarness) -> None:
    harness = make_harness(SCENE)
    harness.set_table([])
    assert agree(harness, replace(SCENE, choose=lambda _: 0), segment()).drop == "no_backend"


PEERS: dict[str, tuple[Packet, int]] = {
    "balanced by the peer": (
        ethernet(src=frames.PEER_MAC) / ip(4) / transport("TCP"),
        PASS,
    ),
    "the peer as a client": (
        ethernet(src=frames.PEER_MAC) / ip(4, src=frames.PEER4) / transport("TCP"),
        TX,
    ),
    "a client": (ethernet() / ip(4) / transport("TCP"), TX),
    "IPv6 balanced by the peer": (
        ethernet(src=frames.PEER_MAC) / ip(6) / transport("UDP"),
        PASS,
    ),
}


@pytest.mark.parametrize("what", PEERS)
def test_a_host_does_not_balance_what_a_peer_has_balanced(
    make_harness: MakeHarness, what: str
) -> None:
    frame, verdict = PEERS[what]
    assert agree(make_harness(PEERED), PEERED, bytes(frame)).verdict == verdict
    if verdict == PASS:  # the guard is for hosts only
        alone = replace(PEERED, host=False)
        assert agree(make_harness(alone), alone, bytes(frame)).verdict == TX
