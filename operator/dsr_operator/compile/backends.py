"""Which real servers a DSRService has, from whichever source it names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from dsr_api.base import WEIGHT_ANNOTATION, LabelSelector
from dsr_api.service import BackendAddress, DSRServiceSpec

from dsr_operator.compile import reasons
from dsr_operator.compile.inputs import CoreService, Problem, World
from dsr_operator.core import Endpoint, NodeView, canonical_address, family

MAX_WEIGHT = 65535
NAMED = 5
"""Names that a message lists before it says how many more there are."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A real server that the source names. `node` is set where a daemon of ours serves it."""

    address: str
    weight: int = 1
    node: str = ""
    node_uid: str = ""

    @property
    def identity(self) -> tuple[str, str]:
        """What makes it the same backend over time: a new machine on an old address is another."""
        return self.address, self.node_uid


@dataclass
class Resolution:
    """`problems` make ResolvedRefs false; `warnings` make the service Degraded."""

    backends: dict[tuple[str, str], Wanted] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def add(self, wanted: Wanted) -> None:
        """Take a real server in; the first of two with one identity stays."""
        self.backends.setdefault(wanted.identity, wanted)


def names(items: Iterable[str], separator: str = ", ") -> str:
    """A list for a message: the first NAMED items, and how many more there are."""
    listed = list(items)
    shown = separator.join(listed[:NAMED])
    return shown if len(listed) <= NAMED else f"{shown} and {len(listed) - NAMED} more"


def select(selector: LabelSelector, nodes: Mapping[str, NodeView]) -> list[NodeView]:
    """The nodes that match, by name. Raises ValueError for an operator Kubernetes lacks."""
    return sorted((n for n in nodes.values() if selector.matches(n.labels)), key=lambda n: n.name)


def resolve(
    spec: DSRServiceSpec, vips: Iterable[str], core: CoreService, world: World
) -> Resolution:
    """The real servers for `vips` (the granted ones), of their address families only."""
    found = Resolution()
    families = {family(v) for v in vips}
    source = spec.backends
    if source.node_selector is not None:
        _from_nodes(source.node_selector, families, world, found)
    elif source.service is not None:
        _from_service(spec, families, core, world, found)
    else:
        _from_addresses(source.addresses or (), spec, families, world, found)
    present = {family(w.address) for w in found.backends.values()}
    if not found.problems:
        found.problems.extend(
            Problem(
                reasons.NO_BACKEND_OF_FAMILY,
                f"no backend has an IPv{missing} address, which the IPv{missing} VIPs need:"
                " give the backends one, or remove those VIPs",
            )
            for missing in sorted(families - present)
        )
    return found


def _from_nodes(
    selector: LabelSelector, families: Set[int], world: World, found: Resolution
) -> None:
    try:
        chosen = select(selector, world.nodes)
    except ValueError as error:
        found.problems.append(Problem(reasons.INVALID_SELECTOR, f"backends.nodeSelector: {error}"))
        return
    if not chosen:
        found.problems.append(
            Problem(
                reasons.NODE_SELECTOR_EMPTY,
                "backends.nodeSelector matches no Node: label the nodes, or correct the selector",
            )
        )
    for node in chosen:
        weight = _node_weight(node, found)
        for address in _one_of_each_family(node.internal):
            if family(address) in families:
                found.add(Wanted(address, weight, node.name, node.uid))


def _one_of_each_family(addresses: Iterable[str]) -> list[str]:
    first: dict[int, str] = {}
    for address in addresses:
        first.setdefault(family(address), address)
    return list(first.values())


def _node_weight(node: NodeView, found: Resolution) -> int:
    if node.weight is None:
        return 1
    text = node.weight.strip()
    if text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= MAX_WEIGHT:
        return int(text)
    problem = Problem(
        reasons.INVALID_WEIGHT,
        f"node {node.name}: annotation {WEIGHT_ANNOTATION} is {node.weight[:40]!r}, which is no"
        f" number from 0 to {MAX_WEIGHT}; weight 1 is used",
    )
    if problem not in found.warnings:
        found.warnings.append(problem)
    return 1


def _from_service(
    spec: DSRServiceSpec, families: Set[int], core: CoreService, world: World, found: Resolution
) -> None:
    name = spec.backends.service.name if spec.backends.service else ""
    if not core.exists:
        found.problems.append(
            Problem(
                reasons.SERVICE_NOT_FOUND,
                f"Service {name} does not exist in this namespace: create it, or correct the name",
            )
        )
        return
    endpoints = _by_address(core)
    if not endpoints:
        found.problems.append(
            Problem(
                reasons.SERVICE_WITHOUT_ENDPOINTS,
                f"Service {name} has no endpoints: check that its selector matches running pods",
            )
        )
        return
    strangers = []
    for address, draining in sorted(endpoints.items()):
        node = world.nodes.get(world.owners.get(address, ""))
        if node is None:
            strangers.append(address)
        elif family(address) in families:
            weight = 0 if draining else _node_weight(node, found)
            found.add(Wanted(address, weight, node.name, node.uid))
    if strangers:
        found.problems.append(
            Problem(
                reasons.ENDPOINT_NOT_A_NODE,
                f"Service {name} has endpoints that are no node's address: {names(strangers)};"
                " forwarding by L2 reaches host-network pods only (hostNetwork: true)",
            )
        )
    _check_ports(name, spec, core, found)


def _by_address(core: CoreService) -> dict[str, bool]:
    """Usable endpoint address -> whether it drains. Of several entries the best one counts."""
    state: dict[str, bool] = {}
    for piece in core.slices:
        if piece.address_type not in ("IPv4", "IPv6"):
            continue
        for endpoint in piece.endpoints or ():
            address = canonical_address(endpoint.addresses[0]) if endpoint.addresses else None
            draining = _drains(endpoint)
            if address is not None and draining is not None:
                state[address] = state.get(address, True) and draining
    return state


def _drains(endpoint: Endpoint) -> bool | None:
    """False: takes connections; True: keeps its old ones only; None: not to be used.

    The API reads an absent `ready` or `serving` as true (discovery/v1, EndpointConditions).
    """
    conditions = endpoint.conditions
    ready = conditions.ready is not False
    serving = ready if conditions.serving is None else conditions.serving
    if conditions.terminating:
        return True if serving else None
    return False if ready else None


def _check_ports(name: str, spec: DSRServiceSpec, core: CoreService, found: Resolution) -> None:
    open_ports = {
        (port.protocol or "TCP", port.port) for piece in core.slices for port in piece.ports or ()
    }
    if not open_ports or any(port is None for _, port in open_ports):
        return
    closed = [
        f"{p.port}/{p.protocol}" for p in spec.ports if (p.protocol, p.port) not in open_ports
    ]
    if closed:
        found.problems.append(
            Problem(
                reasons.PORT_NOT_SERVED,
                f"the endpoints of Service {name} do not listen on {names(closed)}: forwarding by"
                " L2 cannot translate ports, so the pods must listen on the DSRService's ports",
            )
        )


def _from_addresses(
    listed: Iterable[BackendAddress],
    spec: DSRServiceSpec,
    families: Set[int],
    world: World,
    found: Resolution,
) -> None:
    for entry in listed:
        address = canonical_address(entry.address)
        if address is None or address in spec.vips:
            why = "is no IP address" if address is None else "is a VIP of this service"
            found.problems.append(
                Problem(
                    reasons.INVALID_ADDRESS,
                    f"backend address {entry.address[:60]} {why}: give a real server's own address",
                )
            )
        elif family(address) not in families:
            found.problems.append(
                Problem(
                    reasons.WRONG_FAMILY,
                    f"backend address {address} is IPv{family(address)}, but no granted VIP is:"
                    " add a VIP of that family, or remove the address",
                )
            )
        else:
            node = world.nodes.get(world.owners.get(address, ""))
            weight = min(max(entry.weight, 0), MAX_WEIGHT)
            found.add(Wanted(address, weight, node.name if node else "", node.uid if node else ""))
