"""Frames against scapy, and resolver, asker and announcer with a clock of the test's own."""

from __future__ import annotations

import itertools
import socket
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from dsr_node.state.types import Announcement, Neighbour, Target
from dsr_node.subsystems import frames
from dsr_node.subsystems.announcement import FIRST_AGAIN, LAST_AGAIN, Announcer, Asker
from dsr_node.subsystems.frames import Heard
from dsr_node.subsystems.neighbours import Neighbours
from dsr_node.subsystems.segment import ARP_THAT_TELLS, NEIGHBOUR_ADVERTISEMENT, attach_filter
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

OURS, THEIRS = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
TARGET = Target("10.0.1.1", 2)
VIP = Target("10.0.9.1", 2)
NO_PEERS: frozenset[str] = frozenset()


# Frames: scapy reads what we write, and writes what we read.


def test_arp_questions() -> None:
    packet = Ether(frames.question(OURS, "10.0.0.1", "10.0.1.1"))
    assert (packet.dst, packet.src) == ("ff:ff:ff:ff:ff:ff", frames.mac_text(OURS))
    assert (packet[ARP].op, packet[ARP].psrc, packet[ARP].pdst) == (1, "10.0.0.1", "10.0.1.1")
    alone = Ether(frames.question(OURS, "10.0.0.1", "10.0.1.1", THEIRS))
    assert alone.dst == frames.mac_text(THEIRS)
    probe = Ether(frames.question(OURS, frames.NOBODY_IPV4, "10.0.1.1"))
    assert probe[ARP].psrc == frames.NOBODY_IPV4


@pytest.mark.parametrize(
    ("source", "mac", "to", "destination"),
    [
        ("fd00::1", None, "33:33:ff:01:00:09", "ff02::1:ff01:9"),
        ("::", None, "33:33:ff:01:00:09", "ff02::1:ff01:9"),
        ("fd00::1", THEIRS, frames.mac_text(THEIRS), "fd00::1:9"),
    ],
)
def test_solicitations(source: str, mac: bytes | None, to: str, destination: str) -> None:
    target = "fd00::1:9" if mac else "fd00::101:9"
    destination = destination if mac is None else target
    packet = Ether(frames.question(OURS, source, target, mac))
    assert (packet.dst, packet[IPv6].dst, packet[IPv6].src) == (to, destination, source)
    assert packet[IPv6].hlim == 255
    assert packet[ICMPv6ND_NS].tgt == target
    assert (frames.mac_text(OURS) in packet.show(dump=True)) is True
    assert packet.haslayer("ICMPv6NDOptSrcLLAddr") == (source != "::")
    assert _checksum_holds(packet)


def _checksum_holds(packet: Ether) -> bool:
    given = packet[IPv6].payload.cksum
    del packet[IPv6].payload.cksum
    return bool(Ether(bytes(packet))[IPv6].payload.cksum == given)


def test_announcements() -> None:
    for frame, operation in zip(frames.announcements(OURS, "10.0.9.1"), (1, 2), strict=True):
        packet = Ether(frame)
        assert (packet[ARP].op, packet[ARP].psrc, packet[ARP].pdst) == (
            operation,
            *["10.0.9.1"] * 2,
        )
        assert packet[ARP].hwsrc == frames.mac_text(OURS)
    (frame,) = frames.announcements(OURS, "fd00::9:1")
    packet = Ether(frame)
    advertisement = packet[ICMPv6ND_NA]
    assert (advertisement.tgt, advertisement.O, advertisement.S) == ("fd00::9:1", 1, 0)
    assert packet["ICMPv6NDOptDstLLAddr"].lladdr == frames.mac_text(OURS)
    assert (packet.dst, packet[IPv6].dst) == ("33:33:00:00:00:01", "ff02::1")
    assert _checksum_holds(packet)


def test_what_is_heard() -> None:
    mac = frames.mac_text(THEIRS)
    reply = Ether(src=mac) / ARP(op=2, hwsrc=mac, psrc="10.0.1.1", hwdst="02:00:00:00:00:01")
    assert frames.read(bytes(reply)) == Heard("10.0.1.1", THEIRS)
    told = Ether(src=mac) / IPv6(src="fe80::1", dst="ff02::1") / ICMPv6ND_NA(tgt="fd00::1:1")
    assert frames.read(bytes(told)) == Heard("fd00::1:1", THEIRS)
    assert frames.read(bytes(Ether() / ARP(op=1, psrc=frames.NOBODY_IPV4, pdst="10.0.1.1"))) is None
    assert frames.read(b"") is None
    assert frames.read(bytes(Ether() / IPv6() / ICMPv6ND_NS(tgt="fd00::1"))) is None


# Hostile frames: each differs in one thing from one that is believed.

MAC, ELSEWHERE = frames.mac_text(THEIRS), "02:00:00:00:0b:ad"
BACKEND4, BACKEND6 = "10.0.1.1", "fd00::1:1"
IN_FILTER, IN_READ = True, False


def _arp(source: str = MAC, **fields: object) -> bytes:
    told = {"op": 2, "hwsrc": source, "psrc": BACKEND4, "pdst": "10.0.0.1", **fields}
    return bytes(Ether(src=source, dst=frames.mac_text(OURS)) / ARP(**told))


def _advertisement(
    source: str = MAC,
    options: bytes | None = None,
    nd: dict[str, object] | None = None,
    **ip: object,
) -> bytes:
    packet = IPv6(**{"src": BACKEND6, "dst": "fd00::1", "hlim": 255, **ip})
    packet /= ICMPv6ND_NA(**{"tgt": BACKEND6, "S": 1, **(nd or {})})
    option = bytes([2, 1]) + THEIRS if options is None else options
    return bytes(Ether(src=source, dst=frames.mac_text(OURS)) / packet / Raw(option))


BELIEVED = {
    "a reply": (_arp(), BACKEND4),
    "a gratuitous request": (_arp(op=1, pdst=BACKEND4), BACKEND4),
    "an advertisement": (_advertisement(), BACKEND6),
    "without a MAC in it": (_advertisement(options=b""), BACKEND6),
    "with an option that nobody knows": (
        _advertisement(options=bytes([77, 2]) + bytes(14) + bytes([2, 1]) + THEIRS),
        BACKEND6,
    ),
    "to all": (_advertisement(dst="ff02::1", nd={"S": 0}), BACKEND6),
    "padded": (_advertisement() + bytes(10), BACKEND6),
}
HOSTILE = {
    "ARP: the frame is another's": (_arp(hwsrc=ELSEWHERE), IN_FILTER),
    "ARP: the frame is nearly the sender's": (_arp(hwsrc="02:00:00:00:00:12"), IN_FILTER),
    "ARP: broadcast": (_arp("ff:ff:ff:ff:ff:ff"), IN_FILTER),
    "ARP: multicast": (_arp("01:00:5e:00:00:01"), IN_FILTER),
    "ARP: zero": (_arp("00:00:00:00:00:00"), IN_READ),
    "ARP: a question": (_arp(op=1), IN_FILTER),
    "ARP: RARP": (_arp(op=4), IN_FILTER),
    "ARP: of another medium": (_arp(hwtype=6), IN_FILTER),
    "ARP: of another protocol": (_arp(ptype=0x0801), IN_FILTER),
    "ARP: other lengths": (_arp()[:18] + b"\x08\x04" + _arp()[20:], IN_FILTER),
    "ARP: short": (_arp()[:41], IN_READ),
    "NA: through a router": (_advertisement(hlim=254), IN_FILTER),
    "NA: a code": (_advertisement(nd={"code": 1}), IN_FILTER),
    "NA: checksum": (_advertisement(nd={"cksum": 0x1234}), IN_READ),
    "NA: for a group": (_advertisement(nd={"tgt": "ff02::1"}), IN_FILTER),
    "NA: for nobody": (_advertisement(nd={"tgt": "::"}), IN_READ),
    "NA: from a group": (_advertisement(src="ff02::1"), IN_READ),
    "NA: from nobody": (_advertisement(src="::"), IN_READ),
    "NA: solicited by all": (_advertisement(dst="ff02::1"), IN_READ),
    "NA: an option of no length": (_advertisement(options=bytes(8)), IN_READ),
    "NA: an option of no length behind": (
        _advertisement(options=bytes([2, 1]) + THEIRS + bytes(8)),
        IN_READ,
    ),
    "NA: an option that is too long": (_advertisement(options=bytes([2, 2]) + THEIRS), IN_READ),
    "NA: half an option": (_advertisement(options=b"\2"), IN_READ),
    "NA: short": (_advertisement(options=b"")[:77], IN_READ),
    "NA: another's MAC": (_advertisement(ELSEWHERE), IN_READ),
    "NA: broadcast": (
        _advertisement("ff:ff:ff:ff:ff:ff", bytes([2, 1]) + frames.BROADCAST),
        IN_READ,
    ),
    "NA: not IPv6": (_advertisement(version=4), IN_READ),
}


@pytest.fixture(scope="module")
def passes() -> Iterator[Callable[[bytes], bool]]:
    """Whether a frame gets through the filter of its socket."""
    ends = {}
    for kind, program in ((0x0806, ARP_THAT_TELLS), (0x86DD, NEIGHBOUR_ADVERTISEMENT)):
        ends[kind] = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ends[kind][1].setblocking(False)
        attach_filter(ends[kind][1], program)

    def passes(frame: bytes) -> bool:
        sender, receiver = ends[int.from_bytes(frame[12:14], "big")]
        sender.send(frame)
        try:
            assert receiver.recv(2000) == frame
        except BlockingIOError:
            return False
        return True

    yield passes
    for each in itertools.chain(*ends.values()):
        each.close()


@pytest.mark.parametrize("what", BELIEVED)
def test_what_neighbours_say_is_believed(passes: Callable[[bytes], bool], what: str) -> None:
    frame, address = BELIEVED[what]
    assert passes(frame)
    assert frames.read(frame) == Heard(address, THEIRS)


@pytest.mark.parametrize("what", HOSTILE)
def test_what_no_neighbour_says_is_not(passes: Callable[[bytes], bool], what: str) -> None:
    frame, where = HOSTILE[what]
    assert frames.read(frame) is None
    if where is IN_FILTER:
        assert not passes(frame), "it does not even wake the daemon"


# The resolver.


class Clock:
    """Ticks every 25 ms, as the daemon does, and keeps what was asked."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[tuple[float, bytes | None]] = []
        self.changes = 0
        self.neighbours = Neighbours(
            lambda _, mac: self.asked.append((self.now, mac)), self._changed
        )

    def _changed(self) -> None:
        self.changes += 1

    def run(self, seconds: float, answer: bytes | None = None) -> None:
        """`answer`: the MAC at which the address is; it answers what reaches it."""
        end = self.now + seconds
        while self.now < end:
            before = len(self.asked)
            self.neighbours.tick(self.now)
            if answer and len(self.asked) > before and self.asked[-1][1] in (None, answer):
                self.neighbours.heard(2, Heard("10.0.1.1", answer))
            self.now += 0.025


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.neighbours.add([TARGET], 0.0)
    return clock


def test_an_answer_resolves_and_is_told_once(clock: Clock) -> None:
    assert not clock.neighbours.settled
    clock.run(5, answer=THEIRS)
    assert clock.neighbours.known == {TARGET: Neighbour("02:00:00:00:00:02", alive=True)}
    assert clock.changes == 1
    assert clock.asked[0] == (0.0, None)
    assert {mac for _, mac in clock.asked[1:]} == {THEIRS}, "a known MAC is asked alone"


def test_silence_is_noticed_within_three_seconds(clock: Clock) -> None:
    clock.run(5, answer=THEIRS)
    died = clock.now
    while clock.neighbours.known[TARGET].alive:
        clock.run(0.025)
    assert 1.5 < clock.now - died < 3.0
    assert clock.neighbours.known[TARGET].mac == "02:00:00:00:00:02", "the last MAC is kept"


def test_one_lost_answer_is_not_death(clock: Clock) -> None:
    clock.run(3, answer=THEIRS)
    clock.run(1.3)
    clock.run(3, answer=THEIRS)
    assert clock.changes == 1


def test_one_that_never_answers_is_known_within_a_second(clock: Clock) -> None:
    clock.run(1.0)
    assert clock.neighbours.known == {TARGET: Neighbour("", alive=False)}
    assert clock.neighbours.settled


def test_one_that_comes_back_is_alive_again(clock: Clock) -> None:
    clock.run(5)
    clock.run(1.1, answer=THEIRS)
    assert clock.neighbours.known[TARGET].alive


def test_an_address_that_moved_to_another_mac_is_followed(clock: Clock) -> None:
    clock.run(2, answer=THEIRS)
    clock.neighbours.heard(2, Heard(BACKEND4, OURS))  # as it tells when it moves
    moved = clock.now
    while clock.neighbours.known[TARGET].mac == MAC:
        clock.run(0.025, answer=OURS)
    assert clock.now - moved < 2.0
    assert clock.neighbours.known == {TARGET: Neighbour(frames.mac_text(OURS), alive=True)}
    assert clock.changes == 2, "it has never been dead"


def test_nobody_takes_an_address_from_who_answers_for_it(clock: Clock) -> None:
    clock.run(2, answer=THEIRS)
    for _ in range(400):
        clock.neighbours.heard(2, Heard(BACKEND4, OURS))
        clock.run(0.025, answer=THEIRS)
    asked = len(clock.asked)
    while len(clock.asked) == asked:
        clock.run(0.025)
    clock.neighbours.heard(2, Heard(BACKEND4, OURS))  # not even where one answer is lost
    clock.run(2, answer=THEIRS)
    assert clock.neighbours.known == {TARGET: Neighbour(MAC, alive=True)}
    assert clock.changes == 1


def test_a_false_mac_of_the_first_moment_is_put_right(clock: Clock) -> None:
    clock.neighbours.heard(2, Heard(BACKEND4, OURS))
    while clock.neighbours.known[TARGET].mac != MAC:
        clock.run(0.025, answer=THEIRS)
    assert clock.now < 2.5


def test_what_is_not_watched_is_not_learnt(clock: Clock) -> None:
    clock.neighbours.heard(2, Heard("10.0.1.77", THEIRS))
    clock.neighbours.heard(9, Heard("10.0.1.1", THEIRS))
    assert clock.neighbours.known == {}


def test_a_target_taken_away_is_asked_no_more(clock: Clock) -> None:
    clock.run(1, answer=THEIRS)
    clock.neighbours.remove([TARGET])
    count = len(clock.asked)
    clock.run(3)
    assert len(clock.asked) == count
    assert clock.neighbours.known == {}


# The asker and the announcer.


def _asker() -> tuple[Asker, list[str], list[None]]:
    asked: list[str] = []
    changes: list[None] = []
    return Asker(lambda t: asked.append(t.address), lambda: changes.append(None)), asked, changes


def _ask(asker: Asker, begin: float, seconds: float) -> None:
    for step in range(int(seconds / 0.025) + 1):
        asker.tick(begin + step * 0.025)


def test_three_questions_then_nobody_has_it() -> None:
    asker, asked, changes = _asker()
    asker.keep(frozenset({VIP}), NO_PEERS, 0.0)
    _ask(asker, 0.0, 0.125)
    assert not asker.settled
    _ask(asker, 0.15, 0.1)
    assert asked == [VIP.address] * 3
    assert asker.answers == {VIP.address: ""}
    assert asker.settled
    assert len(changes) == 1
    _ask(asker, 1.0, 2 * LAST_AGAIN)
    assert len(asked) == 3, "what nobody has is not asked for again"


def test_an_answer_is_kept_and_asked_for_again() -> None:
    asker, _, changes = _asker()
    asker.keep(frozenset({VIP}), NO_PEERS, 0.0)
    asker.tick(0.0)
    asker.heard(2, Heard(VIP.address, THEIRS))
    _ask(asker, 0.025, 0.3)
    assert asker.answers == {VIP.address: frames.mac_text(THEIRS)}
    _ask(asker, 0.4, FIRST_AGAIN + 0.3)
    assert asker.answers == {VIP.address: ""}, "nobody has answered the second time"
    assert len(changes) == 2


def test_what_is_said_between_two_rounds_is_no_answer() -> None:
    asker, _, _ = _asker()
    asker.keep(frozenset({VIP}), NO_PEERS, 0.0)
    asker.tick(0.0)
    asker.heard(2, Heard(VIP.address, THEIRS))
    _ask(asker, 0.025, 0.3)
    asker.heard(2, Heard(VIP.address, THEIRS))  # its last word
    _ask(asker, 0.4, FIRST_AGAIN + 0.3)
    assert asker.answers == {VIP.address: ""}


def test_who_goes_on_answering_is_asked_more_and_more_seldom() -> None:
    asker, asked, _ = _asker()
    asker.keep(frozenset({VIP}), NO_PEERS, 0.0)
    rounds = []
    for step in range(int(200 / 0.025)):
        before = len(asked)
        asker.tick(step * 0.025)
        if len(asked) > before:
            asker.heard(2, Heard(VIP.address, THEIRS))
            if len(asked) % 3 == 1:
                rounds.append(step * 0.025)
    pauses = [round(b - a) for a, b in itertools.pairwise(rounds)]
    assert pauses[:6] == [1, 2, 4, 8, 16, 30]
    assert set(pauses[5:]) == {LAST_AGAIN}


def test_an_answer_of_who_was_a_load_balancer_then_is_no_stranger_s_later() -> None:
    asker, _, changes = _asker()
    asker.keep(frozenset({VIP}), {frames.mac_text(THEIRS)}, 0.0)
    asker.tick(0.0)
    asker.heard(2, Heard(VIP.address, THEIRS))
    _ask(asker, 0.025, 0.3)
    assert asker.answers == {VIP.address: ""}
    asker.keep(frozenset({VIP}), NO_PEERS, 0.4)
    assert asker.answers == {VIP.address: ""}, "it has yielded meanwhile, or is about to"
    for step in range(int((FIRST_AGAIN + 0.5) / 0.025)):
        asker.tick(0.4 + step * 0.025)
        asker.heard(2, Heard(VIP.address, THEIRS))
    assert asker.answers == {VIP.address: frames.mac_text(THEIRS)}, "it goes on: a conflict"
    assert len(changes) == 2


def test_a_vip_that_leaves_is_asked_for_anew_when_it_is_back() -> None:
    asker, asked, _ = _asker()
    asker.keep(frozenset({VIP}), NO_PEERS, 0.0)
    _ask(asker, 0.0, 0.5)
    asker.keep(frozenset(), NO_PEERS, 1.0)
    assert asker.answers == {}
    asker.keep(frozenset({VIP}), NO_PEERS, 2.0)
    assert not asker.settled
    _ask(asker, 2.0, 0.5)
    assert len(asked) == 6
    assert asker.answers == {VIP.address: ""}


def test_a_vip_that_comes_back_while_it_is_asked_for_gets_the_whole_time() -> None:
    asker, _, _ = _asker()
    asker.keep(frozenset({VIP}), NO_PEERS, 0.0)
    _ask(asker, 0.0, 0.1)
    asker.keep(frozenset(), NO_PEERS, 0.1)
    asker.keep(frozenset({VIP}), NO_PEERS, 0.11)
    _ask(asker, 0.125, 0.1)
    assert asker.answers == {}


def announced(vip: str, *, mac: str = MAC, among: tuple[str, ...] = ("lb1",)) -> Announcement:
    return Announcement(vip, 2, mac, among)


class Telling:
    """An announcer that ticks every 25 ms, and when it told which VIP."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[tuple[float, str]] = []
        self._announcer = Announcer(lambda a: self.told.append((self.now, a.vip)))

    def hold(self, *wanted: Announcement) -> None:
        change = self._announcer.diff(frozenset(wanted), self._announcer.read())
        self._announcer.apply(change, self.now)

    def run(self, seconds: float) -> list[tuple[float, str]]:
        """What is told meanwhile."""
        before, end = len(self.told), self.now + seconds
        while self.now < end:
            self._announcer.tick(self.now)
            self.now += 0.025
        return self.told[before:]


@pytest.fixture
def telling() -> Telling:
    return Telling()


ONE = announced("10.0.9.1")


def test_a_take_over_is_told_twice_and_a_yield_not_at_all(telling: Telling) -> None:
    telling.hold(ONE)
    told = telling.run(1.5)
    assert [round(when, 1) for when, _ in told] == [0.0, 1.0]
    telling.hold()
    assert telling.run(200) == []


def test_a_vip_is_told_each_minute_while_it_is_here(telling: Telling) -> None:
    many = [announced(f"10.0.{i >> 8}.{i & 255}") for i in range(600)]
    telling.hold(*many)
    telling.run(1.5)
    first, second = telling.run(60), telling.run(60)
    assert sorted(vip for _, vip in first) == sorted(vip for _, vip in second)
    assert {vip for _, vip in first} == {each.vip for each in many}
    assert max(Counter(int(when) for when, _ in first).values()) < 30, "10 a second, more or less"


def test_a_vip_that_goes_and_comes_often_is_told_no_more_often_for_it(telling: Telling) -> None:
    for _ in range(10):
        telling.hold(ONE)
        telling.run(3)
        telling.hold()
    telling.hold(ONE)
    telling.run(63)
    assert len(telling.run(120)) == 2


@pytest.mark.parametrize(
    "other",
    [announced(ONE.vip, mac="02:00:00:00:00:77"), announced(ONE.vip, among=("lb1", "lb2"))],
)
def test_what_changes_about_a_vip_is_told(telling: Telling, other: Announcement) -> None:
    telling.hold(ONE)
    telling.run(1.5)
    telling.hold(other)
    assert [vip for _, vip in telling.run(0.5)] == [ONE.vip]


def test_what_comes_is_told_before_what_was_here(telling: Telling) -> None:
    here = [announced(f"10.1.{i >> 8}.{i & 255}") for i in range(1000)]
    telling.hold(*here)
    telling.run(1.5)
    both = ("lb1", "lb2")
    come = announced("10.2.0.0", among=both)
    telling.hold(*(announced(each.vip, among=both) for each in here), come)
    assert telling.run(0.5)[0][1] == come.vip


def test_many_are_told_at_a_limited_rate(telling: Telling) -> None:
    telling.hold(*(announced(f"10.1.{i >> 8}.{i & 255}") for i in range(5000)))
    assert len(telling.run(0.025)) <= 250
    telling.run(0.875)
    assert len(telling.told) == 5000, "all of them within 0.9 s"
