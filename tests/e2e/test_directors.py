"""LB nodes come, go and cannot: who announces a VIP is always one that can."""

from __future__ import annotations

from lab import observe
from lab.laboratory import Lab
from lab.names import VIPS
from lab.network import UPLINK
from lab.observe import until
from lab.traffic import Load
from tests.e2e.probes import announcer, answers, applied, condition, manifest
from tests.net.segment import wire

RATE = 200.0
OTHER = {"lb1": "lb2", "lb2": "lb1"}
MOVED = "10.77.0.108"


def _under_way(lab: Lab) -> None:
    """Wait until the client sends at a good rate: the load generator has started."""
    client = lab.nodes["client"]
    start = observe.uplink_traffic(client).sent
    until("load", lambda: observe.uplink_traffic(client).sent > start + 50_000, 15)


def _directors(lab: Lab, name: str = "web") -> dict[str, bool]:
    """The directors of a service's plan, and whether they announce."""
    return {d.node: d.announces for d in observe.plan(lab, name).spec.directors}


def _stand_by(lab: Lab, node: str, name: str = "web") -> list[str]:
    """Directors that the plan still remembers, apart from one node."""
    spec = observe.plan(lab, name).spec
    return [*(n for n in _directors(lab, name) if n != node), *spec.former_directors]


def test_an_announcer_that_is_selected_no_more_is_relieved_without_a_failed_request(
    web: Lab,
) -> None:
    leaving = announcer(web)
    load = Load(web.nodes["client"], "http", VIPS, rate=RATE)
    _under_way(web)
    web.kubectl("label", "node", leaving, "role-")
    try:
        until("it is out", lambda: not _stand_by(web, OTHER[leaving]), 30)
        until("the other one answers", lambda: announcer(web) == OTHER[leaving], 10)
        assert condition(web, "web", "Ready")[0] == "True"
        _under_way(web)
    finally:
        web.kubectl("label", "node", leaving, "role=lb")
    until("it announces again", lambda: announcer(web) == leaving, 30)
    _under_way(web)
    outcome = load.stop()
    assert outcome.failed == 0, outcome.failures


def _of(node: str) -> str:
    selector = {"matchLabels": {"kubernetes.io/hostname": node}}
    return manifest("moved", vips=[MOVED], loadBalancerNodes={"nodeSelector": selector})


def test_all_load_balancers_of_a_service_are_replaced_without_a_failed_request(web: Lab) -> None:
    with applied(web, _of("lb1")):
        until("it answers", lambda: answers(web, MOVED), 20)
        load = Load(web.nodes["client"], "http", [MOVED], rate=RATE)
        _under_way(web)
        web.kubectl("apply", "-f", "-", stdin=_of("lb2"))
        until("lb1 is out", lambda: not _stand_by(web, "lb2", "moved"), 30)
        assert announcer(web, MOVED) == "lb2"
        _under_way(web)
        outcome = load.stop()
    assert outcome.failed == 0, outcome.failures


def test_a_load_balancer_whose_uplink_another_program_has_leaves_its_vips_to_the_others(
    web: Lab,
) -> None:
    busy = announcer(web)
    node = web.nodes[busy]
    web.kill_part(f"{busy}/daemon")
    node.run(["rm", f"/sys/fs/bpf/dsr-operator/link_{UPLINK}"])
    node.run(["ip", "link", "set", UPLINK, "xdp", "object", str(wire()), "section", "xdp"])
    try:
        web.start_part(f"{busy}/daemon")
        until("it may not announce", lambda: _directors(web).get(busy) is False, 30)
        until("the other one answers", lambda: announcer(web) == OTHER[busy], 10)
        assert all(answers(web, vip) for vip in VIPS)
        outcome = Load(web.nodes["client"], "http", VIPS, rate=RATE, count=400).wait(30)
        assert outcome.failed == 0, outcome.failures
        until("it is told", lambda: condition(web, "web", "Degraded")[0] == "True", 10)
        assert busy in condition(web, "web", "Degraded")[2]
        assert condition(web, "web", "Ready")[0] == "True"
    finally:
        node.run(["ip", "link", "set", UPLINK, "xdp", "off"])
    until("it announces again", lambda: announcer(web) == busy, 60)
