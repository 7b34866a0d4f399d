"""Several services on one VIP: who has it, on whose terms, and what takes it away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from dsr_operator import kinds
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.operator.town import EAST, NODES, VIPS, WEST, Town


def elect(selector: dict[str, Any]) -> dict[str, Any]:
    return {"loadBalancerNodes": {"nodeSelector": selector}}


def follow(town: Town) -> None:
    """Everybody follows, and time for handing VIPs over passes, until nothing happens any more."""
    for _ in range(8):
        town.tick(1)
        town.settle()
        for name in NODES:
            town.acknowledge(name)
    town.settle()


@pytest.fixture
def town() -> Town:
    """Service one has port 80 of the first VIP, directed by the nodes of the east."""
    made = Town()
    made.service("one")
    follow(made)
    assert made.ports("one") == {80}
    return made


# The terms of a VIP


@pytest.mark.parametrize(
    ("namespace", "changes", "named"),
    [
        ("shop", elect(WEST), "loadBalancerNodes"),
        ("shop", {"announcement": {"mode": "None"}}, "announcement.mode"),
        ("bank", {}, "namespace"),
    ],
)
def test_who_comes_later_with_other_terms_is_refused(
    town: Town, namespace: str, changes: dict[str, Any], named: str
) -> None:
    town.service("two", namespace, ports=[{"port": 443}], **changes)
    follow(town)
    assert f"{namespace}.two" not in town.plans()
    status, reason, message = town.condition("Accepted", "two", namespace)
    assert (status, reason) == ("False", "VIPConflict")
    assert "shop/one" in message
    assert named in message
    assert town.condition("Ready", "one")[0] == "True"


def test_who_comes_later_with_the_same_terms_shares_the_vip(town: Town) -> None:
    town.service("two", ports=[{"port": 443}])
    follow(town)
    assert (town.ports("one"), town.ports("two")) == ({80}, {443})
    assert town.condition("Ready", "two")[0] == "True"


def test_one_of_two_that_changes_its_terms_goes_on_as_before_until_the_other_changes_too(
    town: Town,
) -> None:
    town.service("two", ports=[{"port": 443}])
    follow(town)
    town.service("one", **elect(WEST))
    town.restart()
    follow(town)
    for name in ("shop.one", "shop.two"):
        assert [d.node for d in town.plans()[name].directors] == ["a", "b"]
    status, reason, message = town.condition("Accepted", "one")
    assert (status, reason) == ("False", "VIPConflict")
    assert "shop/two" in message
    assert town.condition("Ready", "two")[0] == "True"
    town.service("two", **elect(WEST))
    follow(town)
    for name in ("shop.one", "shop.two"):
        assert [d.node for d in town.plans()[name].directors] == ["b", "c"]
    assert town.condition("Ready", "one")[0] == town.condition("Ready", "two")[0] == "True"


# Who has something keeps it


@pytest.mark.parametrize(("terms", "refused"), [(EAST, "FrontendConflict"), (WEST, "VIPConflict")])
def test_an_older_service_takes_no_frontend_from_one_that_has_it(
    terms: dict[str, Any], refused: str
) -> None:
    town = Town()
    town.service("older", vips=[VIPS[1]], **elect(terms))
    town.service("younger")
    follow(town)
    town.service("older", vips=[*VIPS])
    follow(town)
    assert town.ports("younger") == {80}
    assert town.ports("older") == set()
    assert town.ports("older", VIPS[1]) == {80}
    status, reason, message = town.condition("Accepted", "older")
    assert (status, reason) == ("False", refused)
    assert "shop/younger" in message


def test_of_two_new_services_the_older_one_gets_it() -> None:
    town = Town()
    town.service("older", **elect(WEST))
    town.service("a-younger")
    follow(town)
    assert town.ports("older") == {80}
    assert town.condition("Accepted", "a-younger")[1] == "VIPConflict"


def test_a_service_of_the_same_name_made_anew_has_nothing(town: Town) -> None:
    town.service("two")
    plan = town.objects[kinds.PLAN.name, "", "shop.one"][1]
    town.drop(kinds.SERVICE, "one", "shop")
    town.service("one")
    assert plan["spec"]["frontends"]
    follow(town)
    assert (town.ports("one"), town.ports("two")) == (set(), {80})


# Pools and Nodes


@pytest.mark.parametrize("addresses", [["203.0.113.0/24"], ["192.0.2.9-192.0.2.0"]])
def test_a_vip_in_use_that_no_pool_grants_any_more_is_served_until_the_spec_changes(
    town: Town, addresses: list[str]
) -> None:
    town.pool(*addresses)
    town.restart()
    follow(town)
    assert town.ports("one") == {80}
    status, reason, message = town.condition("Accepted", "one")
    assert (status, reason) == ("False", "VIPOutsidePools")
    assert "no longer granted by any pool" in message
    town.service("one", drainTimeoutSeconds=5)
    follow(town)
    assert "shop.one" not in town.plans() or not town.plans()["shop.one"].frontends
    assert "no longer" not in town.condition("Accepted", "one")[2]


def test_a_vip_in_use_outlives_its_pool_and_the_labels_of_its_namespace(town: Town) -> None:
    town.drop(kinds.POOL, "public")
    follow(town)
    assert town.ports("one") == {80}
    selector = {"matchLabels": {"tenant": "good"}}
    town.put(
        kinds.POOL, "public", spec={"addresses": ["192.0.2.0/24"], "namespaceSelector": selector}
    )
    follow(town)
    assert town.ports("one") == {80}
    town.put(kinds.NAMESPACE, "shop", metadata={"labels": {"tenant": "good"}})
    follow(town)
    assert town.condition("Ready", "one")[0] == "True"


def test_a_bad_entry_of_a_pool_is_named_and_the_others_count(town: Town) -> None:
    town.pool("192.0.2.9-192.0.2.2", "192.0.2.1/32")
    town.service("two", vips=[VIPS[1]])
    follow(town)
    assert town.condition("Ready", "one")[0] == "True"
    status, reason, message = town.condition("Accepted", "two")
    assert (status, reason) == ("False", "VIPOutsidePools")
    assert "DSRAddressPool public: '192.0.2.9-192.0.2.2'" in message


def test_a_node_that_lists_a_vip_in_use_does_not_take_it_away(town: Town) -> None:
    town.node("c", None, *VIPS)
    town.service("two", vips=[VIPS[1]])
    follow(town)
    assert town.ports("one") == {80}
    status, reason, message = town.condition("Degraded", "one")
    assert (status, reason) == ("True", "VIPIsNodeAddress")
    assert "node c" in message
    assert town.condition("Ready", "one")[0] == "True"
    assert town.condition("Accepted", "two")[1] == "VIPIsNodeAddress"


# Handing over


@pytest.mark.parametrize("ports", [[{"port": 80}], [{"port": 80}, {"port": 443}]])
def test_a_frontend_given_up_is_waited_for_until_its_directors_have_let_go(
    town: Town, ports: list[dict[str, Any]]
) -> None:
    town.service("one", ports=ports)
    town.service("two")
    follow(town)
    if len(ports) > 1:
        town.service("one", ports=ports[1:])
    else:
        town.service("one", vips=[VIPS[1]])
    town.settle()
    assert 80 not in town.ports("one")
    town.acknowledge("a")
    town.settle()
    assert town.ports("two") == set()
    assert town.condition("Programmed", "two")[1] == "WaitingForOtherService"
    town.acknowledge("b")
    town.settle()
    assert town.ports("two") == {80}


def test_who_waits_for_a_frontend_beside_another_is_woken_when_it_is_free(town: Town) -> None:
    town.service("two", ports=[{"port": 80}, {"port": 8080}])
    follow(town)
    assert town.ports("two") == {8080}
    town.service("one", ports=[{"port": 443}])
    town.settle()
    assert town.ports("two") == {8080}
    for name in NODES:
        town.acknowledge(name)
    town.settle()
    assert town.ports("two") == {80, 8080}


def test_a_silent_director_is_waited_for_a_minute(town: Town) -> None:
    town.service("two")
    follow(town)
    town.service("one", ports=[{"port": 443}])
    town.settle()
    town.tick(59)
    town.settle()
    assert town.ports("two") == set()
    town.tick(2)
    town.settle()
    assert town.ports("two") == {80}


@pytest.mark.parametrize("change", [{"vips": [VIPS[1]]}, {"ports": [{"port": 443}]}])
def test_an_operator_that_has_just_started_waits_as_well(
    town: Town, change: dict[str, Any]
) -> None:
    town.service("two")
    follow(town)
    town.service("one", **change)
    while 80 in town.ports("one"):
        town.step()
    town.restart()
    town.settle()
    assert town.ports("two") == set()
    follow(town)
    assert town.ports("two") == {80}


# Whatever happens

names = st.sampled_from((("one", "shop"), ("two", "shop"), ("three", "bank")))
changes = st.one_of(
    st.builds(elect, st.sampled_from((EAST, WEST))),
    st.builds(lambda m: {"announcement": {"mode": m}}, st.sampled_from(("L2", "None"))),
    st.builds(
        lambda v: {"vips": sorted(v)}, st.sets(st.sampled_from(VIPS), min_size=1, max_size=2)
    ),
    st.builds(
        lambda p: {"ports": [{"port": n} for n in sorted(p)]},
        st.sets(st.sampled_from((80, 443)), min_size=1, max_size=2),
    ),
    st.builds(lambda s: {"drainTimeoutSeconds": s}, st.sampled_from((5, 6))),
)
happenings = st.one_of(
    st.tuples(st.just("service"), names, changes),
    st.tuples(st.just("service"), names, changes),
    st.tuples(st.just("delete"), names),
    st.tuples(st.just("acknowledge"), st.sampled_from(NODES)),
    st.tuples(st.just("acknowledge"), st.sampled_from(NODES)),
    st.tuples(st.just("live"), st.sampled_from((NODES, NODES[:2], NODES[1:]))),
    st.tuples(st.just("tick"), st.sampled_from((1, 20, 61))),
    st.tuples(st.just("pool"), st.sampled_from(("192.0.2.0/24", "192.0.2.1/32", "-"))),
    st.tuples(st.just("listed"), st.sampled_from(VIPS)),
    st.tuples(st.just("unlisted")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("step")),
    st.tuples(st.just("follow")),
)


def happen(town: Town, kind: str, *rest: Any) -> None:
    doings: dict[str, Callable[..., object]] = {
        "service": lambda who, what: town.service(*who, **what),
        "delete": lambda who: town.delete(*who),
        "acknowledge": town.acknowledge,
        "live": lambda who: town.set_live(*who),
        "tick": town.tick,
        "pool": town.pool,
        "listed": lambda vip: town.node("c", None, vip),
        "unlisted": lambda: town.node("c"),
        "restart": town.restart,
        "step": town.step,
        "follow": lambda: follow(town),
    }
    doings[kind](*rest)


def loses_only_by_its_own_change(town: Town) -> bool:
    """One step; whoever loses a frontend by it has been edited, or is going."""
    before = town.plans()
    went_on = town.step()
    for name, plan in before.items():
        service = town.cache.services.get((plan.service.namespace, plan.service.name))
        after = town.plans().get(name)
        if service is None or service.metadata.deletion_timestamp or after is None:
            continue
        if not set(plan.frontends) <= set(after.frontends):
            assert plan.service.generation != service.metadata.generation, name
    return went_on


def decisions(town: Town) -> tuple[Any, ...]:
    """All plans, and what the services are told of their claims."""
    accepted = {k: s.status.conditions[:1] for k, s in town.cache.services.items()}
    return town.plans(), accepted


def agree(town: Town, *, directors: bool = False) -> None:
    """All plans with a frontend on a VIP have the same namespace, directors and announcement.

    Directors: once all have followed, for each plan relieves those that leave at its own pace.
    """
    for vip in VIPS:
        sharing = [p for p in town.plans().values() if vip in {f.vip for f in p.frontends}]
        assert len({(p.service.namespace, p.announcement) for p in sharing}) <= 1
        if directors:
            assert len({tuple(p.directors) for p in sharing}) <= 1


@settings(max_examples=400, deadline=None)
@given(st.lists(happenings, min_size=3, max_size=25))
def test_services_never_get_into_each_others_way(history: list[tuple[Any, ...]]) -> None:
    town = Town()
    for what in history:
        happen(town, *what)
        while loses_only_by_its_own_change(town):
            owned = [f for p in town.plans().values() for f in p.frontends]
            assert len(owned) == len(set(owned))
            assert all(len(plans) == 1 for plans in town.forwarders().values())
        agree(town)
        asleep = decisions(town)
        for key in town.cache.keys():  # noqa: SIM118 - keys() of Cache is no mapping's
            town.look(key)
        assert decisions(town) == asleep, "nobody has woken them"
    town.set_live(*NODES)
    follow(town)
    town.tick(61)
    follow(town)
    agree(town, directors=True)
