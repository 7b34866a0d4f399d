"""Asks the segment before a VIP is announced, and tells it when one has come to this node.

Who answers ARP and NS afterwards is the XDP program, by its map `announced`.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from zlib import crc32

from dsr_node.state.types import Announcement, Target
from dsr_node.subsystems.base import Change, difference
from dsr_node.subsystems.frames import Heard, mac_text, solicited_node
from dsr_node.subsystems.schedule import Schedule

QUESTIONS = 3
SPACING = 0.05
"""Seconds between two questions for a VIP, and after the last one: 150 ms in all.

RFC 5227 waits 4 to 9 s, for hosts on a wireless network of 2008; a service should be up at once,
and an owner that answers later is found by the questions of another LB node or a later daemon."""

FIRST_AGAIN, LAST_AGAIN = 1.0, 30.0
"""Seconds after which a VIP that somebody has answered for is asked for again: doubled each time,
from the first value to the last. He who answers may just be about to yield."""

REPEAT = 1.0
"""Seconds after which a take-over is told once more."""

RETELL = 60.0
"""Seconds between two times that a VIP is told without any reason."""

_PER_TICK = 250
_GROUPS_PER_TICK = 10
_GROUPS_PER_SOCKET = 100


@dataclass(slots=True)
class _Asked:
    """A VIP being asked for: who has answered, how many questions have gone out, and how long a
    pause there is after an answer."""

    answer: str = ""
    questions: int = 0
    pause: float = FIRST_AGAIN


class Asker:
    """Asks for VIPs; `answers` says who answered: a MAC, or "" after nobody did but other LB nodes.

    Whether somebody is another LB node counts when he answers: one that has announced a VIP and
    directs no more must not look like a stranger to those who take it over.
    `ask(target)` sends one question; `changed()` is called after `answers` has become another
    value. Our own MAC is never heard (see Segment.receive).
    """

    def __init__(self, ask: Callable[[Target], None], changed: Callable[[], None]) -> None:
        self._ask = ask
        self._changed = changed
        self._asked: dict[Target, _Asked] = {}
        self._schedule: Schedule[tuple[Target, _Asked]] = Schedule()
        self._peers: Set[str] = frozenset()
        self.answers: Mapping[str, str] = {}

    @property
    def settled(self) -> bool:
        """Whether each VIP has been asked for."""
        return len(self.answers) == len(self._asked)

    @property
    def due(self) -> float:
        """When the next tick is needed."""
        return self._schedule.next

    def keep(self, wanted: frozenset[Target], peers: Set[str], now: float) -> None:
        """Asks for what is new; forgets the answers for what is gone. `peers`: MACs of LB nodes."""
        self._peers = peers
        change = difference(wanted, frozenset(self._asked), frozenset(self._asked))
        for target in sorted(change.add, key=lambda t: t.address):
            self._asked[target] = asked = _Asked()
            self._schedule.at(now, (target, asked))
        for target in change.remove:
            del self._asked[target]
        if change.remove:
            kept = {target.address for target in self._asked}
            self.answers = {vip: mac for vip, mac in self.answers.items() if vip in kept}

    def tick(self, now: float) -> None:
        """Sends the questions whose turn it is, and closes those that have had time enough."""
        closed: dict[str, str] = {}
        for target, asked in self._schedule.due(now, _PER_TICK):
            if self._asked.get(target) is not asked:
                continue
            if asked.questions < QUESTIONS:
                if not asked.questions:
                    asked.answer = ""  # what was said before this round says nothing about now
                self._ask(target)
                asked.questions += 1
                self._schedule.at(now + SPACING, (target, asked))
                continue
            closed[target.address] = "" if asked.answer in self._peers else asked.answer
            if asked.answer:
                asked.questions = 0
                self._schedule.at(now + asked.pause, (target, asked))
                asked.pause = min(2 * asked.pause, LAST_AGAIN)
        if any(self.answers.get(vip) != answer for vip, answer in closed.items()):
            self.answers = {**self.answers, **closed}
            self._changed()

    def heard(self, ifindex: int, heard: Heard) -> None:
        """Somebody said where an address is."""
        target = Target(heard.address, ifindex)
        if target in self._asked:
            self._asked[target].answer = mac_text(heard.mac)


@dataclass(slots=True)
class _Told:
    """How often the segment has been told of a VIP."""

    times: int = 0


class Announcer:
    """Tells the segment of VIPs: of one that has come to this node at once and again a second
    later, and of each now and then, for caches that have missed it or believed somebody else.

    For IPv6 it joins each VIP's solicited-node group, or a switch with MLD snooping keeps the
    solicitations to itself (RFC 4541); the kernel answers the MLD queries. `tell(announcement)`
    sends what `frames.announcements` gives.
    """

    name = "announcement"

    def __init__(self, tell: Callable[[Announcement], None]) -> None:
        self._tell = tell
        self._told: dict[Announcement, _Told] = {}
        self._schedule: Schedule[tuple[Announcement, _Told]] = Schedule()
        self._wanted_groups: frozenset[tuple[str, int]] = frozenset()
        self._groups = Groups()

    @property
    def due(self) -> float:
        """When the next tick is needed: now, while there are groups to join or to leave."""
        return self._schedule.next if self._groups.joined == self._wanted_groups else 0.0

    def read(self) -> frozenset[Announcement]:
        """What the segment has been told."""
        return frozenset(self._told)

    def diff(
        self, wanted: frozenset[Announcement], held: frozenset[Announcement]
    ) -> Change[Announcement]:
        """A restarted daemon tells again: that harms nobody."""
        return difference(wanted, held, held)

    def apply(self, change: Change[Announcement], now: float) -> None:
        """Schedules what is to be told, VIPs that are new here first. Yielding is silent: the next
        announcer tells."""
        here = {_place(announcement) for announcement in self._told}
        for announcement in change.remove:
            del self._told[announcement]
        for announcement in sorted(change.add, key=lambda a: (_place(a) in here, a.vip)):
            self._told[announcement] = told = _Told()
            self._schedule.at(now, (announcement, told))
        self._wanted_groups = frozenset(
            (solicited_node(announcement.vip), announcement.ifindex)
            for announcement in self._told
            if ":" in announcement.vip
        )

    def tick(self, now: float) -> None:
        """Tells the segment what is due, and joins or leaves some groups. Raises OSError."""
        for announcement, told in self._schedule.due(now, _PER_TICK):
            if self._told.get(announcement) is told:
                self._tell(announcement)
                told.times += 1
                self._schedule.at(now + _pause(announcement.vip, told.times), (announcement, told))
        self._groups.approach(self._wanted_groups)


def _place(announcement: Announcement) -> tuple[str, int, str]:
    return announcement.vip, announcement.ifindex, announcement.mac


def _pause(vip: str, times: int) -> float:
    """Seconds after which a VIP that has been told so often is told again. The third time is spread
    over all VIPs, so that they never come all at once again."""
    if times == 1:
        return REPEAT
    return RETELL * crc32(vip.encode()) / 2**32 if times == 2 else RETELL


class Groups:
    """Memberships of IPv6 multicast groups, by (group, interface index)."""

    def __init__(self) -> None:
        self._joined: dict[tuple[str, int], socket.socket] = {}
        self._members: dict[socket.socket, int] = {}

    @property
    def joined(self) -> frozenset[tuple[str, int]]:
        """The present ones."""
        return frozenset(self._joined)

    def approach(self, wanted: frozenset[tuple[str, int]]) -> None:
        """Joins and leaves a few of those that are missing or too many: each takes the kernel up
        to a millisecond, under the lock that all network configuration shares. Raises OSError."""
        change = difference(wanted, self.joined, self.joined)
        for group in sorted(change.remove)[:_GROUPS_PER_TICK]:
            self._leave(group)
        for group in sorted(change.add)[:_GROUPS_PER_TICK]:
            self._join(group)

    def _join(self, group: tuple[str, int]) -> None:
        sock = next((s for s, n in self._members.items() if n < _GROUPS_PER_SOCKET), None)
        if sock is None:
            # One socket's memberships are bounded by net.core.optmem_max.
            sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            self._members[sock] = 0
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, _request(group))
        self._joined[group] = sock
        self._members[sock] += 1

    def _leave(self, group: tuple[str, int]) -> None:
        sock = self._joined.pop(group)
        self._members[sock] -= 1
        with suppress(OSError):  # the interface has gone, and the membership with it
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_LEAVE_GROUP, _request(group))
        if not self._members[sock]:
            del self._members[sock]
            sock.close()


def _request(group: tuple[str, int]) -> bytes:
    address, ifindex = group
    return socket.inet_pton(socket.AF_INET6, address) + struct.pack("=I", ifindex)
