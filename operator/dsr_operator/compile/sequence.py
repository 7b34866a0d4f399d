"""In which order a plan grows and shrinks, so that no packet reaches a node that cannot take it.

The rules are those of docs/architecture.md ("What the operator and the daemon say to each other"):

- a node's backend enters `backends` only once that node has acknowledged that it holds all VIPs;
- a VIP enters `frontends` only once every host in `backends` holds it; it does so before there is
  any, if there will be: what LB nodes drop meanwhile is sent again, and their own stacks would
  refuse it. They ask the segment for the VIP and announce it in that time;
- a director announces only once it has acknowledged what it is to forward, and leaves `directors`
  only once the others have acknowledged that it does not announce any more;
- a host leaves `hosts`, and a VIP leaves `vips`, only once every live director, present or former,
  has acknowledged that nothing is sent there any more.

A live node that does not acknowledge is waited for PATIENCE seconds, a dead one is not. Growing
past a node that has not acknowledged means that its backend leaves the plan; it comes back when the
node has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from dsr_api.plan import Director, DSRPlanSpec, Frontend, PlanBackend

from dsr_operator.compile.acks import COMPANY, FIRST_SIGHT, Acks
from dsr_operator.compile.backends import Wanted
from dsr_operator.compile.clocktext import from_rfc3339, to_rfc3339
from dsr_operator.compile.previous import remember_backends
from dsr_operator.core import family

HANDOVER = 3.0
"""Seconds for which a director that announces no more goes on forwarding: the segment is told of
the new announcer twice, a second apart, for a kernel heeds one gratuitous ARP a second and entry
(Linux: neigh/locktime)."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a plan shall get to. `template` carries what needs no order (method, seed, ...);
    whether `directors` announce is not decided yet."""

    template: DSRPlanSpec
    vips: tuple[str, ...]
    frontends: tuple[Frontend, ...]
    blocked: Mapping[Frontend, str]
    directors: tuple[Director, ...]
    backends: Mapping[tuple[str, str], Wanted]
    drain_seconds: int


def grow_and_shrink(current: DSRPlanSpec, target: Target, acks: Acks) -> DSRPlanSpec:
    """The next plan on the way from `current` (empty at first) to `target`."""
    backends = _backends(current, target, acks)
    frontends, backends = _frontends(current, target, backends, acks)
    directors = _directors(current, target, acks)
    moved = msgspec.structs.replace(
        target.template,
        vips=_vips(current, target, acks),
        frontends=frontends,
        directors=directors,
        former_directors=_former_directors(current, directors, acks),
        hosts=_hosts(current, target, backends, acks),
        backends=backends,
    )
    return remember_backends(current, moved, acks)


def withdraw(current: DSRPlanSpec, acks: Acks) -> tuple[DSRPlanSpec, bool]:
    """The next plan of a service that is to go, and whether every node has let go of it.

    First nothing is forwarded, then nobody holds the VIPs. Directors and hosts stay named to the
    end: they are who is waited for, also by an operator that has only just started.
    """
    if current.frontends or current.backends:
        stopped = msgspec.structs.replace(
            current,
            frontends=(),
            backends=(),
            previous_backends=(),
            backends_changed_at=None,
        )
        return stopped, False
    latest = acks.history.latest
    concerned = _senders(current) | (set() if current.vips else set(current.hosts))
    if latest is not None and not acks.let_go(concerned, latest):
        return current, False
    if current.vips:
        return msgspec.structs.replace(current, vips=()), False
    return current, True


def _senders(plan: DSRPlanSpec) -> set[str]:
    """Nodes that may still forward by some earlier version of the plan."""
    return {d.node for d in plan.directors} | set(plan.former_directors)


def _backends(current: DSRPlanSpec, target: Target, acks: Acks) -> tuple[PlanBackend, ...]:
    """Those who stay, those who drain, and those who may enter now."""
    new = dict(target.backends)
    chosen: list[PlanBackend] = []
    for backend in current.backends:
        wanted = new.pop((backend.address, backend.node_uid), None)
        if wanted is None:
            chosen.extend(_drained(backend, target, acks))
        elif wanted.node and acks.lacks(wanted.node):
            acks.awaited.add(wanted.node)
        else:
            chosen.append(_entry(wanted))
    chosen.extend(_entry(wanted) for wanted in _entering(new.values(), acks))
    return tuple(sorted(chosen, key=lambda b: (b.address, b.node_uid)))


def _entering(new: Iterable[Wanted], acks: Acks) -> list[Wanted]:
    """Those of the new ones who may enter now; nobody as long as another host may be about to."""
    ready: list[Wanted] = []
    coming: set[str] = set()
    for wanted in new:
        if not wanted.node or (acks.live(wanted.node) and acks.holds(wanted.node)):
            ready.append(wanted)
        else:
            acks.awaited.add(wanted.node)
            coming.add(wanted.node)
    named = acks.history.holding
    late = [n for n in coming if n in named and not acks.fails(n)]
    waits = [acks.wait_for([n], named[n], _company(n, acks)) for n in late] if ready else []
    return [] if any(waits) else ready


def _company(node: str, acks: Acks) -> float:
    """For how long since it was named those who could enter wait for a host."""
    if acks.live(node):
        return COMPANY
    return FIRST_SIGHT if acks.holds(node) else 0.0


def _entry(wanted: Wanted) -> PlanBackend:
    return PlanBackend(
        address=wanted.address, weight=wanted.weight, node=wanted.node, node_uid=wanted.node_uid
    )


def _drained(backend: PlanBackend, target: Target, acks: Acks) -> Sequence[PlanBackend]:
    """A backend that its source names no more drains for a while, unless nothing is left of it."""
    node = acks.world.nodes.get(backend.node)
    gone = bool(backend.node) and (node is None or node.uid != backend.node_uid)
    if gone or family(backend.address) not in {family(v) for v in target.vips}:
        return ()
    now = acks.clock.wall
    until = from_rfc3339(backend.drain_until) if backend.drain_until else now + target.drain_seconds
    if until <= now:
        return ()
    acks.deadlines.append(acks.clock.steady + until - now)
    return (msgspec.structs.replace(backend, weight=0, drain_until=to_rfc3339(math.ceil(until))),)


def _frontends(
    current: DSRPlanSpec, target: Target, backends: tuple[PlanBackend, ...], acks: Acks
) -> tuple[tuple[Frontend, ...], tuple[PlanBackend, ...]]:
    """The frontends that may be forwarded, and those of the backends that stay for it."""
    had = set(current.frontends)
    served = {f.vip for f in had}
    families = {family(b.address) for b in backends}
    families |= {family(address) for address, _ in target.backends}
    kept = [f for f in target.frontends if f in had]
    ready = [
        f
        for f in target.frontends
        if f not in had
        and f not in target.blocked
        and (f.vip in current.vips or not any(b.node for b in backends))
        and family(f.vip) in families
    ]
    if any(f.vip not in served for f in ready):
        late = {b.node for b in backends if b.node and not acks.holds(b.node)}
        remaining = tuple(b for b in backends if b.node not in late)
        if _must_wait(late, backends, remaining, acks):
            ready = [f for f in ready if f.vip in served]
        else:
            backends = remaining
    return tuple(sorted((*kept, *ready))), backends


def _must_wait(
    late: set[str],
    backends: tuple[PlanBackend, ...],
    remaining: tuple[PlanBackend, ...],
    acks: Acks,
) -> bool:
    """Whether a new VIP is to wait for hosts in `backends` that do not hold it yet."""
    if not late:
        return False
    if {family(b.address) for b in remaining} != {family(b.address) for b in backends}:
        acks.awaited |= late
        return True
    marks = {n: m for n in late if acks.live(n) and (m := acks.history.holding.get(n))}
    waiting = [n for n, mark in marks.items() if acks.wait_for([n], mark)]
    return bool(waiting)


def _vips(current: DSRPlanSpec, target: Target, acks: Acks) -> tuple[str, ...]:
    senders = _senders(current)
    served = {f.vip for f in current.frontends}
    lingering = []
    for vip in current.vips:
        if vip in target.vips:
            continue
        mark = acks.history.unserved.get(vip)
        if vip in served or mark is None or not acks.let_go(senders, mark):
            lingering.append(vip)
    return (*target.vips, *lingering)


def _hosts(
    current: DSRPlanSpec, target: Target, backends: tuple[PlanBackend, ...], acks: Acks
) -> tuple[str, ...]:
    senders = _senders(current)
    sent = {b.node for b in current.backends if b.node}
    hosts = {w.node for w in target.backends.values() if w.node}
    hosts |= {b.node for b in backends if b.node}
    for host in set(current.hosts) - hosts:
        mark = acks.history.unsent.get(host)
        if host in sent or mark is None or not acks.let_go(senders, mark):
            hosts.add(host)
    return tuple(sorted(hosts))


def _directors(current: DSRPlanSpec, target: Target, acks: Acks) -> tuple[Director, ...]:
    """Those selected, and those that leave as soon as the others have taken their VIPs over."""
    before = {d.node: d for d in current.directors}
    chosen = [
        msgspec.structs.replace(d, announces=_announces(d.node, current, acks))
        for d in target.directors
    ]
    successors = {d.node for d in chosen}
    leaving = [d for d in current.directors if d.node not in successors and acks.live(d.node)]
    if leaving and not any(d.announces for d in chosen) and _still_coming(successors, acks):
        return tuple(sorted((*chosen, *leaving)))
    staying = [
        msgspec.structs.replace(d, announces=False)
        for d in leaving
        if before[d.node].announces or not _taken_over(d.node, successors, acks)
    ]
    return tuple(sorted((*chosen, *staying)))


def _announces(node: str, current: DSRPlanSpec, acks: Acks) -> bool:
    """Whether VIPs may be shared out to a director.

    One that comes to a service that is there already must first have acknowledged what it is to
    forward; one that announces goes on while nothing speaks against it.
    """
    announcing = any(d.node == node and d.announces for d in current.directors)
    mark = acks.history.directing.get(node)
    if acks.directs(node) and (
        announcing or not current.frontends or (mark is not None and acks.has(node, mark))
    ):
        return True
    acks.awaited.add(node)
    return False


def _still_coming(successors: set[str], acks: Acks) -> bool:
    """Whether one of those that are to announce, of whom none can yet, is waited for."""
    marks = {n: acks.history.directing.get(n) for n in successors}
    waits = [mark is None or acks.wait_for([n], mark) for n, mark in marks.items()]
    return any(waits)


def _taken_over(node: str, successors: set[str], acks: Acks) -> bool:
    """Whether a director that announces no more is not sent anything any more either."""
    mark = acks.history.yielding.get(node)
    if mark is None or not acks.let_go(successors, mark):
        return False
    return not successors or not acks.wait_for([node], mark, HANDOVER)


def _former_directors(
    current: DSRPlanSpec, directors: Iterable[Director], acks: Acks
) -> tuple[str, ...]:
    former = set()
    for node in _senders(current) - {d.node for d in directors}:
        mark = acks.history.retired.get(node)
        if mark is None or not acks.let_go([node], mark):
            former.add(node)
    return tuple(sorted(former))
