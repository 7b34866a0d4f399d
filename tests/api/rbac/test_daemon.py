"""A node daemon, and so whoever takes a node over, reaches its own node's objects and no others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.rbac.people import TENANT, Daemons, Person, ours
from tests.chart.helm import NAMESPACE

APPLY = ("apply", "--server-side", "--field-manager=dsr-node", "-f", "-")
STATUS = {"status": {"announcing": 1}}
PLAN = ours("DSRPlan", "x.y", spec={"service": {"namespace": "x", "name": "y"}})
POOL = ours("DSRAddressPool", "mine", spec={"addresses": ["0.0.0.0/0"]})
SERVICE: dict[str, Any] = ours(
    "DSRService",
    "mine",
    spec={
        "vips": ["192.0.2.1"],
        "ports": [{"port": 80}],
        "backends": {"service": {"name": "web"}},
    },
)


def lease(name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"holderIdentity": "somebody"},
    }


@pytest.fixture
def daemon(daemons: Daemons) -> Person:
    return daemons("node-a")


def test_writes_its_own_node_and_lease(daemon: Person, admin: Person) -> None:
    daemon.may(*APPLY, document=ours("DSRNode", "node-a"))
    daemon.may(*APPLY, "--subresource=status", document=ours("DSRNode", "node-a", **STATUS))
    daemon.may(*APPLY, document=lease("dsr-node.node-a"))
    daemon.may(*APPLY, document=lease("dsr-node.node-a"))
    stored = json.loads(admin.may("get", "dsrnode", "node-a", "-o", "json"))
    assert stored["status"] == STATUS["status"]


def test_reads_what_it_needs(daemon: Person) -> None:
    daemon.may("get", "dsrplans")
    daemon.may("get", "nodes")
    daemon.may("get", "crd", "dsrplans.dsr-operator.io")
    daemon.may("get", "leases", "-n", NAMESPACE)


def test_not_the_node_of_another(daemon: Person, admin: Person) -> None:
    node_b = ours("DSRNode", "node-b")
    said = daemon.may_not("create", "-f", "-", document=node_b)
    assert "the daemon of node node-a may not write DSRNode node-b" in said
    admin.may(*APPLY, document=node_b)
    daemon.may_not(
        *APPLY,
        document=ours("DSRNode", "node-b", metadata={"name": "node-b", "labels": {"a": "b"}}),
    )
    status = ours("DSRNode", "node-b", **STATUS)
    said = daemon.may_not(*APPLY, "--subresource=status", document=status)
    assert "may not write DSRNode node-b" in said
    daemon.may_not("delete", "dsrnode", "node-b")


def test_not_the_lease_of_another(daemon: Person, admin: Person) -> None:
    said = daemon.may_not("create", "-f", "-", document=lease("dsr-node.node-b"))
    assert "the daemon of node node-a may not write Lease dsr-node.node-b" in said
    admin.may(*APPLY, document=lease("dsr-node.node-b"))
    stolen = lease("dsr-node.node-b")
    stolen["spec"]["holderIdentity"] = "thief"
    assert "may not write Lease" in daemon.may_not(*APPLY, "--force-conflicts", document=stolen)


@pytest.mark.parametrize("name", ["dsr-operator", "node-a", "dsr-node.node-a.x"])
def test_no_other_lease_of_its_namespace(daemon: Person, name: str) -> None:
    said = daemon.may_not("create", "-f", "-", document=lease(name))
    assert "may not write Lease" in said


@pytest.mark.parametrize("namespace", ["kube-node-lease", "kube-system", "default", TENANT])
def test_no_lease_elsewhere(daemon: Person, namespace: str) -> None:
    daemon.may_not("create", "-f", "-", document=lease("dsr-node.node-a", namespace))
    daemon.may_not("get", "leases", "-n", namespace)


@pytest.mark.parametrize("document", [PLAN, POOL, SERVICE], ids=lambda document: document["kind"])
def test_nothing_of_the_operators_or_the_users(
    daemon: Person, admin: Person, document: dict[str, Any]
) -> None:
    daemon.may_not("create", "-f", "-", document=document)
    admin.may("apply", "-f", "-", document=document)
    try:
        daemon.may_not("delete", document["kind"], document["metadata"]["name"])
        patch = '--patch={"metadata":{"labels":{"a":"b"}}}'
        daemon.may_not(
            "patch", document["kind"], document["metadata"]["name"], "--type=merge", patch
        )
    finally:
        admin.may("delete", document["kind"], document["metadata"]["name"])


def test_policy_holds_even_if_somebody_gives_the_daemon_more_rights(
    daemon: Person, admin: Person
) -> None:
    account = f"--serviceaccount={NAMESPACE}:dsr-operator-node"
    admin.may("create", "clusterrolebinding", "too-much", "--clusterrole=cluster-admin", account)
    try:
        for document in (PLAN, POOL, SERVICE):
            said = daemon.may_not("create", "-f", "-", document=document)
            assert "a node daemon writes nothing but its own DSRNode and its own Lease" in said
        said = daemon.may_not("create", "-f", "-", document=lease("any", "kube-system"))
        assert "may not write Lease any" in said
    finally:
        admin.may("delete", "clusterrolebinding", "too-much")


@pytest.mark.parametrize(
    "what",
    ["secrets", "configmaps", "pods", "services", "dsrservices", "dsraddresspools", "crd"],
)
def test_reads_nothing_else(daemon: Person, what: str) -> None:
    daemon.may_not("get", what, "-n", NAMESPACE)


def test_makes_no_tokens(daemon: Person) -> None:
    daemon.may_not("create", "token", "-n", NAMESPACE, "dsr-operator")


def test_a_token_without_a_node_writes_nothing(daemons: Daemons) -> None:
    nobody = daemons(None)
    for document in (ours("DSRNode", "node-a"), lease("dsr-node.node-a")):
        said = nobody.may_not(*APPLY, "--force-conflicts", document=document)
        assert "must name its node" in said
