"""Somebody else changes a node's kernel, or the cluster."""

from __future__ import annotations

import json
import time

from lab import observe
from lab.chart import ROOT
from lab.laboratory import Lab
from lab.names import VIPS
from lab.network import UPLINK, WIRE
from lab.observe import until
from lab.traffic import Load
from tests.e2e.labs import heal
from tests.e2e.probes import answers, applied, condition, holders, manifest

REPAIR = 1.0
"""Seconds in which drift must be repaired (issue: < 1 s), and the time that looking takes."""
SLACK = 0.5


def test_an_address_taken_off_lo_comes_back(web: Lab) -> None:
    for node in ("rs1", "lb1"):
        for vip, length in zip(VIPS, (32, 128), strict=True):
            web.nodes[node].run(["ip", "addr", "del", f"{vip}/{length}", "dev", "lo"])
            started = time.monotonic()
            until("it is back", lambda n=node, v=vip: n in holders(web, v), 5)  # type: ignore[misc]  # bound now on purpose
            assert time.monotonic() - started < REPAIR + SLACK


def test_a_changed_sysctl_is_set_again(web: Lab) -> None:
    name = "net.ipv4.conf.all.arp_ignore"
    node = web.nodes["rs1"]
    assert node.run(["sysctl", "-n", name]).strip() == "1"
    node.run(["sysctl", "-w", f"{name}=0"])
    until("it is set again", lambda: node.run(["sysctl", "-n", name]).strip() == "1", 40)


def test_a_foreign_xdp_program_is_told_and_not_replaced(web: Lab) -> None:
    web.kubectl("delete", "-f", str(ROOT / "examples" / "web.yaml"), "--timeout=60s")
    node = web.nodes["lb2"]
    node.run(["clang", "-O2", "-target", "bpf", "-c", str(WIRE), "-o", "/run/foreign.o"])
    node.run(["ip", "link", "set", UPLINK, "xdp", "object", "/run/foreign.o", "section", "xdp"])
    foreign = _program(web)
    try:
        web.kubectl("apply", "-f", str(ROOT / "examples" / "web.yaml"))
        until("lb2 tells", lambda: _problem(web, "lb2")[0], 20)
        reason, message = _problem(web, "lb2")
        assert reason
        assert UPLINK in message
        assert _program(web) == foreign
        until("the service tells", lambda: "another XDP program" in _degraded(web), 20)
        assert "lb2" in _degraded(web)
        until("the other serves", lambda: condition(web, "web", "Ready")[0] == "True", 20)
    finally:
        node.run(["ip", "link", "set", UPLINK, "xdp", "off"])
    heal(web)


def _degraded(lab: Lab) -> str:
    status, _, message = condition(lab, "web", "Degraded")
    return message if status == "True" else ""


def _program(lab: Lab) -> int:
    (link,) = json.loads(lab.nodes["lb2"].run(["ip", "-json", "-d", "link", "show", UPLINK]))
    number: int = link["xdp"]["prog"]["id"]
    return number


def _problem(lab: Lab, node: str) -> tuple[str, str]:
    for each in observe.node_status(lab, node).status.plans_not_applied.items:
        return each.reason, each.message
    return "", ""


def test_crds_gone_and_back_take_nothing_away(web: Lab) -> None:
    """docs/architecture.md, rule 7: empty is not "none"."""
    load = Load(web.nodes["client"], "http", VIPS, rate=100)
    until("load", lambda: observe.uplink_traffic(web.nodes["client"]).sent > 0, 10)
    # Without its finalizers' handler a CRD cannot go; an operator away is the worst case.
    web.kill_part("operator")
    web.kubectl("delete", "crd", "dsrplans.dsr-operator.io", "--timeout=60s")
    time.sleep(5)  # what must not happen in this time is a withdrawal; there is no event to await
    assert holders(web, VIPS[0]) == {"lb1", "lb2", "rs1", "rs2", "rs3"}
    assert all(answers(web, vip) for vip in VIPS)
    web.kubectl("apply", "--server-side", "-f", str(ROOT / "crds" / "dsrplans.yaml"))
    time.sleep(2)  # likewise: the CRD is there again, and empty
    assert holders(web, VIPS[0]) == {"lb1", "lb2", "rs1", "rs2", "rs3"}
    outcome = load.stop()
    assert outcome.failed == 0, outcome.failures
    web.start_part("operator")
    until("the plan is made again", lambda: _frontends(web) == 4, 60)


def _frontends(lab: Lab) -> int:
    listed = lab.api.get(f"{observe.API}/dsrplans")["items"]
    return sum(len(each["spec"].get("frontends", ())) for each in listed)


def test_of_two_services_with_one_frontend_the_older_keeps_it(web: Lab) -> None:
    younger = manifest("younger", vips=[VIPS[0]])
    with applied(web, younger):
        until("it is told", lambda: condition(web, "younger", "Accepted")[0] == "False", 20)
        _, _, message = condition(web, "younger", "Accepted")
        assert "default/web" in message
        assert condition(web, "web", "Ready")[0] == "True"
        outcome = Load(web.nodes["client"], "http", VIPS, rate=100, count=100).wait(30)
        assert outcome.failed == 0, outcome.failures


def test_an_address_that_somebody_has_is_not_announced(web: Lab) -> None:
    vip = "10.77.0.106"
    client = web.nodes["client"]
    client.run(["ip", "addr", "add", f"{vip}/32", "dev", UPLINK])
    try:
        with applied(web, manifest("taken", vips=[vip])):
            until("it is told", lambda: _tells_of(web, client.member.mac), 20)
            assert condition(web, "web", "Ready")[0] == "True"
            assert condition(web, "taken", "Ready")[0] != "True"
    finally:
        client.run(["ip", "addr", "del", f"{vip}/32", "dev", UPLINK])


def _tells_of(lab: Lab, mac: str) -> bool:
    conditions = observe.service(lab, "taken").status.conditions
    return any(mac in each.message for each in conditions)
