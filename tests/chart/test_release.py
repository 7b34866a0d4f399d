"""install, upgrade and uninstall by the real helm on a real API server.

No kubelet is here, so nothing waits for pods and the uninstall hook's Job does not run
(tests/api/uninstall runs what is in it).
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dsr_operator import cleaning
from dsr_operator.patient import PatientClient

from lab.controlplane import ControlPlane
from tests.api.crds.test_services import service
from tests.api.kubectl import kubectl
from tests.chart.helm import CHART, NAMESPACE, RELEASE, HelmError, helm, one, template

PLACE = (f"--namespace={NAMESPACE}",)


@pytest.fixture
def kubeconfig(empty_cluster: ControlPlane) -> Iterator[Path]:
    """A cluster without a release, before and after."""
    config = empty_cluster.kubeconfig
    yield config
    if RELEASE in helm("list", "--all", "--short", *PLACE, kubeconfig=config):
        helm("uninstall", RELEASE, "--no-hooks", *PLACE, kubeconfig=config)
    kubectl(config, "delete", "crd", "--all")


def install(config: Path, *options: str, chart: Path = CHART) -> str:
    arguments = ("upgrade", "--install", RELEASE, str(chart), "--create-namespace", *PLACE)
    return helm(*arguments, *options, kubeconfig=config)


def established(config: Path) -> None:
    kubectl(config, "wait", "--for=condition=Established", "crd", "--all")


def make_service(config: Path) -> None:
    kubectl(config, "apply", "-f", "-", stdin=json.dumps(service()))


def names(config: Path, kind: str) -> list[str]:
    listed = json.loads(kubectl(config, "get", kind, "-A", "-o", "json"))["items"]
    return [item["metadata"]["name"] for item in listed]


def test_dry_run_on_the_server(empty_cluster: ControlPlane) -> None:
    config = empty_cluster.kubeconfig
    said = helm(
        *("install", RELEASE, str(CHART), "--dry-run=server", "--create-namespace", *PLACE),
        *("--set=metrics.service.enabled=true,node.privileged=false",),
        kubeconfig=config,
    )
    assert "kubectl get dsr -A -o wide" in said
    assert names(config, "crd") == []


def test_every_object_is_accepted_with_unknown_fields_refused(kubeconfig: Path) -> None:
    text = helm("template", RELEASE, str(CHART), *PLACE, "--set=metrics.service.enabled=true")
    kubectl(kubeconfig, "create", "namespace", NAMESPACE)
    try:
        # Hooks among them: what helm uninstall makes must be valid as well.
        kubectl(
            kubeconfig,
            *("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"),
            stdin=text,
        )
    finally:
        kubectl(kubeconfig, "delete", "namespace", NAMESPACE)


def test_install_upgrade_uninstall(kubeconfig: Path, tmp_path: Path) -> None:
    said = install(kubeconfig)
    assert f"helm uninstall --timeout 300s {RELEASE}" in said
    established(kubeconfig)
    make_service(kubeconfig)

    newer = tmp_path / "chart"
    shutil.copytree(CHART, newer)
    path = newer / "files" / "crds" / "dsrservices.yaml"
    crd = yaml.safe_load(path.read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["colour"] = {"type": "string"}
    path.write_text(yaml.safe_dump(crd))
    install(kubeconfig, chart=newer)
    assert "colour" in kubectl(
        kubeconfig, "get", "crd", "dsrservices.dsr-operator.io", "-o", "yaml"
    )
    assert names(kubeconfig, "dsr") == ["web"]

    helm("uninstall", RELEASE, "--no-hooks", *PLACE, kubeconfig=kubeconfig)
    assert len(names(kubeconfig, "crd")) == 4
    assert names(kubeconfig, "dsr") == ["web"]
    assert names(kubeconfig, "validatingadmissionpolicy") == []
    assert [n for n in names(kubeconfig, "clusterrole") if n.startswith("dsr-")] == []

    install(kubeconfig)
    assert names(kubeconfig, "dsr") == ["web"]


def test_uninstall_stops_if_the_nodes_are_not_clean(kubeconfig: Path) -> None:
    """Nobody runs the hook's Job here, so it fails by its deadline: nothing may be deleted."""
    install(kubeconfig)
    with pytest.raises(HelmError):
        helm("uninstall", RELEASE, "--timeout=3s", *PLACE, kubeconfig=kubeconfig)
    jobs = json.loads(kubectl(kubeconfig, "get", "jobs", *PLACE, "-o", "json"))["items"]
    assert [job["spec"]["template"]["spec"]["serviceAccountName"] for job in jobs] == [
        "dsr-operator-uninstall"
    ]
    assert names(kubeconfig, "deployment") == [RELEASE]
    assert names(kubeconfig, "daemonset") == ["dsr-operator-node"]


def test_a_failed_uninstall_is_undone_by_rollback(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that the hook does to Helm's objects, done by its own code, then the way back."""
    install(kubeconfig)
    before = workloads(kubeconfig)
    with pytest.raises(HelmError):
        helm("uninstall", RELEASE, "--timeout=3s", *PLACE, kubeconfig=kubeconfig)
    kubectl(kubeconfig, "scale", "deployment", RELEASE, "--replicas=0", *PLACE)
    # Helm has deleted it when the hook failed, and with it all pods made from it.
    pods = json.dumps(one(template(), "PodTemplate"))
    kubectl(kubeconfig, "create", "-f", "-", stdin=pods)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    asyncio.run(clean_nodes())
    assert set(workloads(kubeconfig)) == {"Deployment"}
    with pytest.raises(HelmError, match="has no deployed releases"):
        install(kubeconfig)

    helm("rollback", RELEASE, "1", *PLACE, kubeconfig=kubeconfig)
    assert workloads(kubeconfig) == before
    install(kubeconfig)
    assert workloads(kubeconfig) == before


async def clean_nodes() -> None:
    client = PatientClient()
    try:
        await cleaning.clean_nodes(client, NAMESPACE, "dsr-operator-node", "dsr-operator-uninstall")
    finally:
        await client.close()


def workloads(config: Path) -> dict[str, object]:
    listed = json.loads(kubectl(config, "get", "deployment,daemonset", *PLACE, "-o", "json"))
    return {item["kind"]: item["spec"] for item in listed["items"]}
