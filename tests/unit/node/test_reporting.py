"""What a pass tells, and when it concerns the operator at once."""

from __future__ import annotations

from dataclasses import replace

from dsr_api.node import PlanNotApplied, UnhealthyBackend
from dsr_node.reporting import Pass, news, report_of, xdp_errors
from dsr_node.source import Snapshot
from dsr_node.state.loss import Plans
from dsr_node.state.node_state import node_state
from dsr_node.state.report import Report
from dsr_node.subsystems.kernel import Outcome
from dsr_node.subsystems.xdp.state import Problem

from tests.unit.node.worlds import NETWORK, facts, named, plan

OURS, THEIRS = plan("a.ours"), plan("b.theirs", directors=("lb2",))


def passed(*plans: object, revision: int = 7, **changes: object) -> Pass:
    known = named(*plans)  # type: ignore[arg-type] # plans
    snapshot = Snapshot(known, revision)
    state = node_state(known, facts())
    this = Pass("lb1", Plans(known), snapshot, state, NETWORK, Outcome())
    return replace(this, **changes)  # type: ignore[arg-type] # fields of Pass


def test_the_first_report_concerns_us() -> None:
    report = report_of(passed(OURS), None, Report())
    assert report.concerns_us
    assert report.revision == 7
    assert report.announcing == {"10.0.9.1"}
    assert [(link.name, link.xdp_mode) for link in report.uplinks] == [("eth0", "Unavailable")]


def test_a_plan_of_other_nodes_only_moves_the_revision() -> None:
    before = passed(OURS)
    former = report_of(before, None, Report())
    report = report_of(passed(OURS, THEIRS, revision=8), before, former)
    assert report.revision == 8
    assert report.plans == 2
    assert not report.concerns_us


def test_a_changed_plan_of_ours_concerns_us_even_if_all_else_is_the_same() -> None:
    before = passed(OURS)
    former = report_of(before, None, Report())
    same = report_of(passed(OURS, revision=8), before, former)
    assert not same.concerns_us
    changed = plan("a.ours", ports=(81,))
    assert report_of(passed(changed, revision=8), before, former).concerns_us
    assert report_of(passed(revision=8), before, former).concerns_us


def test_the_revision_waits_for_what_failed_or_is_held() -> None:
    before = passed(OURS)
    former = report_of(before, None, Report())
    failing = Outcome(errors={"xdp": "no bpffs"})
    report = report_of(passed(OURS, revision=8, outcome=failing), before, former)
    assert report.revision == 7
    assert report.errors == {"xdp": "no bpffs"}
    assert report.concerns_us
    held = Plans(named(OURS), frozenset({"a.ours"}), 1.0)
    assert report_of(passed(revision=8, plans=held), before, former).revision == 7


def test_problems_come_from_everywhere() -> None:
    outcome = Outcome(
        problems=(
            Problem("NoRoom", "full", plan="a.ours"),
            Problem("XdpBusy", "another program", interface="eth0"),
        ),
        refused={"10.0.9.1": "the kernel refuses it"},
    )
    unreadable = PlanNotApplied(plan="c.bad", reason="Unreadable", message="c.yaml: not YAML")
    snapshot = Snapshot(named(OURS), 7, refused=(unreadable,))
    report = report_of(passed(OURS, outcome=outcome, snapshot=snapshot), None, Report())
    assert {(p.plan, p.reason) for p in report.problems} == {
        ("a.ours", "NoRoom"),
        ("a.ours", "AddressRefused"),
        ("c.bad", "Unreadable"),
    }
    assert report.uplinks[0].message == "eth0: another program (XdpBusy)"
    assert xdp_errors(outcome) == {"eth0": "eth0: another program (XdpBusy)"}


def test_the_log_tells_what_has_changed() -> None:
    conflict = PlanNotApplied(
        plan="a.b", vip="10.0.9.1", reason="AddressConflict", message="m has it"
    )
    dead = UnhealthyBackend(
        plan="a.b", address="10.0.1.1", reason="MACNotResolved", message="no answer"
    )
    quiet = Report(announcing=frozenset({"10.0.9.1"}))
    bad = PlanNotApplied(plan="c.bad", reason="Unreadable", message="c.yaml: not YAML")
    loud = Report(problems=(conflict, bad), unhealthy=(dead,))
    assert [text for _, text in news(quiet, loud)] == [
        "a.b 10.0.9.1: m has it (AddressConflict)",
        "c.bad: c.yaml: not YAML (Unreadable)",
        "a.b: backend 10.0.1.1: nothing is sent there: no answer (MACNotResolved)",
        "10.0.9.1: no longer announced by this node",
    ]
    assert [text for _, text in news(loud, quiet)] == [
        "a.b 10.0.9.1: no longer: m has it (AddressConflict)",
        "c.bad: no longer: c.yaml: not YAML (Unreadable)",
        "a.b: backend 10.0.1.1: no longer: no answer (MACNotResolved)",
        "10.0.9.1: announced by this node",
    ]
    assert not list(news(loud, loud))
