from __future__ import annotations

import itertools

from dsr_node.api.backoff import CAP, CAP_UNREACHABLE, FIRST, Backoff
from dsr_node.api.errors import ApiError, BusyError, ForbiddenError, GoneError, UnreachableError
from hypothesis import given
from hypothesis import strategies as st

ERRORS = st.sampled_from([UnreachableError("x"), BusyError("x"), ForbiddenError("x")])


@given(st.lists(ERRORS, min_size=1), st.floats(0, 0.999))
def test_waits_stay_within_bounds(errors: list[ApiError], chance: float) -> None:
    backoff = Backoff(lambda: chance)
    for error in errors:
        cap = CAP_UNREACHABLE if isinstance(error, UnreachableError) else CAP
        assert FIRST / 2 <= backoff.failed(error) <= cap


def test_a_row_of_failures_doubles_up_to_the_cap_and_success_ends_it() -> None:
    backoff = Backoff(lambda: 1.0)
    waits = [backoff.failed(BusyError("x")) for _ in range(12)]
    assert waits[:3] == [0.2, 0.4, 0.8]
    assert all(a < b or a == b == CAP for a, b in itertools.pairwise(waits))
    assert waits[-1] == CAP
    backoff.succeeded()
    assert backoff.failed(BusyError("x")) == FIRST


def test_another_kind_of_failure_begins_anew() -> None:
    backoff = Backoff(lambda: 1.0)
    for _ in range(10):
        assert backoff.failed(UnreachableError("x")) <= CAP_UNREACHABLE
    assert backoff.failed(BusyError("x")) == FIRST


def test_a_server_that_asks_for_time_gets_it() -> None:
    assert Backoff(lambda: 0.0).failed(BusyError("x", retry_after=7)) == 7


def test_the_first_retry_is_quick() -> None:
    assert Backoff(lambda: 1.0).failed(GoneError("x")) <= 0.2
