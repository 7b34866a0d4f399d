"""How long to wait before the next try."""

from __future__ import annotations

import random
from collections.abc import Callable

from dsr_node.api.errors import ApiError, BusyError, UnreachableError

FIRST = 0.2
CAP = 30.0
CAP_UNREACHABLE = 2.0
"""Where nothing answers, a try costs the server nothing, and a restarted one is found soon."""


class Backoff:
    """Seconds to wait after each of a row of failures: doubling, with jitter in [0.5, 1).

    The jitter keeps a thousand daemons from coming back to a restarted API server at one moment.
    A failure of another kind begins anew: a server that says 503 after it was unreachable is
    starting, and will soon be ready.
    """

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._kind: type[ApiError] | None = None
        self._failures = 0

    def failed(self, error: ApiError) -> float:
        """The wait after this failure, in seconds; at least what the server asks for."""
        if type(error) is not self._kind:
            self._kind, self._failures = type(error), 0
        cap = CAP_UNREACHABLE if isinstance(error, UnreachableError) else CAP
        wait = min(cap, FIRST * 2.0 ** min(self._failures, 16)) * (0.5 + self._chance() / 2)
        self._failures += 1
        return max(wait, error.retry_after) if isinstance(error, BusyError) else wait

    def succeeded(self) -> None:
        """The next failure is the first of a new row."""
        self._kind, self._failures = None, 0
