"""The daemon as a whole: `dsr-node --plans DIR` on LB nodes and real servers, with real HTTP."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from dsr_api.plan import DSRPlan, PlanBackend
from msgspec.structs import replace

from tests.net.segment import Machine, until
from tests.net.site import NUMBERS, URLS, VIP4, VIP6, Site, site, web

SYSCTLS = tuple(
    f"ipv4/conf/{name}/{key}" for name in ("all", "eth0") for key in ("arp_ignore", "arp_announce")
)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as place:
        yield place


@pytest.fixture
def serving(place: Site) -> Site:
    """A site whose service answers on both VIPs."""
    return started(place)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The same for tests that leave it as they found it."""
    with site(tmp_path_factory.mktemp("shared")) as place:
        yield started(place)


def started(place: Site) -> Site:
    place.put(web())
    place.start()
    for url in URLS:
        place.answers(url)
    return place


def emptied(plan: DSRPlan) -> DSRPlan:
    """A plan as the operator leaves it before it deletes it."""
    spec = replace(plan.spec, vips=(), frontends=(), hosts=(), backends=())
    return replace(plan, spec=spec)


def sysctls(machine: Machine) -> list[int]:
    return [machine.sysctl(key) for key in SYSCTLS]


def is_withdrawn(machine: Machine) -> bool:
    return not machine.addresses() and sysctls(machine) == [0, 0, 0, 0]


def fingerprint(machine: Machine) -> tuple[object, ...]:
    """What a daemon may change in a kernel."""
    return (
        machine.addresses(),
        machine.run("sysctl", "-a", "--pattern", r"^net\.ipv[46]\.conf\."),
        machine.program(),
        machine.run("ls", "-A", "/sys/fs/bpf"),
        machine.run("ip", "neighbour", "show", "nud", "permanent"),
    )


# What it is for.


def test_replies_do_not_pass_the_lb(shared: Site) -> None:
    assert {shared.get(url) for url in URLS for _ in range(20)} == {"rs1", "rs2"}
    before = {name: machine.received() for name, machine in shared.machines.items()}
    length = 5_000_000
    body = shared.get(URLS[0] + str(length // 4), seconds=20)
    assert len(body) == length - 1
    gained = {name: m.received() - before[name] for name, m in shared.machines.items()}
    assert gained["client"] > length
    assert gained["lb1"] + gained["lb2"] < length / 10


def test_vips_are_announced_by_one_of_the_lbs_and_held_by_all(shared: Site) -> None:
    announcing = {vip: shared.answering(vip) for vip in (VIP4, VIP6)}
    for vip, holder in announcing.items():
        assert holder in {"lb1", "lb2"}
        for name in ("lb1", "lb2"):
            told = shared.nodes[name].state()["report"]["announcing"]
            assert (vip in told) == (name == holder)
    for node in shared.nodes.values():
        assert node.machine.addresses() == {VIP4, VIP6}
        assert sysctls(node.machine) == [1, 2, 1, 2]


def test_a_new_frontend_is_up_without_a_failure_of_the_others(shared: Site) -> None:
    load = shared.load(3)
    shared.put(web("shop.two", vips=("10.77.9.2",)))
    shared.answers("http://10.77.9.2:8080/")
    shared.put(web("shop.two", vips=("10.77.9.2", "10.77.9.3")))
    shared.answers("http://10.77.9.3:8080/")
    assert load.communicate()[0].split()[1] == "0"
    shared.put(emptied(web("shop.two")))
    until(lambda: "10.77.9.2" not in shared.machines["rs1"].addresses(), "the VIP gone")


def test_withdrawal_leaves_every_kernel_as_it_was(place: Site) -> None:
    names = ("lb1", "rs1")
    before = {name: fingerprint(place.machines[name]) for name in names}
    place.put(web(directors=("lb1",), hosts=("rs1",)))
    place.start(*names)
    place.answers(URLS[0])
    place.put(emptied(web(directors=("lb1",), hosts=("rs1",))))
    for name in names:
        machine = place.machines[name]
        until(partial(is_withdrawn, machine), "no VIP, and sysctls set back")
        now = fingerprint(machine)
        assert now[:2] == before[name][:2]
        assert now[4] == before[name][4]


def test_a_node_may_be_lb_and_backend(place: Site) -> None:
    place.serve("lb1")
    place.put(web(directors=("lb1",), hosts=("lb1", "rs1")))
    place.start("lb1", "rs1")
    for url in URLS:
        place.answers(url)
    assert {place.get(url) for url in URLS for _ in range(30)} == {"lb1", "rs1"}


# Drift.


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_an_address_taken_off_lo_is_back_within_a_second(shared: Site, vip: str) -> None:
    machine = shared.machines["rs1"]
    length = "128" if ":" in vip else "32"
    machine.run("ip", "address", "del", f"{vip}/{length}", "dev", "lo")
    assert until(lambda: vip in machine.addresses(), "the VIP on lo", 10) < 2.0
    repairs = shared.nodes["rs1"].state
    until(lambda: repairs()["report"]["repairs"].get("addresses"), "the repair in /state")


def test_a_sysctl_changed_by_hand_is_set_again(shared: Site) -> None:
    machine = shared.machines["rs1"]
    machine.run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0")
    until(lambda: machine.sysctl(SYSCTLS[0]) == 1, "arp_ignore")


def test_an_address_of_somebody_else_stays(shared: Site) -> None:
    machine = shared.machines["rs1"]
    machine.run("ip", "address", "add", "192.0.2.7/32", "dev", "lo")
    machine.run("ip", "address", "del", f"{VIP4}/32", "dev", "lo")
    until(lambda: VIP4 in machine.addresses(), "the VIP on lo")
    assert "192.0.2.7" in machine.addresses()
    machine.run("ip", "address", "del", "192.0.2.7/32", "dev", "lo")


# Faults.


def test_a_vip_that_somebody_has_is_not_announced(place: Site) -> None:
    intruder = place.machines["client"]
    intruder.run("ip", "address", "add", f"{VIP4}/32", "dev", "eth0")
    place.put(web())
    place.start("lb1", "lb2")

    lbs = [place.nodes[name] for name in ("lb1", "lb2")]
    for node in lbs:
        until(partial(node.problems, "AddressConflict"), "the conflict in /state")
        assert intruder.mac() in node.problems("AddressConflict")[0]
        assert VIP4 not in node.announcing()
    until(lambda: any(VIP6 in node.announcing() for node in lbs), "the other VIP announced")


def test_a_backend_that_is_not_there_gets_nothing(place: Site) -> None:
    plan = web(directors=("lb1",))
    missing = (PlanBackend(address="10.77.0.99"), PlanBackend(address="192.0.2.1"))
    place.put(replace(plan, spec=replace(plan.spec, backends=(*plan.spec.backends, *missing))))
    place.start()
    place.answers(URLS[0])
    told = place.nodes["lb1"].state()["report"]["unhealthy"]
    assert {(b["address"], b["reason"]) for b in told} == {
        ("10.77.0.99", "MACNotResolved"),
        ("192.0.2.1", "OutsideSubnet"),
    }
    assert {place.get(URLS[0]) for _ in range(40)} == {"rs1", "rs2"}


def test_a_backend_that_dies_is_out_within_three_seconds(serving: Site) -> None:
    announcer = serving.nodes[serving.answering(VIP4)]
    serving.machines["rs1"].run("ip", "link", "set", "eth0", "down")
    gone = f"10.77.0.{NUMBERS['rs1']}"

    def noticed() -> bool:
        return gone in {b["address"] for b in announcer.state()["report"]["unhealthy"]}

    assert until(noticed, "the dead backend in /state", 10) < 4.0
    assert {serving.get(URLS[0]) for _ in range(20)} == {"rs2"}
    serving.machines["rs1"].run("ip", "link", "set", "eth0", "up")
    until(lambda: not noticed(), "the backend back")
    until(lambda: serving.get(URLS[0]) == "rs1", "an answer of it")


def test_an_lb_that_dies_is_replaced(serving: Site) -> None:
    holder = serving.answering(VIP4)
    other = {"lb1": "lb2", "lb2": "lb1"}[holder]
    serving.machines[holder].run("ip", "link", "set", "eth0", "down")
    until(lambda: VIP4 in serving.nodes[other].announcing(), "the take-over")
    assert serving.answers(URLS[0]) < 2.0


def test_an_lb_whose_mac_changes_tells_so(place: Site) -> None:
    """As a bond's does that fails over. The client would believe its cache for an hour."""
    place.put(web(directors=("lb1",)))
    place.start()
    for family, url in zip(("ipv4", "ipv6"), URLS, strict=True):
        key = f"net.{family}.neigh.eth0.base_reachable_time_ms"
        place.client.run("sysctl", "-qw", f"{key}=3600000")
        place.answers(url)
    assert place.load(2).communicate()[0].split()[1] == "0"  # the take-over has been told twice
    new = "02:00:00:00:77:77"
    place.machines["lb1"].run("ip", "link", "set", "eth0", "address", new)

    def cached(vip: str) -> bool:
        return new in place.client.run("ip", "neighbour", "show", vip, "dev", "eth0")

    assert until(lambda: cached(VIP4) and cached(VIP6), "the new MAC", 10) < 3.0
    assert all(place.answers(url) < 1.0 for url in URLS)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_daemon_that_ends_loses_no_request(serving: Site, number: int) -> None:
    holder = serving.nodes[serving.answering(VIP4)]
    load = serving.load(5)
    until(lambda: holder.machine.received() > 20_000, "load")
    holder.stop(number)
    assert serving.get(URLS[0])
    holder.start()
    until(lambda: VIP4 in holder.announcing(), "the daemon back at work")
    done, failed = load.communicate()[0].split()
    assert (int(done) > 100, failed) == (True, "0")


def test_another_program_on_the_interface_is_not_replaced(place: Site) -> None:
    machine = place.machines["lb1"]
    place.attach_foreign_program(machine)
    foreign = machine.program()
    place.put(web(directors=("lb1",)))
    place.start()
    until(lambda: place.nodes["lb1"].problems("DataplaneUnavailable"), "the problem in /state")
    message = place.nodes["lb1"].problems("DataplaneUnavailable")[0]
    assert "eth0" in message
    assert not place.nodes["lb1"].announcing()
    assert machine.program() == foreign
    machine.run("ip", "link", "set", "eth0", "xdp", "off")
    place.answers(URLS[0])
    until(lambda: not place.nodes["lb1"].problems("DataplaneUnavailable"), "the problem gone")


def test_a_subsystem_that_fails_is_told_and_tried_again(place: Site) -> None:
    node = place.nodes["lb1"]
    node.machine.run("mount", "-t", "tmpfs", "tmpfs", "/mnt")
    node.bpffs = "/mnt/dsr-operator"
    place.put(web(directors=("lb1",)))
    place.start()
    until(lambda: "xdp" in node.state()["report"]["errors"], "the error in /state")
    assert node.machine.addresses() == {VIP4, VIP6}, "the other subsystems go on"
    until(lambda: node.problems("DataplaneUnavailable"), "the problem in /state")
    assert not node.announcing()
    node.machine.run("mount", "-t", "bpf", "bpf", "/mnt")
    place.answers(URLS[0])
    until(lambda: not node.state()["report"]["errors"], "the error gone")


def test_a_bad_file_is_told_and_stops_no_other(serving: Site) -> None:
    (serving.plans / "bad.yaml").write_text("nonsense: [")
    (serving.plans / "shop.web.yaml").write_text("apiVersion: v7\nkind: DSRPlan\n")
    serving.put(web("shop.two", vips=("10.77.9.2",)))
    serving.answers("http://10.77.9.2:8080/")
    messages = serving.nodes["lb1"].problems("Unreadable")
    assert any(m.startswith("bad.yaml: not YAML") for m in messages)
    assert any(m.startswith("shop.web.yaml: apiVersion 'v7'") for m in messages)
    assert serving.get(URLS[0]), "the last good version is in force"


def test_plans_that_vanish_are_kept(serving: Site) -> None:
    serving.plans.rename(serving.plans.with_name("away"))
    until(lambda: serving.nodes["lb1"].logged("cannot read the plans"), "a warning")
    serving.plans.mkdir()
    until(lambda: serving.nodes["lb1"].state()["report"]["alarm"], "an alarm")
    assert serving.get(URLS[0])


def test_cleanup_leaves_the_kernel_as_it_was_found(place: Site) -> None:
    for machine in place.machines.values():
        machine.run("sysctl", "-qw", "net.ipv4.conf.eth0.arp_announce=1")
        machine.run("ip", "address", "add", "192.0.2.7/32", "dev", "lo")
    before = {name: fingerprint(place.machines[name]) for name in ("lb1", "rs1")}
    place.put(web(directors=("lb1",)))
    place.start()
    place.answers(URLS[0])
    for name in ("lb1", "rs1"):
        node = place.nodes[name]
        busy = node.cleanup()
        assert busy.returncode == 1
        assert "another dsr-node runs" in busy.stderr
        node.stop()
        assert fingerprint(node.machine) != before[name], "SIGTERM leaves the kernel as it is"
        done = node.cleanup()
        assert done.stdout.startswith(f"XDP programs taken off: {int(name == 'lb1')}; addr")
        assert "addresses removed: 2; sysctls restored: " in done.stdout
        again = node.cleanup()
        assert (
            again.stdout == "XDP programs taken off: 0; addresses removed: 0; sysctls restored: 0\n"
        )
        assert [(each.returncode, each.stderr) for each in (done, again)] == [(0, ""), (0, "")]
        assert fingerprint(node.machine) == before[name]
        assert not node.state_dir.exists()


def test_cleanup_in_a_pod_leaves_the_mount_of_its_state(place: Site) -> None:
    node = place.nodes["lb1"]
    node.state_dir.mkdir()
    node.machine.run("mount", "--bind", str(node.state_dir), str(node.state_dir))
    done = node.cleanup()
    assert (done.returncode, done.stderr) == (0, "")
    assert list(node.state_dir.iterdir()) == []
