"""Which addresses can be VIPs, and which namespaces the DSRAddressPools grant them to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dsr_api.base import LabelSelector
from dsr_api.pool import DSRAddressPool

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Pool:
    """A DSRAddressPool, parsed: inclusive ranges of addresses, and what is wrong with the rest.

    A bad entry is left out by itself: the others may have VIPs that clients use.
    """

    name: str
    ranges: tuple[tuple[Address, Address], ...]
    selector: LabelSelector
    ignored: tuple[str, ...] = ()

    def admits(self, vip: Address, labels: Mapping[str, str]) -> bool:
        """Whether this pool grants the VIP to a namespace with these labels."""
        held = any(
            low.version == vip.version and int(low) <= int(vip) <= int(high)
            for low, high in self.ranges
        )
        return held and self.selector.matches(labels)


def parse_pool(pool: DSRAddressPool) -> Pool:
    """Never raises: what is no prefix and no range is named in `ignored`."""
    ranges, ignored = [], []
    for text in pool.spec.addresses:
        try:
            ranges.append(_parse_range(text))
        except ValueError as error:
            ignored.append(str(error))
    return Pool(pool.metadata.name, tuple(ranges), pool.spec.namespace_selector, tuple(ignored))


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


def grantable(vip: str, labels: Mapping[str, str], pools: Iterable[Pool]) -> bool:
    """Whether the VIP can be one at all and some pool grants it to a namespace with these labels.

    Who is refused here has no claim that could keep a frontend from others.
    """
    if unfit(vip) is not None:
        return False
    address = ipaddress.ip_address(vip)
    return any(pool.admits(address, labels) for pool in pools)


def ignored(labels: Mapping[str, str], pools: Iterable[Pool]) -> tuple[str, ...]:
    """The bad entries of the pools that admit a namespace with these labels, with their pools."""
    return tuple(
        f"DSRAddressPool {pool.name}: {entry}"
        for pool in sorted(pools, key=lambda p: p.name)
        if pool.ignored and pool.selector.matches(labels)
        for entry in pool.ignored
    )


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
