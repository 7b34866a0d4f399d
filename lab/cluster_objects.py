"""What a kubelet would write: Nodes, their status and Leases, and the tokens of pods."""

from __future__ import annotations

import http
from datetime import UTC, datetime

from lab.api import Api, ApiError, Document
from lab.names import Member

NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
KUBELET_LEASE_SECONDS = 40
"""What a kubelet writes as the duration of its Lease."""
TOKEN_SECONDS = 30 * 24 * 3600


def register(api: Api, member: Member) -> None:
    """Make the Node of a member, Ready, with a fresh Lease; one that is there stays."""
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": member.name,
            "labels": {"role": member.role, "kubernetes.io/hostname": member.name},
        },
    }
    try:
        created = api.create(NODES, node)
    except ApiError as error:
        if error.status != http.HTTPStatus.CONFLICT:
            raise
        created = api.get(f"{NODES}/{member.name}")
    write_status(api, member)
    beat(api, member, created["metadata"]["uid"])


def write_status(api: Api, member: Member) -> None:
    """Addresses and the Ready condition."""
    status: Document = {
        "addresses": [
            {"type": "Hostname", "address": member.name},
            {"type": "InternalIP", "address": member.ipv4},
            {"type": "InternalIP", "address": member.ipv6},
        ],
        "conditions": [_ready()],
    }
    api.merge(f"{NODES}/{member.name}/status", {"status": status})


def beat(api: Api, member: Member, node_uid: str) -> None:
    """Renew the kubelet's Lease of a node; make it if there is none."""
    spec = {
        "holderIdentity": member.name,
        "leaseDurationSeconds": KUBELET_LEASE_SECONDS,
        "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    try:
        api.merge(f"{LEASES}/{member.name}", {"spec": spec})
    except ApiError as error:
        if error.status != http.HTTPStatus.NOT_FOUND:
            raise
        owner = {"apiVersion": "v1", "kind": "Node", "name": member.name, "uid": node_uid}
        metadata = {"name": member.name, "ownerReferences": [owner]}
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        api.create(LEASES, lease | {"metadata": metadata, "spec": spec})


def keep(api: Api, member: Member) -> None:
    """What a kubelet does every few seconds. A Node that was deleted stays deleted."""
    try:
        node = api.get(f"{NODES}/{member.name}")
    except ApiError as error:
        if error.status == http.HTTPStatus.NOT_FOUND:
            return
        raise
    beat(api, member, node["metadata"]["uid"])
    conditions = node["status"].get("conditions", [])
    if not any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
        write_status(api, member)


def token(api: Api, namespace: str, service_account: str, node: str | None) -> str:
    """A service account's token, bound to a Node as those of its pods are."""
    spec: Document = {"expirationSeconds": TOKEN_SECONDS}
    if node is not None:
        uid = api.get(f"{NODES}/{node}")["metadata"]["uid"]
        reference = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}
        spec["boundObjectRef"] = reference
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
    answer = api.create(path, request)
    granted: str = answer["status"]["token"]
    return granted


def _ready() -> Document:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "the lab's keeper is posting ready status",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
