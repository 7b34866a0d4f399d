"""node_state(): what this kernel should hold, from all plans and the facts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dsr_api.node import FRONTEND_TAKEN, PlanNotApplied, UnhealthyBackend
from dsr_api.plan import DSRPlan

from dsr_node.state.plan_state import PlanState, plan_state
from dsr_node.state.types import Announcement, Facts, Link, Neighbour, NodeState, Target
from dsr_node.state.uplink import Uplinks
from dsr_node.subsystems.xdp.state import (
    FOREVER,
    Attachment,
    DirectorState,
    FrontendKey,
    Peer,
    Pool,
    PoolKey,
)

_UNKNOWN = Neighbour()


@dataclass(slots=True)
class Memo:
    """Shares of plans from the call before, each with the input it was made from.

    node_state() gives the same value with any memo, the empty one too: it only spares making
    again what no changed input concerns (one changed plan among 1,000).
    """

    facts: Facts | None = None
    shares: dict[str, tuple[DSRPlan, object, PlanState]] = field(default_factory=dict)


def node_state(plans: Mapping[str, DSRPlan], facts: Facts, memo: Memo | None = None) -> NodeState:
    """What this node's kernel should hold.

    Of two plans with the same frontend the first by name keeps it (the operator lets none through;
    files may hold anything). A plan with an impossible value is a problem of its own.
    """
    memo = Memo() if memo is None else memo
    uplinks = Uplinks(facts.network, facts.uplink)
    before, former = memo.facts, memo.shares
    if before and _ground(before) != _ground(facts):
        former = {}
    same = before is not None and _same(before, facts)
    memo.facts, memo.shares = facts, {}
    joined = _Joined()
    for name in sorted(plans):
        known = former.get(name)
        if known and known[0] is plans[name] and (same or known[1] == _input(known[2], facts)):
            memo.shares[name] = known
        else:
            share = _share(name, plans[name], facts, uplinks)
            memo.shares[name] = (plans[name], _input(share, facts), share)
        joined.add(name, memo.shares[name][2], facts)
    return joined.state()


def _share(name: str, plan: DSRPlan, facts: Facts, uplinks: Uplinks) -> PlanState:
    try:
        return plan_state(name, plan, facts, uplinks)
    except ValueError as error:
        problem = PlanNotApplied(plan=name, reason="InvalidPlan", message=str(error))
        return PlanState(problems=(problem,))


def _input(share: PlanState, facts: Facts) -> object:
    """The facts a share was made from, apart from _ground().

    Which ones those are depends on the plan and the network alone, so a share made from the same
    plan and network reads the same ones.
    """
    return (
        facts.node,
        facts.epoch,
        [facts.neighbours.get(target, _UNKNOWN) for target in share.targets],
        [node in facts.stale_peers for node in share.peers_of_plan],
        [facts.answers.get(asked.address) for asked in share.to_ask],
        facts.xdp_errors if share.attachments else (),
    )


def _ground(facts: Facts) -> object:
    """The facts that concern every share."""
    return facts.network, facts.uplink, facts.vital


def _same(before: Facts, now: Facts) -> bool:
    """Whether no share can have changed; a fact that has not changed is the same object."""
    return (
        before.neighbours is now.neighbours
        and before.answers is now.answers
        and (before.node, before.epoch) == (now.node, now.epoch)
        and before.stale_peers == now.stale_peers
        and before.xdp_errors == now.xdp_errors
    )


class _Joined:
    """The shares of all plans, being joined."""

    def __init__(self) -> None:
        self._addresses: set[str] = set()
        self._targets: set[Target] = set()
        self._to_ask: set[Target] = set()
        self._announcements: set[Announcement] = set()
        self._announced: dict[bytes, int] = {}
        self._vips: set[bytes] = set()
        self._frontends: dict[FrontendKey, PoolKey] = {}
        self._pools: dict[PoolKey, Pool] = {}
        self._peers: set[Peer] = set()
        self._uplinks: set[Link] = set()
        self._attachments: set[Attachment] = set()
        self._problems: list[PlanNotApplied] = []
        self._unhealthy: list[UnhealthyBackend] = []

    def add(self, name: str, share: PlanState, facts: Facts) -> None:
        self._addresses |= share.addresses
        self._targets |= share.targets
        self._to_ask |= share.to_ask
        self._announcements |= share.announcements
        for vip, endless in share.announced:
            self._announced[vip] = FOREVER if endless else facts.lease_until
        self._vips |= share.vips
        for key, pool in share.frontends:
            holder = self._frontends.setdefault(key, pool)
            if holder.plan != name:
                self._problems.append(_taken(name, key, holder.plan))
        self._pools.update((pool.key, pool) for pool in share.pools)
        self._peers |= share.peers
        self._uplinks |= share.uplinks
        self._attachments |= share.attachments
        self._problems += share.problems
        self._unhealthy += share.unhealthy

    def state(self) -> NodeState:
        return NodeState(
            addresses=frozenset(self._addresses),
            sysctls=_sysctls(self._addresses, self._uplinks),
            targets=frozenset(self._targets),
            to_ask=frozenset(self._to_ask),
            announcements=frozenset(self._announcements),
            director=DirectorState(
                frontends=self._frontends,
                pools=self._pools,
                vips=frozenset(self._vips),
                peers=frozenset(self._peers),
                announced=self._announced,
                attachments=tuple(sorted(self._attachments)),
            ),
            problems=tuple(
                sorted(self._problems, key=lambda p: (p.plan, p.vip, p.reason, p.message))
            ),
            unhealthy=tuple(self._unhealthy),
            uplinks=tuple(sorted(link.name for link in self._uplinks)),
        )


def _sysctls(addresses: set[str], uplinks: set[Link]) -> dict[str, int]:
    """No kernel may answer ARP for a VIP on lo, nor use it as source of its own ARP requests.

    Documentation/networking/ip-sysctl.rst: the effective value is the maximum of `all` and the
    interface; the uplink gets it too, so that `all` set back by hand harms nobody.
    """
    if all(":" in address for address in addresses):
        return {}
    names = ["all", *sorted(link.name for link in uplinks)]
    return {
        f"ipv4/conf/{name}/{key}": value
        for name in names
        for key, value in (("arp_ignore", 1), ("arp_announce", 2))
    }


def _taken(plan: str, key: FrontendKey, holder: str) -> PlanNotApplied:
    message = f"{key} is already forwarded for plan {holder}"
    vip = str(key).split()[0]
    return PlanNotApplied(plan=plan, reason=FRONTEND_TAKEN, message=message, vip=vip)
