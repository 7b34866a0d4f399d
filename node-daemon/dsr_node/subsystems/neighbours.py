"""Keeps the MACs of backends and peer directors resolved, and notices when one falls silent.

The daemon asks by itself, over raw sockets: a kernel neighbour entry takes 8 s or more to fail
once it is stale, holds 1,024 neighbours by default (gc_thresh3), and stays behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from dsr_node.state.types import Neighbour, Target
from dsr_node.subsystems.base import Change, difference
from dsr_node.subsystems.frames import Heard, mac_bytes, mac_text
from dsr_node.subsystems.schedule import Schedule

MISSES = 3
"""Questions without an answer after which a neighbour is dead."""

MOVED = 2
"""Questions without an answer, one to the MAC it had and one to all, after which a neighbour may be
at another MAC."""

PERIOD = 0.7
"""Seconds between two questions to a live neighbour: silence is noticed within 2.8 s."""

FIRST_PERIOD = 0.25
"""The same for one that has never answered: a new backend that is not there is known at once."""

DEAD_PERIOD = 1.0
"""The same for a dead one."""

_PER_TICK = 500


@dataclass(slots=True)
class _Watched:
    known: Neighbour
    unanswered: int = 0


class Neighbours:
    """The resolver.

    `ask(target, mac)` sends one question (mac None: to the whole segment); `changed()` is called
    after `known` has become another value. Time is given by the caller.
    """

    name = "neighbours"

    def __init__(
        self, ask: Callable[[Target, bytes | None], None], changed: Callable[[], None]
    ) -> None:
        self._ask = ask
        self._changed = changed
        self._watched: dict[Target, _Watched] = {}
        self._schedule: Schedule[tuple[Target, _Watched]] = Schedule()
        self._known: Mapping[Target, Neighbour] | None = {}

    @property
    def known(self) -> Mapping[Target, Neighbour]:
        """What is known of each target; the same object until something changes."""
        if self._known is None:
            self._known = {target: watched.known for target, watched in self._watched.items()}
        return self._known

    @property
    def settled(self) -> bool:
        """Whether each target has answered, or failed to."""
        return all(watched.known.alive is not None for watched in self._watched.values())

    @property
    def due(self) -> float:
        """When the next tick is needed."""
        return self._schedule.next

    def read(self) -> frozenset[Target]:
        """The targets that are watched."""
        return frozenset(self._watched)

    def diff(self, wanted: frozenset[Target], held: frozenset[Target]) -> Change[Target]:
        """All that is watched is ours."""
        return difference(wanted, held, held)

    def add(self, targets: Iterable[Target], now: float) -> None:
        """Starts to watch; the first question goes out with the next tick."""
        for target in targets:
            self._watched[target] = _Watched(Neighbour())
            self._schedule.at(now, (target, self._watched[target]))

    def remove(self, targets: Iterable[Target]) -> None:
        """Stops watching."""
        for target in targets:
            del self._watched[target]
        self._publish()

    def tick(self, now: float) -> None:
        """Asks those whose turn it is; one that owes three answers is dead."""
        died = False
        for target, watched in self._schedule.due(now, _PER_TICK):
            if self._watched.get(target) is not watched:
                continue
            known = watched.known
            if watched.unanswered >= MISSES and known.alive is not False:
                watched.known = known = Neighbour(known.mac, alive=False)
                died = True
            # After silence all are asked: the address may have moved to another MAC.
            alone = known.alive and known.mac and not watched.unanswered
            self._ask(target, mac_bytes(known.mac) if alone else None)
            watched.unanswered += 1
            self._schedule.at(now + _period(known), (target, watched))
        if died:
            self._publish()

    def heard(self, ifindex: int, heard: Heard) -> None:
        """Somebody said where an address is.

        Nobody takes it from a live neighbour by saying so, as anybody can. One that has moved to
        another MAC is silent at the old one, and answers when all are asked.
        """
        watched = self._watched.get(Target(heard.address, ifindex))
        if watched is None:
            return
        known = Neighbour(mac_text(heard.mac), alive=True)
        moved = watched.known.alive and watched.known.mac != known.mac
        if moved and watched.unanswered < MOVED:
            return
        watched.unanswered = 0
        if watched.known != known:
            watched.known = known
            self._publish()

    def _publish(self) -> None:
        self._known = None
        self._changed()


def _period(known: Neighbour) -> float:
    if known.alive is None:
        return FIRST_PERIOD
    return PERIOD if known.alive else DEAD_PERIOD
