"""Which nodes are up, and when nobody is declared dead."""

from __future__ import annotations

from dsr_api.base import LEASE_DURATION, LEASE_PREFIX, Metadata
from dsr_operator.core import Lease, LeaseSpec
from dsr_operator.liveness import POLL, Liveness


def lease(node: str, renewed: int) -> Lease:
    spec = LeaseSpec(renew_time=f"2025-01-01T00:00:{renewed:02}.000000Z")
    return Lease(metadata=Metadata(name=f"{LEASE_PREFIX}{node}"), spec=spec)


def poll(liveness: Liveness, start: float, seconds: float, *leases: Lease) -> frozenset[str]:
    """Poll the same Leases for a while; who is up at the end."""
    now, live = start, frozenset[str]()
    while now <= start + seconds:
        live = liveness.update(leases, now)
        now += POLL
    return live


def test_a_lease_that_is_not_renewed_for_its_duration_is_stale() -> None:
    liveness = Liveness()
    assert poll(liveness, 0, LEASE_DURATION - 1, lease("a", 1)) == {"a"}
    assert poll(liveness, LEASE_DURATION + 1, 0, lease("a", 1)) == set()
    assert poll(liveness, LEASE_DURATION + 3, 0, lease("a", 2)) == {"a"}


def test_only_leases_of_daemons_count() -> None:
    other = Lease(metadata=Metadata(name="dsr-operator"))
    assert Liveness().update([other], 0) == set()


def test_a_deleted_lease_is_a_node_that_is_gone() -> None:
    liveness = Liveness()
    liveness.update([lease("a", 1)], 0)
    assert liveness.update([], 1) == set()


def test_the_clock_in_the_lease_does_not_matter() -> None:
    liveness = Liveness()
    ancient = Lease(
        metadata=Metadata(name=f"{LEASE_PREFIX}a"),
        spec=LeaseSpec(renew_time="1999-01-01T00:00:00.000000Z"),
    )
    assert liveness.update([ancient], 0) == {"a"}


def test_after_a_gap_nobody_is_dead_for_a_whole_duration() -> None:
    liveness = Liveness()
    liveness.update([lease("a", 1)], 0)
    assert liveness.update([lease("a", 1)], 100) == {"a"}
    assert poll(liveness, 102, LEASE_DURATION - 4, lease("a", 1)) == {"a"}
    assert poll(liveness, 100 + LEASE_DURATION, 2, lease("a", 1)) == set()


def test_who_was_dead_before_the_gap_stays_dead() -> None:
    liveness = Liveness()
    assert poll(liveness, 0, LEASE_DURATION + 2, lease("a", 1)) == set()
    assert liveness.update([lease("a", 1)], 200) == set()
