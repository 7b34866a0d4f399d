"""What a node's kernel holds of networking, so that before and after can be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping

from lab.node import Node

Snapshot = Mapping[str, str]
"""Each thing by a name that identifies it, with its value: equal snapshots, equal kernels."""

SYSCTLS = r"^net\.(ipv4|ipv6)\.(conf|neigh|ip_forward)"


def take(node: Node) -> Snapshot:
    """Addresses, link state, XDP programs, multicast groups, sysctls, routes, rules, nftables, tc
    and everything in the bpffs of a node."""
    held: dict[str, str] = {}
    for link in json.loads(node.run(["ip", "-json", "-details", "addr", "show"])):
        held |= _of_link(link)
    for line in node.run(["sysctl", "-a", "-r", SYSCTLS]).splitlines():
        name, _, value = line.partition(" = ")
        held[f"sysctl {name}"] = value
    for what, argv in LISTINGS.items():
        for line in node.run(argv).splitlines():
            held[f"{what} {line.strip()}"] = ""
    return held


LISTINGS = {
    "route": ["ip", "route", "show", "table", "all"],
    "route6": ["ip", "-6", "route", "show", "table", "all"],
    "rule": ["ip", "rule"],
    "permanent neighbour": ["ip", "neigh", "show", "nud", "permanent"],
    "group": ["ip", "-oneline", "maddress", "show"],
    "tc": ["tc", "qdisc", "show"],
    "nftables": ["nft", "list", "ruleset"],
    "bpffs": ["find", "/sys/fs/bpf", "-mindepth", "1", "-not", "-name", "*.debug"],
}


def _of_link(link: Mapping[str, object]) -> dict[str, str]:
    name = link["ifname"]
    held = {f"flags of {name}": str(link["flags"]), f"XDP on {name}": str(link.get("xdp", "none"))}
    for each in ("promiscuity", "allmulti", "mtu", "address"):
        held[f"{each} of {name}"] = str(link.get(each))
    addresses = link["addr_info"]
    assert isinstance(addresses, list)  # noqa: S101  iproute2 says so
    for each in addresses:
        held[f"address {each['local']}/{each['prefixlen']} on {name}"] = each.get("label", "")
    return held


def without_maps(held: Snapshot) -> Snapshot:
    """All but the bpffs: a running daemon keeps its maps, empty, for the next service."""
    return {name: value for name, value in held.items() if not name.startswith("bpffs ")}


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """What has come, gone or changed, sorted; empty if nothing has."""
    changes = [f"gone: {each}" for each in before.keys() - after.keys()]
    changes += [f"new: {each} {after[each]}".rstrip() for each in after.keys() - before.keys()]
    changes += [
        f"changed: {each}: {before[each]} -> {after[each]}"
        for each in before.keys() & after.keys()
        if before[each] != after[each]
    ]
    return sorted(changes)
