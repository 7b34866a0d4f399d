"""Labs for the tests, and how to make one whole again."""

from __future__ import annotations

import itertools
import os

from lab import observe
from lab.laboratory import EXAMPLE, Lab
from lab.names import VIPS
from lab.observe import until
from tests.e2e.probes import answers

_NUMBERS = itertools.count(1)


def new_lab(*, lbs: int = 2, backends: int = 3) -> Lab:
    """A lab that is not up yet; whoever makes it takes it down."""
    return Lab.create(f"t{os.getpid():x}-{next(_NUMBERS)}", lbs=lbs, backends=backends)


def heal(lab: Lab) -> None:
    """Whatever a test has broken: start it, apply the example, wait until all is well."""
    lab.heal()
    lab.kubectl("apply", "-f", str(EXAMPLE))
    lab.kubectl("wait", "--for=condition=Ready", "dsr/web", "--timeout=60s")
    until("all backends are healthy", lambda: _healthy(lab), 60)
    until("both VIPs answer", lambda: all(answers(lab, vip) for vip in VIPS), 30)


def _healthy(lab: Lab) -> bool:
    backends = observe.service(lab, "web").status.backends
    return backends.healthy == backends.total == 6 and backends.draining == 0
