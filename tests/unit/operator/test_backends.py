"""Where backends come from, and what is said about those that cannot be used."""

from __future__ import annotations

import pytest
from dsr_api.base import LabelSelector, LabelSelectorRequirement, Metadata
from dsr_api.service import BackendAddress, BackendSource, DSRServiceSpec, ServiceReference
from dsr_operator.compile.backends import Resolution, resolve
from dsr_operator.compile.inputs import CoreService, World
from dsr_operator.core import (
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
    Node,
    NodeAddress,
    NodeStatus,
    NodeView,
    node_view,
)

from tests.unit.operator.model import service, view

V4, V6 = "192.0.2.1", "2001:db8::1"


def world(*nodes: NodeView) -> World:
    return World({n.name: n for n in nodes}, {a: n.name for n in nodes for a in n.addresses})


def found(
    source: BackendSource,
    *nodes: NodeView,
    vips: tuple[str, ...] = (V4,),
    core: CoreService | None = None,
) -> Resolution:
    spec: DSRServiceSpec = service(backends=source, vips=vips).spec
    return resolve(spec, vips, core or CoreService(), world(*nodes))


def by_labels() -> BackendSource:
    return BackendSource(node_selector=LabelSelector(match_labels={"host": "True"}))


def weights(resolution: Resolution) -> dict[str, int]:
    return {w.address: w.weight for w in resolution.backends.values()}


def reasons(resolution: Resolution) -> list[str]:
    return [p.reason for p in resolution.problems]


def test_nodes_bring_one_address_of_each_family_that_is_needed() -> None:
    node = view("a")
    assert weights(found(by_labels(), node)) == {"10.0.0.1": 1}
    assert weights(found(by_labels(), node, vips=(V4, V6))) == {"10.0.0.1": 1, "fd00::1": 1}


@pytest.mark.parametrize(("text", "weight"), [("0", 0), ("7", 7), (" 65535 ", 65535)])
def test_weight_annotation(text: str, weight: int) -> None:
    resolution = found(by_labels(), view("a", weight=text))
    assert weights(resolution) == {"10.0.0.1": weight}
    assert not resolution.warnings


@pytest.mark.parametrize("text", ["", "-1", "65536", "1.5", "many", "٣", "9" * 400])
def test_a_bad_weight_counts_as_one_and_is_told(text: str) -> None:
    resolution = found(by_labels(), view("a", weight=text), vips=(V4, V6))
    assert set(weights(resolution).values()) == {1}
    assert [w.reason for w in resolution.warnings] == ["InvalidWeight"]
    assert "node a" in resolution.warnings[0].message
    assert not resolution.problems


def test_a_selector_that_matches_nothing() -> None:
    assert reasons(found(by_labels(), view("a", host=False))) == ["NodeSelectorMatchesNothing"]


def test_a_selector_with_an_unknown_operator_is_told() -> None:
    odd = LabelSelectorRequirement(key="a", operator="Near")
    source = BackendSource(node_selector=LabelSelector(match_expressions=(odd,)))
    assert reasons(found(source, view("a"))) == ["InvalidSelector"]


def test_a_family_that_no_backend_has() -> None:
    node = NodeView(name="a", uid="u", labels={"host": "True"}, internal=("10.0.0.1",))
    resolution = found(by_labels(), node, vips=(V4, V6))
    assert reasons(resolution) == ["NoBackendOfFamily"]
    assert weights(resolution) == {"10.0.0.1": 1}


def addresses(*listed: tuple[str, int]) -> BackendSource:
    return BackendSource(addresses=tuple(BackendAddress(address=a, weight=w) for a, w in listed))


def test_listed_addresses() -> None:
    resolution = found(addresses(("198.51.100.1", 10), ("198.51.100.2", 0)))
    assert weights(resolution) == {"198.51.100.1": 10, "198.51.100.2": 0}
    assert all(not w.node for w in resolution.backends.values())


def test_a_listed_address_of_a_node_of_ours_is_that_nodes_backend() -> None:
    (wanted,) = found(addresses(("10.0.0.1", 3)), view("a")).backends.values()
    assert (wanted.node, wanted.node_uid, wanted.weight) == ("a", "uid-a", 3)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("2001:db8::9", "WrongAddressFamily"),
        (V4, "InvalidBackendAddress"),
        ("x", "InvalidBackendAddress"),
    ],
)
def test_a_listed_address_that_cannot_be_used(address: str, reason: str) -> None:
    resolution = found(addresses((address, 1), ("198.51.100.1", 1)))
    assert reasons(resolution) == [reason]
    assert weights(resolution) == {"198.51.100.1": 1}


def endpoint(address: str, **conditions: bool) -> Endpoint:
    return Endpoint(addresses=(address,), conditions=EndpointConditions(**conditions))


def core(*endpoints: Endpoint, port: int | None = 80) -> CoreService:
    piece = EndpointSlice(
        metadata=Metadata(name="web-1"), endpoints=endpoints, ports=(EndpointPort(port=port),)
    )
    return CoreService(exists=True, slices=(piece,))


def from_service(core_service: CoreService) -> Resolution:
    source = BackendSource(service=ServiceReference(name="web"))
    return found(source, view("a"), view("b", weight="9"), core=core_service)


def test_a_service_that_does_not_exist_or_has_no_endpoints() -> None:
    assert reasons(from_service(CoreService())) == ["ServiceNotFound"]
    assert reasons(from_service(CoreService(exists=True))) == ["ServiceWithoutEndpoints"]


@pytest.mark.parametrize(
    ("conditions", "weight"),
    [
        ({}, 1),
        ({"ready": True}, 1),
        ({"ready": False}, None),
        ({"ready": False, "serving": True, "terminating": True}, 0),
        ({"ready": False, "serving": False, "terminating": True}, None),
    ],
)
def test_the_state_of_an_endpoint(conditions: dict[str, bool], weight: int | None) -> None:
    assert weights(from_service(core(endpoint("10.0.0.1", **conditions)))).get("10.0.0.1") == weight


def test_of_two_entries_for_one_address_the_better_one_counts() -> None:
    going = endpoint("10.0.0.1", ready=False, serving=True, terminating=True)
    assert weights(from_service(core(going, endpoint("10.0.0.1", ready=True)))) == {"10.0.0.1": 1}


def test_endpoints_on_nodes_have_the_weight_of_the_node() -> None:
    assert weights(from_service(core(endpoint("10.0.0.2")))) == {"10.0.0.2": 9}


def test_pods_of_their_own_network_are_named_and_left_out() -> None:
    resolution = from_service(core(endpoint("10.244.1.1"), endpoint("10.0.0.1")))
    assert reasons(resolution) == ["EndpointIsNotANode"]
    assert "10.244.1.1" in resolution.problems[0].message
    assert weights(resolution) == {"10.0.0.1": 1}


def test_ports_that_the_pods_do_not_listen_on() -> None:
    assert reasons(from_service(core(endpoint("10.0.0.1"), port=8080))) == ["PortNotServed"]
    assert reasons(from_service(core(endpoint("10.0.0.1"), port=None))) == []


def test_a_long_list_is_cut_in_the_message() -> None:
    many = [endpoint(f"10.244.1.{i}") for i in range(200)]
    (problem,) = from_service(core(*many, endpoint("10.0.0.1"))).problems
    assert "and 195 more" in problem.message


def test_what_is_no_ip_address_of_a_node_is_left_out() -> None:
    listed = (
        NodeAddress(type="Hostname", address="a.example"),
        NodeAddress(type="InternalIP", address="2001:DB8::1"),
        NodeAddress(type="ExternalIP", address="198.51.100.1"),
    )
    seen = node_view(Node(metadata=Metadata(name="a"), status=NodeStatus(addresses=listed)))
    assert seen.internal == ("2001:db8::1",)
    assert seen.addresses == ("2001:db8::1", "198.51.100.1")
