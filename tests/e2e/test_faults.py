"""Parts die, and traffic goes on."""

from __future__ import annotations

import time

from lab import observe
from lab.laboratory import Lab
from lab.names import VIPS
from lab.network import UPLINK
from lab.observe import until
from lab.traffic import Load
from tests.e2e.probes import announcer, answers, applied, condition, holders, manifest

RATE = 200.0
NOTICE = 5.0
"""Seconds in which a dead backend, or a dead announcer, must be out of the way: 3 and slack."""


def _under_way(lab: Lab) -> None:
    """Wait until the client sends at a good rate: the load generator has started."""
    client = lab.nodes["client"]
    start = observe.uplink_traffic(client).sent
    until("load", lambda: observe.uplink_traffic(client).sent > start + 50_000, 15)


def _weigh(lab: Lab, node: str, weight: str) -> None:
    argument = f"dsr-operator.io/weight={weight}"
    lab.kubectl("annotate", "node", node, "--overwrite", argument)


def _draining(lab: Lab) -> int:
    return observe.service(lab, "web").status.backends.draining


def test_draining_a_backend_fails_nothing_and_breaks_nothing(web: Lab) -> None:
    client = web.nodes["client"]
    load = Load(client, "http", VIPS, rate=RATE)
    long = Load(client, "long", VIPS, connections=60)
    _under_way(web)
    try:
        _weigh(web, "rs2", "0")
        until("rs2 drains", lambda: _draining(web) == 2, 15)
        until("the LB nodes have it", lambda: _programmed(web), 15)
        after = Load(client, "http", VIPS, rate=RATE, count=200).wait(30)
        assert "rs2" not in after.by_backend
        assert after.failed == 0
    finally:
        _weigh(web, "rs2", "1")
    until("rs2 is back", lambda: _draining(web) == 0, 15)
    until("rs2 answers", lambda: _is_used(web, "rs2"), 15)
    outcome, held = load.stop(), long.stop()
    assert outcome.failed == 0, outcome.failures
    assert held.failed == 0, held.failures
    assert held.by_backend["rs2"] > 0


def _programmed(lab: Lab) -> bool:
    found = observe.service(lab, "web").status.load_balancers
    return found.programmed == found.total == 2


def _is_used(lab: Lab, backend: str) -> bool:
    return (
        backend in Load(lab.nodes["client"], "http", VIPS, rate=RATE, count=50).wait(30).by_backend
    )


def test_a_dead_backend_is_out_of_the_way_within_seconds_and_costs_the_others_nothing(
    web: Lab,
) -> None:
    client = web.nodes["client"]
    load = Load(client, "http", VIPS, rate=RATE)
    long = Load(client, "long", VIPS, connections=60)
    _under_way(web)
    killed = time.time()
    web.kill_part("rs3")
    until("the failure is told", lambda: condition(web, "web", "BackendsHealthy")[0] == "False", 30)
    outcome, held = load.stop(), long.stop()
    late = [each for each in outcome.failures if each[0] > killed + NOTICE]
    assert not late
    assert outcome.failed < 50, "the failures are not all kept, so the last one is not known"
    # A third of the connections were on the dead one; no other may break.
    assert held.failed <= 60 - len(held.by_backend)
    assert held.by_backend["rs1"] > 0
    after = Load(client, "http", VIPS, rate=RATE, count=200).wait(30)
    assert after.failed == 0, after.failures
    assert set(after.by_backend) == {"rs1", "rs2"}


def test_another_load_balancer_announces_when_one_dies(web: Lab) -> None:
    before = {vip: announcer(web, vip) for vip in VIPS}
    dead = before[VIPS[0]]
    assert dead in {"lb1", "lb2"}
    other = {"lb1": "lb2", "lb2": "lb1"}[dead]
    client = web.nodes["client"]
    load = Load(client, "http", VIPS, rate=RATE)
    _under_way(web)
    killed = time.time()
    web.kill_part(dead)
    until(f"{other} announces", lambda: announcer(web) == other, 30)
    took = time.time() - killed
    time.sleep(1)  # what must not happen in this time is a failure; there is no event to await
    outcome = load.stop()
    assert took < 10
    assert all(answers(web, vip) for vip in VIPS)
    settled = Load(client, "http", VIPS, rate=RATE, count=200).wait(30)
    assert settled.failed == 0, settled.failures
    assert outcome.by_backend.keys() >= {"rs1", "rs2", "rs3"}
    web.restart_part(dead)
    until("all is as before", lambda: {vip: announcer(web, vip) for vip in VIPS} == before, 60)


def test_a_killed_daemon_on_a_load_balancer_fails_no_request(web: Lab) -> None:
    load = Load(web.nodes["client"], "http", VIPS, rate=RATE)
    long = Load(web.nodes["client"], "long", VIPS, connections=40)
    _under_way(web)
    lost = _syn_retransmissions(web)
    for name in {announcer(web), announcer(web, VIPS[1])} | {"rs1"}:
        web.kill_part(f"{name}/daemon")
        web.start_part(f"{name}/daemon")
        until(f"the daemon on {name} is at work", lambda n=name: _is_ready(web, n), 30)  # type: ignore[misc]  # bound now on purpose
    until("all are fine", lambda: condition(web, "web", "Ready")[0] == "True", 30)
    outcome, held = load.stop(), long.stop()
    assert outcome.asked > 100
    assert outcome.failed == 0, outcome.failures
    assert held.failed == 0, held.failures
    # A lost SYN is sent again after a second, and the request succeeds: failures would not show it.
    assert _syn_retransmissions(web) == lost


def _is_ready(lab: Lab, node: str) -> bool:
    """Whether the daemon's own endpoint says so; it listens on the node's address."""
    found = lab.nodes[node]
    url = f"http://{found.member.ipv4}:9787/readyz"
    return bool(found.run(["curl", "-s", "--fail", "--max-time", "1", url], check=False))


def _syn_retransmissions(lab: Lab) -> int:
    lines = lab.nodes["client"].run(["nstat", "-asz", "TcpExtTCPSynRetrans"]).splitlines()
    return int(lines[-1].split()[1])


def test_the_operator_may_die(web: Lab) -> None:
    load = Load(web.nodes["client"], "http", VIPS, rate=RATE)
    _under_way(web)
    web.kill_part("operator")
    _weigh(web, "rs1", "0")
    try:
        web.start_part("operator")
        until("the operator has seen what it missed", lambda: _draining(web) == 2, 40)
    finally:
        _weigh(web, "rs1", "1")
    until("rs1 is back", lambda: _draining(web) == 0, 15)
    outcome = load.stop()
    assert outcome.failed == 0, outcome.failures


OUTSIDE = "10.77.0.107"
"""A VIP of real servers that are no Nodes (second addresses of the backends stand in for them): all
are there from the first moment, so no slot has moved when the first connection comes."""
REAL_SERVERS = {"rs1": "10.77.0.41", "rs2": "10.77.0.42", "rs3": "10.77.0.43"}


def _outside(rs2: int) -> str:
    weights = {"rs1": 1, "rs2": rs2, "rs3": 1}
    addresses = [{"address": REAL_SERVERS[each], "weight": weights[each]} for each in REAL_SERVERS]
    return manifest("outside", vips=[OUTSIDE], backends={"addresses": addresses})


def _real_servers(lab: Lab, verb: str) -> None:
    for name, address in REAL_SERVERS.items():
        lab.nodes[name].run(["ip", "addr", verb, f"{OUTSIDE}/32", "dev", "lo"])
        lab.nodes[name].run(["ip", "addr", verb, f"{address}/24", "dev", UPLINK])


def test_a_load_balancer_boots_while_slots_are_moved(web: Lab) -> None:
    """Slot rule 11 (docs/architecture.md): what was open before the move goes on, on a node that
    has seen nothing of it and knows the backends before from the plan alone."""
    client = web.nodes["client"]
    _real_servers(web, "add")
    with applied(web, _outside(rs2=1)):
        until("it answers", lambda: answers(web, OUTSIDE), 20)
        assert not observe.plan(web, "outside").spec.previous_backends
        long = Load(client, "long", [OUTSIDE], connections=60)
        _under_way_long(web)
        web.kubectl("apply", "-f", "-", stdin=_outside(rs2=0))
        until("rs2 drains", lambda: observe.plan(web, "outside").spec.previous_backends, 15)
        until("the LB nodes have it", lambda: _all_have(web, "outside"), 15)
        first = announcer(web, OUTSIDE)
        web.restart_part(first)
        until(f"{first} announces again", lambda: announcer(web, OUTSIDE) == first, 60)
        sent = observe.uplink_traffic(client).sent
        until("all have asked", lambda: observe.uplink_traffic(client).sent > sent + 50_000, 30)
        held = long.stop()
    _real_servers(web, "del")
    assert held.failed == 0, held.failures
    assert held.by_backend["rs2"] > 0


def _all_have(lab: Lab, name: str) -> bool:
    revision = int(observe.plan(lab, name).metadata.resource_version)
    lbs = [observe.node_status(lab, each).status for each in ("lb1", "lb2")]
    return all(each.applied_revision >= revision for each in lbs)


def _under_way_long(lab: Lab) -> None:
    client = lab.nodes["client"]
    established = ["ss", "-Htn", "state", "established"]
    until("60 connections", lambda: len(client.run(established).splitlines()) >= 60, 15)


def test_a_removed_node_is_no_backend_any_more(web: Lab) -> None:
    load = Load(web.nodes["client"], "http", VIPS, rate=RATE)
    _under_way(web)
    web.api.delete("/api/v1/nodes/rs3")
    until("four backends", lambda: observe.service(web, "web").status.backends.healthy == 4, 30)
    after = Load(web.nodes["client"], "http", VIPS, rate=RATE, count=200).wait(30)
    outcome = load.stop()
    assert "rs3" not in after.by_backend
    assert outcome.failed == 0, outcome.failures
    web.restart_part("rs3")
    until("rs3 holds the VIPs again", lambda: "rs3" in holders(web, VIPS[0]), 40)
    until("rs3 answers", lambda: _is_used(web, "rs3"), 30)
