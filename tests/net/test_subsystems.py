"""Each subsystem against a real kernel, in a network namespace of its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from dsr_node.state.types import Announcement, Link, Network, NodeState, Target
from dsr_node.subsystems.addresses import Addresses
from dsr_node.subsystems.neighbourhood import Neighbourhood
from dsr_node.subsystems.network import read_network
from dsr_node.subsystems.rtnl import RtnlEvents
from dsr_node.subsystems.sysctls import Sysctls
from pyroute2.netlink.rtnl import RTMGRP_IPV4_IFADDR

from tests.net.inside import inside
from tests.net.segment import Lan, Machine, lan

VIPS = ("10.77.9.1", "fd77::9:1")


@pytest.fixture
def network() -> Iterator[Lan]:
    with lan() as network:
        yield network


@pytest.fixture
def node(network: Lan) -> Machine:
    return network.machine("node", 1)


# Addresses.


def carry_out(addresses: Addresses, wanted: frozenset[str]) -> dict[str, str]:
    change = addresses.diff(wanted, addresses.read())
    refused = addresses.add(change.add)
    addresses.remove(addresses.diff(wanted, addresses.read()).remove)
    return refused


def test_vips_come_and_go_and_what_is_not_ours_stays(node: Machine) -> None:
    node.run("ip", "address", "add", "192.0.2.7/32", "dev", "lo")
    node.run("ip", "address", "add", VIPS[0] + "/32", "dev", "lo")
    before = node.addresses()
    assert inside(node, lambda: carry_out(Addresses(), frozenset({*VIPS, "10.77.9.2"}))) == {}
    assert node.addresses() == before | {VIPS[1], "10.77.9.2"}
    again = inside(
        node, lambda: Addresses().diff(frozenset({*VIPS, "10.77.9.2"}), Addresses().read())
    )
    assert not again
    inside(node, lambda: carry_out(Addresses(), frozenset()))
    assert node.addresses() == before, "a new daemon knows its own, and nothing else"


def test_vips_are_marked_and_never_a_source_of_the_node(node: Machine) -> None:
    inside(node, lambda: carry_out(Addresses(), frozenset(VIPS)))
    shown = json.loads(node.run("ip", "-j", "address", "show", "dev", "lo"))[0]["addr_info"]
    ours = {info["local"]: info for info in shown if info["local"] in VIPS}
    assert ours[VIPS[0]]["label"] == "lo:dsr"
    assert ours[VIPS[0]]["scope"] == "host"
    assert ours[VIPS[1]]["preferred_life_time"] == 0


def test_five_thousand_vips_in_well_under_a_second(node: Machine) -> None:
    many = frozenset(
        [f"10.88.{i >> 8}.{i & 255}" for i in range(2500)]
        + [f"fd88::{i:x}" for i in range(1, 2501)]
    )

    def work() -> tuple[float, float, float]:
        begin = time.process_time()
        assert carry_out(Addresses(), many) == {}
        added = time.process_time()
        assert not Addresses().diff(many, Addresses().read())
        read = time.process_time()
        carry_out(Addresses(), frozenset())
        return added - begin, read - added, time.process_time() - read

    adding, reading, removing = inside(node, work)
    print(f"5,000 VIPs, CPU: added {adding:.3f} s, read {reading:.3f} s, gone {removing:.3f} s")
    assert adding < 1.0
    assert removing < 1.5
    assert node.addresses() == set()


def test_a_refused_address_is_told_and_stops_no_other(node: Machine) -> None:
    refused = inside(node, lambda: carry_out(Addresses(), frozenset({"fd77::9:1", "ff02::77"})))
    assert set(refused) == {"ff02::77"}
    assert node.addresses() == {"fd77::9:1"}


# Sysctls, links and routes.


def test_sysctls_are_set_and_set_back(node: Machine, tmp_path: Path) -> None:
    node.run("sysctl", "-qw", "net.ipv4.conf.all.arp_announce=1")
    wanted = {"ipv4/conf/all/arp_ignore": 1, "ipv4/conf/all/arp_announce": 2}

    def work(want: dict[str, int]) -> None:
        sysctls = Sysctls(Path("/proc/sys/net"), tmp_path)
        sysctls.add(sysctls.diff(want, sysctls.read(want)).add)
        sysctls.remove(sysctls.diff(want, sysctls.read(want)).remove)

    inside(node, lambda: work(wanted))
    assert {key: node.sysctl(key) for key in wanted} == wanted
    inside(node, lambda: work({}))
    assert [node.sysctl(key) for key in wanted] == [0, 1]


def test_links_and_routes_are_read(network: Lan, node: Machine) -> None:
    node.run("ip", "route", "add", "default", "via", "10.77.0.9")
    read = inside(node, read_network)
    links = {link.name: link for link in read.links}
    nic = links["eth0"]
    assert read.default_ipv4 == nic.index
    assert read.default_ipv6 == 0
    assert (nic.mac, nic.kind, nic.up) == (node.mac(), "veth", True)
    assert {"10.77.0.1/16", "fd77::1/64"} <= set(nic.addresses)
    assert "lo" not in links
    assert read.gateways == {"10.77.0.9"}


def test_next_hops_of_all_ways_of_the_default_routes_are_read(network: Lan, node: Machine) -> None:
    node.run("ip", "route", "add", "default", *_ways("10.77.0.8", "10.77.0.9"))
    node.run("ip", "-6", "route", "add", "default", *_ways("fd77::8", "fd77::9"))
    read = inside(node, read_network)
    assert read.gateways == {"10.77.0.8", "10.77.0.9", "fd77::8", "fd77::9"}
    assert {read.default_ipv4, read.default_ipv6} == {link.index for link in read.links}


def _ways(*gateways: str) -> list[str]:
    return [word for gateway in gateways for word in ("nexthop", "via", gateway)]


def test_each_reading_is_of_now(node: Machine) -> None:
    """What entries mean is remembered; what the kernel holds is not."""

    def read() -> Link:
        return inside(node, eth0)

    before = read()
    node.run("ip", "address", "add", "192.0.2.9/24", "dev", "eth0")
    assert set(read().addresses) == {*before.addresses, "192.0.2.9/24"}
    node.run("ip", "address", "del", "192.0.2.9/24", "dev", "eth0")
    assert read() == before
    node.run("ip", "link", "set", "eth0", "address", "02:00:00:00:77:01")
    assert read().mac == "02:00:00:00:77:01"
    node.run("ip", "link", "set", "eth0", "down")
    assert not read().up


def test_events_are_heard(node: Machine) -> None:
    def work() -> None:
        events = RtnlEvents(RTMGRP_IPV4_IFADDR)
        assert not events.drain()
        Addresses().add(["10.77.9.1"])
        assert events.drain()
        assert not events.drain()
        events.close()

    inside(node, work)


# What is said on the segment.

Scenario = Callable[[Neighbourhood, int], Awaitable[None]]


def speak(machine: Machine, scenario: Scenario) -> None:
    """Plays a scenario with the Neighbourhood of a machine and the index of its eth0."""
    inside(machine, lambda: asyncio.run(_speak(scenario)))


async def _speak(scenario: Scenario) -> None:
    hood = Neighbourhood(lambda: None)
    task = asyncio.create_task(hood.run())
    try:
        async with asyncio.timeout(10):
            await scenario(hood, eth0().index)
    finally:
        task.cancel()
        hood.keep(NodeState(), Network())
    assert not hood.error


def eth0() -> Link:
    return next(link for link in read_network().links if link.name == "eth0")


async def eventually(condition: Callable[[], object]) -> float:
    """Waits for a condition (the scenario's time-out bounds it); how long that took."""
    begin = time.monotonic()
    while not condition():  # noqa: ASYNC110 - what is waited for lies in the kernel
        await asyncio.sleep(0.01)
    return time.monotonic() - begin


def macs(hood: Neighbourhood) -> dict[str, str]:
    return {t.address: n.mac for t, n in hood.neighbours.known.items() if n.alive}


def test_neighbours_are_resolved_and_leave_nothing_behind(network: Lan, node: Machine) -> None:
    other = network.machine("other", 2)
    addresses = ("10.77.0.2", "fd77::2", "10.77.0.99")

    async def scenario(hood: Neighbourhood, index: int) -> None:
        hood.keep(NodeState(targets=frozenset(Target(a, index) for a in addresses)), read_network())
        await hood.settle()
        assert macs(hood) == dict.fromkeys(addresses[:2], other.mac())

    speak(node, scenario)
    assert "10.77.0." not in node.run("ip", "neighbour", "show", "nud", "all", "dev", "eth0")


def test_silence_is_noticed_in_three_seconds(network: Lan, node: Machine) -> None:
    other = network.machine("other", 2)
    targets = ("10.77.0.2", "fd77::2")

    async def scenario(hood: Neighbourhood, index: int) -> None:
        hood.keep(NodeState(targets=frozenset(Target(a, index) for a in targets)), read_network())
        await eventually(lambda: len(macs(hood)) == 2)
        other.run("ip", "link", "set", "eth0", "down")
        assert await eventually(lambda: not macs(hood)) < 3.0

    speak(node, scenario)


def test_one_that_moves_to_another_mac_is_followed_in_three_seconds(
    network: Lan, node: Machine
) -> None:
    other = network.machine("other", 2)
    targets = ("10.77.0.2", "fd77::2")
    new = "02:00:00:00:77:02"

    async def scenario(hood: Neighbourhood, index: int) -> None:
        hood.keep(NodeState(targets=frozenset(Target(a, index) for a in targets)), read_network())
        await eventually(lambda: len(macs(hood)) == 2)
        other.run("ip", "link", "set", "eth0", "address", new)
        assert await eventually(lambda: macs(hood) == dict.fromkeys(targets, new)) < 3.0

    speak(node, scenario)


def test_nobody_or_somebody_has_a_vip(network: Lan, node: Machine) -> None:
    other = network.machine("other", 2)
    other.run("ip", "address", "add", VIPS[0] + "/32", "dev", "eth0")
    other.run("ip", "address", "add", VIPS[1] + "/128", "dev", "eth0", "nodad")

    async def scenario(hood: Neighbourhood, index: int) -> None:
        asked = frozenset(Target(vip, index) for vip in (*VIPS, "10.77.9.2"))
        hood.keep(NodeState(to_ask=asked), read_network())
        assert await eventually(lambda: hood.asker.settled) < 0.5
        mac = other.mac()
        assert dict(hood.asker.answers) == {VIPS[0]: mac, VIPS[1]: mac, "10.77.9.2": ""}

    speak(node, scenario)
    shown = other.run("ip", "neighbour", "show", "dev", "eth0")
    assert "10.77.9" not in shown, "asking leaves no trace in the caches of others"


def announced(vip: str, ifindex: int) -> Announcement:
    return Announcement(vip, ifindex, mac="", among=())


def test_a_take_over_reaches_the_caches_of_others(network: Lan, node: Machine) -> None:
    other = network.machine("other", 2)
    for vip in VIPS:
        wrong = ("lladdr", "02:00:00:00:00:99", "nud", "stale")
        other.run("ip", "neighbour", "replace", vip, "dev", "eth0", *wrong)

    async def scenario(hood: Neighbourhood, index: int) -> None:
        hood.keep(NodeState(to_ask=frozenset(Target(v, index) for v in VIPS)), read_network())
        hood.announce(frozenset(announced(vip, index) for vip in VIPS))
        shown = ("ip", "neighbour", "show", "dev", "eth0")
        assert await eventually(lambda: other.run(*shown).count(node.mac()) == 2) < 1.0

    speak(node, scenario)


def test_the_announcer_joins_the_groups_of_its_vips_and_leaves_them(node: Machine) -> None:
    def joined() -> bool:
        return "ff02::1:ff09:1" in node.run("ip", "maddress", "show", "dev", "eth0")

    async def scenario(hood: Neighbourhood, index: int) -> None:
        hood.announce(frozenset({announced("fd77::9:1", index)}))
        await eventually(joined)
        hood.announce(frozenset())
        await eventually(lambda: not joined())

    speak(node, scenario)
