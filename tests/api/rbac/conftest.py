"""The chart's accounts, rights and policies on the shared control plane."""

from __future__ import annotations

import subprocess

import pytest
import yaml

from lab.controlplane import ControlPlane
from tests.api.kubectl import kubectl
from tests.api.rbac.people import TENANT, Daemons, Person, await_that, ours
from tests.chart.helm import NAMESPACE, is_hook, template

NODES = ("node-a", "node-b")
NOT_NEEDED = {"CustomResourceDefinition", "Deployment", "DaemonSet", "PodDisruptionBudget"}


@pytest.fixture(scope="session")
def admin(control_plane: ControlPlane) -> Person:
    """The administrator of a cluster with the chart's objects, two Nodes and a tenant."""
    person = Person(control_plane.kubeconfig)
    objects = [
        document
        for document in template()
        if document["kind"] not in NOT_NEEDED and not is_hook(document)
    ]
    places = [
        {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
        for kind, names in {"Namespace": (NAMESPACE, TENANT), "Node": NODES}.items()
        for name in names
    ]
    stdin = yaml.safe_dump_all([*places, *objects])
    kubectl(person.kubeconfig, "apply", "--server-side", "-f", "-", stdin=stdin)
    return person


@pytest.fixture(scope="session")
def daemons(control_plane: ControlPlane, admin: Person) -> Daemons:
    def log_in(node: str | None) -> Person:
        bound = ["--bound-object-kind=Node", f"--bound-object-name={node}"] if node else []
        token = admin.may("create", "token", "-n", NAMESPACE, "dsr-operator-node", *bound)
        return Person(control_plane.token_kubeconfig(f"daemon-{node}", token.strip()))

    someone = log_in("node-a")
    await_that(lambda: _enforced(someone), "the admission policy is enforced")
    return log_in


def _enforced(daemon: Person) -> bool:
    """Whether the policy stops a write that RBAC allows."""
    try:
        daemon.may("create", "--dry-run=server", "-f", "-", document=ours("DSRNode", "node-b"))
    except subprocess.CalledProcessError as error:
        if "ValidatingAdmissionPolicy" not in error.stderr:
            raise
        return True
    return False


@pytest.fixture(scope="session")
def tenant(control_plane: ControlPlane, admin: Person) -> Person:
    """A user with the cluster's own role `admin` in one namespace."""
    binding = ["--clusterrole=admin", "--user=tenant", f"--namespace={TENANT}"]
    admin.may("create", "rolebinding", "tenant", *binding)
    await_that(
        lambda: "dsr-operator.io" in admin.may("get", "clusterrole/admin", "-o", "json"),
        "the cluster's own role admin has our rules",
    )
    return Person(control_plane.kubeconfig_for("tenant"))
