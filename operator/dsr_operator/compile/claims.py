"""Who may use which VIP and which frontend.

A VIP must be an address that can be one, lie in a pool that admits the namespace, and be no node's
own: else any tenant could claim the gateway's address (CVE-2020-8554's shape, with an ARP
responder). What is in use stays in use: a pool edited wrongly or a Node that lists a VIP takes no
client's connection away.

One VIP is announced and directed by one set of nodes, so the services that share it agree on the
terms. Who has a VIP or a frontend keeps it; age decides among those who have not. To have a
frontend means that one's own plan has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass

import msgspec
from dsr_api.plan import DSRPlan, Frontend
from dsr_api.service import Announcement, DSRService, DSRServiceSpec, LoadBalancerNodes

from dsr_operator.compile import reasons
from dsr_operator.compile.backends import names
from dsr_operator.compile.inputs import Dissent, Problem, Standing, Terms
from dsr_operator.compile.pools import unfit


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """A service's age; the least one goes first.

    `created` is the RFC 3339 creationTimestamp, whose texts sort as the times do.
    """

    created: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Claimant:
    """A service and what it has.

    - `frontends`: what its spec asks for, on `vips`; `holds`: those of them that its plan has,
      on `held`.
    - `edited`: its spec is not the one its plan was compiled from.
    - `settled`: its plan has been compiled with its present terms.
    """

    uid: str
    claim: Claim
    terms: Terms
    frontends: frozenset[Frontend]
    vips: frozenset[str]
    holds: frozenset[Frontend]
    held: frozenset[str]
    edited: bool
    settled: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What of a service's VIPs and frontends is granted, and why the rest is not.

    `pending`: granted frontends that another service's plan has not let go of yet. `warnings`
    make the service Degraded.
    """

    vips: tuple[str, ...]
    frontends: tuple[Frontend, ...]
    pending: Mapping[Frontend, str]
    refusals: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()


def claimed(spec: DSRServiceSpec) -> tuple[Frontend, ...]:
    """Every frontend that a service asks for, sorted, each once."""
    wanted = {
        Frontend(vip=v, protocol=p.protocol, port=p.port) for v in spec.vips for p in spec.ports
    }
    return tuple(sorted(wanted))


def claimant(service: DSRService, plan: DSRPlan | None, before: Claimant | None) -> Claimant:
    """A service as it claims. `before`: what this gave last time; without, terms count as new.

    A plan of another UID is that of a former service of the same name.
    """
    meta, spec = service.metadata, service.spec
    own = plan.spec if plan and plan.spec.service.uid == meta.uid else None
    frontends = frozenset(claimed(spec))
    holds = frontends & frozenset(own.frontends) if own else frozenset()
    terms = Terms(
        meta.namespace, spec.load_balancer_nodes.node_selector, str(spec.announcement.mode)
    )
    edited = own is not None and own.service.generation != meta.generation
    same = before is not None and (before.uid, before.terms) == (meta.uid, terms)
    return Claimant(
        uid=meta.uid,
        claim=Claim(meta.creation_timestamp, meta.namespace, meta.name),
        terms=terms,
        frontends=frontends,
        vips=frozenset(spec.vips),
        holds=holds,
        held=frozenset(f.vip for f in holds),
        edited=edited,
        settled=own is not None
        and (not edited or (same and before is not None and before.settled)),
    )


def contested(old: Claimant | None, new: Claimant | None) -> Set[Frontend]:
    """Frontends to which the claim of a service is another one than before (None: has none)."""
    if old is None or new is None:
        return frozenset(f for c in (old, new) if c for f in c.frontends)
    if (old.uid, old.terms, old.settled) != (new.uid, new.terms, new.settled):
        return old.frontends | new.frontends
    return (old.frontends ^ new.frontends) | (old.holds ^ new.holds)


class Register:
    """All claims, for one decision: what it has answered once stays so.

    `sharers` gives who asks for a VIP, `grants` whether a pool grants it to a namespace; `owners`:
    which node has which address.
    """

    def __init__(
        self,
        sharers: Callable[[str], Iterable[Claimant]],
        grants: Callable[[str, str], bool],
        owners: Mapping[str, str],
    ) -> None:
        self._sharers = sharers
        self._grants = grants
        self._owners = owners
        self._granted: dict[tuple[str, str], bool] = {}
        self._entitled: dict[str, list[Claimant]] = {}
        self._terms: dict[Claim, tuple[Terms, Dissent | None]] = {}

    def granted(self, vip: str, namespace: str) -> bool:
        """Whether some pool grants the VIP to the namespace."""
        key = (vip, namespace)
        if key not in self._granted:
            self._granted[key] = self._grants(vip, namespace)
        return self._granted[key]

    def entitled(self, vip: str) -> list[Claimant]:
        """Who may have a VIP, as far as pools and nodes go; the first one sets the terms.

        Holders go first, before others those whose terms are carried out; then the oldest. So
        nobody is moved by what somebody else changes.
        """
        if vip not in self._entitled:
            may = [c for c in self._sharers(vip) if self._may(vip, c)]
            may.sort(key=lambda c: (vip not in c.held, not c.settled, c.claim))
            self._entitled[vip] = may
        return self._entitled[vip]

    def leader(self, vip: str) -> tuple[Claim, Terms] | None:
        """Who sets the terms of a VIP, and to what; None if nobody may have it."""
        may = self.entitled(vip)
        return (may[0].claim, self.terms(may[0])[0]) if may else None

    def _may(self, vip: str, who: Claimant) -> bool:
        unowned = vip not in self._owners
        return vip in who.held or (unowned and self.granted(vip, who.terms.namespace))

    def terms(self, who: Claimant) -> tuple[Terms, Dissent | None]:
        """The terms that count for a service, and with whom it disagrees if they are not its own.

        Who holds a VIP together with one that goes first takes over that one's terms. This ends:
        each step leads to a holder that goes before.
        """
        if who.claim not in self._terms:
            self._terms[who.claim] = (who.terms, None)
            for vip in sorted(who.held):
                may = self.entitled(vip)
                if who not in may or may[0].terms.namespace != who.terms.namespace:
                    continue
                theirs = self.terms(may[0])[0]
                if theirs != who.terms:
                    self._terms[who.claim] = (theirs, Dissent(vip, str(may[0].claim), theirs))
                    break
        return self._terms[who.claim]

    def standing(self, who: Claimant) -> Standing:
        """What the claims, pools and nodes leave to a service."""
        terms, follows = self.terms(who)
        conflicts: dict[str, Dissent] = {}
        rivals: dict[Frontend, str] = {}
        for vip in sorted(who.vips):
            may = self.entitled(vip)
            if who not in may:
                continue
            wanted = self.terms(may[0])[0]
            if terms == wanted:
                rivals |= _beaten(who, vip, [c for c in may if self.terms(c)[0] == wanted])
            else:
                conflicts[vip] = Dissent(vip, str(may[0].claim), wanted)
        return Standing(
            outside={v for v in who.vips if not self.granted(v, who.terms.namespace)},
            in_use=who.held,
            edited=who.edited,
            conflicts=conflicts,
            follows=follows,
            rivals=rivals,
        )


def _beaten(who: Claimant, vip: str, agreed: list[Claimant]) -> dict[Frontend, str]:
    """Frontends of a VIP to which another of those who agree has the better claim, and whose."""
    if agreed == [who]:
        return {}
    beaten = {}
    for frontend in (f for f in who.frontends if f.vip == vip):
        rivals = (c for c in agreed if frontend in c.frontends)
        best = min(rivals, key=lambda c: (frontend not in c.holds, c.claim))
        if best is not who:
            beaten[frontend] = str(best.claim)
    return beaten


def as_carried_out(service: DSRService, plan: DSRPlan | None, standing: Standing) -> DSRService:
    """The service with the terms that count for it.

    As long as they are not its own its plan keeps the generation it was compiled from: that is
    how one sees, also after a restart, who has changed its terms.
    """
    follows = standing.follows
    if follows is None or plan is None:
        return service
    generation = plan.spec.service.generation
    return msgspec.structs.replace(
        service,
        metadata=msgspec.structs.replace(service.metadata, generation=generation),
        spec=msgspec.structs.replace(
            service.spec,
            load_balancer_nodes=LoadBalancerNodes(node_selector=follows.terms.directors),
            announcement=msgspec.convert({"mode": follows.terms.announcement}, Announcement),
        ),
    )


def judge(service: DSRService, standing: Standing, owners: Mapping[str, str]) -> Verdict:
    """What the service gets. `owners`: which node has which address."""
    vips = dict.fromkeys(service.spec.vips)
    refused = {v: p for v in vips if (p := _refuse(v, service, standing, owners))}
    granted = [f for f in claimed(service.spec) if f.vip not in refused]
    lost = {f: standing.rivals[f] for f in granted if f in standing.rivals}
    frontends = tuple(f for f in granted if f not in lost)
    kept = {f.vip for f in frontends}
    return Verdict(
        vips=tuple(v for v in vips if v in kept),
        frontends=frontends,
        pending={f: standing.held[f] for f in frontends if f in standing.held},
        refusals=(
            *refused.values(),
            *(_conflict(f, winner) for f, winner in lost.items()),
            *_reservations(service, standing, [v for v in vips if v in kept]),
        ),
        warnings=tuple(
            Problem(
                reasons.VIP_IS_NODE_ADDRESS,
                f"node {owners[vip]} lists VIP {vip} in status.addresses: see why"
                " (kubelet --node-ip), it may be taken from lo",
            )
            for vip in vips
            if vip in kept and vip in owners
        ),
    )


def _refuse(
    vip: str, service: DSRService, standing: Standing, owners: Mapping[str, str]
) -> Problem | None:
    if reason := unfit(vip):
        return Problem(reasons.INVALID_VIP, f"VIP {vip} {reason}")
    if vip in owners and vip not in standing.in_use:
        return Problem(
            reasons.VIP_IS_NODE_ADDRESS,
            f"VIP {vip} is an address of node {owners[vip]}: choose one that nothing else has",
        )
    if vip in standing.outside and (standing.edited or vip not in standing.in_use):
        return Problem(
            reasons.VIP_OUTSIDE_POOLS,
            f"VIP {vip} is in no DSRAddressPool that admits namespace {service.metadata.namespace}:"
            f" choose another, or have an administrator admit it{_ignored(standing)}",
        )
    if dissent := standing.conflicts.get(vip):
        return Problem(
            reasons.VIP_CONFLICT,
            f"VIP {vip} belongs to DSRService {dissent.holder}, {_contrast(service, dissent.terms)}"
            " choose another VIP",
        )
    return None


def _conflict(frontend: Frontend, winner: str) -> Problem:
    return Problem(
        reasons.FRONTEND_CONFLICT,
        f"{frontend.vip} {frontend.port}/{frontend.protocol} belongs to DSRService {winner}:"
        " choose another VIP or port",
    )


def _reservations(
    service: DSRService, standing: Standing, kept: Iterable[str]
) -> Iterable[Problem]:
    """What is served although it would not be granted today."""
    for vip in kept:
        if vip in standing.outside:
            yield Problem(
                reasons.VIP_OUTSIDE_POOLS,
                f"VIP {vip} is no longer granted by any pool: it is served until the spec of this"
                " DSRService changes; have an administrator admit it to namespace"
                f" {service.metadata.namespace} again, or choose another{_ignored(standing)}",
            )
    if standing.follows is not None:
        theirs = standing.follows
        yield Problem(
            reasons.VIP_CONFLICT,
            f"VIP {theirs.vip} is shared with DSRService {theirs.holder}, whose terms go on being"
            f" carried out here as well, {_contrast(service, theirs.terms)} choose another VIP",
        )


def _ignored(standing: Standing) -> str:
    return f"; ignored: {names(standing.ignored)}" if standing.ignored else ""


def _contrast(service: DSRService, theirs: Terms) -> str:
    """In what a service differs from the terms of a VIP, and what to do about that."""
    if service.metadata.namespace != theirs.namespace:
        return "which is in another namespace:"
    same_nodes = service.spec.load_balancer_nodes.node_selector == theirs.directors
    field = "announcement.mode" if same_nodes else "loadBalancerNodes"
    return f"which has another {field}: make it the same in both, or"
