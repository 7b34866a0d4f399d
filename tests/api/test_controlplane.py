"""A real control plane is started, used, hurt and stopped. Needs the binaries (see README.md)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.controlplane import ControlPlane, ControlPlaneError, ensure_binaries
from lab.controlplane.cluster import PARTS
from lab.controlplane.process import Daemon

PATIENCE = 30.0


class Kubectl:
    """kubectl with one kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self.command = [str(ensure_binaries(print).kubectl), f"--kubeconfig={kubeconfig}"]

    def run(self, *arguments: str, stdin: object = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *arguments],
            input=None if stdin is None else json.dumps(stdin),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def __call__(self, *arguments: str, stdin: object = None) -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, *arguments: str) -> Any:
        return json.loads(self("get", "-o", "json", *arguments))


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.05)


def processes_below(directory: Path) -> list[str]:
    """Command lines of living processes that name the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
            continue  # no process, or one that has just ended
        if str(directory) in line and entry.name.isdigit() and int(entry.name) != os.getpid():
            found.append(line)
    return found


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path_factory.mktemp("plane"), extra_sans=["lab.example", "10.9.8.7"])
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture(scope="module")
def kubectl(plane: ControlPlane) -> Kubectl:
    return Kubectl(plane.kubeconfig)


@pytest.fixture
def namespace(kubectl: Kubectl, request: pytest.FixtureRequest) -> Iterator[str]:
    name = request.node.name.replace("_", "-")
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def node(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


def test_versions_are_stamped(kubectl: Kubectl) -> None:
    version = json.loads(kubectl("version", "-o", "json"))
    assert version["clientVersion"]["gitVersion"].startswith("v1.34.")
    assert version["serverVersion"]["gitVersion"].startswith("v1.34.")


def test_helm_installs_a_chart(plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    helm = str(ensure_binaries(print).helm)
    (tmp_path / "chart" / "templates").mkdir(parents=True)
    (tmp_path / "chart" / "Chart.yaml").write_text(
        "{apiVersion: v2, name: one, version: 0.1.0, kubeVersion: '>=1.31.0-0'}"
    )
    (tmp_path / "chart" / "templates" / "map.yaml").write_text(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: one}, "
        "data: {version: '{{ .Capabilities.KubeVersion }}'}}"
    )
    target = [f"--kubeconfig={plane.kubeconfig}", f"--namespace={namespace}"]
    subprocess.run([helm, "install", "one", str(tmp_path / "chart"), *target], check=True)
    data = Kubectl(plane.kubeconfig).get("configmap", "one", f"--namespace={namespace}")["data"]
    assert data["version"].startswith("v1.34.")
    # Without a cluster, the version that was stamped into helm itself counts.
    done = subprocess.run(
        [helm, "template", str(tmp_path / "chart")], check=True, capture_output=True, text=True
    )
    assert "v1.34." in done.stdout


def test_a_token_bound_to_a_node_names_it(
    plane: ControlPlane, kubectl: Kubectl, namespace: str
) -> None:
    kubectl("create", "-f", "-", stdin=node("node-1"))
    kubectl("create", "serviceaccount", "daemon", f"--namespace={namespace}")
    uid = kubectl.get("node", "node-1")["metadata"]["uid"]
    token = kubectl(
        "create",
        "token",
        "daemon",
        f"--namespace={namespace}",
        "--bound-object-kind=Node",
        "--bound-object-name=node-1",
        f"--bound-object-uid={uid}",
    )
    daemon = Kubectl(plane.token_kubeconfig("daemon@node-1", token))
    whoami = json.loads(daemon("auth", "whoami", "-o", "json"))["status"]["userInfo"]
    assert whoami["username"] == f"system:serviceaccount:{namespace}:daemon"
    assert whoami["extra"]["authentication.kubernetes.io/node-name"] == ["node-1"]
    # RBAC is on: this account may do nothing yet.
    assert "forbidden" in daemon.run("get", "nodes").stderr
    # And the token dies with its node, once the API server's cache of 10 s has forgotten it.
    kubectl("delete", "node", "node-1")
    eventually(lambda: "Unauthorized" in daemon.run("auth", "whoami").stderr)


def test_an_admission_policy_sees_the_node_of_a_token(
    plane: ControlPlane, kubectl: Kubectl, namespace: str
) -> None:
    extra = "request.userInfo.extra['authentication.kubernetes.io/node-name'][0]"
    rules = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["configmaps"],
    }
    here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "own-node"},
        "spec": {
            "matchConstraints": {"resourceRules": [rules], "namespaceSelector": here},
            # Who is no node may do as RBAC says.
            "matchConditions": [
                {"name": "node", "expression": "request.userInfo.username.endsWith(':daemon')"}
            ],
            "validations": [{"expression": f"object.metadata.name == {extra}"}],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "own-node"},
        "spec": {"policyName": "own-node", "validationActions": ["Deny"]},
    }
    inside = f"--namespace={namespace}"
    kubectl("create", "-f", "-", stdin=node("node-2"))
    kubectl("create", "serviceaccount", "daemon", inside)
    account = f"--serviceaccount={namespace}:daemon"
    kubectl("create", "rolebinding", "daemon", "--clusterrole=edit", account, inside)
    kubectl("create", "-f", "-", stdin=policy)
    kubectl("create", "-f", "-", stdin=binding)
    token = kubectl(
        "create",
        "token",
        "daemon",
        inside,
        "--bound-object-kind=Node",
        "--bound-object-name=node-2",
    )
    daemon = Kubectl(plane.token_kubeconfig("daemon@node-2", token))

    def denied() -> bool:
        # A policy takes effect a moment after it was made.
        done = daemon.run("create", "configmap", "node-3", inside, "--dry-run=server")
        return "denied request" in done.stderr

    eventually(denied)
    daemon("create", "configmap", "node-2", inside)
    # The controller that type-checks policies has seen this one, and found nothing wrong.
    eventually(
        lambda: (
            "observedGeneration" in kubectl.get("validatingadmissionpolicy", "own-node")["status"]
        )
    )
    kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", "own-node")
    kubectl("delete", "node", "node-2")


def test_endpoint_slices_of_both_families_follow_pods(kubectl: Kubectl, namespace: str) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {
            "clusterIP": "None",
            "ipFamilyPolicy": "RequireDualStack",
            "selector": {"app": "web"},
            "ports": [{"port": 80}],
        },
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web-1", "labels": {"app": "web"}},
        "spec": {"nodeName": "node-4", "containers": [{"name": "web", "image": "web"}]},
    }
    inside = f"--namespace={namespace}"
    # The account comes from a controller; the API refuses a pod before it is there.
    kubectl("wait", "--for=create", "serviceaccount/default", inside)
    kubectl("create", "-f", "-", inside, stdin=service)
    # The controller leaves out pods whose node does not exist.
    kubectl("create", "-f", "-", stdin=node("node-4"))
    kubectl("create", "-f", "-", inside, stdin=pod)
    status = {
        "phase": "Running",
        "podIP": "10.1.2.3",
        "podIPs": [{"ip": "10.1.2.3"}, {"ip": "fd00::3"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    patch = json.dumps({"status": status})
    kubectl("patch", "pod", "web-1", inside, "--subresource=status", f"--patch={patch}")

    def ready_addresses() -> set[str]:
        slices = kubectl.get("endpointslices", inside)["items"]
        endpoints = [endpoint for part in slices for endpoint in part["endpoints"] or []]
        return {
            address
            for endpoint in endpoints
            if endpoint["conditions"]["ready"]
            for address in endpoint["addresses"]
        }

    eventually(lambda: ready_addresses() == {"10.1.2.3", "fd00::3"})
    kubectl("delete", "pod", "web-1", inside, "--force", "--grace-period=0")
    eventually(lambda: ready_addresses() == set())
    kubectl("delete", "node", "node-4")


def test_a_deleted_namespace_vanishes_with_its_objects(kubectl: Kubectl) -> None:
    kubectl("create", "namespace", "short-lived")
    kubectl("create", "configmap", "one", "--namespace=short-lived")
    kubectl("delete", "namespace", "short-lived", "--wait=true")
    assert "NotFound" in kubectl.run("get", "namespace", "short-lived").stderr


def test_garbage_is_collected(kubectl: Kubectl, namespace: str) -> None:
    inside = f"--namespace={namespace}"
    kubectl("create", "configmap", "owner", inside)
    uid = kubectl.get("configmap", "owner", inside)["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    owned = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "owned", "ownerReferences": [owner]},
    }
    kubectl("create", "-f", "-", inside, stdin=owned)
    kubectl("delete", "configmap", "owner", inside)
    eventually(lambda: "NotFound" in kubectl.run("get", "configmap", "owned", inside).stderr)


def test_a_privileged_pod_is_allowed(kubectl: Kubectl, namespace: str) -> None:
    container = {"name": "one", "image": "one", "securityContext": {"privileged": True}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "one"},
        "spec": {"containers": [container]},
    }
    kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={namespace}")
    kubectl("create", "-f", "-", f"--namespace={namespace}", stdin=pod)


def test_client_certificates_carry_user_and_groups(plane: ControlPlane) -> None:
    kubectl = Kubectl(plane.kubeconfig_for("jane@example", ["admins", "people"]))
    whoami = json.loads(kubectl("auth", "whoami", "-o", "json"))["status"]["userInfo"]
    assert whoami["username"] == "jane@example"
    assert {"admins", "people"} < set(whoami["groups"])


def test_a_user_name_too_long_for_a_certificate_is_refused(plane: ControlPlane) -> None:
    with pytest.raises(ControlPlaneError, match="1 to 64 characters"):
        plane.kubeconfig_for("x" * 65, [])


def test_certificate_names_the_extra_sans(plane: ControlPlane) -> None:
    where = plane.server.removeprefix("https://")
    shown = subprocess.run(
        ["openssl", "s_client", "-connect", where], input=b"", capture_output=True, check=False
    ).stdout
    text = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName"],
        input=shown,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in ("DNS:lab.example", "IP Address:10.9.8.7", "IP Address:127.0.0.1", "DNS:localhost"):
        assert name in text


@pytest.mark.parametrize("part", PARTS)
def test_a_killed_part_comes_back_with_the_same_data(
    part: Any, plane: ControlPlane, kubectl: Kubectl
) -> None:
    name = f"kept-{part}"
    kubectl("create", "configmap", name)
    server = plane.server
    plane.kill(part)
    assert not plane.running(part)
    assert all(plane.running(other) for other in PARTS if other != part)
    plane.restart(part)
    assert plane.server == server
    kubectl("delete", "configmap", name)
    # The controllers work again too, also those whose API server went away under them.
    kubectl("create", "namespace", name)
    kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}")
    kubectl("delete", "namespace", name, "--wait=false")


def test_start_brings_back_what_is_missing(plane: ControlPlane, kubectl: Kubectl) -> None:
    plane.kill("apiserver")
    plane.start()
    kubectl("get", "nodes")


def test_another_process_can_open_and_stop_it(tmp_path: Path) -> None:
    """`start` returns and the processes stay; a later command finds them, data and ports kept."""
    directory = tmp_path / "plane"
    command = [sys.executable, "-m", "lab.controlplane"]
    subprocess.run([*command, "start", str(directory)], check=True, timeout=60)
    plane = ControlPlane.open(directory)
    server = plane.server
    kubectl = Kubectl(plane.kubeconfig)
    kubectl("create", "namespace", "kept")
    watch = subprocess.Popen(
        [*kubectl.command, "get", "namespaces", "--watch"], stdout=subprocess.DEVNULL
    )
    started = time.monotonic()
    subprocess.run([*command, "stop", str(directory)], check=True, timeout=60)
    # An open watch does not hold it up.
    assert time.monotonic() - started < 4
    watch.wait(PATIENCE)
    assert processes_below(directory) == []
    assert not any(plane.running(part) for part in PARTS)
    plane.stop()  # again, which is fine

    plane.start()
    assert plane.server == server
    kubectl("get", "namespace", "kept")
    plane.stop()
    assert processes_below(directory) == []


def test_two_side_by_side(plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> None:
    other = ControlPlane(tmp_path / "other", bind="::1")
    other.start()
    try:
        assert other.server.startswith("https://[::1]:")
        Kubectl(other.kubeconfig)("create", "namespace", "only-there")
        assert "NotFound" in kubectl.run("get", "namespace", "only-there").stderr
        # Each trusts its own authority alone.
        crossed = Kubectl(plane.kubeconfig).run(f"--server={other.server}", "get", "nodes")
        assert "certificate" in crossed.stderr
    finally:
        other.stop()


def test_a_failed_start_leaves_nothing_running(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    plane.start()
    plane.stop()
    # Damage that only the API server meets, after etcd is up.
    (tmp_path / "pki" / "service-account.key").write_text("no key")
    with pytest.raises(
        ControlPlaneError, match=r"apiserver ended while it was starting"
    ) as failure:
        plane.start()
    assert "service-account" in str(failure.value)
    assert processes_below(tmp_path) == []


def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ControlPlaneError, match="an address that this machine has"):
        ControlPlane(tmp_path, bind="192.0.2.1").start()


def test_a_directory_keeps_its_address(plane: ControlPlane) -> None:
    with pytest.raises(ControlPlaneError, match="use ControlPlane"):
        ControlPlane(plane.kubeconfig.parent, bind="127.0.0.2")


def test_a_pid_that_belongs_to_somebody_else_is_left_alone(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "etcd.json", tmp_path / "etcd.log")
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        stale = {"pid": bystander.pid, "started": 1, "boot": boot}
        daemon.pid_file.write_text(json.dumps(stale))
        assert daemon.pid() is None
        daemon.send(signal.SIGKILL)
        assert daemon.wait(0)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_opening_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ControlPlaneError, match="no control plane was ever started"):
        ControlPlane.open(tmp_path)
    with pytest.raises(ControlPlaneError, match="call start first"):
        _ = ControlPlane(tmp_path).server
