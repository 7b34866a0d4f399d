"""In which order plans grow and shrink, whatever happens and whoever is slow."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from dsr_api.base import LabelSelector
from dsr_api.node import PlanNotApplied, PlansNotApplied
from dsr_api.plan import DSRPlanSpec, Frontend
from dsr_api.service import BackendAddress, BackendSource, Port
from dsr_operator.compile.acks import COMPANY
from dsr_operator.compile.inputs import Standing
from dsr_operator.compile.sequence import HANDOVER
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.operator.model import NAMES, START, VIPS, Cluster, service, view

nodes = st.sampled_from(NAMES)
subsets = st.sets(st.sampled_from(VIPS)).map(sorted).map(tuple)
happenings = st.one_of(
    st.tuples(st.just("acknowledge"), nodes),
    st.tuples(st.just("acknowledge"), nodes),
    st.tuples(st.just("die"), nodes),
    st.tuples(st.just("revive"), nodes),
    st.tuples(st.just("vips"), subsets),
    st.tuples(st.just("ports"), st.sampled_from(((80,), (80, 443), (443,)))),
    st.tuples(st.just("label"), nodes, st.booleans(), st.booleans()),
    st.tuples(st.just("unregister"), nodes),
    st.tuples(st.just("tick"), st.sampled_from((1, 20, 40, 70))),
    st.tuples(st.just("forget")),
    st.tuples(st.just("step")),
    st.tuples(st.just("delete")),
)


def happen(cluster: Cluster, what: tuple[Any, ...]) -> None:
    kind, *rest = what
    doings: dict[str, Callable[..., object]] = {
        "acknowledge": cluster.acknowledge,
        "die": cluster.live.discard,
        "revive": cluster.live.add,
        "vips": lambda vips: change(cluster, vips=vips),
        "ports": lambda ports: change(cluster, ports=tuple(Port(port=p) for p in ports)),
        "label": lambda name, host, director: cluster.nodes.update(
            {name: view(name, host=host, director=director)}
        ),
        "unregister": lambda name: cluster.nodes.pop(name, None),
        "tick": lambda seconds: setattr(cluster, "now", cluster.now + seconds),
        "forget": cluster.forget,
        "step": cluster.step,
        "delete": lambda: delete(cluster),
    }
    doings[kind](*rest)


def change(cluster: Cluster, **changes: object) -> None:
    if cluster.service is not None:
        meta = cluster.service.metadata
        cluster.service = msgspec.structs.replace(
            cluster.service,
            metadata=msgspec.structs.replace(meta, generation=meta.generation + 1),
            spec=msgspec.structs.replace(cluster.service.spec, **changes),
        )


def delete(cluster: Cluster) -> None:
    if cluster.service is not None:
        meta = msgspec.structs.replace(
            cluster.service.metadata, deletion_timestamp="2025-01-02T00:00:00Z"
        )
        cluster.service = msgspec.structs.replace(cluster.service, metadata=meta)


def everyone_follows(cluster: Cluster) -> None:
    """All nodes are up and follow, until nothing happens any more."""
    cluster.live = set(NAMES)
    for later in (0, 31, 1000):
        cluster.now += later
        for _ in range(8):
            cluster.settle()
            for name in NAMES:
                cluster.acknowledge(name)
    cluster.settle()


@settings(max_examples=600, deadline=None)
@given(st.booleans(), st.booleans(), st.lists(happenings, min_size=5, max_size=30))
def test_no_packet_can_reach_a_host_without_the_vip(
    begun: bool, patient: bool, history: list[tuple[Any, ...]]
) -> None:
    cluster = running() if begun else Cluster()
    change(cluster, drain_timeout_seconds=30 if patient else 0)
    for what in history:
        happen(cluster, what)
        cluster.step()
        assert cluster.stray() is None, cluster.versions


@settings(max_examples=200, deadline=None)
@given(st.lists(happenings, max_size=30))
def test_it_always_arrives_once_everyone_follows(history: list[tuple[Any, ...]]) -> None:
    cluster = Cluster()
    for what in history:
        happen(cluster, what)
        cluster.step()
    everyone_follows(cluster)
    if cluster.service is None or cluster.service.metadata.deletion_timestamp:
        assert cluster.plan is None
        return
    wanted = set(cluster.service.spec.vips)
    backends = [n for n in cluster.nodes.values() if n.labels["host"] == "True"]
    spec = plan(cluster) if cluster.plan else None
    if spec is None:
        assert not wanted
        return
    assert set(spec.vips) == wanted
    assert set(spec.hosts) == ({n.name for n in backends} if wanted else set())
    assert not spec.former_directors
    assert {b.node for b in spec.backends} == ({n.name for n in backends} if wanted else set())
    ports = {p.port for p in cluster.service.spec.ports}
    if backends and any(n.labels["director"] == "True" for n in cluster.nodes.values()):
        assert {(f.vip, f.port) for f in spec.frontends} == {(v, p) for v in wanted for p in ports}


@settings(max_examples=100, deadline=None)
@given(st.lists(happenings, max_size=30))
def test_asking_twice_changes_nothing(history: list[tuple[Any, ...]]) -> None:
    cluster = Cluster()
    for what in history:
        happen(cluster, what)
    cluster.settle()
    again = cluster.compile()
    assert again.spec is None
    if cluster.service is not None:
        assert again.status == cluster.service.status


def plan(cluster: Cluster) -> DSRPlanSpec:
    assert cluster.plan is not None
    return cluster.plan.spec


def running() -> Cluster:
    """a, b and c, all of them director and host, all up to date."""
    cluster = Cluster()
    for _ in range(4):
        cluster.settle()
        for name in NAMES:
            cluster.acknowledge(name)
    cluster.settle()
    assert {b.node for b in plan(cluster).backends} == {"a", "b", "c"}
    return cluster


def test_a_backend_enters_only_after_its_own_node_has_acknowledged() -> None:
    cluster = Cluster()
    cluster.settle()
    assert plan(cluster).hosts == ("a", "b", "c")
    assert not plan(cluster).backends
    cluster.acknowledge("b")
    cluster.now += COMPANY
    cluster.settle()
    assert [b.node for b in plan(cluster).backends] == ["b"]
    assert plan(cluster).frontends


def test_new_backends_enter_together_so_that_no_slot_moves() -> None:
    cluster = Cluster()
    cluster.settle()
    asked = cluster.latest
    cluster.acked = {"a": asked}
    cluster.settle()
    assert not plan(cluster).backends
    cluster.acked |= {"b": asked, "c": asked}
    cluster.settle()
    assert [b.node for b in plan(cluster).backends] == ["a", "b", "c"]
    assert not plan(cluster).previous_backends


def test_nobody_waits_for_a_dead_node_s_company() -> None:
    cluster = Cluster()
    cluster.live -= {"c"}
    cluster.settle()
    cluster.acknowledge("a")
    cluster.acknowledge("b")
    cluster.settle()
    assert [b.node for b in plan(cluster).backends] == ["a", "b"]


def test_who_has_acknowledged_is_waited_for_until_its_lease_is_seen() -> None:
    cluster = Cluster()
    cluster.settle()
    for name in "abc":
        cluster.acknowledge(name)
    cluster.live -= {"c"}
    cluster.settle()
    assert not plan(cluster).backends
    cluster.live.add("c")
    cluster.settle()
    assert [b.node for b in plan(cluster).backends] == ["a", "b", "c"]


def test_one_write_for_all_who_have_acknowledged_whatever_has_been_written_since() -> None:
    cluster = Cluster()
    cluster.settle()
    asked = cluster.latest
    cluster.acked = {"a": asked}
    cluster.settle()
    cluster.acked |= {"b": asked, "c": asked}
    cluster.settle()
    assert [b.node for b in plan(cluster).backends] == ["a", "b", "c"]


def test_a_removed_backend_drains_then_leaves_then_its_host_is_let_go() -> None:
    cluster = running()
    cluster.nodes["c"] = view("c", host=False, director=False)
    cluster.settle()
    leaving = next(b for b in plan(cluster).backends if b.node == "c")
    assert leaving.weight == 0
    assert leaving.drain_until
    assert cluster.compile().wake_at is not None
    cluster.now += 31
    cluster.settle()
    assert "c" not in {b.node for b in plan(cluster).backends}
    assert "c" in plan(cluster).hosts
    cluster.acknowledge("a")
    cluster.settle()
    assert "c" in plan(cluster).hosts
    cluster.acknowledge("b")
    cluster.acknowledge("c")
    cluster.settle()
    assert plan(cluster).hosts == ("a", "b")


def test_a_backend_that_comes_back_while_it_drains_just_stays() -> None:
    cluster = running()
    cluster.nodes["c"] = view("c", host=False)
    cluster.settle()
    cluster.nodes["c"] = view("c")
    cluster.settle()
    back = next(b for b in plan(cluster).backends if b.node == "c")
    assert (back.weight, back.drain_until) == (1, None)


def test_a_backend_whose_node_is_deleted_goes_at_once() -> None:
    cluster = running()
    del cluster.nodes["c"]
    cluster.settle()
    assert {b.node for b in plan(cluster).backends} == {"a", "b"}


def test_a_new_machine_under_an_old_name_is_another_backend() -> None:
    cluster = running()
    cluster.nodes["c"] = msgspec.structs.replace(cluster.nodes["c"], uid="uid-new")
    cluster.settle()
    assert {b.node_uid for b in plan(cluster).backends} == {"uid-a", "uid-b", "uid-new"}


def test_weight_zero_drains_and_stays() -> None:
    cluster = running()
    cluster.nodes["c"] = view("c", weight="0")
    cluster.settle()
    cluster.now += 100_000
    cluster.settle()
    drained = next(b for b in plan(cluster).backends if b.node == "c")
    assert (drained.weight, drained.drain_until) == (0, None)


def test_a_dead_daemon_keeps_its_backend_and_is_not_waited_for() -> None:
    cluster = running()
    cluster.live.discard("c")
    cluster.settle()
    assert {b.node for b in plan(cluster).backends} == {"a", "b", "c"}
    delete(cluster)
    for _ in range(4):
        cluster.settle()
        cluster.acknowledge("a")
        cluster.acknowledge("b")
    cluster.settle()
    assert cluster.withdrawn


def test_what_a_node_has_acknowledged_before_it_booted_counts_no_more() -> None:
    cluster = running()
    cluster.booted.add("c")
    cluster.settle()
    assert {b.node for b in plan(cluster).backends} == {"a", "b"}
    assert announcing(cluster) == {"a": True, "b": True, "c": False}
    cluster.acknowledge("c")
    cluster.settle()
    assert {b.node for b in plan(cluster).backends} == {"a", "b", "c"}
    assert announcing(cluster) == {"a": True, "b": True, "c": True}


def test_a_new_vip_waits_for_hosts_and_not_for_ever() -> None:
    cluster = running()
    change(cluster, vips=VIPS[:2])
    cluster.settle()
    cluster.acknowledge("a")
    cluster.acknowledge("b")
    cluster.settle()
    assert {f.vip for f in plan(cluster).frontends} == {VIPS[0]}
    cluster.now += 61
    cluster.settle()
    assert {f.vip for f in plan(cluster).frontends} == set(VIPS[:2])
    assert {b.node for b in plan(cluster).backends} == {"a", "b"}


def test_a_new_vip_never_costs_the_last_backend() -> None:
    cluster = running()
    change(cluster, vips=VIPS[:2])
    cluster.settle()
    cluster.now += 61
    cluster.settle()
    assert {f.vip for f in plan(cluster).frontends} == {VIPS[0]}
    assert {b.node for b in plan(cluster).backends} == {"a", "b", "c"}


def test_withdrawal_goes_step_by_step_and_survives_a_restart_of_the_operator() -> None:
    cluster = running()
    delete(cluster)
    cluster.settle()
    assert not plan(cluster).frontends
    assert plan(cluster).vips
    cluster.forget()
    cluster.settle()
    assert plan(cluster).vips
    for name in "abc":
        cluster.acknowledge(name)
    cluster.settle()
    assert not plan(cluster).vips
    assert plan(cluster).hosts
    cluster.forget()
    cluster.settle()
    assert cluster.plan is not None
    for name in "abc":
        cluster.acknowledge(name)
    cluster.settle()
    assert cluster.plan is None


def test_a_silent_node_holds_withdrawal_up_for_a_minute_a_step() -> None:
    cluster = running()
    delete(cluster)
    cluster.settle()
    cluster.now += 59
    cluster.settle()
    assert plan(cluster).vips
    cluster.now += 2
    cluster.settle()
    assert not plan(cluster).vips


def test_the_orphaned_plan_of_a_vanished_service_is_withdrawn_too() -> None:
    cluster = running()
    cluster.service = None
    cluster.settle()
    assert not plan(cluster).frontends


def announcing(cluster: Cluster) -> dict[str, bool]:
    return {d.node: d.announces for d in plan(cluster).directors}


def lbs(cluster: Cluster, *names: str) -> None:
    """From now on these are the load balancers."""
    for name in cluster.nodes:
        cluster.nodes[name] = view(name, director=name in names)


def test_a_director_that_leaves_is_relieved_then_gone_then_remembered() -> None:
    cluster = running()
    lbs(cluster, "a", "b")
    cluster.settle()
    assert announcing(cluster) == {"a": True, "b": True, "c": False}
    cluster.acknowledge("a")
    cluster.acknowledge("c")
    cluster.now += HANDOVER
    cluster.settle()
    assert "c" in announcing(cluster), "b has not taken over yet"
    cluster.acknowledge("b")
    cluster.settle()
    assert announcing(cluster) == {"a": True, "b": True}
    assert plan(cluster).former_directors == ("c",)
    cluster.acknowledge("c")
    cluster.settle()
    assert plan(cluster).former_directors == ()


def test_a_relieved_director_forwards_until_the_segment_has_been_told_twice() -> None:
    cluster = running()
    lbs(cluster, "a", "b")
    cluster.settle()
    relieved = cluster.now
    for name in "abc":
        cluster.acknowledge(name)
    cluster.settle()
    assert "c" in announcing(cluster)
    assert cluster.compile().wake_at == relieved - START + HANDOVER
    cluster.now += HANDOVER
    cluster.settle()
    assert "c" not in announcing(cluster)


def test_when_all_directors_are_replaced_the_old_ones_announce_until_a_new_one_can() -> None:
    cluster = running()
    lbs(cluster, "a")
    arrive(cluster)
    assert announcing(cluster) == {"a": True}
    lbs(cluster, "b", "c")
    cluster.settle()
    assert announcing(cluster) == {"a": True, "b": False, "c": False}
    cluster.acknowledge("b")
    cluster.settle()
    assert announcing(cluster) == {"a": False, "b": True, "c": False}
    cluster.acknowledge("b")
    cluster.acknowledge("c")
    cluster.now += HANDOVER
    cluster.settle()
    assert announcing(cluster) == {"b": True, "c": True}


def test_new_directors_that_never_come_are_waited_for_a_minute() -> None:
    cluster = running()
    lbs(cluster, "a")
    arrive(cluster)
    cluster.nodes["d"] = view("d")
    lbs(cluster, "d")
    cluster.live.discard("d")
    cluster.settle()
    cluster.now += 59
    cluster.settle()
    assert announcing(cluster) == {"a": True, "d": False}
    cluster.now += 2
    cluster.settle()
    cluster.now += HANDOVER
    cluster.settle()
    assert announcing(cluster) == {"d": False}


def test_when_no_node_is_selected_any_more_nobody_directs() -> None:
    cluster = running()
    lbs(cluster)
    cluster.settle()
    assert announcing(cluster) == {}
    assert plan(cluster).former_directors == ("a", "b", "c")


def test_a_dead_director_leaves_at_once() -> None:
    cluster = running()
    cluster.live.discard("c")
    lbs(cluster, "a", "b")
    cluster.settle()
    assert announcing(cluster) == {"a": True, "b": True}


def test_a_director_comes_without_announcing_until_it_has_the_plan() -> None:
    cluster = running()
    cluster.nodes["d"] = view("d", host=False)
    cluster.settle()
    assert announcing(cluster) == dict.fromkeys("abc", True) | {"d": False}
    assert "d" in cluster.compile().awaits
    cluster.forget()
    cluster.settle()
    assert announcing(cluster) == dict.fromkeys("abc", True) | {"d": False}
    cluster.acknowledge("d")
    cluster.settle()
    assert announcing(cluster) == dict.fromkeys("abcd", True)


def test_of_a_new_service_all_that_have_ever_reported_announce() -> None:
    cluster = Cluster()
    cluster.acked = {"a": 0, "b": 0}
    cluster.settle()
    assert announcing(cluster) == {"a": True, "b": True, "c": False}


@pytest.mark.parametrize(
    ("reason", "announces"),
    [("XdpBusy", False), ("InvalidPlan", False), ("AddressConflict", True)],
)
def test_a_director_that_cannot_direct_does_not_announce(reason: str, announces: bool) -> None:
    cluster = running()
    item = PlanNotApplied(plan="shop.web", reason=reason, message="no")
    outcome = cluster.compile(complaints={"c": PlansNotApplied(items=(item,))})
    spec = outcome.spec or plan(cluster)
    assert {d.node: d.announces for d in spec.directors} == {"a": True, "b": True, "c": announces}


def test_a_former_director_is_waited_for_like_a_present_one() -> None:
    cluster = running()
    change(cluster, drain_timeout_seconds=0)
    cluster.nodes["c"] = view("c", director=False)
    cluster.settle()
    for name in "ab":
        cluster.acknowledge(name)
    cluster.now += HANDOVER
    cluster.settle()
    assert plan(cluster).former_directors == ("c",)
    cluster.nodes["b"] = view("b", host=False, director=False)
    for _ in range(2):
        cluster.settle()
        for name in "ab":
            cluster.acknowledge(name)
        cluster.now += HANDOVER
    cluster.settle()
    assert "b" in plan(cluster).hosts
    cluster.acknowledge("c")
    cluster.settle()
    assert "b" not in plan(cluster).hosts


def arrive(cluster: Cluster) -> None:
    """Everyone follows, until the plan changes no more."""
    for _ in range(6):
        cluster.settle()
        for name in NAMES:
            cluster.acknowledge(name)
        cluster.now += HANDOVER
    cluster.settle()


def test_what_another_plan_still_forwards_is_waited_for() -> None:
    frontend = Frontend(vip=VIPS[0], protocol="TCP", port=80)
    cluster = Cluster(standing=Standing(held={frontend: "shop/old"}))
    arrive(cluster)
    assert plan(cluster).backends
    assert not plan(cluster).frontends
    cluster.standing = Standing()
    cluster.settle()
    assert plan(cluster).frontends == (frontend,)


def test_frontends_come_before_the_backends_and_wait_for_those_that_are_there() -> None:
    cluster = Cluster()
    cluster.settle()
    assert [f.vip for f in plan(cluster).frontends] == [VIPS[0]]
    assert not plan(cluster).backends
    arrive(cluster)
    change(cluster, vips=(VIPS[0], VIPS[2]))
    cluster.settle()
    assert {f.vip for f in plan(cluster).frontends} == {VIPS[0]}, "the backends lack the new VIP"
    arrive(cluster)
    assert {f.vip for f in plan(cluster).frontends} == {VIPS[0], VIPS[2]}


def test_frontends_that_nothing_will_ever_serve_stay_out() -> None:
    source = BackendSource(addresses=(BackendAddress(address="198.51.100.7"),))
    cluster = Cluster(service=service(backends=source, vips=(VIPS[0], VIPS[2])))
    arrive(cluster)
    assert {f.vip for f in plan(cluster).frontends} == {VIPS[0]}


@pytest.mark.parametrize(
    ("reason", "served"),
    [
        ("VIPIsNodeAddress", {"a", "b"}),
        ("AddressConflict", {"a", "b", "c"}),
        ("XdpBusy", {"a", "b", "c"}),
    ],
)
def test_a_host_that_says_it_lacks_the_vip_gets_nothing(reason: str, served: set[str]) -> None:
    cluster = running()
    item = PlanNotApplied(plan="shop.web", reason=reason, message="no")
    outcome = cluster.compile(complaints={"c": PlansNotApplied(items=(item,))})
    assert {b.node for b in (outcome.spec or plan(cluster)).backends} == served


def test_a_host_whose_list_of_complaints_is_cut_off_is_not_taken_at_its_word() -> None:
    cluster = Cluster()
    cluster.settle()
    cluster.acknowledge("a")
    cluster.now += COMPANY
    others = PlanNotApplied(plan="a.first", reason="InvalidPlan", message="no")
    cut = cluster.compile(complaints={"a": PlansNotApplied(items=(others,), more=3)})
    assert cut.spec is None or not cut.spec.backends
    full = cluster.compile(complaints={"a": PlansNotApplied(items=(others,))})
    assert full.spec is not None
    assert full.spec.backends


def test_external_servers_need_no_acknowledgement() -> None:
    source = BackendSource(addresses=(BackendAddress(address="198.51.100.7", weight=3),))
    cluster = Cluster(service=service(backends=source))
    cluster.settle()
    assert [(b.address, b.node) for b in plan(cluster).backends] == [("198.51.100.7", "")]
    assert plan(cluster).frontends
    assert plan(cluster).hosts == ()


def test_a_plan_made_again_gives_the_same_tables() -> None:
    first, second = Cluster(), Cluster()
    other = msgspec.structs.replace(service().metadata, uid="another")
    third = Cluster(service=msgspec.structs.replace(service(), metadata=other))
    for cluster in (first, second, third):
        cluster.settle()
    assert plan(first).hash_seed == plan(second).hash_seed != plan(third).hash_seed
    assert re.fullmatch(r"[0-9a-f]{16}", plan(first).hash_seed)


def test_the_seed_and_the_table_of_a_plan_stay() -> None:
    cluster = running()
    assert cluster.plan is not None
    odd = msgspec.structs.replace(plan(cluster), table_size=65537, hash_seed="00000000000000bb")
    cluster.plan = msgspec.structs.replace(cluster.plan, spec=odd)
    change(cluster, ports=(Port(port=443),))
    cluster.settle()
    assert (plan(cluster).table_size, plan(cluster).hash_seed) == (65537, "00000000000000bb")


def test_an_empty_selector_selects_all_nodes() -> None:
    source = BackendSource(node_selector=LabelSelector())
    cluster = Cluster(service=service(backends=source))
    cluster.settle()
    assert plan(cluster).hosts == ("a", "b", "c")
