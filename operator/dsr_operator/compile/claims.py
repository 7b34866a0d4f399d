"""Who may use which VIP and which frontend.

A VIP must be an address that can be one, lie in a pool that admits the namespace, and be no node's
own: else any tenant could claim the gateway's address (CVE-2020-8554's shape, with an ARP
responder). Of two services that claim the same frontend the older one keeps it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dsr_api.base import LabelSelector
from dsr_api.plan import Frontend
from dsr_api.pool import DSRAddressPool
from dsr_api.service import DSRService, DSRServiceSpec

from dsr_operator.compile import reasons
from dsr_operator.compile.inputs import Problem, Standing

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Pool:
    """A DSRAddressPool, parsed: inclusive ranges of addresses."""

    name: str
    ranges: tuple[tuple[Address, Address], ...]
    selector: LabelSelector

    def admits(self, vip: Address, labels: Mapping[str, str]) -> bool:
        """Whether this pool grants the VIP to a namespace with these labels."""
        held = any(
            low.version == vip.version and int(low) <= int(vip) <= int(high)
            for low, high in self.ranges
        )
        return held and self.selector.matches(labels)


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """A service's rank among those who claim a frontend; the least one has it.

    `created` is the RFC 3339 creationTimestamp, whose texts sort as the times do.
    """

    created: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What of a service's VIPs and frontends is granted, and why the rest is not.

    `pending`: granted frontends that another service's plan has not let go of yet.
    """

    vips: tuple[str, ...]
    frontends: tuple[Frontend, ...]
    pending: Mapping[Frontend, str]
    refusals: tuple[Problem, ...]


def parse_pool(pool: DSRAddressPool) -> Pool:
    """Raises ValueError, naming the entry, if one of the addresses is no prefix and no range."""
    ranges = tuple(_parse_range(text) for text in pool.spec.addresses)
    return Pool(pool.metadata.name, ranges, pool.spec.namespace_selector)


def _parse_range(text: str) -> tuple[Address, Address]:
    low_text, dash, high_text = text.partition("-")
    try:
        if not dash:
            network = ipaddress.ip_network(text.strip(), strict=False)
            return network[0], network[-1]
        low = ipaddress.ip_address(low_text.strip())
        high = ipaddress.ip_address(high_text.strip())
    except ValueError as error:
        raise ValueError(f"{text!r} is neither a prefix nor a range: {error}") from error
    if low.version != high.version or int(low) > int(high):
        raise ValueError(f"{text!r} is no range: write the lower address first")
    return low, high


def claimed(spec: DSRServiceSpec) -> tuple[Frontend, ...]:
    """Every frontend that a service asks for, sorted, each once."""
    wanted = {
        Frontend(vip=v, protocol=p.protocol, port=p.port) for v in spec.vips for p in spec.ports
    }
    return tuple(sorted(wanted))


def claim(service: DSRService) -> Claim:
    """The rank of a service."""
    meta = service.metadata
    return Claim(meta.creation_timestamp, meta.namespace, meta.name)


def best(claims: Iterable[Claim]) -> Claim | None:
    """Who has the frontend: the oldest, ties by namespace and name."""
    return min(claims, default=None)


def grantable(vip: str, labels: Mapping[str, str], pools: Sequence[Pool]) -> bool:
    """Whether the VIP can be one at all and some pool grants it to a namespace with these labels.

    Who is refused here has no claim that could keep a frontend from others.
    """
    if unfit(vip) is not None:
        return False
    address = ipaddress.ip_address(vip)
    return any(pool.admits(address, labels) for pool in pools)


def unfit(vip: str) -> str | None:
    """Why a text cannot be a VIP; None if it can. The second line behind the CRD's CEL rules."""
    try:
        address = ipaddress.ip_address(vip)
    except ValueError:
        return "is no IP address"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return f"is an IPv4-mapped address: write {address.ipv4_mapped}"
        if address.scope_id is not None:
            return "has a zone: write the address alone"
    if str(address) != vip:
        return f"is not in canonical form: write {address}"
    return _unusable_kind(address)


def _unusable_kind(address: Address) -> str | None:
    kinds = {
        "is a multicast address": address.is_multicast,
        "is a loopback address": address.is_loopback,
        "is the unspecified address": address.is_unspecified,
        "is a link-local address": address.is_link_local,
        "is the broadcast address": str(address) == "255.255.255.255",
    }
    reason = next((text for text, holds in kinds.items() if holds), None)
    return f"{reason}: choose a unicast address" if reason else None


def judge(service: DSRService, standing: Standing, owners: Mapping[str, str]) -> Verdict:
    """What the service gets. `owners`: which node has which address."""
    refused = {
        vip: problem
        for vip in service.spec.vips
        if (problem := _refuse(vip, service, standing, owners))
    }
    granted = [f for f in claimed(service.spec) if f.vip not in refused]
    lost = {f: standing.rivals[f] for f in granted if f in standing.rivals}
    frontends = tuple(f for f in granted if f not in lost)
    kept = {f.vip for f in frontends}
    return Verdict(
        vips=tuple(dict.fromkeys(v for v in service.spec.vips if v in kept)),
        frontends=frontends,
        pending={f: standing.held[f] for f in frontends if f in standing.held},
        refusals=(*refused.values(), *(_conflict(f, winner) for f, winner in lost.items())),
    )


def _refuse(
    vip: str, service: DSRService, standing: Standing, owners: Mapping[str, str]
) -> Problem | None:
    if reason := unfit(vip):
        return Problem(reasons.INVALID_VIP, f"VIP {vip} {reason}")
    if vip in owners:
        return Problem(
            reasons.VIP_IS_NODE_ADDRESS,
            f"VIP {vip} is an address of node {owners[vip]}: choose one that nothing else has",
        )
    if vip in standing.outside:
        return Problem(
            reasons.VIP_OUTSIDE_POOLS,
            f"VIP {vip} is in no DSRAddressPool that admits namespace {service.metadata.namespace}:"
            " choose another, or have an administrator admit it",
        )
    return None


def _conflict(frontend: Frontend, winner: str) -> Problem:
    return Problem(
        reasons.FRONTEND_CONFLICT,
        f"{frontend.vip} {frontend.port}/{frontend.protocol} belongs to the older DSRService"
        f" {winner}: choose another VIP or port",
    )
