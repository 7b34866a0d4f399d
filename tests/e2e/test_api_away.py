"""The API server goes away for a minute: nobody notices who only sends packets."""

from __future__ import annotations

import time

from lab import observe
from lab.laboratory import Lab
from lab.names import VIPS
from lab.observe import until
from lab.traffic import Load
from tests.e2e.probes import condition, holders

AWAY = 60.0
WATCHED = 20.0
"""Seconds after its return in which nobody may be declared dead: longer than a Lease lasts."""
RATE = 50.0


def _complaints(lab: Lab) -> set[str]:
    """Who is said to be down, by any condition of the service."""
    found = observe.service(lab, "web").status
    bad = {each.type for each in found.conditions if each.reason in {"NodeDown", "NodesDown"}}
    if found.backends.healthy < found.backends.total:
        bad.add(f"{found.backends.healthy} of {found.backends.total} healthy")
    return bad


def test_traffic_goes_on_daemons_start_from_disk_and_nobody_is_declared_dead(web: Lab) -> None:
    load = Load(web.nodes["client"], "http", VIPS, rate=RATE, seconds=AWAY + WATCHED + 40)
    web.kill_part("apiserver")
    gone = time.monotonic()
    try:
        for part in ("lb1/daemon", "lb2/daemon", "rs1/daemon"):
            web.restart_part(part)
        # A backend that boots without the API must have its VIPs from the plans on its disk.
        web.kill_part("rs2")
        web.restart_part("rs2")
        until("rs2 holds the VIPs", lambda: all("rs2" in holders(web, each) for each in VIPS), 20)
        time.sleep(max(0.0, gone + AWAY - time.monotonic()))
    finally:
        web.start_part("apiserver")
    back = time.monotonic()
    while time.monotonic() < back + WATCHED:
        assert not _complaints(web)
        time.sleep(0.5)
    until("Ready", lambda: condition(web, "web", "Ready")[0] == "True", 30)
    outcome = load.stop()
    # The power cut of rs2 costs what goes to it in the seconds until that is noticed, and no more.
    first = outcome.failures[0][0] if outcome.failures else 0.0
    assert all(at < first + 6 for at, _ in outcome.failures), outcome.failures
    assert outcome.failed < RATE * 6 / 2
