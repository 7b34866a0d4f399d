"""What can go wrong between the daemon and the API server, as the daemon has to tell it apart."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus


class ApiError(Exception):
    """The API server did not do what it was asked. The text says what, and what was answered."""


class UnavailableError(ApiError):
    """Nothing wrong with the request: the same one will succeed later."""


class UnreachableError(UnavailableError):
    """No answer: refused, reset, timed out, a certificate that does not fit."""


class BusyError(UnavailableError):
    """Answered 429 or 5xx. `retry_after`: seconds the server insists on, 0 if it does not."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CannotReadError(ApiError):
    """401, 403, 404. It says nothing about what exists (docs/architecture.md, rule 7)."""


class ForbiddenError(CannotReadError):
    """401 or 403: the token is not valid (any more), or RBAC or an admission policy says no."""


class NotFoundError(CannotReadError):
    """404: no such object, or no such resource (the CRD is not there)."""


class ConflictError(ApiError):
    """409: somebody else has written meanwhile."""


class GoneError(ApiError):
    """410: this resourceVersion is no longer, or not yet, to be had. List again."""


class InvalidError(ApiError):
    """Any other 4xx: the request itself is wrong; repeating it changes nothing."""


_BY_STATUS: Mapping[int, type[ApiError]] = {
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
}


def from_status(
    status: int, what: str, reason: str, message: str, retry_after: str = ""
) -> ApiError:
    """The error for an HTTP status, with reason and message of the metav1.Status that came along.

    `retry_after` is the header of that name, in seconds; "" if there is none. It counts for 429
    alone: a server that is starting says 503 and "in 5 s", and is ready long before.
    """
    text = f"{what}: {status} {reason}: {message}"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return BusyError(text, float(retry_after) if retry_after.isdigit() else 0.0)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return BusyError(text)
    return _BY_STATUS.get(status, InvalidError)(text)
