from __future__ import annotations

from dsr_api.node import LIST_CAP, PlanNotApplied, UnhealthyBackend, Uplink
from dsr_node.api.report import LAZY, LEAST_INTERVAL, REFRESH, Identity, Pace, node_status
from dsr_node.state.report import Report
from hypothesis import given
from hypothesis import strategies as st

ME = Identity(kernel="6.1.0", boot_id="b-1", daemon_version="0.1.0")


def problem(number: int) -> PlanNotApplied:
    return PlanNotApplied(f"shop.s{number:04}", "NoUplink", "no interface has its subnet")


def unhealthy(number: int) -> UnhealthyBackend:
    return UnhealthyBackend("shop.web", f"10.0.0.{number}", "NoMac")


def test_lists_are_capped_and_the_rest_is_counted() -> None:
    status = node_status(
        Report(
            problems=tuple(problem(n) for n in range(100)),
            unhealthy=tuple(unhealthy(n) for n in range(LIST_CAP)),
        ),
        ME,
    )
    assert len(status.plans_not_applied.items) == LIST_CAP
    assert status.plans_not_applied.more == 100 - LIST_CAP
    assert len(status.unhealthy_backends.items) == LIST_CAP
    assert status.unhealthy_backends.more == 0


def test_that_vips_are_missing_is_cut_off_last() -> None:
    missing = PlanNotApplied("shop.z", "AddressRefused", "the kernel refuses it")
    status = node_status(Report(problems=(*(problem(n) for n in range(100)), missing)), ME)
    assert status.plans_not_applied.items[0] == missing


def test_a_dead_backend_of_many_plans_is_one_entry() -> None:
    dead = [UnhealthyBackend(f"shop.s{n}", "10.0.0.9", "MACNotResolved") for n in range(100)]
    other = UnhealthyBackend("shop.s1", "10.0.0.8", "MACNotResolved")
    outside = [UnhealthyBackend(f"shop.s{n}", "192.0.2.1", "OutsideSubnet") for n in range(2)]
    status = node_status(Report(unhealthy=(*dead, *outside, other)), ME)
    assert [(b.plan, b.address) for b in status.unhealthy_backends.items] == [
        ("shop.s1", "10.0.0.8"),
        ("", "10.0.0.9"),
        ("shop.s0", "192.0.2.1"),
        ("shop.s1", "192.0.2.1"),
    ]
    assert status.unhealthy_backends.more == 0


@given(st.permutations(range(40)))
def test_the_order_of_what_comes_in_does_not_matter(order: list[int]) -> None:
    def status(numbers: list[int]) -> object:
        return node_status(
            Report(
                problems=tuple(problem(n) for n in numbers),
                unhealthy=tuple(unhealthy(n) for n in numbers),
                uplinks=tuple(Uplink(f"eth{n}") for n in numbers),
            ),
            ME,
        )

    assert status(order) == status(sorted(order))


def test_the_rest_of_the_status() -> None:
    report = Report(revision=7, announcing=frozenset({"192.0.2.1", "2001:db8::1"}))
    status = node_status(report, ME)
    assert status.applied_revision == 7
    assert status.announcing == 2
    assert (status.kernel, status.boot_id, status.daemon_version) == ("6.1.0", "b-1", "0.1.0")


def test_after_a_quiet_second_a_write_is_immediate() -> None:
    pace = Pace()
    pace.changed(100.0, urgent=True)
    assert pace.due() == 100.0
    pace.written(100.0)
    pace.changed(102.0, urgent=True)
    assert pace.due() == 102.0


def test_one_write_a_second_at_most() -> None:
    pace = Pace()
    pace.written(100.0)
    pace.changed(100.2, urgent=True)
    assert pace.due() == 100.0 + LEAST_INTERVAL


def test_a_mere_revision_waits_from_the_first_one_on_and_less_than_five_seconds() -> None:
    pace = Pace()
    pace.written(0.0)
    for second in range(10):
        pace.changed(100.0 + second, urgent=False)
    assert pace.due() == 100.0 + LAZY < 105


def test_what_concerns_us_takes_the_waiting_revision_along() -> None:
    pace = Pace()
    pace.written(0.0)
    pace.changed(100.0, urgent=False)
    pace.changed(101.0, urgent=True)
    assert pace.due() <= 101.0


def test_without_change_only_the_refresh_is_due() -> None:
    pace = Pace()
    pace.written(100.0)
    assert pace.due() == 100.0 + REFRESH
