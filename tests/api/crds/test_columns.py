"""`kubectl get dsr -o wide` tells the story in one line, and `kubectl explain` teaches."""

from __future__ import annotations

import json

from lab.controlplane import ControlPlane
from tests.api.crds.test_services import service
from tests.api.kubectl import kubectl

STATUS = {
    "observedGeneration": 1,
    "vips": ["192.0.2.10"],
    "backends": {"total": 4, "healthy": 4, "draining": 0},
    "loadBalancers": {"total": 2, "programmed": 2},
    "summary": {
        "vips": "192.0.2.10,2001:db8::10",
        "ports": "80/TCP",
        "backends": "4/4",
        "loadBalancers": "2/2",
    },
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Programmed",
            "message": "2 load balancer nodes forward to 4 backends",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
    ],
}


def test_get_wide(control_plane: ControlPlane) -> None:
    config = control_plane.kubeconfig
    document = service()
    document["metadata"]["name"] = "columns"
    try:
        kubectl(config, "apply", "-f", "-", stdin=json.dumps(document))
        patch = json.dumps({"status": STATUS})
        kubectl(
            config, "patch", "dsr", "columns", "--subresource=status", "--type=merge", "-p", patch
        )
        header, line = kubectl(config, "get", "dsr", "columns", "-o", "wide").splitlines()
    finally:
        kubectl(config, "delete", "--ignore-not-found", "dsr", "columns")
    assert header.split() == [
        *("NAME", "VIPS", "PORTS", "METHOD", "BACKENDS", "LBS", "READY", "REASON", "AGE")
    ]
    assert line.split()[:-1] == [
        *("columns", "192.0.2.10,2001:db8::10", "80/TCP", "L2", "4/4", "2/2"),
        *("True", "Programmed"),
    ]


def test_status_is_not_written_with_the_spec(control_plane: ControlPlane) -> None:
    document = service() | {"status": STATUS}
    document["metadata"]["name"] = "no-status"
    created = json.loads(
        kubectl(
            control_plane.kubeconfig,
            *("create", "--dry-run=server", "-o", "json", "-f", "-"),
            stdin=json.dumps(document),
        )
    )
    assert "status" not in created


def test_explain(control_plane: ControlPlane) -> None:
    text = kubectl(control_plane.kubeconfig, "explain", "dsr.spec.backends.addresses.weight")
    assert "0 drains" in " ".join(text.split())
