"""What a DSRService's status says."""

from __future__ import annotations

import re

import msgspec
from dsr_api.base import Condition
from dsr_api.node import (
    DSRNodeStatus,
    PlanNotApplied,
    PlansNotApplied,
    UnhealthyBackend,
    UnhealthyBackends,
)
from dsr_api.plan import Frontend
from dsr_api.service import DSRServiceStatus
from dsr_operator.compile import compile_service
from dsr_operator.compile.events import transitions
from dsr_operator.compile.inputs import Clock, CoreService, Inputs, Standing, World

from tests.unit.operator.model import NAMES, START, VIPS, Cluster, view
from tests.unit.operator.test_sequence import arrive, change, delete, running

TYPES = ["Accepted", "ResolvedRefs", "Programmed", "BackendsHealthy", "Degraded", "Ready"]


def status(cluster: Cluster) -> DSRServiceStatus:
    assert cluster.service is not None
    return cluster.service.status


def said(seen: DSRServiceStatus, kind: str) -> Condition:
    return next(c for c in seen.conditions if c.type == kind)


def with_report(cluster: Cluster, **reports: DSRNodeStatus) -> DSRServiceStatus:
    """The status if these nodes reported something more."""
    up_to_date = {n: DSRNodeStatus(applied_revision=cluster.latest) for n in NAMES}
    merged = up_to_date | {
        n: msgspec.structs.replace(r, applied_revision=cluster.latest) for n, r in reports.items()
    }
    outcome = compile_service(
        Inputs(
            cluster.service,
            cluster.plan,
            cluster.history,
            World(cluster.nodes, {}, merged, frozenset(cluster.live)),
            Standing(),
            CoreService(),
            Clock(cluster.now, cluster.now - START),
        )
    )
    assert outcome.status is not None
    return outcome.status


def test_all_is_well() -> None:
    seen = status(running())
    assert [c.type for c in seen.conditions] == TYPES
    assert {c.type: c.status for c in seen.conditions} == dict.fromkeys(TYPES, "True") | {
        "Degraded": "False"
    }
    assert all(re.fullmatch(r"[A-Za-z]+", c.reason) and c.message for c in seen.conditions)
    assert seen.summary is not None
    assert (seen.summary.ports, seen.summary.backends) == ("80/TCP", "3/3")
    assert (seen.backends.total, seen.backends.healthy, seen.load_balancers.programmed) == (3, 3, 3)


def test_a_time_moves_with_the_status_alone() -> None:
    cluster = running()
    before = status(cluster)
    cluster.now += 500
    change(cluster, scheduler="Maglev")
    cluster.settle()
    after = status(cluster)
    assert after.observed_generation == before.observed_generation + 1
    assert said(after, "Accepted").observed_generation == after.observed_generation
    assert said(after, "Accepted").last_transition_time == (
        said(before, "Accepted").last_transition_time
    )
    assert said(after, "Programmed").status == "False"
    assert said(after, "Programmed").last_transition_time != (
        said(before, "Programmed").last_transition_time
    )


def test_a_node_may_lag_ten_seconds_once_a_generation_has_been_out() -> None:
    cluster = running()
    cluster.nodes["a"] = msgspec.structs.replace(cluster.nodes["a"], weight="2")
    cluster.settle()
    for name in "ab":
        cluster.acknowledge(name)
    cluster.settle()
    assert said(status(cluster), "Programmed").status == "True"
    assert status(cluster).load_balancers.programmed == 3
    cluster.now += 11
    cluster.settle()
    lagging = said(status(cluster), "Programmed")
    assert (lagging.status, lagging.reason) == ("False", "NodeLags")
    assert "c" in lagging.message
    assert status(cluster).load_balancers.programmed == 2
    cluster.acknowledge("c")
    cluster.settle()
    assert said(status(cluster), "Programmed").status == "True"


def test_the_lag_is_looked_at_when_its_time_has_come() -> None:
    cluster = running()
    cluster.nodes["a"] = msgspec.structs.replace(cluster.nodes["a"], weight="2")
    cluster.settle()
    outcome = cluster.compile()
    assert outcome.wake_at == cluster.now - START + 10
    assert {"a", "b", "c"} <= outcome.awaits


def test_a_dead_node_is_counted_and_not_waited_for() -> None:
    cluster = running()
    cluster.live.discard("c")
    change(cluster, drain_timeout_seconds=31)
    cluster.settle()
    for name in "ab":
        cluster.acknowledge(name)
    cluster.settle()
    seen = status(cluster)
    assert said(seen, "Ready").status == "True"
    assert said(seen, "Degraded").reason == "NodeDown"
    assert "c" in said(seen, "Degraded").message
    assert (seen.load_balancers.total, seen.load_balancers.programmed) == (3, 2)


def test_no_live_load_balancer() -> None:
    cluster = running()
    cluster.live.clear()
    cluster.settle()
    assert said(status(cluster), "Ready").reason == "NoLiveLoadBalancerNode"


def test_a_nodes_complaint_is_shown_with_its_name() -> None:
    item = PlanNotApplied(plan="shop.web", reason="AddressConflict", message="02:00 answers")
    report = DSRNodeStatus(plans_not_applied=PlansNotApplied(items=(item,)))
    seen = with_report(running(), b=report)
    assert said(seen, "Ready").reason == "AddressConflict"
    assert said(seen, "Ready").message == "node b: 02:00 answers"
    other = msgspec.structs.replace(item, plan="shop.other")
    unconcerned = DSRNodeStatus(plans_not_applied=PlansNotApplied(items=(other,)))
    assert said(with_report(running(), b=unconcerned), "Ready").status == "True"


def unhealthy(*addresses: str) -> DSRNodeStatus:
    items = tuple(
        UnhealthyBackend(plan="shop.web", address=a, reason="MACNotResolved", message="no answer")
        for a in addresses
    )
    return DSRNodeStatus(unhealthy_backends=UnhealthyBackends(items=items))


def everywhere(*addresses: str) -> dict[str, DSRNodeStatus]:
    return dict.fromkeys("abc", unhealthy(*addresses))


def test_an_unhealthy_backend_is_shown_and_leaves_the_service_ready() -> None:
    seen = with_report(running(), **everywhere("10.0.0.3"))
    healthy = said(seen, "BackendsHealthy")
    assert (healthy.status, healthy.reason) == ("False", "SomeUnhealthy")
    assert "10.0.0.3 (node c): MACNotResolved: no answer (seen from a, b, c)" in healthy.message
    assert said(seen, "Degraded").status == "True"
    assert said(seen, "Ready").status == "True"
    assert seen.backends.healthy == 2


def test_what_some_lb_nodes_alone_do_not_reach_is_healthy_and_told() -> None:
    seen = with_report(running(), b=unhealthy("10.0.0.3"))
    assert said(seen, "BackendsHealthy").status == "True"
    assert seen.backends.healthy == 3
    degraded = said(seen, "Degraded")
    assert (degraded.status, degraded.reason) == ("True", "BackendUnhealthy")
    assert "10.0.0.3 (node c): MACNotResolved: no answer (seen from b, not from a, c)" in (
        degraded.message
    )


def test_without_a_healthy_backend_it_is_not_ready() -> None:
    seen = with_report(running(), **everywhere("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    assert said(seen, "Ready").reason == "NoneHealthy"


def test_each_family_that_has_vips_needs_a_healthy_backend() -> None:
    cluster = running()
    change(cluster, vips=(VIPS[0], VIPS[2]))
    arrive(cluster)
    assert said(status(cluster), "Ready").status == "True"
    seen = with_report(cluster, **everywhere("fd00::1", "fd00::2", "fd00::3"))
    assert seen.backends.healthy == 3
    ready = said(seen, "Ready")
    assert (ready.status, ready.reason) == ("False", "NoneHealthy")
    assert ready.message.startswith("no IPv6 backend takes new connections; fd00::1")


def test_a_backend_said_once_for_all_plans_counts_for_each() -> None:
    of_all = DSRNodeStatus(
        unhealthy_backends=UnhealthyBackends(
            items=(UnhealthyBackend(plan="", address="10.0.0.3", reason="MACNotResolved"),)
        )
    )
    assert with_report(running(), **dict.fromkeys("abc", of_all)).backends.healthy == 2


def test_of_what_a_list_has_no_room_for_nobody_knows() -> None:
    item = UnhealthyBackend(plan="shop.other", address="10.0.0.1", reason="MACNotResolved")
    cut = DSRNodeStatus(unhealthy_backends=UnhealthyBackends(items=(item,), more=5))
    seen = with_report(running(), **dict.fromkeys("abc", cut))
    assert seen.backends.healthy == 0
    assert "not known: a, b, c found more" in said(seen, "BackendsHealthy").message
    item = msgspec.structs.replace(item, address="10.0.0.2")
    cut = DSRNodeStatus(unhealthy_backends=UnhealthyBackends(items=(item,), more=5))
    assert with_report(running(), **dict.fromkeys("abc", cut)).backends.healthy == 1
    assert with_report(running(), a=cut, b=cut).backends.healthy == 3


def test_a_host_without_a_daemon_is_healthy_while_an_lb_node_reaches_it() -> None:
    cluster = apart()
    cluster.live -= {"a", "b"}
    cluster.settle()
    assert status(cluster).backends.healthy == 2
    assert said(status(cluster), "Degraded").reason == "NodeDown"
    assert with_report(cluster, c=unhealthy("10.0.0.1", "10.0.0.2")).backends.healthy == 0
    cluster.live.clear()
    cluster.settle()
    assert status(cluster).backends.healthy == 0
    healthy = said(status(cluster), "BackendsHealthy")
    assert healthy.status == "False"
    assert "no load balancer node tells whether it can be reached" in healthy.message


def apart() -> Cluster:
    """Hosts a and b, director c."""
    nodes = {n: view(n, host=n != "c", director=n == "c") for n in "abc"}
    cluster = Cluster(nodes=nodes)
    arrive(cluster)
    return cluster


def complaint(reason: str, plan: str = "shop.web", more: int = 0) -> DSRNodeStatus:
    item = PlanNotApplied(plan=plan, reason=reason, message="no")
    return DSRNodeStatus(plans_not_applied=PlansNotApplied(items=(item,), more=more))


def test_one_load_balancer_of_several_that_cannot_direct_is_degraded() -> None:
    seen = with_report(running(), c=complaint("XdpBusy"))
    assert said(seen, "Ready").status == "True"
    assert (said(seen, "Degraded").reason, said(seen, "Degraded").message) == (
        "XdpBusy",
        "node c: no",
    )
    assert seen.load_balancers.programmed == 2


def test_it_is_not_ready_while_no_load_balancer_can_direct() -> None:
    cluster = running()
    cluster.complaints = {n: complaint("XdpBusy").plans_not_applied for n in "abc"}
    cluster.settle()
    ready = said(status(cluster), "Ready")
    assert (ready.status, ready.reason) == ("False", "XdpBusy")


def test_what_a_node_says_of_each_vip_is_said_once() -> None:
    item = PlanNotApplied(plan="shop.web", reason="XdpBusy", message="another program")
    both = tuple(msgspec.structs.replace(item, vip=vip) for vip in VIPS[:2])
    seen = with_report(running(), c=DSRNodeStatus(plans_not_applied=PlansNotApplied(items=both)))
    assert said(seen, "Degraded").message == "node c: another program"


def test_it_is_not_ready_while_all_who_could_announce_are_dead() -> None:
    cluster = running()
    cluster.complaints = {"a": complaint("XdpBusy").plans_not_applied}
    cluster.live -= {"b", "c"}
    cluster.settle()
    assert said(status(cluster), "Ready").reason == "XdpBusy"


def test_a_host_that_cannot_hold_the_vip_keeps_no_generation_pending() -> None:
    cluster = Cluster()
    cluster.complaints = {"c": complaint("AddressRefused").plans_not_applied}
    arrive(cluster)
    seen = status(cluster)
    assert said(seen, "Ready").status == "True"
    assert said(seen, "Degraded").reason == "AddressRefused"
    assert seen.backends.healthy == 2


def test_a_frontend_that_is_missing_is_told_also_when_the_generation_was_out() -> None:
    cluster = running()
    assert said(status(cluster), "Ready").status == "True"
    frontend = Frontend(vip=VIPS[0], protocol="TCP", port=80)
    cluster.standing = Standing(outside=set(VIPS))
    cluster.settle()
    cluster.standing = Standing(held={frontend: "shop/old"})
    cluster.settle()
    ready = said(status(cluster), "Ready")
    assert (ready.status, ready.reason) == ("False", "WaitingForOtherService")


def test_a_cut_off_list_of_complaints_is_told() -> None:
    cluster = Cluster()
    cluster.complaints = {"c": complaint("InvalidPlan", "a.first", more=3).plans_not_applied}
    arrive(cluster)
    assert status(cluster).backends.healthy == 2
    assert "node c" in said(status(cluster), "BackendsHealthy").message
    assert "more complaints than a DSRNode tells" in said(status(cluster), "Degraded").message
    cluster.complaints = {"c": complaint("XdpBusy", "a.first", more=3).plans_not_applied}
    arrive(cluster)
    assert status(cluster).backends.healthy == 3, "all who lack a VIP come first in the list"


def test_what_is_being_withdrawn_says_so_and_for_whom_it_waits() -> None:
    cluster = running()
    delete(cluster)
    cluster.settle()
    ready = said(status(cluster), "Ready")
    assert (ready.status, ready.reason) == ("False", "Withdrawing")
    assert "waiting for a, b, c" in ready.message


def test_events_tell_transitions_once() -> None:
    cluster = Cluster()
    told: list[str] = []
    for _ in range(5):
        before = status(cluster)
        cluster.settle()
        told += [e.reason for e in transitions(before, status(cluster))]
        for name in NAMES:
            cluster.acknowledge(name)
    assert told == ["Accepted", "Ready"]
    before = status(cluster)
    after = with_report(cluster, **everywhere("10.0.0.1"))
    assert [(e.type, e.reason) for e in transitions(before, after)] == [
        ("Warning", "BackendUnhealthy")
    ]
    assert transitions(after, after) == []
