"""Since which revision something is true of a plan: what acknowledgements are measured against.

A node's `appliedRevision` says that it has carried out every plan up to a number. Whether a node
holds the VIPs of a plan, or forwards to a backend no more, follows from comparing that number
with the revision since which the plan says so without a break. The plan itself shows only what
it says now; this is the operator's memory of the rest. It may be lost (restart, change of leader):
then everything counts from the current revision, which is late but never wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from dsr_api.plan import DSRPlanSpec, Frontend

K = TypeVar("K")

WRITES_KEPT = 32
"""Revisions remembered with their times; a node further behind counts from the oldest of them."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A revision, and the steady time at which this process first saw it."""

    revision: int
    at: float


@dataclass(frozen=True, slots=True)
class History:
    """Marks of one plan.

    - `begun`: the first revision this process has seen: what there was before it is not known.
    - `writes`: the latest revisions, oldest first.
    - `holding`: host -> since when it is in `hosts` with all the present `vips`.
    - `unsent`: node in `hosts` -> since when none of `backends` is on it.
    - `unserved`: VIP in `vips` -> since when no frontend has it.
    - `directing`: director -> since when it is in `directors`.
    - `yielding`: director -> since when it is there with `announces` not set.
    - `ceded`: frontend that the plan had, of a VIP still in `vips` -> since when it has it no more.
    - `retired`: former director -> since when it is not in `directors`.
    """

    begun: Mark | None = None
    writes: tuple[Mark, ...] = ()
    holding: Mapping[str, Mark] = field(default_factory=dict)
    unsent: Mapping[str, Mark] = field(default_factory=dict)
    unserved: Mapping[str, Mark] = field(default_factory=dict)
    directing: Mapping[str, Mark] = field(default_factory=dict)
    yielding: Mapping[str, Mark] = field(default_factory=dict)
    ceded: Mapping[Frontend, Mark] = field(default_factory=dict)
    retired: Mapping[str, Mark] = field(default_factory=dict)

    @property
    def latest(self) -> Mark | None:
        """The current revision; None before the first."""
        return self.writes[-1] if self.writes else None

    def behind_since(self, applied: int) -> float | None:
        """Since when there is a revision above `applied`; None if there is none."""
        return next((m.at for m in self.writes if m.revision > applied), None)


def advance(
    history: History, old: DSRPlanSpec | None, new: DSRPlanSpec, revision: int, at: float
) -> History:
    """The history once `new` has replaced `old` at `revision`. `old` None: nothing is known."""
    mark = Mark(revision, at)
    grown = old is None or not set(new.vips) <= set(old.vips)
    sent = {b.node for b in new.backends}
    served = {f.vip for f in new.frontends}
    directing = {d.node for d in new.directors}
    had = {*history.ceded, *(old.frontends if old else ())} - set(new.frontends)
    return History(
        begun=history.begun or mark,
        writes=(*history.writes, mark)[-WRITES_KEPT:],
        holding=_carry({} if grown else history.holding, new.hosts, mark),
        unsent=_carry(history.unsent, (h for h in new.hosts if h not in sent), mark),
        unserved=_carry(history.unserved, (v for v in new.vips if v not in served), mark),
        directing=_carry(history.directing, directing, mark),
        yielding=_carry(history.yielding, (d.node for d in new.directors if not d.announces), mark),
        ceded=_carry(history.ceded, (f for f in had if f.vip in new.vips), mark),
        retired=_carry(
            history.retired, (d for d in new.former_directors if d not in directing), mark
        ),
    )


def _carry(known: Mapping[K, Mark], names: Iterable[K], mark: Mark) -> dict[K, Mark]:
    return {name: known.get(name, mark) for name in names}
