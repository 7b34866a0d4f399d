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

from dsr_api.plan import DSRPlan, Frontend
from dsr_api.service import DSRService, DSRServiceSpec

from dsr_operator.compile.inputs import Dissent, Standing, Terms


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
