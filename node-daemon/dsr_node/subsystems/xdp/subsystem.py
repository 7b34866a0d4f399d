"""The XDP director as a subsystem: read() -> diff() -> apply(), and a sweep now and then."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dsr_node.bpf.links import Mode
from dsr_node.subsystems.xdp import diff as differ
from dsr_node.subsystems.xdp.apply import apply, renew
from dsr_node.subsystems.xdp.changes import Changes
from dsr_node.subsystems.xdp.dataplane import Dataplane
from dsr_node.subsystems.xdp.limits import Limits
from dsr_node.subsystems.xdp.links import detach_all, read_modes
from dsr_node.subsystems.xdp.observed import Observed, nothing
from dsr_node.subsystems.xdp.state import FOREVER, DirectorState, Problem
from dsr_node.subsystems.xdp.stats import Stats, read_stats
from dsr_node.subsystems.xdp.sweep import Swept, sweep
from dsr_node.subsystems.xdp.tables import WantedTables

COMPARE_S = 20
"""Seconds after which hold() compares all pools again, whatever it has found before."""


class XdpSubsystem:
    """The maps, program and links in one directory of a bpffs.

    Nothing is made before something is desired: a node that directs nothing needs no bpffs. All
    methods may raise OSError (BpfError, IncompatibleMapError), whose text says what to do. Not to
    be used from two threads at once.
    """

    def __init__(self, bpffs: Path, limits: Limits | None = None) -> None:
        self._pins = bpffs
        self._limits = limits or Limits()
        self._tables = WantedTables()
        self._dataplane: Dataplane | None = None
        self._compared_ns = -(10**18)

    def read(self) -> Observed:
        """What the kernel holds of ours."""
        if self._dataplane is None and self._is_there():
            self._dataplane = Dataplane(self._pins, self._limits)
        if self._dataplane is None:
            return nothing(int(time.monotonic()), self._limits)
        return self._dataplane.observe()

    def diff(
        self, desired: DirectorState, observed: Observed, *, full: bool = True, part: int = 0
    ) -> Changes:
        """What is to be done; false where nothing is. Not `full`: a pool whose very value has been
        found in the maps before is taken to be there still."""
        return differ.diff(desired, observed, self._tables, full=full, part=part)

    def apply(self, changes: Changes) -> tuple[Problem, ...]:
        """Does it. What could not be done for one plan or one interface comes back."""
        if not changes:
            return tuple(changes.problems)
        if self._dataplane is None:
            self._dataplane = Dataplane(self._pins, self._limits)
        return (*changes.problems, *apply(changes, self._dataplane))

    def hold(self, desired: DirectorState) -> tuple[tuple[Problem, ...], bool]:
        """read() -> diff() -> apply() until nothing waits; the problems, and whether there was
        anything to be done but to renew leases and to end them.

        Filling tables can take seconds. They are written part by part, what has failed in the first
        one, and leases go on meanwhile.
        """
        begin = time.monotonic_ns()
        full = begin - self._compared_ns > COMPARE_S * 10**9
        self._compared_ns = begin if full else self._compared_ns
        changed, part, waits = False, 0, True
        while waits:
            now = replace(desired, announced=_later(desired, time.monotonic_ns() - begin))
            changes = self.diff(now, self.read(), full=full and not part, part=part)
            problems = self.apply(changes)
            changed |= bool(replace(changes, announced_in={}, announced_out=[]))
            could = problems == tuple(changes.problems)
            waits = changes.postponed or (changes.makes_room and could)
            part += 1
        return problems, changed

    def renew(self, announced: Mapping[bytes, int]) -> None:
        """Moves the ends of leases (VIP -> ns) without a look at anything else."""
        if self._dataplane is not None:
            renew(announced, self._dataplane)

    def sweep(self, now: float) -> Swept:
        """Forgets flows and settles slots; every 10 s or so. `now`: time.monotonic()."""
        return Swept() if self._dataplane is None else sweep(self._dataplane, int(now))

    def stats(self, desired: DirectorState) -> Stats:
        """Counters of what `desired` names."""
        return Stats() if self._dataplane is None else read_stats(self._dataplane, desired)

    def modes(self) -> Mapping[str, Mode]:
        """How the program runs on each interface it is on: Native or Generic."""
        return read_modes(self._pins) if self._is_there() else {}

    def remove_all(self) -> None:
        """Takes the program off every interface and forgets all maps. Safe to repeat, and also
        where the maps are of another version."""
        self.close()
        if self._is_there():
            detach_all(self._pins)
            for pin in self._pins.iterdir():
                pin.unlink()
            self._pins.rmdir()

    def close(self) -> None:
        """Lets go of what is open; in the kernel everything stays as it is."""
        if self._dataplane is not None:
            self._dataplane.close()
            self._dataplane = None

    def _is_there(self) -> bool:
        return self._pins.is_dir()


def _later(desired: DirectorState, ns: int) -> Mapping[bytes, int]:
    """`announced` as it is to be that much later."""
    return {
        vip: until if until == FOREVER else until + ns for vip, until in desired.announced.items()
    }
