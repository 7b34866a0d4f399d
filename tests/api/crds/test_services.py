"""What the API server refuses of a DSRService, and what it says to the user about it.

Every rule has a case next to the border on either side; the words are asserted because they are
all that a user gets.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from lab.controlplane import ControlPlane
from tests.api.crds.objects import dry_run, refusal

Document = dict[str, Any]

SERVICE: Document = {
    "apiVersion": "dsr-operator.io/v1alpha1",
    "kind": "DSRService",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {
        "vips": ["192.0.2.10"],
        "ports": [{"port": 80}],
        "backends": {"nodeSelector": {"matchLabels": {"role": "web"}}},
    },
}


def service(**spec: Any) -> Document:
    """The smallest DSRService with these fields of spec replaced."""
    document = copy.deepcopy(SERVICE)
    document["spec"].update(spec)
    return document


def addresses(*entries: Any) -> Document:
    return {"addresses": [e if isinstance(e, dict) else {"address": e} for e in entries]}


def requirement(operator: str, *values: str) -> Document:
    one = {"key": "role", "operator": operator} | ({"values": list(values)} if values else {})
    return {"nodeSelector": {"matchExpressions": [one]}}


def ports(count: int) -> list[Document]:
    return [{"port": number + 1} for number in range(count)]


ACCEPTED = {
    "smallest": {},
    "one VIP of each family": {"vips": ["192.0.2.10", "2001:db8::10"]},
    "16 VIPs": {"vips": [f"192.0.2.{n}" for n in range(1, 17)]},
    "private and unique local VIPs": {"vips": ["10.77.0.100", "fd77::100"]},
    "one port, both protocols": {
        "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    },
    "64 ports": {"ports": ports(64)},
    "lowest and highest port": {"ports": [{"port": 1}, {"port": 65535}]},
    "named ports": {"ports": [{"port": 80, "name": "http"}, {"port": 443, "name": "https-1"}]},
    "unnamed ports": {"ports": [{"port": 80, "name": ""}, {"port": 443, "name": ""}]},
    "backends from a Service": {"backends": {"service": {"name": "web"}}},
    "backends from addresses": {"backends": addresses("192.0.2.20")},
    "lowest and highest weight": {
        "backends": addresses(
            {"address": "192.0.2.20", "weight": 0}, {"address": "192.0.2.21", "weight": 65535}
        )
    },
    "1000 addresses": {"backends": addresses(*(f"10.0.{n // 250}.{n % 250}" for n in range(1000)))},
    "addresses of each VIP's family": {
        "vips": ["192.0.2.10", "2001:db8::10"],
        "backends": addresses("192.0.2.20", "2001:db8::20"),
    },
    "every node": {"backends": {"nodeSelector": {}}},
    "selector with In": {"backends": requirement("In", "web", "cache")},
    "selector with Exists": {"backends": requirement("Exists")},
    "everything there is to choose": {
        "dataplane": "XDP",
        "forwarding": {"method": "L2"},
        "scheduler": "Maglev",
        "announcement": {"mode": "None"},
        "loadBalancerNodes": {"nodeSelector": {"matchLabels": {"role": "lb"}}},
    },
    "shortest time-outs": {
        "drainTimeoutSeconds": 0,
        "flowIdleTimeout": {"tcpSeconds": 1, "udpSeconds": 1},
    },
    "longest time-outs": {
        "drainTimeoutSeconds": 86400,
        "flowIdleTimeout": {"tcpSeconds": 86400, "udpSeconds": 86400},
    },
}

UNICAST = "must be a unicast address of the network"
PLAIN = "must be a plain IPv4 or IPv6 address"
CANONICAL = "must be in canonical text"
ONE_SOURCE = "must have exactly one of nodeSelector, service and addresses"
VALUES = "must have values with operator In or NotIn, and none with Exists or DoesNotExist"
FLOWS = "spec.flowIdleTimeout"
REQUIREMENT = "spec.backends.nodeSelector.matchExpressions[0]"

REFUSED = {
    "no VIP": ({"vips": []}, "spec.vips", "should have at least 1 items"),
    "17 VIPs": (
        {"vips": [f"192.0.2.{n}" for n in range(17)]},
        "spec.vips",
        "must have at most 16 items",
    ),
    "a VIP twice": (
        {"vips": ["192.0.2.10", "192.0.2.10"]},
        "spec.vips[1]",
        'Duplicate value: "192.0.2.10"',
    ),
    "VIP is a name": ({"vips": ["web.example"]}, "spec.vips[0]", PLAIN),
    "VIP with prefix length": ({"vips": ["192.0.2.10/32"]}, "spec.vips[0]", PLAIN),
    "VIP with leading zero": ({"vips": ["192.0.2.010"]}, "spec.vips[0]", PLAIN),
    "VIP with zone": ({"vips": ["fe80::1%eth0"]}, "spec.vips[0]", PLAIN),
    "VIP IPv4-mapped": ({"vips": ["::ffff:192.0.2.10"]}, "spec.vips[0]", PLAIN),
    "VIP in upper case": ({"vips": ["2001:DB8::10"]}, "spec.vips[0]", CANONICAL),
    "VIP not shortest": ({"vips": ["2001:db8:0::10"]}, "spec.vips[0]", CANONICAL),
    "VIP multicast": ({"vips": ["224.0.0.18"]}, "spec.vips[0]", UNICAST),
    "VIP multicast, IPv6": ({"vips": ["ff02::1"]}, "spec.vips[0]", UNICAST),
    "VIP loopback": ({"vips": ["127.0.0.1"]}, "spec.vips[0]", UNICAST),
    "VIP loopback, IPv6": ({"vips": ["::1"]}, "spec.vips[0]", UNICAST),
    "VIP unspecified": ({"vips": ["0.0.0.0"]}, "spec.vips[0]", UNICAST),  # noqa: S104 no socket here
    "VIP unspecified, IPv6": ({"vips": ["::"]}, "spec.vips[0]", UNICAST),
    "VIP link-local": ({"vips": ["169.254.1.1"]}, "spec.vips[0]", UNICAST),
    "VIP link-local, IPv6": ({"vips": ["fe80::1"]}, "spec.vips[0]", UNICAST),
    "VIP broadcast": ({"vips": ["255.255.255.255"]}, "spec.vips[0]", UNICAST),
    "no port": ({"ports": []}, "spec.ports", "should have at least 1 items"),
    "300 ports": ({"ports": ports(300)}, "spec.ports", "Too many: 300: must have at most 64 items"),
    "a port twice": (
        {"ports": [{"port": 80}, {"port": 80, "protocol": "TCP"}]},
        "spec.ports[1]",
        "Duplicate value",
    ),
    "a port's name twice": (
        {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]},
        "spec.ports",
        "must have each name once: give every port another name, or none",
    ),
    "port's name in upper case": (
        {"ports": [{"port": 80, "name": "HTTP"}]},
        "spec.ports[0].name",
        "should match",
    ),
    "port 0": (
        {"ports": [{"port": 0}]},
        "spec.ports[0].port",
        "should be greater than or equal to 1",
    ),
    "port 65536": (
        {"ports": [{"port": 65536}]},
        "spec.ports[0].port",
        "should be less than or equal to 65535",
    ),
    "protocol SCTP": (
        {"ports": [{"port": 80, "protocol": "SCTP"}]},
        "spec.ports[0].protocol",
        'supported values: "TCP", "UDP"',
    ),
    "no source": ({"backends": {}}, "spec.backends", ONE_SOURCE),
    "two sources": (
        {"backends": {"nodeSelector": {}, "service": {"name": "web"}}},
        "spec.backends",
        ONE_SOURCE,
    ),
    "no address": ({"backends": addresses()}, "spec.backends.addresses", "at least 1 items"),
    "1001 addresses": (
        {"backends": addresses(*(f"10.0.{n // 250}.{n % 250}" for n in range(1001)))},
        "spec.backends.addresses",
        "must have at most 1000 items",
    ),
    "an address twice": (
        {"backends": addresses("192.0.2.20", {"address": "192.0.2.20", "weight": 2})},
        "spec.backends.addresses[1]",
        "Duplicate value",
    ),
    "address is a name": (
        {"backends": addresses("rs1.example")},
        "spec.backends.addresses[0].address",
        PLAIN,
    ),
    "address not canonical": (
        {"vips": ["2001:db8::10"], "backends": addresses("2001:db8:0::20")},
        "spec.backends.addresses[0].address",
        CANONICAL,
    ),
    "address multicast": (
        {"backends": addresses("224.0.0.1")},
        "spec.backends.addresses[0].address",
        UNICAST,
    ),
    "address is a VIP": (
        {"backends": addresses("192.0.2.10")},
        "spec.backends.addresses",
        "must not contain a VIP of this DSRService",
    ),
    "address of a family without VIP": (
        {"backends": addresses("192.0.2.20", "2001:db8::20")},
        "spec.backends.addresses",
        "must not contain an address whose family (IPv4 or IPv6) no VIP has",
    ),
    "weight -1": (
        {"backends": addresses({"address": "192.0.2.20", "weight": -1})},
        "spec.backends.addresses[0].weight",
        "should be greater than or equal to 0",
    ),
    "weight 65536": (
        {"backends": addresses({"address": "192.0.2.20", "weight": 65536})},
        "spec.backends.addresses[0].weight",
        "should be less than or equal to 65535",
    ),
    "Service without name": (
        {"backends": {"service": {}}},
        "spec.backends.service.name",
        "Required value",
    ),
    "In without values": ({"backends": requirement("In")}, REQUIREMENT, VALUES),
    "Exists with values": ({"backends": requirement("Exists", "web")}, REQUIREMENT, VALUES),
    "operator Equals": (
        {"backends": requirement("Equals", "web")},
        f"{REQUIREMENT}.operator",
        '"In", "NotIn", "Exists", "DoesNotExist"',
    ),
    "dataplane IPVS": ({"dataplane": "IPVS"}, "spec.dataplane", 'supported values: "XDP"'),
    "method IPIP": (
        {"forwarding": {"method": "IPIP"}},
        "spec.forwarding.method",
        'supported values: "L2"',
    ),
    "scheduler RoundRobin": (
        {"scheduler": "RoundRobin"},
        "spec.scheduler",
        'supported values: "Maglev"',
    ),
    "announcement BGP": (
        {"announcement": {"mode": "BGP"}},
        "spec.announcement.mode",
        'supported values: "L2", "None"',
    ),
    "drain time-out -1": (
        {"drainTimeoutSeconds": -1},
        "spec.drainTimeoutSeconds",
        "should be greater than or equal to 0",
    ),
    "drain time-out over a day": (
        {"drainTimeoutSeconds": 86401},
        "spec.drainTimeoutSeconds",
        "should be less than or equal to 86400",
    ),
    "no TCP idle time-out": (
        {"flowIdleTimeout": {"tcpSeconds": 0}},
        f"{FLOWS}.tcpSeconds",
        "should be greater than or equal to 1",
    ),
    "UDP idle time-out over a day": (
        {"flowIdleTimeout": {"udpSeconds": 86401}},
        f"{FLOWS}.udpSeconds",
        "should be less than or equal to 86400",
    ),
}


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(control_plane: ControlPlane, spec: Document) -> None:
    dry_run(control_plane, service(**spec))


@pytest.mark.parametrize(("spec", "field", "words"), REFUSED.values(), ids=REFUSED)
def test_refuses(control_plane: ControlPlane, spec: Document, field: str, words: str) -> None:
    cause = refusal(control_plane, service(**spec))
    assert field in cause
    assert words in cause[field]


@pytest.mark.parametrize("field", ["vips", "ports", "backends"])
def test_required(control_plane: ControlPlane, field: str) -> None:
    document = service()
    del document["spec"][field]
    assert refusal(control_plane, document)[f"spec.{field}"] == "Required value"


def test_every_mistake_is_told_at_once(control_plane: ControlPlane) -> None:
    wrong = service(vips=["192.0.2.10", "127.0.0.1", "::1"], backends={})
    assert {"spec.vips[1]", "spec.vips[2]", "spec.backends"} <= set(refusal(control_plane, wrong))


def test_a_name_too_long_for_a_label(control_plane: ControlPlane) -> None:
    document = service()
    document["metadata"]["name"] = "w" * 63
    dry_run(control_plane, document)
    document["metadata"]["name"] = "w" * 64
    assert "63" in refusal(control_plane, document)["metadata.name"]


def test_defaults_are_filled_in(control_plane: ControlPlane) -> None:
    spec = dry_run(control_plane, service(backends=addresses("192.0.2.20")))["spec"]
    assert spec == {
        "vips": ["192.0.2.10"],
        "ports": [{"port": 80, "protocol": "TCP"}],
        "backends": {"addresses": [{"address": "192.0.2.20", "weight": 1}]},
        "dataplane": "XDP",
        "forwarding": {"method": "L2"},
        "scheduler": "Maglev",
        "loadBalancerNodes": {"nodeSelector": {}},
        "announcement": {"mode": "L2"},
        "drainTimeoutSeconds": 300,
        "flowIdleTimeout": {"tcpSeconds": 900, "udpSeconds": 120},
    }


def test_unknown_fields_are_refused_when_asked_to_as_kubectl_does(
    control_plane: ControlPlane,
) -> None:
    document = service(healthCheck={"port": 80})
    message = refusal(control_plane, document, validation="Strict")[""]
    assert 'unknown field "spec.healthCheck"' in message


def test_unknown_fields_are_dropped_otherwise(control_plane: ControlPlane) -> None:
    created = dry_run(control_plane, service(healthCheck={"port": 80}), validation="Warn")
    assert "healthCheck" not in created["spec"]
