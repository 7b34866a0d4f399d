from __future__ import annotations

import pytest
from dsr_node.api.errors import (
    ApiError,
    BusyError,
    CannotReadError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    UnavailableError,
    from_status,
)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidError),
        (401, ForbiddenError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (405, InvalidError),
        (409, ConflictError),
        (410, GoneError),
        (422, InvalidError),
        (429, BusyError),
        (500, BusyError),
        (503, BusyError),
        (504, BusyError),
    ],
)
def test_each_status_has_its_kind(status: int, kind: type[ApiError]) -> None:
    error = from_status(status, "GET /x", "Because", "so it is")
    assert type(error) is kind
    assert str(error) == f"GET /x: {status} Because: so it is"


def test_what_says_nothing_of_existence_and_what_only_needs_time() -> None:
    assert issubclass(NotFoundError, CannotReadError)
    assert issubclass(ForbiddenError, CannotReadError)
    assert issubclass(BusyError, UnavailableError)
    assert not issubclass(GoneError, UnavailableError)


def test_only_too_many_requests_may_ask_for_time() -> None:
    busy = from_status(429, "x", "", "", "3")
    starting = from_status(503, "x", "", "", "5")
    assert isinstance(busy, BusyError)
    assert busy.retry_after == 3
    assert isinstance(starting, BusyError)
    assert starting.retry_after == 0
