"""What one plan asks of this node. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from dsr_api.node import (
    ADDRESS_CONFLICT,
    DATAPLANE_UNAVAILABLE,
    MAC_NOT_RESOLVED,
    NO_BACKEND_OF_FAMILY,
    NO_UPLINK,
    TABLE_VERSION_UNKNOWN,
    VIP_IS_VITAL,
    PlanNotApplied,
    UnhealthyBackend,
)
from dsr_api.plan import TABLE_VERSION, Director, DSRPlan, PlanBackend

from dsr_node.state.announcer import announcer, announcing
from dsr_node.state.types import Announcement, Facts, Link, Neighbour, Target
from dsr_node.state.uplink import Address, Uplinks, carrier_of, reaches
from dsr_node.subsystems.xdp.state import (
    TCP,
    UDP,
    Attachment,
    Backend,
    BackendKey,
    FrontendKey,
    Peer,
    Pool,
    PoolKey,
    PreviousBackend,
    address16,
)

_UNKNOWN = Neighbour()
_PROTOCOLS = {"TCP": TCP, "UDP": UDP}


@dataclass(frozen=True, slots=True)
class PlanState:
    """One plan's share of NodeState; node_state() joins them.

    `announced`: map form of the VIPs announced -> whether without end (no other director).
    """

    addresses: frozenset[str] = frozenset()
    targets: frozenset[Target] = frozenset()
    to_ask: frozenset[Target] = frozenset()
    announcements: frozenset[Announcement] = frozenset()
    announced: tuple[tuple[bytes, bool], ...] = ()
    vips: frozenset[bytes] = frozenset()
    frontends: tuple[tuple[FrontendKey, PoolKey], ...] = ()
    pools: tuple[Pool, ...] = ()
    peers: frozenset[Peer] = frozenset()
    uplinks: frozenset[Link] = frozenset()
    attachments: frozenset[Attachment] = frozenset()
    problems: tuple[PlanNotApplied, ...] = ()
    unhealthy: tuple[UnhealthyBackend, ...] = ()
    peers_of_plan: tuple[str, ...] = ()


class Vip(NamedTuple):
    """A usable VIP and its uplink (None: there is none)."""

    text: str
    address: Address
    uplink: Link | None


def plan_state(name: str, plan: DSRPlan, facts: Facts, uplinks: Uplinks) -> PlanState:
    """The share of a plan. Raises ValueError for a plan with an impossible value in it."""
    spec = plan.spec
    me = next((d for d in spec.directors if d.node == facts.node), None)
    if me is None and facts.node not in spec.hosts:
        return PlanState()
    vips, problems = _vips(name, plan, facts, uplinks)
    held = PlanState(
        addresses=frozenset(vip.text for vip in vips),
        uplinks=frozenset(vip.uplink for vip in vips if vip.uplink),
        problems=tuple(problems),
    )
    if me is None:
        return held
    if spec.table_version != TABLE_VERSION:
        message = (
            f"the plan's table version is {spec.table_version}, this daemon knows {TABLE_VERSION}: "
            "bring operator and daemons to the same release"
        )
        return replace(
            held, problems=(*problems, _not_applied(name, TABLE_VERSION_UNKNOWN, message))
        )
    return _Directing(name, plan, facts, uplinks, vips).added_to(held)


def _vips(
    name: str, plan: DSRPlan, facts: Facts, uplinks: Uplinks
) -> tuple[list[Vip], list[PlanNotApplied]]:
    vips, problems = [], []
    for text in plan.spec.vips:
        address = ipaddress.ip_address(text)
        if address in uplinks.own:
            message = (
                f"{address} is an address of this node's own; as a VIP it would take the node off "
                "the network: choose another VIP"
            )
            problems.append(_not_applied(name, "VIPIsNodeAddress", message, str(address)))
            continue
        if what := facts.vital.get(str(address)):
            message = (
                f"{address} is the address of {what}; as a VIP it would cut this node off from it: "
                "choose another VIP"
            )
            problems.append(_not_applied(name, VIP_IS_VITAL, message, str(address)))
            continue
        vips.append(Vip(str(address), address, uplinks.of(address)))
    return vips, problems


def _not_applied(plan: str, reason: str, message: str, vip: str = "") -> PlanNotApplied:
    return PlanNotApplied(plan=plan, reason=reason, message=message, vip=vip)


class _Directing:
    """The director's part of one plan. Everything is derived from what __init__ is given."""

    def __init__(
        self, name: str, plan: DSRPlan, facts: Facts, uplinks: Uplinks, vips: list[Vip]
    ) -> None:
        self.name = name
        self.spec = plan.spec
        self.facts = facts
        self.uplinks = uplinks
        self.vips = vips
        self.links = tuple(dict.fromkeys(vip.uplink for vip in vips if vip.uplink))
        self.others = [d for d in plan.spec.directors if d.node != facts.node]
        self.peer_targets = {d.node: tuple(self._targets_of(d)) for d in self.others}
        self.peer_macs = {
            facts.neighbours.get(target, _UNKNOWN).mac: node
            for node, targets in self.peer_targets.items()
            for target in targets
        }
        up = [d for d in plan.spec.directors if d.node == facts.node or self._is_up(d.node)]
        self.among = announcing(up)

    def added_to(self, held: PlanState) -> PlanState:
        pools: list[Pool] = []
        targets = {t for of_peer in self.peer_targets.values() for t in of_peer}
        problems = [*held.problems, *self._vip_problems()]
        unhealthy: list[UnhealthyBackend] = []
        frontends = tuple(self._frontends())
        for family in sorted({key.family for _, key in frontends}):
            backends = [self._backend(b) for b in self._of_family(family)]
            pools.append(self._pool(family, tuple(b for b, _, _ in backends)))
            targets.update(target for _, target, _ in backends if target)
            unhealthy += [bad for _, _, bad in backends if bad]
            if not backends and self.spec.backends:
                problems.append(self._no_backend_of(family))
        forwarded = {key.vip for key, _ in frontends}
        announced = [
            vip
            for vip in self._to_ask()
            if address16(vip.text) in forwarded and self._is_announced(vip)
        ]
        return replace(
            held,
            targets=frozenset(targets),
            to_ask=frozenset(Target(v.text, v.uplink.index) for v in self._to_ask() if v.uplink),
            announcements=frozenset(self._announcements(announced)),
            announced=tuple((address16(v.text), not self.others) for v in announced),
            vips=frozenset(address16(vip.text) for vip in self.vips if vip.uplink),
            frontends=frontends,
            pools=tuple(pools),
            peers=frozenset(self._peers()),
            attachments=frozenset(self._attachment(link) for link in self.links),
            problems=tuple(problems),
            unhealthy=tuple(unhealthy),
            peers_of_plan=tuple(self.peer_targets),
        )

    # What is forwarded where.

    def _frontends(self) -> Iterator[tuple[FrontendKey, PoolKey]]:
        usable = {vip.text: vip.address.version for vip in self.vips if vip.uplink}
        for frontend in self.spec.frontends:
            vip = str(ipaddress.ip_address(frontend.vip))
            if not 0 < frontend.port < 65536:
                raise ValueError(f"port {frontend.port} of {vip} is not in 1 to 65535")
            if vip in usable:
                key = FrontendKey(address16(vip), _PROTOCOLS[frontend.protocol], frontend.port)
                yield key, PoolKey(self.name, usable[vip])

    def _of_family(self, family: int) -> list[PlanBackend]:
        chosen = (b for b in self.spec.backends if _version(b.address) == family)
        return sorted(chosen, key=lambda b: (address16(b.address), b.node_uid))

    def _backend(
        self, backend: PlanBackend
    ) -> tuple[Backend, Target | None, UnhealthyBackend | None]:
        address = ipaddress.ip_address(backend.address)
        value = Backend(
            BackendKey(address16(backend.address), backend.node_uid), weight=backend.weight
        )
        if address in self.uplinks.own:
            return replace(value, local=True), None, None
        link = next((link for link in self.links if reaches(link, address)), None)
        if link is None:
            bad = self._unhealthy(address, "OutsideSubnet", self._outside())
            return replace(value, failed=True), None, bad
        target = Target(str(address), link.index)
        neighbour = self.facts.neighbours.get(target, _UNKNOWN)
        carrier = carrier_of(link, self.facts.network)
        value = replace(
            value,
            ifindex=carrier.index,
            mac=_mac(neighbour.mac) if neighbour.mac else None,
            source_mac=_mac(link.mac),
            failed=neighbour.alive is not True,
        )
        if neighbour.alive is False:
            message = f"no answer to ARP / NS on {link.name}"
            return value, target, self._unhealthy(address, MAC_NOT_RESOLVED, message)
        if node := self._is_instead(backend, target, neighbour.mac):
            message = (
                f"its MAC {neighbour.mac} is that of LB node {node}, which would send its packets "
                "back: two machines with one address, or a forged answer to ARP / NS"
            )
            bad = self._unhealthy(address, "MACOfLoadBalancer", message)
            return replace(value, failed=True), target, bad
        return value, target, None

    def _is_instead(self, backend: PlanBackend, target: Target, mac: str) -> str:
        """The other LB node that has a backend's MAC without being that backend; "" for none."""
        node = self.peer_macs.get(mac, "") if mac else ""
        if not node or backend.node == node or target in self.peer_targets[node]:
            return ""
        return node

    def _outside(self) -> str:
        names = ", ".join(link.name for link in self.links)
        return (
            f"not in a subnet of {names}: forwarding method L2 rewrites the MAC only, so a backend "
            "must share a segment with the LB node"
        )

    def _unhealthy(self, address: Address, reason: str, message: str) -> UnhealthyBackend:
        return UnhealthyBackend(
            plan=self.name, address=str(address), reason=reason, message=message
        )

    def _no_backend_of(self, family: int) -> PlanNotApplied:
        vips = [v.text for v in self.vips if v.address.version == family]
        message = f"no backend has an IPv{family} address, so nothing can serve {', '.join(vips)}"
        return _not_applied(self.name, NO_BACKEND_OF_FAMILY, message, vips[0])

    def _pool(self, family: int, backends: tuple[Backend, ...]) -> Pool:
        spec = self.spec
        moved_at = None
        if spec.backends_changed_at:
            changed = datetime.fromisoformat(spec.backends_changed_at).timestamp()
            moved_at = max(0, int(changed) - self.facts.epoch)
        previous = sorted(
            (
                PreviousBackend(BackendKey(address16(b.address), b.node_uid), b.weight)
                for b in spec.previous_backends
                if _version(b.address) == family
            ),
            key=lambda b: b.key,
        )
        return Pool(
            PoolKey(self.name, family),
            seed=int(spec.hash_seed, 16),
            size=spec.table_size,
            backends=backends,
            table_version=spec.table_version,
            previous=tuple(previous),
            moved_at=moved_at,
            tcp_idle_s=spec.flow_idle_timeout.tcp_seconds,
            udp_idle_s=spec.flow_idle_timeout.udp_seconds,
            host=self.facts.node in spec.hosts,
        )

    def _attachment(self, link: Link) -> Attachment:
        carrier = carrier_of(link, self.facts.network)
        return Attachment(carrier.name, carrier.index, _mac(carrier.mac))

    # The other directors.

    def _targets_of(self, director: Director) -> Iterator[Target]:
        for text in director.addresses:
            address = ipaddress.ip_address(text)
            for link in self.links:
                if reaches(link, address):
                    yield Target(str(address), link.index)

    def _peers(self) -> Iterator[Peer]:
        for targets in self.peer_targets.values():
            for target in targets:
                mac = self.facts.neighbours.get(target, _UNKNOWN).mac
                if mac:
                    yield Peer(_mac(mac), address16(target.address))

    def _is_up(self, node: str) -> bool:
        """A peer is down when its Lease is stale, or when none of its addresses answers.

        Of one that has no address on a segment of ours the Lease alone tells. (A node on which no
        daemon has ever run has none: the operator does not let it announce.)
        """
        if node in self.facts.stale_peers:
            return False
        known = [self.facts.neighbours.get(t, _UNKNOWN).alive for t in self.peer_targets[node]]
        return not known or any(alive is not False for alive in known)

    # Announcing.

    def _to_ask(self) -> list[Vip]:
        return [vip for vip in self.vips if vip.uplink and self.spec.announcement == "L2"]

    def _is_announced(self, vip: Vip) -> bool:
        answer = self.facts.answers.get(vip.text)
        return (
            answer is not None
            and not self._is_foreign(answer)
            and announcer(vip.text, self.among) == self.facts.node
            and not self._xdp_error(vip)
        )

    def _announcements(self, vips: list[Vip]) -> Iterator[Announcement]:
        for vip in vips:
            if vip.uplink:
                yield Announcement(vip.text, vip.uplink.index, vip.uplink.mac, self.among)

    def _is_foreign(self, mac: str) -> bool:
        """Whether a MAC is neither ours nor another director's."""
        if not mac or mac in self.peer_macs:
            return False
        return mac not in {link.mac for link in self.facts.network.links}

    def _xdp_error(self, vip: Vip) -> str:
        errors = self.facts.xdp_errors
        carrier = carrier_of(vip.uplink, self.facts.network).name if vip.uplink else ""
        return errors.get("", "") or errors.get(carrier, "")

    def _vip_problems(self) -> Iterator[PlanNotApplied]:
        for vip in self.vips:
            if vip.uplink is None:
                message = self.uplinks.missing(vip.address)
                yield _not_applied(self.name, NO_UPLINK, message, vip.text)
            elif error := self._xdp_error(vip):
                yield _not_applied(self.name, DATAPLANE_UNAVAILABLE, error, vip.text)
        for vip in self._to_ask():
            answer = self.facts.answers.get(vip.text, "")
            if self._is_foreign(answer):
                yield self._conflict(vip, answer)

    def _conflict(self, vip: Vip, mac: str) -> PlanNotApplied:
        message = f"{mac} on the segment answers for {vip.text}; not announced while it does"
        for backend in self.spec.backends:
            _, target, _ = self._backend(backend)
            if target and self.facts.neighbours.get(target, _UNKNOWN).mac == mac:
                message += f". It is backend {backend.address}: a real server needs arp_ignore=1"
                break
        return _not_applied(self.name, ADDRESS_CONFLICT, message, vip.text)


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
