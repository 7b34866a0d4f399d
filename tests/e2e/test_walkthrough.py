"""What the README promises, typed as it stands there."""

from __future__ import annotations

import subprocess

import pytest

from lab import observe, snapshot
from lab.chart import ROOT
from lab.laboratory import EXAMPLE, Lab
from lab.names import VIPS
from lab.observe import until
from lab.servers import BIG_BYTES
from lab.traffic import Load
from tests.e2e.probes import answers, applied, holders, manifest

BACKENDS = {"rs1", "rs2", "rs3"}
NODES = BACKENDS | {"lb1", "lb2"}


def _lab_command(lab: Lab, *argv: str) -> str:
    done = subprocess.run(
        [str(ROOT / "lab" / "lab"), *argv],
        env={"DSR_LAB": lab.home.name, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _snapshots(lab: Lab) -> dict[str, snapshot.Snapshot]:
    return {each: snapshot.take(lab.nodes[each]) for each in NODES}


def _assert_same(lab: Lab, before: dict[str, snapshot.Snapshot]) -> None:
    after = _snapshots(lab)
    seen = snapshot.without_maps
    changes = {each: snapshot.differences(seen(before[each]), seen(after[each])) for each in NODES}
    assert not any(changes.values()), changes


@pytest.fixture(scope="module")
def untouched(lab: Lab) -> dict[str, snapshot.Snapshot]:
    """Every kernel before the first service of the module, with all daemons at work."""
    until("all daemons report", lambda: observe.all_report(lab), 30)
    return _snapshots(lab)


def test_apply_wait_curl_delete_as_the_readme_shows_it(
    lab: Lab, untouched: dict[str, snapshot.Snapshot]
) -> None:
    _lab_command(lab, "kubectl", "apply", "-f", str(EXAMPLE))
    _lab_command(lab, "kubectl", "wait", "--for=condition=Ready", "dsr/web", "--timeout=30s")
    url = f"http://{VIPS[0]}/"
    assert _lab_command(lab, "exec", "client", "--", "curl", "-s", url).strip() in BACKENDS
    line = _lab_command(lab, "kubectl", "get", "dsr", "-o", "wide").splitlines()[1]
    assert "80/TCP,53/UDP" in line
    assert "True" in line
    for vip in VIPS:
        assert holders(lab, vip) == NODES

    _lab_command(lab, "kubectl", "delete", "dsr", "web")

    for vip in VIPS:
        assert holders(lab, vip) == set()
    _assert_same(lab, untouched)


def test_ipv4_ipv6_tcp_udp_and_large_replies_past_the_load_balancer(web: Lab) -> None:
    client = web.nodes["client"]
    for kind in ("http", "udp"):
        outcome = Load(client, kind, VIPS, rate=200, count=200).wait(60)
        assert (outcome.answered, outcome.failed) == (200, 0), outcome.failures
        # Datagrams keep to the settled backend for a while after slots have moved (rule 4).
        assert set(outcome.by_backend) == BACKENDS if kind == "http" else outcome.by_backend
    lbs = [web.nodes[each] for each in ("lb1", "lb2")]
    for vip in VIPS:
        before = [observe.uplink_traffic(each) for each in lbs]
        url = f"http://[{vip}]/big" if ":" in vip else f"http://{vip}/big"
        argv = ["curl", "-sSg", "--fail", "-o", "/dev/null", "-w", "%{size_download}", url]
        assert int(client.run(argv)) == BIG_BYTES
        through = [observe.uplink_traffic(each) - b for each, b in zip(lbs, before, strict=True)]
        assert 0 < sum(each.sent for each in through) < BIG_BYTES / 20


def test_foreground_deletion_withdraws_in_order(
    lab: Lab, untouched: dict[str, snapshot.Snapshot]
) -> None:
    lab.kubectl("apply", "-f", str(EXAMPLE))
    lab.kubectl("wait", "--for=condition=Ready", "dsr/web", "--timeout=30s")
    lab.kubectl("delete", "dsr", "web", "--cascade=foreground", "--timeout=60s")
    _assert_same(lab, untouched)


def test_a_namespace_takes_its_services_along(
    lab: Lab, untouched: dict[str, snapshot.Snapshot]
) -> None:
    pool = EXAMPLE.read_text().split("---")[0]
    lab.kubectl("apply", "-f", "-", stdin=pool)
    lab.kubectl("create", "namespace", "shop")
    with applied(lab, manifest("shop", "shop")):
        wait = ("wait", "-n", "shop", "--for=condition=Ready", "dsr/shop", "--timeout=30s")
        lab.kubectl(*wait)
        assert answers(lab, "10.77.0.105") in BACKENDS
        lab.kubectl("delete", "namespace", "shop", "--timeout=90s")
        assert holders(lab, "10.77.0.105") == set()
    _assert_same(lab, untouched)


def test_clean_up_leaves_the_kernel_as_it_was_found(
    lab: Lab, untouched: dict[str, snapshot.Snapshot]
) -> None:
    lab.kubectl("apply", "-f", str(EXAMPLE))
    lab.kubectl("wait", "--for=condition=Ready", "dsr/web", "--timeout=60s")
    for node in NODES:
        lab.clean_up(node)
    after = _snapshots(lab)
    changes = {each: snapshot.differences(untouched[each], after[each]) for each in NODES}
    assert not any(changes.values()), changes
    for node in NODES:
        lab.start_part(f"{node}/daemon")
    lab.kubectl("delete", "dsr", "web", "--timeout=60s")


def test_explain_teaches(lab: Lab) -> None:
    explained = lab.kubectl("explain", "dsr.spec")
    for field in ("vips", "backends", "loadBalancerNodes", "drainTimeoutSeconds"):
        assert field in explained
    assert "<empty>" not in explained


def test_kubectl_of_the_host_reaches_the_lab(lab: Lab) -> None:
    path = _lab_command(lab, "kubeconfig").strip()
    argv = [*lab.kubectl_command()[:1], f"--kubeconfig={path}", "get", "nodes", "-o", "name"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert {each.removeprefix("node/") for each in done.stdout.split()} == NODES
