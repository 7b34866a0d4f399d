"""Which event wakes which service, and what the cache makes of odd events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from dsr_operator import kinds
from dsr_operator.cache import Cache
from dsr_operator.compile.inputs import Clock, ServiceKey
from dsr_operator.kinds import Kind

Json = dict[str, Any]
CLOCK = Clock(1_700_000_000.0, 100.0)


class Told:
    """A cache, and who has been woken since it was asked last."""

    def __init__(self) -> None:
        self.woken: set[ServiceKey] = set()
        self.cache = Cache(self._wake, lambda: 100.0)
        self._revision = 0
        self._born: dict[str, int] = {}

    def _wake(self, keys: Iterable[ServiceKey]) -> None:
        self.woken.update(keys)

    def put(
        self, kind: Kind, name: str, namespace: str = "", uid: str = "", **rest: Any
    ) -> set[str]:
        """Feed a new edition of an object; the names of the services that it wakes."""
        self._revision += 1
        meta = {"name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(self._revision)}
        if namespace:
            meta["namespace"] = namespace
        meta |= rest.pop("metadata", {})
        self.woken.clear()
        self.cache.put(kind, {"metadata": meta, **rest})
        return {name for _, name in self.woken}

    def drop(self, kind: Kind, name: str, namespace: str = "", uid: str = "") -> set[str]:
        """Feed a deletion; the names of the services that it wakes."""
        self.woken.clear()
        meta = {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}"}
        self.cache.drop(kind, {"metadata": meta})
        return {name for _, name in self.woken}

    def service(self, name: str, **spec: Any) -> set[str]:
        """Feed a DSRService of namespace shop."""
        second = self._born.setdefault(name, len(self._born))
        meta = {"creationTimestamp": f"2025-01-01T00:00:0{second}Z"}
        full = {
            "vips": ["192.0.2.1"],
            "ports": [{"port": 80}],
            "backends": {"nodeSelector": {}},
            **spec,
        }
        return self.put(kinds.SERVICE, name, "shop", metadata=meta, spec=full)

    def plan(self, name: str, hosts: list[str], frontends: list[Json] | None = None) -> set[str]:
        """Feed the DSRPlan of a service of namespace shop."""
        spec = {
            "service": {"namespace": "shop", "name": name},
            "vips": ["192.0.2.1"],
            "hosts": hosts,
            "frontends": frontends or [],
        }
        return self.put(kinds.PLAN, f"shop.{name}", spec=spec)


@pytest.fixture
def told() -> Told:
    made = Told()
    made.put(kinds.NAMESPACE, "shop")
    made.put(kinds.POOL, "public", spec={"addresses": ["192.0.2.0/24"]})
    made.service("one")
    made.service("two", ports=[{"port": 81}], backends={"service": {"name": "web"}})
    return made


def node(told: Told, **changes: Any) -> set[str]:
    return told.put(
        kinds.NODE,
        "a",
        metadata={"labels": changes.get("labels", {})},
        status={
            "addresses": [{"type": "InternalIP", "address": changes.get("address", "10.0.0.1")}],
            "conditions": [{"type": "Ready", "lastHeartbeatTime": changes.get("beat", "")}],
        },
    )


def test_a_services_own_event_wakes_it_alone(told: Told) -> None:
    assert told.service("one", drainTimeoutSeconds=5) == {"one"}


def test_a_claim_made_or_given_up_wakes_the_rivals(told: Told) -> None:
    assert told.service("three") == {"one", "three"}
    assert told.service("three", ports=[{"port": 82}]) == {"one", "three"}
    assert told.service("three", ports=[{"port": 82}]) == {"three"}
    assert told.drop(kinds.SERVICE, "one", "shop") == {"one", "two", "three"}


def test_heartbeats_of_nodes_wake_nobody(told: Told) -> None:
    assert node(told) == {"one", "two"}
    assert node(told, beat="now") == set()
    assert node(told, labels={"role": "x"}) == {"one", "two"}
    assert node(told, labels={"role": "x"}, beat="later") == set()
    assert node(told, address="10.0.0.2") == {"one", "two"}


def test_a_boot_outdates_what_the_node_has_reported(told: Told) -> None:
    booted = {"nodeInfo": {"bootID": "b1"}}
    told.put(kinds.NODE, "a", status=booted)
    told.plan("one", hosts=["a"])
    told.cache.note(("shop", "one"), ["a"])
    owner = {"ownerReferences": [{"kind": "Node", "uid": "uid-a", "name": "a", "apiVersion": "v1"}]}
    first = {"bootID": "b1", "appliedRevision": 7}
    assert told.put(kinds.REPORT, "a", metadata=owner, status=first) == {"one"}
    assert set(told.cache.world.reports) == {"a"}
    booted["nodeInfo"]["bootID"] = "b2"
    assert told.put(kinds.NODE, "a", status=booted) == {"one", "two"}
    assert not told.cache.world.reports
    assert told.cache.world.outdated == {"a"}
    assert told.put(kinds.REPORT, "a", metadata=owner, status=first | {"bootID": "b2"}) == {"one"}
    assert set(told.cache.world.reports) == {"a"}


def test_a_slice_wakes_those_who_refer_to_its_service(told: Told) -> None:
    labels = {"labels": {"kubernetes.io/service-name": "web"}}
    assert told.put(kinds.SLICE, "web-1", "shop", metadata=labels, addressType="IPv4") == {"two"}
    assert told.put(kinds.SLICE, "web-2", "other", metadata=labels, addressType="IPv4") == set()
    assert told.put(kinds.CORE_SERVICE, "web", "shop") == {"two"}
    assert told.put(kinds.CORE_SERVICE, "db", "shop") == set()
    assert told.drop(kinds.SLICE, "web-1", "shop") == {"two"}


def report(told: Told, revision: int, **status: Any) -> set[str]:
    return told.put(kinds.REPORT, "a", status={"appliedRevision": revision, **status})


def test_a_nodes_report_wakes_those_who_wait_for_it(told: Told) -> None:
    told.plan("one", ["a"])
    told.plan("two", ["a"])
    assert report(told, 1) == set()
    told.cache.note(("shop", "one"), {"a"})
    assert report(told, 2) == {"one"}
    assert report(told, 2, announcing=7) == set()
    told.cache.note(("shop", "one"), set())
    assert report(told, 3) == set()


def test_a_report_that_is_deleted_wakes_those_who_rest_on_it(told: Told) -> None:
    told.plan("one", ["a"])
    report(told, 1)
    assert told.drop(kinds.REPORT, "a") == {"one"}


def test_a_nodes_complaint_wakes_those_it_is_about(told: Told) -> None:
    told.plan("one", ["a"])
    told.plan("two", ["a"])
    bad = {"items": [{"plan": "shop.one", "reason": "NoUplink", "message": "none"}]}
    sick = {"items": [{"plan": "shop.two", "address": "10.0.0.9", "reason": "MACNotResolved"}]}
    assert report(told, 1, plansNotApplied=bad) == {"one"}
    assert report(told, 1, plansNotApplied=bad) == set()
    assert report(told, 1, plansNotApplied=bad, unhealthyBackends=sick) == {"two"}
    assert report(told, 1) == {"one", "two"}
    assert report(told, 1, plansNotApplied={"more": 3}) == {"one", "two"}


def test_a_node_going_down_or_up_wakes_those_it_is_concerned_with(told: Told) -> None:
    told.plan("one", ["a"])
    told.woken.clear()
    told.cache.set_live({"a", "b"})
    assert told.woken == {("shop", "one")}
    told.woken.clear()
    told.cache.set_live({"a", "b"})
    assert told.woken == set()
    told.cache.set_live({"a"})
    assert told.woken == set()
    told.cache.set_live(set())
    assert told.woken == {("shop", "one")}


def test_a_frontend_let_go_of_by_a_plan_wakes_who_claims_it(told: Told) -> None:
    frontend = {"vip": "192.0.2.1", "protocol": "TCP", "port": 80}
    assert told.plan("gone", ["a"], [frontend]) == {"gone"}
    assert told.plan("gone", ["a"], []) == {"gone", "one"}


def test_a_plan_deleted_by_hand_wakes_who_may_wait_for_its_vips(told: Told) -> None:
    told.plan("gone", ["a"])
    assert told.drop(kinds.PLAN, "shop.gone") == {"gone", "one", "two"}


def test_an_older_edition_changes_nothing(told: Told) -> None:
    new = {"metadata": {"name": "a", "uid": "u", "resourceVersion": "99", "labels": {"k": "new"}}}
    old = {"metadata": {"name": "a", "uid": "u", "resourceVersion": "98", "labels": {"k": "old"}}}
    told.cache.put(kinds.NODE, new)
    told.cache.put(kinds.NODE, old)
    assert told.cache.nodes["a"].labels == {"k": "new"}


def test_a_late_deletion_of_a_former_object_changes_nothing(told: Told) -> None:
    told.put(kinds.NODE, "a", uid="first")
    told.put(kinds.NODE, "a", uid="second")
    told.drop(kinds.NODE, "a", uid="first")
    assert "a" in told.cache.nodes


def test_an_unreadable_service_is_kept_apart_and_harms_nobody(told: Told) -> None:
    assert told.service("odd", dataplane="Quantum") == {"odd"}
    assert "dataplane" in told.cache.invalid["shop", "odd"].message
    assert ("shop", "odd") in told.cache.keys()  # noqa: SIM118 - keys() of Cache is no mapping's
    told.service("odd")
    assert not told.cache.invalid


ODD: dict[Kind, tuple[str, Json]] = {
    kinds.NODE: ("a", {"status": {"addresses": "odd"}}),
    kinds.REPORT: ("a", {"status": {"appliedRevision": "odd"}}),
    kinds.POOL: ("public", {"spec": {"addresses": "odd"}}),
    kinds.NAMESPACE: ("shop", {"metadata": {"labels": "odd"}}),
    kinds.PLAN: (
        "shop.one",
        {"spec": {"service": {"namespace": "shop", "name": "one"}, "scheduler": "Quantum"}},
    ),
}


@pytest.mark.parametrize("kind", ODD, ids=lambda kind: kind.name)
def test_what_cannot_be_read_stays_as_it_was_known(told: Told, kind: Kind) -> None:
    node(told, labels={"role": "x"})
    report(told, 7)
    told.plan("one", ["a"])

    def known() -> list[Json]:
        cache = told.cache
        held = (cache.nodes, cache.owners, cache.world.reports, cache.pools, cache.namespaces)
        return [dict(part) for part in (*held, cache.plans)]

    before = known()
    name, rest = ODD[kind]
    assert told.put(kind, name, **rest) == ({"one"} if kind is kinds.PLAN else set())
    assert known() == before
    told.drop(kind, name)
    assert known() != before


def test_a_plan_that_was_never_readable_is_no_missing_plan(told: Told) -> None:
    name, rest = ODD[kinds.PLAN]
    told.put(kinds.PLAN, name, **rest)
    assert "Quantum" in told.cache.unread_plans[name]
    told.put(kinds.PLAN, "gone.odd", **rest)
    assert ("gone", "odd") in told.cache.keys()  # noqa: SIM118 - keys() of Cache is no mapping's
    assert told.drop(kinds.PLAN, name) == {"one"}
    assert name not in told.cache.unread_plans
    told.put(kinds.PLAN, name, **rest)
    told.plan("one", ["a"])
    assert name not in told.cache.unread_plans


def test_standing_knows_the_older_rival_and_the_plan_that_still_has_it(told: Told) -> None:
    told.service("three")
    told.plan("gone", [], [{"vip": "192.0.2.1", "protocol": "TCP", "port": 80}])
    three = told.cache.inputs(("shop", "three"), CLOCK).standing
    assert set(three.rivals.values()) == {"shop/one"}
    one = told.cache.inputs(("shop", "one"), CLOCK).standing
    assert not one.rivals
    assert set(one.held.values()) == {"shop/gone"}


def test_who_has_no_right_to_a_vip_takes_it_from_nobody(told: Told) -> None:
    told.put(kinds.NAMESPACE, "evil")
    meta = {"creationTimestamp": "2020-01-01T00:00:00Z"}
    spec = {"vips": ["192.0.2.1"], "ports": [{"port": 80}], "backends": {"nodeSelector": {}}}
    told.put(
        kinds.POOL,
        "public",
        spec={
            "addresses": ["192.0.2.0/24"],
            "namespaceSelector": {"matchLabels": {"tenant": "good"}},
        },
    )
    told.put(kinds.NAMESPACE, "shop", metadata={"labels": {"tenant": "good"}})
    told.put(kinds.SERVICE, "squatter", "evil", metadata=meta, spec=spec)
    assert not told.cache.inputs(("shop", "one"), CLOCK).standing.rivals
    squatter = told.cache.inputs(("evil", "squatter"), CLOCK).standing
    assert squatter.outside == {"192.0.2.1"}


def test_a_bad_entry_of_a_pool_is_left_out_by_itself(told: Told) -> None:
    told.put(kinds.POOL, "public", spec={"addresses": ["192.0.2.0/240"]})
    standing = told.cache.inputs(("shop", "one"), CLOCK).standing
    assert standing.outside == {"192.0.2.1"}
    assert "DSRAddressPool public: '192.0.2.0/240'" in standing.ignored[0]
    told.put(kinds.POOL, "public", spec={"addresses": ["192.0.2.0/240", "192.0.2.1/32"]})
    assert not told.cache.inputs(("shop", "one"), CLOCK).standing.outside


def test_a_new_edition_of_a_plan_keeps_what_is_known_of_it(told: Told) -> None:
    told.plan("one", ["a"])
    first = told.cache.histories["shop.one"].holding["a"]
    told.plan("one", ["a", "b"])
    history = told.cache.histories["shop.one"]
    assert history.holding["a"] == first
    assert history.holding["b"].revision > first.revision
    told.cache.distrust_histories()
    assert told.cache.histories["shop.one"].holding["a"] == history.holding["b"]
