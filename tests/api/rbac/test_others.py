"""What tenants and the operator may do, and what not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import kubernetes
import pytest

from tests.api.rbac.people import TENANT, Person, ours
from tests.api.rbac.test_daemon import PLAN, POOL, SERVICE
from tests.chart.helm import NAMESPACE

OPERATOR = f"system:serviceaccount:{NAMESPACE}:dsr-operator"
DAEMON = f"{OPERATOR}-node"


def test_a_tenant_has_its_dsrservices(tenant: Person) -> None:
    tenant.may("apply", "-n", TENANT, "-f", "-", document=SERVICE)
    tenant.may("get", "dsr", "-n", TENANT, "mine")
    tenant.may("delete", "dsr", "-n", TENANT, "mine")


def test_a_tenant_has_no_others(tenant: Person) -> None:
    tenant.may_not("apply", "-n", "default", "-f", "-", document=SERVICE)
    tenant.may_not("get", "dsr", "-n", "default")
    tenant.may_not("get", "dsr", "-A")


def test_a_tenant_writes_no_status(tenant: Person) -> None:
    tenant.may("apply", "-n", TENANT, "-f", "-", document=SERVICE)
    patch = '--patch={"status":{"vips":["192.0.2.1"]}}'
    try:
        tenant.may_not(
            "patch", "dsr", "mine", "-n", TENANT, "--subresource=status", "--type=merge", patch
        )
    finally:
        tenant.may("delete", "dsr", "-n", TENANT, "mine")


@pytest.mark.parametrize(
    "document", [PLAN, POOL, ours("DSRNode", "node-a")], ids=lambda document: document["kind"]
)
def test_a_tenant_has_nothing_of_the_clusters(tenant: Person, document: dict[str, object]) -> None:
    tenant.may_not("create", "-f", "-", document=document)
    tenant.may_not("get", str(document["kind"]))


READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch", "delete")
OURS = "dsr-operator.io"

MAY = {
    ("dsrservices", OURS): (*READ, "patch"),
    ("dsrservices/status", OURS): ("patch",),
    ("dsrplans", OURS): (*READ, "create", "patch", "delete"),
    ("dsraddresspools", OURS): READ,
    ("dsrnodes", OURS): READ,
    ("nodes", ""): READ,
    ("namespaces", ""): READ,
    ("services", ""): READ,
    ("endpointslices", "discovery.k8s.io"): READ,
    ("events", ""): ("create",),
}
MAY_NOT = {
    ("dsrservices", OURS): ("create", "delete"),
    ("dsrnodes", OURS): WRITE,
    ("dsrnodes/status", OURS): WRITE,
    ("dsraddresspools", OURS): WRITE,
    ("secrets", ""): (*READ, *WRITE),
    ("configmaps", ""): (*READ, *WRITE),
    ("pods", ""): (*READ, *WRITE),
    ("nodes", ""): WRITE,
    ("namespaces", ""): WRITE,
    ("services", ""): WRITE,
    ("deployments", "apps"): (*READ, *WRITE),
    ("daemonsets", "apps"): (*READ, *WRITE),
    ("leases", "coordination.k8s.io"): (*READ, *WRITE),
    ("customresourcedefinitions", "apiextensions.k8s.io"): WRITE,
    ("clusterrolebindings", "rbac.authorization.k8s.io"): (*READ, *WRITE),
    ("serviceaccounts/token", ""): ("create",),
}


def questions(table: dict[tuple[str, str], tuple[str, ...]]) -> list[tuple[str, str, str]]:
    return [(verb, what, group) for (what, group), verbs in table.items() for verb in verbs]


@pytest.fixture(scope="module")
def ask(admin: Person) -> Iterator[Callable[..., bool]]:
    """Whether a user may do this (in this namespace; "": in all of them)."""
    with kubernetes.config.new_client_from_config(str(admin.kubeconfig)) as client:
        api = kubernetes.client.AuthorizationV1Api(client)

        def allowed(
            verb: str, what: str, group: str, namespace: str = "", user: str = OPERATOR
        ) -> bool:
            resource, _, subresource = what.partition("/")
            attributes = {
                "verb": verb,
                "group": group,
                "resource": resource,
                "subresource": subresource,
                "namespace": namespace,
            }
            spec = {"user": user, "resourceAttributes": attributes}
            answer = api.create_subject_access_review({"spec": spec})
            return bool(answer.status.allowed)

        yield allowed


@pytest.mark.parametrize(("verb", "what", "group"), questions(MAY))
def test_the_operator_may(ask: Callable[..., bool], verb: str, what: str, group: str) -> None:
    assert ask(verb, what, group)


@pytest.mark.parametrize(("verb", "what", "group"), questions(MAY_NOT))
def test_the_operator_may_not(ask: Callable[..., bool], verb: str, what: str, group: str) -> None:
    assert not ask(verb, what, group)


@pytest.mark.parametrize("verb", ["get", "list", "create", "update"])
def test_the_operators_leases_are_those_of_its_namespace(
    ask: Callable[..., bool], verb: str
) -> None:
    assert ask(verb, "leases", "coordination.k8s.io", NAMESPACE)
    assert not ask(verb, "leases", "coordination.k8s.io", "kube-node-lease")


DAEMON_MAY_NOT = {
    ("dsrplans", OURS): WRITE,
    ("dsrservices", OURS): (*READ, *WRITE),
    ("dsrservices/status", OURS): WRITE,
    ("dsraddresspools", OURS): (*READ, *WRITE),
    ("dsrnodes", OURS): ("list", "watch", "delete"),
    ("nodes", ""): WRITE,
    ("nodes/status", ""): WRITE,
}


@pytest.mark.parametrize(("verb", "what", "group"), questions(DAEMON_MAY_NOT))
def test_rbac_holds_a_daemon_even_without_the_policy(
    ask: Callable[..., bool], verb: str, what: str, group: str
) -> None:
    assert not ask(verb, what, group, user=DAEMON)
