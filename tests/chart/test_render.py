"""What the chart renders, for which values, and what it refuses. No cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import CHART, NAMESPACE, Document, HelmError, helm, is_hook, one, template

CRDS = CHART.parents[1] / "crds"


@pytest.fixture(scope="module")
def rendered() -> list[Document]:
    return template()


def pod(workload: Document) -> Document:
    spec: Document = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Document) -> Document:
    (found,) = pod(workload)["containers"]
    return dict(found)


def test_lint() -> None:
    helm("lint", "--strict", str(CHART))


REFUSED = {
    "unknown value": ("operatr.replicas=1", "operatr"),
    "unknown value below": ("operator.replica=1", "replica"),
    "replicas as text": ("operator.replicas=two", "replicas"),
    "port out of range": ("node.port=65536", "port"),
    "log level": ("operator.logLevel=loud", "logLevel"),
    "pull policy": ("image.pullPolicy=Sometimes", "pullPolicy"),
    "digest": ("image.digest=sha256:abc", "digest"),
    "state directory not absolute": ("node.stateDirectory=state", "stateDirectory"),
    "privileged as text": ("node.privileged=maybe", "privileged"),
    "label that selects pods": (
        r"commonLabels.app\.kubernetes\.io/name=x",
        "app.kubernetes.io/name",
    ),
    "no image": ("image.repository=", "repository"),
}


@pytest.mark.parametrize(("value", "word"), REFUSED.values(), ids=REFUSED)
def test_schema_refuses(value: str, word: str) -> None:
    with pytest.raises(HelmError) as failure:
        template(f"--set={value}")
    assert word in str(failure.value)


def test_refuses_old_kubernetes() -> None:
    with pytest.raises(HelmError, match=r"1\.31"):
        template("--kube-version=1.30.5")


def test_crds_are_those_of_the_repository(rendered: list[Document]) -> None:
    for path in sorted(CRDS.glob("*.yaml")):
        wanted = yaml.safe_load(path.read_text())
        found = one(rendered, "CustomResourceDefinition", wanted["metadata"]["name"])
        assert found["spec"] == wanted["spec"]
        assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_crds_can_be_left_out() -> None:
    kinds = {document["kind"] for document in template("--set=crds.install=false")}
    assert "CustomResourceDefinition" not in kinds
    assert "Deployment" in kinds


def test_every_object_has_the_recommended_labels() -> None:
    documents = template(
        "--set=commonLabels.team=net",
        "--set=metrics.service.enabled=true,metrics.podMonitor.enabled=true",
    )
    for document in documents:
        labels = document["metadata"]["labels"]
        name = f"{document['kind']} {document['metadata']['name']}"
        for label in ("name", "instance", "component", "part-of", "version", "managed-by"):
            assert f"app.kubernetes.io/{label}" in labels, name
        assert labels["team"] == "net", name


def test_what_selects_pods_does_not_change_with_the_version(rendered: list[Document]) -> None:
    for kind in ("Deployment", "DaemonSet"):
        workload = one(rendered, kind)
        selector = workload["spec"]["selector"]["matchLabels"]
        assert set(selector) == {
            f"app.kubernetes.io/{label}" for label in ("name", "instance", "component")
        }
        assert selector.items() <= workload["spec"]["template"]["metadata"]["labels"].items()


def test_two_releases_do_not_meet() -> None:
    def names(release: str) -> set[tuple[str, str]]:
        text = helm("template", release, str(CHART), "--set=crds.install=false")
        documents = [document for document in yaml.safe_load_all(text) if document]
        return {(document["kind"], document["metadata"]["name"]) for document in documents}

    assert names("one") & names("two") == set()


def test_operator_pod_has_no_rights_on_its_node(rendered: list[Document]) -> None:
    deployment = one(rendered, "Deployment")
    assert deployment["spec"]["replicas"] == 2
    assert pod(deployment)["securityContext"]["runAsNonRoot"] is True
    assert container(deployment)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not any("hostPath" in volume for volume in pod(deployment)["volumes"])
    assert "podAntiAffinity" in pod(deployment)["affinity"]


def test_disruption_budget_needs_a_second_replica(rendered: list[Document]) -> None:
    assert one(rendered, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    alone = template("--set=operator.replicas=1")
    assert "PodDisruptionBudget" not in {document["kind"] for document in alone}


def test_daemon_runs_on_every_node_in_its_network(rendered: list[Document]) -> None:
    daemons = one(rendered, "DaemonSet")
    assert pod(daemons)["hostNetwork"] is True
    assert pod(daemons)["tolerations"] == [{"operator": "Exists"}]
    assert container(daemons)["securityContext"]["privileged"] is True
    mounts = {mount["mountPath"]: mount for mount in container(daemons)["volumeMounts"]}
    assert mounts["/sys/fs/bpf"]["mountPropagation"] == "Bidirectional"
    assert "/var/lib/dsr-operator" in mounts
    environment = {variable["name"] for variable in container(daemons)["env"]}
    assert {"NODE_NAME", "POD_NAMESPACE", "DSR_LISTEN_ADDRESS"} <= environment


def test_daemon_with_capabilities_alone() -> None:
    daemons = one(template("--set=node.privileged=false"), "DaemonSet")
    context = container(daemons)["securityContext"]
    assert "privileged" not in context
    assert context["capabilities"] == {
        "drop": ["ALL"],
        "add": ["NET_ADMIN", "NET_RAW", "BPF", "PERFMON"],
    }
    mounts = {mount["mountPath"]: mount for mount in container(daemons)["volumeMounts"]}
    # An unprivileged container may not propagate mounts, and its /proc/sys is read-only.
    assert mounts["/sys/fs/bpf"]["mountPropagation"] == "HostToContainer"
    assert "/host/proc/sys/net" in mounts


def test_image(rendered: list[Document]) -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    for kind in ("Deployment", "DaemonSet", "Job"):
        assert container(one(rendered, kind))["image"] == f"dsr-operator:{version}"
    digest = f"sha256:{'0' * 64}"
    pinned = template("--set=image.repository=registry/dsr", f"--set=image.digest={digest}")
    for kind in ("Deployment", "DaemonSet", "Job"):
        assert container(one(pinned, kind))["image"] == f"registry/dsr@{digest}"


def test_rights_of_the_uninstall_job_exist_only_during_the_hook(rendered: list[Document]) -> None:
    mine = [d for d in rendered if d["metadata"]["name"].startswith("dsr-operator-uninstall")]
    assert {document["kind"] for document in mine} == {
        *("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
        *("PodTemplate", "Job"),
    }
    for document in mine:
        annotations = document["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "pre-delete"
        assert "hook-succeeded" in annotations["helm.sh/hook-delete-policy"]
    off = template("--set=uninstall.enabled=false")
    assert not any(is_hook(document) for document in off)


@pytest.mark.parametrize("privileged", ["true", "false"])
def test_what_cleans_a_node_is_the_daemon_itself_and_ends(privileged: str) -> None:
    documents = template(f"--set=node.privileged={privileged}")
    daemon = pod(one(documents, "DaemonSet"))
    cleanup = one(documents, "PodTemplate")["template"]["spec"]
    (serving,), (cleaning,) = daemon["containers"], cleanup["containers"]
    assert cleaning["args"] == [*serving["args"], "--cleanup"]
    for part in ("image", "command", "env", "securityContext", "volumeMounts"):
        assert cleaning[part] == serving[part], part
    assert cleanup["volumes"] == daemon["volumes"]
    assert not {"livenessProbe", "startupProbe", "ports"} & set(cleaning)
    assert cleanup["restartPolicy"] == "OnFailure"
    assert cleanup["activeDeadlineSeconds"] == 240


def test_metrics_are_off_by_default(rendered: list[Document]) -> None:
    assert not {"Service", "PodMonitor"} & {document["kind"] for document in rendered}
    documents = template(
        "--set=metrics.service.enabled=true,metrics.podMonitor.enabled=true",
        "--set=metrics.podMonitor.labels.release=prometheus",
    )
    assert one(documents, "Service")["spec"]["clusterIP"] == "None"
    monitors = [document for document in documents if document["kind"] == "PodMonitor"]
    for monitor in monitors:
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
        workloads = {"operator": "Deployment", "node": "DaemonSet"}
        selector = monitor["spec"]["selector"]["matchLabels"]
        workload = one(documents, workloads[selector["app.kubernetes.io/component"]])
        assert selector == workload["spec"]["selector"]["matchLabels"]
    assert len(monitors) == 2


def test_namespaced_objects_name_their_namespace(rendered: list[Document]) -> None:
    # `helm template` is applied by kubectl too, which would else take its own default.
    for kind in ("ServiceAccount", "Role", "RoleBinding", "Deployment", "DaemonSet", "Job"):
        for document in rendered:
            if document["kind"] == kind:
                assert document["metadata"]["namespace"] == NAMESPACE


def test_values_and_schema_know_the_same() -> None:
    def of_schema(schema: Document, path: str = "") -> set[str]:
        inner = schema.get("properties")
        if not inner or path.endswith((".resources", ".rollingUpdate")):
            return {path}
        return {p for name, s in inner.items() for p in of_schema(s, f"{path}.{name}")}

    def of_values(values: Document, known: set[str], path: str = "") -> set[str]:
        if path in known:
            return {path}
        return {p for name, v in values.items() for p in of_values(v, known, f"{path}.{name}")}

    known = of_schema(json.loads((CHART / "values.schema.json").read_text())) - {".global"}
    assert of_values(yaml.safe_load((CHART / "values.yaml").read_text()), known) == known


def test_package_carries_the_crds(tmp_path: Path) -> None:
    helm("package", str(CHART), f"--destination={tmp_path}")
    (archive,) = tmp_path.iterdir()
    text = helm("template", "packed", str(archive))
    assert text.count("kind: CustomResourceDefinition") == 4
