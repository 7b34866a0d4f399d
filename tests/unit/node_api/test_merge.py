from __future__ import annotations

from dsr_api.base import Metadata
from dsr_api.plan import DSRPlan, DSRPlanSpec, Frontend, PlanService
from dsr_node.source.api import UNREADABLE, Unreadable, carries, decode_plan, merge


def plan(name: str, version: int = 1, **spec: object) -> DSRPlan:
    return DSRPlan(
        metadata=Metadata(name=name, resource_version=str(version)),
        spec=DSRPlanSpec(service=PlanService("shop", name), **spec),  # type: ignore[arg-type]  # any field of the spec
    )


A, B, B2 = plan("a"), plan("b"), plan("b", 2)


def test_the_api_wins_and_what_it_lacks_is_gone() -> None:
    assert merge({"b": B2}, {"a": A, "b": B}, ()) == ({"b": B2}, ())


def test_what_is_held_stays() -> None:
    assert merge({"b": B2}, {"a": A, "b": B}, {"a"}) == ({"a": A, "b": B2}, ())


def test_an_unreadable_plan_keeps_its_last_good_version_and_is_refused() -> None:
    bad = Unreadable("expected int at $.spec.tableSize")
    plans, refused = merge({"a": bad, "b": B2, "c": bad}, {"a": A, "b": B}, ())
    assert plans == {"a": A, "b": B2}
    assert [(each.plan, each.reason) for each in refused] == [("a", UNREADABLE), ("c", UNREADABLE)]
    assert "$.spec.tableSize" in refused[0].message


def test_decoding() -> None:
    service = b'"service": {"namespace": "n", "name": "a"}'
    good = b'{"metadata": {"name": "a", "managedFields": []}, "spec": {%s, "new": 1}}' % service
    assert isinstance(decode_plan(good), DSRPlan)
    bad = decode_plan(b'{"metadata": {"name": "a"}, "spec": {"vips": 5}}')
    assert isinstance(bad, Unreadable)
    wrong = decode_plan(good.replace(b'"new": 1', b'"vips": ["10.77.0.300"]'))
    assert isinstance(wrong, Unreadable), "else it would take the place of its last good version"
    assert "spec.vips[0]" in wrong.message


def test_a_plan_carries_vips_or_frontends() -> None:
    assert not carries(plan("a", hosts=("n1",)))
    assert carries(plan("a", vips=("192.0.2.1",)))
    assert carries(plan("a", frontends=(Frontend("192.0.2.1", "TCP", 80),)))
