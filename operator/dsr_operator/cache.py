"""What the watches have told: the present objects, and which services an event concerns.

Fed by watch events and by the answers to our own writes. One event wakes only the services whose
outcome it can change; heartbeats of Nodes and Leases wake nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from dsr_api.base import ApiStruct, Metadata, decode
from dsr_api.node import DSRNode
from dsr_api.plan import DSRPlan, Frontend, plan_name
from dsr_api.pool import DSRAddressPool
from dsr_api.service import DSRService, DSRServiceStatus

from dsr_operator import kinds
from dsr_operator.compile.claims import Claim, Claimant, Register, claimant, contested
from dsr_operator.compile.handover import await_others
from dsr_operator.compile.history import History, advance
from dsr_operator.compile.inputs import (
    Clock,
    CoreService,
    Inputs,
    ServiceKey,
    Standing,
    Terms,
    World,
)
from dsr_operator.compile.pools import Pool, grantable, ignored, parse_pool
from dsr_operator.core import EndpointSlice, Node, NodeView, canonical_address, node_view
from dsr_operator.index import Index
from dsr_operator.interests import Interests
from dsr_operator.kinds import Kind
from dsr_operator.reports import Reports

log = logging.getLogger(__name__)

ObjectKey = tuple[str, str]
"""(namespace, name); the namespace is "" for cluster-scoped objects."""


@dataclass(frozen=True, slots=True)
class Version:
    """Which edition of an object the cache holds."""

    uid: str
    revision: int


@dataclass(frozen=True, slots=True)
class Invalid:
    """A DSRService that this release cannot read."""

    metadata: Metadata
    status: DSRServiceStatus
    message: str


class Bare(ApiStruct, frozen=True):
    """An object of which only the metadata matter."""

    metadata: Metadata


MODELS: Mapping[Kind, type[ApiStruct]] = {
    kinds.POOL: DSRAddressPool,
    kinds.PLAN: DSRPlan,
    kinds.REPORT: DSRNode,
    kinds.NODE: Node,
    kinds.NAMESPACE: Bare,
    kinds.SLICE: EndpointSlice,
}
"""How the objects of a kind are read. Of DSRServices even the unreadable ones are kept, and of core
Services it matters only whether they are there."""


class Cache:
    """All state of the operator that comes from the API server. Used from one event loop only.

    `wake` is called with the services that an event concerns; `now` gives steady seconds.
    """

    def __init__(
        self, wake: Callable[[Iterable[ServiceKey]], None], now: Callable[[], float]
    ) -> None:
        self._wake = wake
        self._now = now
        self.versions: dict[Kind, dict[ObjectKey, Version]] = {kind: {} for kind in kinds.WATCHED}
        self.services: dict[ServiceKey, DSRService] = {}
        self.invalid: dict[ServiceKey, Invalid] = {}
        self.plans: dict[str, DSRPlan] = {}
        self.unread_plans: dict[str, str] = {}
        self.histories: dict[str, History] = {}
        self.pools: dict[str, Pool] = {}
        self._reports = Reports()
        self.reports = self._reports.counting
        self.nodes: dict[str, NodeView] = {}
        self.owners: dict[str, str] = {}
        self.namespaces: dict[str, dict[str, str]] = {}
        self.slices: dict[ObjectKey, EndpointSlice] = {}
        self.live: set[str] = set()
        self._claimants: dict[ServiceKey, Claimant] = {}
        self.world = World(self.nodes, self.owners, self.reports, self.live, self._reports.outdated)
        self._claims: Index[Frontend, ServiceKey] = Index()
        self._sharers: Index[str, ServiceKey] = Index()
        self._plans_on: Index[str, str] = Index()
        self._referring: Index[ObjectKey, ServiceKey] = Index()
        self._slices_of: Index[ObjectKey, ObjectKey] = Index()
        self._slices_with: Index[str, ObjectKey] = Index()
        self._interests = Interests()
        self._awaiting: Index[str, ServiceKey] = Index()
        self._involving: Index[str, ServiceKey] = Index()
        self._take: dict[Kind, Callable[[ObjectKey, Any], Iterable[ServiceKey]]] = {
            kinds.SERVICE: self._take_service,
            kinds.POOL: self._take_pool,
            kinds.PLAN: self._take_plan,
            kinds.REPORT: self._take_report,
            kinds.NODE: self._take_node,
            kinds.NAMESPACE: self._take_namespace,
            kinds.CORE_SERVICE: self._take_core_service,
            kinds.SLICE: self._take_slice,
        }

    # Feeding

    def put(self, kind: Kind, document: Mapping[str, Any]) -> None:
        """An object as the API server has it now. One older than what is known changes nothing."""
        meta = document["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        version = Version(meta["uid"], int(meta["resourceVersion"]))
        known = self.versions[kind].get(key)
        if known is not None and known.revision >= version.revision:
            return
        self.versions[kind][key] = version
        self._wake(self._read(kind, key, document))

    def _read(
        self, kind: Kind, key: ObjectKey, document: Mapping[str, Any]
    ) -> Iterable[ServiceKey]:
        """Take an object in. What cannot be read is not gone: what was known before counts on."""
        try:
            value = decode(MODELS[kind], document) if kind in MODELS else document
        except msgspec.ValidationError as error:
            log.warning("%s %s cannot be read and stays as known: %s", kind.name, key[1], error)
            if kind is not kinds.PLAN:
                return ()
            self.unread_plans[key[1]] = str(error)
            return {_service_of(key[1])}
        return self._take[kind](key, value)

    def drop(self, kind: Kind, document: Mapping[str, Any]) -> None:
        """An object is deleted. One that has been made again in the meantime stays."""
        meta = document["metadata"]
        self.forget(kind, (meta.get("namespace", ""), meta["name"]), meta["uid"])

    def forget(self, kind: Kind, key: ObjectKey, uid: str) -> None:
        """Like drop, by key."""
        known = self.versions[kind].get(key)
        if known is not None and known.uid == uid:
            del self.versions[kind][key]
            self._wake(self._take[kind](key, None))

    def set_live(self, nodes: Iterable[str]) -> None:
        """The nodes whose Lease is fresh are now these."""
        new = set(nodes)
        changed = new ^ self.live
        self.live.clear()
        self.live.update(new)
        for node in changed:
            self._wake(self._involving[node] | self._awaiting[node])

    def note(self, key: ServiceKey, awaits: Iterable[str]) -> None:
        """Which nodes' next reports may change the outcome for a service, as compiled just now."""
        self._awaiting.put(key, awaits)

    def distrust_histories(self) -> None:
        """Count all acknowledgements from the plans' present revisions: others may have written."""
        now = self._now()
        for name, plan in self.plans.items():
            self.histories[name] = advance(
                History(), None, plan.spec, int(plan.metadata.resource_version), now
            )

    # Asking

    def keys(self) -> set[ServiceKey]:
        """Every service that there is, or of which there is a plan."""
        orphans = {(p.spec.service.namespace, p.spec.service.name) for p in self.plans.values()}
        unread = {_service_of(name) for name in self.unread_plans}
        return orphans | unread | set(self.services) | set(self.invalid)

    def inputs(self, key: ServiceKey, clock: Clock) -> Inputs:
        """What compile_service() needs about one service."""
        name = plan_name(*key)
        service = self.services.get(key)
        return Inputs(
            service=service,
            plan=self.plans.get(name),
            history=self.histories.get(name, History()),
            world=self.world,
            standing=self._standing(key, clock) if service else Standing(),
            core_service=self._core_service(service) if service else CoreService(),
            clock=clock,
        )

    def _standing(self, key: ServiceKey, clock: Clock) -> Standing:
        who = self._claimants[key]
        names = set().union(*(self._plans_on[vip] for vip in who.vips)) - {plan_name(*key)}
        others = [(self.plans[name], self.histories[name]) for name in sorted(names)]
        handover = await_others(who.frontends, others, self.world, clock)
        return replace(
            self._register().standing(who),
            ignored=ignored(self.namespaces.get(key[0], {}), self.pools.values()),
            held=handover.held,
            awaits=handover.awaits,
            deadlines=tuple(handover.deadlines),
        )

    def _register(self) -> Register:
        return Register(
            lambda vip: (self._claimants[k] for k in self._sharers[vip]),
            self._grantable,
            self.owners,
        )

    def _grantable(self, vip: str, namespace: str) -> bool:
        return grantable(vip, self.namespaces.get(namespace, {}), self.pools.values())

    def _core_service(self, service: DSRService) -> CoreService:
        reference = service.spec.backends.service
        if reference is None:
            return CoreService()
        key = (service.metadata.namespace, reference.name)
        slices = [self.slices[s] for s in sorted(self._slices_of[key])]
        return CoreService(key in self.versions[kinds.CORE_SERVICE], tuple(slices))

    # One kind each: take an object in (None: it is gone), return the services concerned

    def _take_service(
        self, key: ObjectKey, document: Mapping[str, Any] | None
    ) -> Iterable[ServiceKey]:
        self.services.pop(key, None)
        self.invalid.pop(key, None)
        reference = None
        if document is not None:
            try:
                service = decode(DSRService, document)
            except msgspec.ValidationError as error:
                meta = msgspec.convert(document["metadata"], Metadata)
                self.invalid[key] = Invalid(meta, _status(document), str(error))
            else:
                self.services[key] = service
                reference = service.spec.backends.service
        self._referring.put(key, [(key[0], reference.name)] if reference else [])
        known = self.services.get(key)
        self._interests.put(key, known.spec if known else None)
        return {key} | self._claim_anew(key)

    def _claim_anew(self, key: ServiceKey) -> set[ServiceKey]:
        """Take in what a service claims and holds by now; whom a change of that concerns."""
        old = self._claimants.get(key)
        service = self.services.get(key)
        new = claimant(service, self.plans.get(plan_name(*key)), old) if service else None
        if new == old:
            return set()
        vips = {v for c in (old, new) if c for v in c.vips}
        led = self._terms_on(vips)
        if new is not None:
            self._claimants[key] = new
        else:
            del self._claimants[key]
        self._claims.put(key, new.frontends if new else ())
        self._sharers.put(key, new.vips if new else ())
        now = self._terms_on(vips)
        return set().union(
            *(self._claims[f] for f in contested(old, new)),
            *(self._sharers[v] for v in vips if now[v] != led[v]),
        )

    def _terms_on(self, vips: Iterable[str]) -> dict[str, tuple[Claim, Terms] | None]:
        register = self._register()
        return {vip: register.leader(vip) for vip in vips}

    def _take_plan(self, key: ObjectKey, plan: DSRPlan | None) -> Iterable[ServiceKey]:
        name = key[1]
        old = self.plans.pop(name, None)
        self.unread_plans.pop(name, None)
        history = self.histories.pop(name, History())
        before = (old.spec.frontends, old.spec.vips) if old else ((), ())
        if plan is None:
            service = old.spec.service if old else None
        else:
            self.plans[name] = plan
            revision = int(plan.metadata.resource_version)
            same = old if old and old.metadata.uid == plan.metadata.uid else None
            if same is None:
                history = History()
            self.histories[name] = advance(
                history, same.spec if same else None, plan.spec, revision, self._now()
            )
            service = plan.spec.service
        if service is None:
            return {_service_of(name)}
        owner = (service.namespace, service.name)
        self._involving.put(owner, involved(plan) if plan else ())
        after = (plan.spec.frontends, plan.spec.vips) if plan else ((), ())
        self._plans_on.put(name, {*after[1], *(f.vip for f in after[0])})
        return {owner}.union(
            self._claim_anew(owner),
            *(self._claims[f] for f in {*before[0]} - {*after[0]}),
            *(self._sharers[v] for v in {*before[1]} - {*after[1]}),
        )

    def _take_pool(self, key: ObjectKey, pool: DSRAddressPool | None) -> Iterable[ServiceKey]:
        self.pools.pop(key[1], None)
        if pool is not None:
            parsed = self.pools[key[1]] = parse_pool(pool)
            for entry in parsed.ignored:
                log.warning("DSRAddressPool %s: ignored: %s", key[1], entry)
        return self.services

    def _take_report(self, key: ObjectKey, report: DSRNode | None) -> Iterable[ServiceKey]:
        name = key[1]
        news = self._reports.take(name, report, self.nodes.get(name))
        woken = {_service_of(plan) for plan in news.plans}
        if news.ahead:
            woken |= self._awaiting[name]
        if news.all:
            woken |= self._involving[name]
        return woken

    def _take_node(self, key: ObjectKey, node: Node | None) -> Iterable[ServiceKey]:
        old = self.nodes.pop(key[1], None)
        view = node_view(node) if node else None
        if view is not None:
            self.nodes[key[1]] = view
        self._reports.weigh(key[1], view)
        if view == old:
            return ()
        self.owners.clear()
        for name in sorted(self.nodes, reverse=True):
            self.owners.update(dict.fromkeys(self.nodes[name].addresses, name))
        return self._concerned_by(key[1], [v for v in (old, view) if v])

    def _concerned_by(self, node: str, views: Sequence[NodeView]) -> set[ServiceKey]:
        """The services to which it matters how a Node was, or is."""
        addresses = {address for view in views for address in view.addresses}
        slices = set().union(*(self._slices_with[a] for a in addresses))
        served = {s for piece in slices for s in self._slices_of.keys_of(piece)}
        planned = {v for k in self._involving[node] for v in self._plans_on.keys_of(plan_name(*k))}
        return set().union(
            self._involving[node],
            self._interests.selecting(view.labels for view in views),
            self._interests.naming(addresses),
            *(self._referring[s] for s in served),
            *(self._sharers[vip] for vip in addresses | planned),
        )

    def _take_namespace(self, key: ObjectKey, namespace: Bare | None) -> Iterable[ServiceKey]:
        old = self.namespaces.pop(key[1], None)
        if namespace is not None:
            self.namespaces[key[1]] = namespace.metadata.labels
        if self.namespaces.get(key[1]) == old:
            return ()
        concerned = {k for k in self.services if k[0] == key[1]}
        vips = (v for k in concerned for v in self._sharers.keys_of(k))
        return concerned.union(*(self._sharers[v] for v in vips))

    def _take_core_service(
        self,
        key: ObjectKey,
        document: Mapping[str, Any] | None,  # noqa: ARG002 - one shape for all
    ) -> Iterable[ServiceKey]:
        return self._referring[key]

    def _take_slice(self, key: ObjectKey, piece: EndpointSlice | None) -> Iterable[ServiceKey]:
        self.slices.pop(key, None)
        if piece is not None:
            self.slices[key] = piece
        self._slices_with.put(key, _addresses(piece) if piece else ())
        services = self._slices_of.put(key, [(key[0], piece.service)] if piece else [])
        return set().union(*(self._referring[s] for s in services))


def _status(document: Mapping[str, Any]) -> DSRServiceStatus:
    """The status of an object whose spec cannot be read; empty if that is unreadable as well."""
    try:
        return msgspec.convert(document.get("status", {}), DSRServiceStatus)
    except msgspec.ValidationError:
        return DSRServiceStatus()


def _addresses(piece: EndpointSlice) -> set[str]:
    listed = (canonical_address(e.addresses[0]) for e in piece.endpoints or () if e.addresses)
    return {address for address in listed if address}


def involved(plan: DSRPlan) -> set[str]:
    """The nodes that a plan names."""
    spec = plan.spec
    return {*(d.node for d in spec.directors), *spec.hosts, *spec.former_directors}


def _service_of(plan: str) -> ServiceKey:
    namespace, _, name = plan.partition(".")
    return namespace, name
