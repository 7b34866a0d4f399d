"""What the API server refuses of a DSRAddressPool."""

from __future__ import annotations

from typing import Any

import pytest

from lab.controlplane import ControlPlane
from tests.api.crds.objects import dry_run, refusal


def pool(*addresses: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "dsr-operator.io/v1alpha1",
        "kind": "DSRAddressPool",
        "metadata": {"name": "public"},
        "spec": {"addresses": list(addresses), **spec},
    }


NEITHER = "must be a prefix such as 192.0.2.0/28 or a range such as 192.0.2.10-192.0.2.20"
BITS = "must be in canonical text, without bits set behind the prefix length"
ENDS = "must have both ends in canonical text"
FAMILY = "must have two ends of one family"
BACKWARDS = "must begin with the lower address"

ACCEPTED = [
    "192.0.2.0/28",
    "192.0.2.1/32",
    "2001:db8:1::/64",
    "2001:db8::10/128",
    "0.0.0.0/0",
    "::/0",
    "192.0.2.10-192.0.2.20",
    "192.0.2.10-192.0.2.10",
    "9.255.2.9-10.0.0.100",
    "2001:db8::10-2001:db8::ff:0",
]
REFUSED = {
    "a single address": ("192.0.2.1", NEITHER),
    "a name": ("public", NEITHER),
    "prefix too long": ("192.0.2.0/33", NEITHER),
    "three ends": ("192.0.2.1-192.0.2.2-192.0.2.3", NEITHER),
    "one end": ("192.0.2.1-", NEITHER),
    "range with spaces": ("192.0.2.1 - 192.0.2.2", NEITHER),
    "short form of the end": ("192.0.2.1-20", NEITHER),
    "IPv4-mapped prefix": ("::ffff:192.0.2.0/124", NEITHER),
    "bits behind the prefix": ("192.0.2.5/28", BITS),
    "prefix in upper case": ("2001:DB8::/64", BITS),
    "range not canonical": ("2001:db8:0::1-2001:db8::2", ENDS),
    "backwards range": ("192.0.2.20-192.0.2.10", BACKWARDS),
    "backwards range of other lengths": ("192.0.100.1-192.0.20.200", BACKWARDS),
    "mixed families": ("192.0.2.1-2001:db8::1", FAMILY),
}


@pytest.mark.parametrize("addresses", ACCEPTED)
def test_accepts(control_plane: ControlPlane, addresses: str) -> None:
    dry_run(control_plane, pool(addresses))


@pytest.mark.parametrize(("addresses", "words"), REFUSED.values(), ids=REFUSED)
def test_refuses(control_plane: ControlPlane, addresses: str, words: str) -> None:
    assert words in refusal(control_plane, pool(addresses))["spec.addresses[0]"]


def test_how_many(control_plane: ControlPlane) -> None:
    prefixes = [f"192.0.2.{n}/32" for n in range(65)]
    dry_run(control_plane, pool(*prefixes[:64]))
    assert "at most 64 items" in refusal(control_plane, pool(*prefixes))["spec.addresses"]
    assert "at least 1 items" in refusal(control_plane, pool())["spec.addresses"]


def test_the_same_twice(control_plane: ControlPlane) -> None:
    twice = pool("192.0.2.0/28", "192.0.2.0/28")
    assert "Duplicate value" in refusal(control_plane, twice)["spec.addresses[1]"]


def test_namespaces(control_plane: ControlPlane) -> None:
    requirement = {"key": "team", "operator": "In", "values": ["a", "b"]}
    dry_run(control_plane, pool("::/0", namespaceSelector={"matchLabels": {"team": "a"}}))
    dry_run(control_plane, pool("::/0", namespaceSelector={"matchExpressions": [requirement]}))
    del requirement["values"]
    wrong = pool("::/0", namespaceSelector={"matchExpressions": [requirement]})
    field = "spec.namespaceSelector.matchExpressions[0]"
    assert "must have values with operator In" in refusal(control_plane, wrong)[field]


def test_every_namespace_is_the_default(control_plane: ControlPlane) -> None:
    assert dry_run(control_plane, pool("::/0"))["spec"]["namespaceSelector"] == {}
