"""What this kernel should hold, by rule and by example."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from dsr_api.plan import DSRPlan, PlanBackend
from dsr_node.state.node_state import Memo, node_state
from dsr_node.state.types import Announcement, Facts, Link, Neighbour, Network, NodeState, Target
from dsr_node.subsystems.xdp.state import FOREVER, Attachment, PoolKey, address16
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.node.worlds import (
    DIRECTORS,
    ETH0,
    NETWORK,
    facts,
    mac,
    named,
    plan,
    plans,
    some_facts,
)

LB2 = (Target("10.0.0.2", 2), Target("fd00::2", 2))
POOL = PoolKey("shop.web", 4)
FOREIGN = "0a:00:00:00:00:99"


def reasons(state: NodeState) -> list[tuple[str, str]]:
    return [(problem.vip, problem.reason) for problem in state.problems]


# Rules, for all inputs.


@given(plans(), some_facts(), st.randoms())
def test_order_of_plans_does_not_matter(
    some: dict[str, DSRPlan], given_facts: Facts, random: object
) -> None:
    names = list(some)
    random.shuffle(names)  # type: ignore[attr-defined] # hypothesis gives a random.Random
    assert node_state({name: some[name] for name in names}, given_facts) == node_state(
        some, given_facts
    )


@given(st.lists(st.tuples(plans(), some_facts()), min_size=2, max_size=4))
def test_a_memo_changes_nothing(steps: list[tuple[dict[str, DSRPlan], Facts]]) -> None:
    memo = Memo()
    kept: dict[str, DSRPlan] = {}
    for some, given_facts in steps:
        kept = {name: kept[name] if kept.get(name) == each else each for name, each in some.items()}
        assert node_state(kept, given_facts, memo) == node_state(some, given_facts)


@given(plans(), some_facts())
def test_a_memo_does_not_outlive_a_change_of_the_network(
    some: dict[str, DSRPlan], given_facts: Facts
) -> None:
    memo = Memo()
    node_state(some, given_facts, memo)
    elsewhere = replace(given_facts, network=Network((replace(ETH0, addresses=("10.9.0.1/24",)),)))
    assert node_state(some, elsewhere, memo) == node_state(some, elsewhere)


@given(plans(), some_facts(), st.data())
def test_a_plan_without_common_frontends_changes_nothing_for_others(
    some: dict[str, DSRPlan], given_facts: Facts, data: st.DataObject
) -> None:
    """Joining in a bad (or any) plan leaves what the others get."""
    bad = data.draw(
        st.sampled_from(
            [
                plan("zz.bad", vips=("nonsense",)),
                plan("zz.bad", vips=("10.0.0.1",)),
                plan("zz.bad", vips=("10.0.9.39",), hash_seed="xyz"),
                plan("zz.bad", vips=("10.0.9.39",), table_version=9),
                plan("zz.bad", vips=("10.0.9.39",), backends=(PlanBackend(address="8.8.8.8"),)),
                plan("zz.bad", vips=("10.0.9.39",), backends=(PlanBackend(address="?"),)),
            ]
        )
    )
    without = node_state(some, given_facts)
    with_bad = node_state({**some, "zz.bad": bad}, given_facts)
    assert with_bad.addresses >= without.addresses
    assert with_bad.targets >= without.targets
    assert with_bad.announcements >= without.announcements
    for key, pool in without.director.pools.items():
        assert with_bad.director.pools[key] == pool
    for frontend, pool_key in without.director.frontends.items():
        assert with_bad.director.frontends[frontend] == pool_key
    of_others = tuple(p for p in with_bad.problems if p.plan != "zz.bad")
    assert of_others == without.problems


@given(plans(), some_facts())
def test_what_is_wanted_hangs_together(some: dict[str, DSRPlan], given_facts: Facts) -> None:
    state = node_state(some, given_facts)
    director = state.director
    assert set(director.frontends.values()) <= set(director.pools)
    assert {key.vip for key in director.frontends} <= director.vips
    assert director.vips <= {address16(vip) for vip in state.addresses}
    assert set(director.announced) == {address16(a.vip) for a in state.announcements}
    assert {Target(a.vip, a.ifindex) for a in state.announcements} <= state.to_ask
    assert all(given_facts.answers[a.vip] is not None for a in state.announcements)
    assert bool(state.sysctls) == any(":" not in vip for vip in state.addresses)
    for pool in director.pools.values():
        assert [b.key for b in pool.backends] == sorted(b.key for b in pool.backends)


@given(plans(), st.sets(st.sampled_from(sorted(DIRECTORS)), min_size=1))
def test_directors_with_the_same_view_agree_on_one_announcer(
    some: dict[str, DSRPlan], up: set[str]
) -> None:
    """Of the directors of a plan that are up exactly one announces each of its VIPs."""
    down = frozenset(DIRECTORS) - up
    announcing: dict[str, list[str]] = {}
    for node in up:
        number = int(node[2:])
        link = replace(ETH0, addresses=(f"10.0.0.{number}/16", f"fd00::{number}/64"))
        seen = facts(node=node, network=replace(NETWORK, links=(link,)), stale_peers=down)
        for announcement in node_state(some, seen).announcements:
            announcing.setdefault(announcement.vip, []).append(node)
    claimed = [vip for each in some.values() for vip in set(each.spec.vips)]
    for vip, nodes in announcing.items():
        if claimed.count(vip) == 1:
            assert len(nodes) == 1, (vip, nodes)
    for each in some.values():
        directors = {d.node for d in each.spec.directors} & up
        good = each.spec.table_version == 1 and "not an address" not in each.spec.vips
        if directors and good and each.spec.announcement == "L2" and each.spec.frontends:
            for vip in each.spec.vips:
                if vip not in {"10.0.0.1", "192.0.2.1"} and claimed.count(vip) == 1:
                    assert set(announcing.get(vip, ())) & directors


# Examples.


def test_a_director_holds_forwards_asks_and_announces() -> None:
    state = node_state(named(plan(vips=("10.0.9.1", "fd00::9:1"))), facts())
    assert state.addresses == {"10.0.9.1", "fd00::9:1"}
    assert state.sysctls == {
        "ipv4/conf/all/arp_ignore": 1,
        "ipv4/conf/all/arp_announce": 2,
        "ipv4/conf/eth0/arp_ignore": 1,
        "ipv4/conf/eth0/arp_announce": 2,
    }
    assert state.targets == {Target("10.0.1.1", 2)}
    assert state.announcements == {
        Announcement(vip, 2, ETH0.mac, ("lb1",)) for vip in ("10.0.9.1", "fd00::9:1")
    }
    assert set(state.director.announced.values()) == {FOREVER}
    assert state.director.attachments == (Attachment("eth0", 2, bytes.fromhex("020000000001")),)
    (backend,) = state.director.pools[POOL].backends
    assert (backend.ifindex, backend.mac) == (2, bytes.fromhex("020000000101"))
    assert backend.source_mac == bytes.fromhex("020000000001")
    assert not backend.failed
    assert reasons(state) == [("fd00::9:1", "NoBackendOfFamily")]


def test_a_host_holds_the_vips_and_nothing_else() -> None:
    rs1 = facts(node="rs1")
    state = node_state(named(plan()), rs1)
    assert state.addresses == {"10.0.9.1"}
    assert set(state.sysctls.values()) == {1, 2}
    assert not state.targets
    assert not state.to_ask
    assert not state.director.pools
    assert not state.director.attachments


def test_a_node_in_no_list_holds_nothing() -> None:
    assert node_state(named(plan()), facts(node="other")) == NodeState()


def test_ipv6_alone_needs_no_sysctl() -> None:
    assert not node_state(named(plan(vips=("fd00::9:1",))), facts()).sysctls


def test_a_vip_is_asked_for_before_it_has_frontends_and_announced_only_after() -> None:
    early = node_state(named(plan(ports=())), facts())
    assert early.to_ask == {Target("10.0.9.1", 2)}
    assert not early.announcements
    unasked = node_state(named(plan()), facts(answers={}))
    assert unasked.to_ask
    assert not unasked.announcements


def test_announcement_none_is_neither_asked_nor_announced() -> None:
    state = node_state(named(plan(announcement="None")), facts())
    assert state.director.frontends
    assert not state.to_ask
    assert not state.announcements


def test_a_director_with_peers_announces_for_the_time_of_its_lease() -> None:
    vips = tuple(f"10.0.9.{i}" for i in range(1, 20))
    shared = named(plan(vips=vips, directors=("lb1", "lb2")))
    state = node_state(shared, facts(lease_until=123))
    assert set(state.director.announced.values()) == {123}
    assert 0 < len(state.announcements) < len(vips)
    assert Target("10.0.0.2", 2) in state.targets
    assert {peer.address for peer in state.director.peers} == {
        address16("10.0.0.2"),
        address16("fd00::2"),
    }


@pytest.mark.parametrize(
    "gone",
    [
        {"stale_peers": frozenset({"lb2"})},
        {"neighbours": dict.fromkeys(LB2, Neighbour(mac(102), alive=False))},
    ],
)
def test_the_vips_of_a_peer_that_is_down_come_here(gone: dict[str, object]) -> None:
    vips = tuple(f"10.0.9.{i}" for i in range(1, 20))
    state = node_state(named(plan(vips=vips, directors=("lb1", "lb2"))), facts(**gone))
    assert len(state.announcements) == len(vips)


def test_the_segment_is_told_anew_when_a_director_comes_or_goes_or_our_mac_changes() -> None:
    """Whoever comes or goes may have told, or may tell, that the VIPs are at his MAC."""
    vips = tuple(f"10.0.9.{i}" for i in range(1, 20))
    shared = plan(vips=vips, directors=("lb1", "lb2"))
    both = node_state(named(shared), facts()).announcements
    moved = replace(NETWORK, links=(replace(ETH0, mac="02:00:00:00:00:77"),))
    for changed in (
        node_state(named(shared), facts(stale_peers=frozenset({"lb2"}))),
        node_state(named(replaced_directors(shared, lb2=False)), facts()),
        node_state(named(shared), facts(network=moved)),
    ):
        assert {a.vip for a in changed.announcements} >= {a.vip for a in both}
        assert not changed.announcements & both
        assert changed.to_ask == node_state(named(shared), facts()).to_ask, "not asked anew"


def test_a_peer_that_may_not_announce_leaves_its_vips_to_this_node() -> None:
    vips = tuple(f"10.0.9.{i}" for i in range(1, 20))
    shared = plan(vips=vips, directors=("lb1", "lb2"))
    quiet = replaced_directors(shared, lb2=False)
    state = node_state(named(quiet), facts())
    assert len(state.announcements) == len(vips)
    assert state.director.peers, "it is a peer all the same"
    quiet = replaced_directors(shared, lb1=False)
    assert not node_state(named(quiet), facts()).announcements
    alone = node_state(named(quiet), facts(stale_peers=frozenset({"lb2"})))
    assert len(alone.announcements) == len(vips), "nobody else is up"


def replaced_directors(of: DSRPlan, **announces: bool) -> DSRPlan:
    changed = tuple(
        msgspec.structs.replace(d, announces=announces.get(d.node, d.announces))
        for d in of.spec.directors
    )
    return msgspec.structs.replace(of, spec=msgspec.structs.replace(of.spec, directors=changed))


def test_an_answer_of_a_stranger_is_a_conflict_that_names_the_mac() -> None:
    state = node_state(named(plan()), facts(answers={"10.0.9.1": FOREIGN}))
    assert reasons(state) == [("10.0.9.1", "AddressConflict")]
    assert FOREIGN in state.problems[0].message
    assert not state.announcements


def test_an_answer_of_a_backend_says_what_is_wrong_there() -> None:
    state = node_state(named(plan()), facts(answers={"10.0.9.1": mac(1)}))
    assert "10.0.1.1" in state.problems[0].message
    assert "arp_ignore" in state.problems[0].message


def test_an_answer_of_another_director_is_no_conflict() -> None:
    both = named(plan(directors=("lb1", "lb2")))
    state = node_state(both, facts(answers={"10.0.9.1": mac(102)}, stale_peers=frozenset({"lb2"})))
    assert not state.problems
    assert state.announcements


def test_a_vip_that_is_an_address_of_the_node_is_left_alone() -> None:
    state = node_state(named(plan(vips=("10.0.0.1", "10.0.9.2"))), facts())
    assert reasons(state) == [("10.0.0.1", "VIPIsNodeAddress")]
    assert state.addresses == {"10.0.9.2"}
    assert state.director.vips == {address16("10.0.9.2")}


def test_a_vip_that_the_node_lives_by_is_refused_and_the_other_one_is_served() -> None:
    memo = Memo()
    asked = named(plan(vips=("10.0.0.254", "10.0.9.1"), hosts=("lb1",)))
    served = node_state(asked, facts(), memo)
    assert served.addresses == {"10.0.0.254", "10.0.9.1"}
    state = node_state(asked, facts(vital={"10.0.0.254": "the API server"}), memo)
    assert state.addresses == {"10.0.9.1"}
    assert {str(key) for key in state.director.frontends} == {"10.0.9.1 80/TCP"}
    assert reasons(state) == [("10.0.0.254", "VIPIsVital")]
    assert "the API server" in state.problems[0].message


def test_a_backend_outside_the_subnets_is_failed_and_told() -> None:
    backends = (PlanBackend(address="172.16.0.9"), PlanBackend(address="10.0.1.1"))
    state = node_state(named(plan(backends=backends)), facts())
    assert [(b.address, b.reason) for b in state.unhealthy] == [("172.16.0.9", "OutsideSubnet")]
    assert [b.failed for b in state.director.pools[POOL].backends] == [
        False,
        True,
    ]
    assert not state.problems


def test_a_silent_backend_is_failed_and_told_and_an_unknown_one_only_waits() -> None:
    backends = (PlanBackend(address="10.0.1.1"), PlanBackend(address="10.0.1.2"))
    heard = {Target("10.0.1.1", 2): Neighbour(mac(1), alive=False)}
    state = node_state(named(plan(backends=backends)), facts(neighbours=heard))
    assert [b.failed for b in state.director.pools[POOL].backends] == [True, True]
    assert [(b.address, b.reason) for b in state.unhealthy] == [("10.0.1.1", "MACNotResolved")]


def test_a_backend_at_another_lb_node_s_mac_gets_nothing() -> None:
    seen = facts()
    neighbours = {**seen.neighbours, Target("10.0.1.1", 2): Neighbour(mac(102), alive=True)}
    seen = replace(seen, neighbours=neighbours)
    both = plan(directors=("lb1", "lb2"))
    state = node_state(named(both), seen)
    (told,) = state.unhealthy
    assert (told.address, told.reason) == ("10.0.1.1", "MACOfLoadBalancer")
    assert "lb2" in told.message
    assert [b.failed for b in state.director.pools[POOL].backends] == [True]
    itself = (PlanBackend(address="10.0.0.2"), PlanBackend(address="10.0.1.1", node="lb2"))
    combined = plan(directors=("lb1", "lb2"), backends=itself, hosts=("lb2",))
    state = node_state(named(combined), seen)
    assert not state.unhealthy, "an LB node may be a backend too, at all its addresses"
    assert not any(b.failed for b in state.director.pools[POOL].backends)


def test_a_backend_on_this_node_is_local() -> None:
    backends = (PlanBackend(address="10.0.0.1", node="lb1"),)
    state = node_state(named(plan(backends=backends, hosts=("lb1",))), facts())
    pool = state.director.pools[POOL]
    assert pool.backends[0].local
    assert pool.host
    assert not state.targets


def test_no_uplink_is_told_and_stops_no_other_vip() -> None:
    network = replace(NETWORK, default_ipv4=0)
    state = node_state(named(plan(vips=("192.0.2.1", "10.0.9.1"))), facts(network=network))
    assert reasons(state) == [("192.0.2.1", "NoUplink")]
    assert {a.vip for a in state.announcements} == {"10.0.9.1"}


def test_where_xdp_cannot_run_nothing_is_announced() -> None:
    state = node_state(named(plan()), facts(xdp_errors={"eth0": "NotOurs: another program"}))
    assert reasons(state) == [("10.0.9.1", "DataplaneUnavailable")]
    assert not state.announcements
    assert state.director.attachments, "it is tried again"


def test_an_unknown_table_version_directs_nothing() -> None:
    state = node_state(named(plan(table_version=7)), facts())
    assert reasons(state) == [("", "TableVersionUnknown")]
    assert state.addresses
    assert not state.director.pools


def test_of_two_plans_with_one_frontend_the_first_keeps_it() -> None:
    state = node_state(named(plan("a.x"), plan("a.y")), facts())
    assert set(state.director.frontends.values()) == {PoolKey("a.x", 4)}
    assert [(p.plan, p.reason) for p in state.problems] == [("a.y", "FrontendTaken")]


def test_impossible_values_are_a_problem_of_that_plan() -> None:
    state = node_state(named(plan("a.x", hash_seed="zz"), plan("a.y")), facts())
    assert [(p.plan, p.reason) for p in state.problems] == [("a.x", "InvalidPlan")]
    assert state.announcements


def test_a_vlan_is_an_uplink_whose_parent_runs_the_program() -> None:
    nic = Link("eth1", 7, "02:00:00:00:00:07")
    vlan = Link("eth1.5", 8, "02:00:00:00:00:08", kind="vlan", parent=7, addresses=("10.5.0.1/24",))
    backend = (PlanBackend(address="10.5.0.9"),)
    heard = {Target("10.5.0.9", 8): Neighbour(mac(9), alive=True)}
    state = node_state(
        named(plan(vips=("10.5.0.10",), backends=backend)),
        facts(network=Network((ETH0, nic, vlan), 2, 2), neighbours=heard, answers={}),
    )
    assert [a.name for a in state.director.attachments] == ["eth1"]
    assert state.uplinks == ("eth1.5",)
    (value,) = state.director.pools[POOL].backends
    assert (value.ifindex, value.source_mac) == (7, bytes.fromhex("020000000008"))


def test_times_of_the_plan_become_monotonic() -> None:
    changed = plan(
        previous_backends=(PlanBackend(address="10.0.1.2"),),
        backends_changed_at="2023-11-14T22:15:00Z",
    )
    pool = node_state(named(changed), facts(epoch=1_700_000_000)).director.pools[POOL]
    assert pool.moved_at == 100
    assert [b.key.address for b in pool.previous] == [address16("10.0.1.2")]


def test_a_peer_with_one_address_that_answers_is_up() -> None:
    half = {LB2[0]: Neighbour(mac(102), alive=False), LB2[1]: Neighbour(mac(102), alive=True)}
    vips = tuple(f"10.0.9.{i}" for i in range(1, 20))
    state = node_state(named(plan(vips=vips, directors=("lb1", "lb2"))), facts(neighbours=half))
    assert len(state.announcements) < len(vips)
