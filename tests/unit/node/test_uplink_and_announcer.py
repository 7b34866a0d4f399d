"""docs/architecture.md, rule 11, and who announces."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from dsr_api.plan import Director
from dsr_node.state.announcer import announcer, announcing
from dsr_node.state.types import Link, Network
from dsr_node.state.uplink import Uplinks, of_a_cni
from hypothesis import given
from hypothesis import strategies as st

LINKS = (
    Link("eth0", 2, "m0", addresses=("10.0.0.1/16",)),
    Link("eth1", 3, "m1", addresses=("10.0.7.1/24", "fe80::1/64")),
    Link("docker0", 4, "m2", kind="bridge", addresses=("172.17.0.1/16",)),
    Link("vxlan.calico", 5, "m3", kind="vxlan", addresses=("10.99.0.1/16",)),
    Link("eth2", 6, "m4", up=False, addresses=("10.6.0.1/24",)),
)


@pytest.mark.parametrize(
    ("vip", "override", "expected"),
    [
        ("10.0.3.4", "", "eth0"),
        ("10.0.7.4", "", "eth1"),  # the longest prefix
        ("192.0.2.1", "", "eth1"),  # the default route
        ("172.17.0.9", "", "eth1"),  # never a container bridge
        ("10.99.0.9", "", "eth1"),  # never a tunnel
        ("10.6.0.9", "", "eth1"),  # not one that is down
        ("10.0.3.4", "docker0", "docker0"),  # unless told so
        ("10.0.3.4", "nothere", None),
        ("2001:db8::1", "", None),  # no default route of that family
        ("fe80::9", "", None),  # link-local subnets are on every link
    ],
)
def test_choice(vip: str, override: str, expected: str | None) -> None:
    link = Uplinks(Network(LINKS, default_ipv4=3), override).of(ipaddress.ip_address(vip))
    assert (link and link.name) == expected


@pytest.mark.parametrize(
    ("override", "told"),
    [("", "no interface of this node has a subnet that holds 192.0.2.1"), ("eth7", "'eth7'")],
)
def test_why_there_is_no_uplink_and_what_to_do(override: str, told: str) -> None:
    vip = ipaddress.ip_address("192.0.2.1")
    uplinks = Uplinks(Network(LINKS), override)
    assert uplinks.of(vip) is None
    assert told in uplinks.missing(vip)
    assert "dsr-operator.io/uplink" in uplinks.missing(vip)


def test_a_default_route_through_a_cni_is_no_uplink() -> None:
    uplinks = Uplinks(Network(LINKS, default_ipv4=4))
    assert uplinks.of(ipaddress.ip_address("192.0.2.1")) is None


@pytest.mark.parametrize(
    "name",
    ["veth12ab", "cali0123", "cilium_host", "lxc99", "flannel.1", "cni0", "docker0", "virbr0"],
)
def test_interfaces_of_a_cni(name: str) -> None:
    assert of_a_cni(Link(name, 9))


@pytest.mark.parametrize(
    "name", ["eth0", "ens3", "bond0", "br0", "br-lan", "vmbr0", "eno1", "eni0"]
)
def test_interfaces_of_a_host(name: str) -> None:
    assert not of_a_cni(Link(name, 9))


def test_own_addresses_are_those_of_all_interfaces() -> None:
    own = Uplinks(Network((replace(LINKS[2], up=False),))).own
    assert own == {ipaddress.ip_address("172.17.0.1")}


_names = st.sets(st.text("abcdefgh-0123456789", min_size=1, max_size=8), min_size=2, max_size=8)
_vips = st.sets(st.ip_addresses().map(str), min_size=1, max_size=20)


@given(_names, _vips, st.randoms())
def test_a_director_that_leaves_moves_its_own_vips_only(
    nodes: set[str], vips: set[str], random: object
) -> None:
    gone = random.choice(sorted(nodes))  # type: ignore[attr-defined] # a random.Random
    for vip in vips:
        assert announcer(vip, nodes) in {announcer(vip, nodes - {gone}), gone}


def test_vips_spread_over_directors() -> None:
    nodes = [f"lb{i}" for i in range(4)]
    counts = dict.fromkeys(nodes, 0)
    for i in range(4000):
        counts[announcer(f"10.0.{i >> 8}.{i & 255}", nodes)] += 1
    assert all(850 < count < 1150 for count in counts.values()), counts


def test_nobody_announces_among_none() -> None:
    assert announcer("10.0.0.1", announcing(())) == ""


@given(_names, st.data())
def test_those_that_may_not_announce_do_so_only_among_themselves(
    nodes: set[str], data: st.DataObject
) -> None:
    may = data.draw(st.sets(st.sampled_from(sorted(nodes))))
    directors = [Director(node=node, announces=node in may) for node in nodes]
    assert set(announcing(directors)) == (may or nodes)
