"""Which reports count, and whom a change of them concerns."""

from __future__ import annotations

import pytest
from dsr_api.base import Metadata, OwnerReference
from dsr_api.node import (
    DSRNode,
    DSRNodeStatus,
    PlanNotApplied,
    PlansNotApplied,
    UnhealthyBackend,
    UnhealthyBackends,
)
from dsr_operator.core import NodeView
from dsr_operator.reports import News, Reports, is_of


def report(*, owner: str = "", boot: str = "", **status: object) -> DSRNode:
    owners = (OwnerReference(kind="Node", uid=owner),) if owner else ()
    return DSRNode(
        metadata=Metadata(name="a", owner_references=owners),
        status=DSRNodeStatus(boot_id=boot, **status),  # type: ignore[arg-type] # fields of it
    )


def node(*, uid: str = "u1", boot: str = "") -> NodeView:
    return NodeView(name="a", uid=uid, boot_id=boot)


@pytest.mark.parametrize(
    ("told", "of", "counts"),
    [
        (report(owner="u1", boot="b1"), node(boot="b1"), True),
        (report(owner="u1", boot="b1"), node(boot="b2"), False),
        (report(owner="u0", boot="b1"), node(boot="b1"), False),
        (report(boot="b1"), node(boot="b1"), True),
        (report(owner="u1"), node(boot="b1"), True),
        (report(owner="u1", boot="b1"), node(), True),
    ],
)
def test_a_report_counts_for_the_same_machine_since_the_same_boot(
    told: DSRNode, of: NodeView, counts: bool
) -> None:
    assert is_of(told, of) == counts


def test_a_boot_outdates_a_report_until_the_next_one() -> None:
    reports = Reports()
    reports.take("a", report(boot="b1", applied_revision=7), node(boot="b1"))
    reports.weigh("a", node(boot="b2"))
    assert (reports.counting, reports.outdated) == ({}, {"a"})
    news = reports.take("a", report(boot="b2", applied_revision=7), node(boot="b2"))
    assert news == News(ahead=True)
    assert reports.counting["a"].applied_revision == 7
    assert not reports.outdated


def test_a_report_that_goes_is_no_outdated_one() -> None:
    reports = Reports()
    reports.take("a", report(applied_revision=7), node())
    assert reports.take("a", None, node()).all
    assert (reports.counting, reports.outdated) == ({}, set())


def test_whom_news_concern() -> None:
    complaint = PlanNotApplied(plan="shop.web", reason="NoUplink", message="no")
    dead = UnhealthyBackend(plan="shop.db", address="10.0.0.1", reason="MACNotResolved")
    reports = Reports()
    reports.take("a", report(applied_revision=7), node())
    assert reports.take("a", report(applied_revision=8), node()) == News(ahead=True)
    told = report(
        applied_revision=8,
        plans_not_applied=PlansNotApplied(items=(complaint,)),
        unhealthy_backends=UnhealthyBackends(items=(dead,)),
    )
    assert reports.take("a", told, node()) == News(plans=frozenset({"shop.web", "shop.db"}))
    cut = report(
        applied_revision=8,
        plans_not_applied=PlansNotApplied(items=(complaint,)),
        unhealthy_backends=UnhealthyBackends(items=(dead,), more=1),
    )
    assert reports.take("a", cut, node()) == News(all=True)


def test_what_concerns_each_plan_of_a_node_wakes_them_all() -> None:
    dead = UnhealthyBackend(plan="", address="10.0.0.1", reason="MACNotResolved")
    reports = Reports()
    reports.take("a", report(applied_revision=7), node())
    told = report(applied_revision=7, unhealthy_backends=UnhealthyBackends(items=(dead,)))
    assert reports.take("a", told, node()) == News(all=True)
