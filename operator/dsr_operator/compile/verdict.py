"""What of a service's VIPs and frontends is granted, and what it is told about the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec
from dsr_api.plan import DSRPlan, Frontend
from dsr_api.service import Announcement, DSRService, LoadBalancerNodes

from dsr_operator.compile import reasons
from dsr_operator.compile.backends import names
from dsr_operator.compile.claims import claimed
from dsr_operator.compile.inputs import Problem, Standing, Terms
from dsr_operator.compile.pools import unfit


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
