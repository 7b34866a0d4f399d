"""Load from a node of the lab: started, stopped, and what came of it. See load.py."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lab.errors import LabError
from lab.node import Node

END_TIMEOUT = 30.0
"""Seconds from the request to stop until all answers are in or given up."""


@dataclass(frozen=True)
class Outcome:
    """A finished load. Counts by the backend that answered, and by the address asked.

    Times are seconds since the epoch. `failures`: the first of them, as (time of asking, what
    happened).
    """

    asked: int
    answered: int
    failed: int
    by_backend: Mapping[str, int]
    by_address: Mapping[str, int]
    first_answer: float | None
    milliseconds: Sequence[float]
    failures: Sequence[tuple[float, str]]

    def percentile(self, percent: float) -> float:
        """Milliseconds within which that share of the answers came; 0 without answers."""
        ordered = sorted(self.milliseconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0

    def seconds_of_failure(self) -> float:
        """From the first kept failure to the last; 0 without any."""
        return self.failures[-1][0] - self.failures[0][0] if self.failures else 0.0


class Load:
    """A load that is going on."""

    def __init__(
        self,
        node: Node,
        kind: Literal["http", "udp", "long"],
        addresses: Sequence[str],
        **options: float,
    ) -> None:
        """Start it; `options` are load.py's, such as rate=200, count=400."""
        argv = [sys.executable, "-m", "lab.load", kind, *addresses]
        argv += [f"--{name}={value}" for name, value in options.items()]
        pipe = subprocess.PIPE
        self._process = node.popen(argv, stdin=pipe, stdout=pipe, stderr=pipe)

    def stop(self) -> Outcome:
        """End it now, and wait for the answers that are still due."""
        return self._outcome(END_TIMEOUT)

    def wait(self, timeout: float) -> Outcome:
        """Wait for its own end."""
        try:
            # Its standard input stays open: closing it is the sign to stop.
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise LabError(f"the load has not ended after {timeout:.0f} s") from None
        return self._outcome(END_TIMEOUT)

    def _outcome(self, timeout: float) -> Outcome:
        try:
            output, complaint = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise LabError("the load generator does not end") from None
        if self._process.returncode != 0:
            raise LabError(f"the load generator failed: {complaint}")
        document = json.loads(output)
        document["failures"] = [tuple(each) for each in document["failures"]]
        return Outcome(**document)
