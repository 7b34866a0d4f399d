"""What several e2e tests ask of a lab."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lab import observe
from lab.laboratory import Lab
from lab.names import VIPS
from lab.node import Node


def answers(lab: Lab, address: str) -> str:
    """The name in one answer to the client; "" if none comes within a second."""
    url = f"http://[{address}]/" if ":" in address else f"http://{address}/"
    argv = ["curl", "--silent", "--fail", "--globoff", "--max-time", "1", url]
    return lab.nodes["client"].run(argv, check=False).strip()


def holders(lab: Lab, vip: str) -> set[str]:
    """The nodes that have the VIP on some interface."""
    found = (each for each in lab.nodes.values() if each.running)
    return {each.member.name for each in found if vip in observe.addresses(each)}


def condition(lab: Lab, name: str, kind: str, namespace: str = "default") -> tuple[str, str, str]:
    """Status, reason and message of a DSRService's condition; empty texts if it is not there."""
    for each in observe.service(lab, name, namespace).status.conditions:
        if each.type == kind:
            return each.status, each.reason, each.message
    return "", "", ""


def announcer(lab: Lab, vip: str = VIPS[0]) -> str:
    """The LB node whose MAC answers for the VIP on the wire."""
    client = lab.nodes["client"]
    client.run(["ip", "neigh", "flush", "to", vip])
    answers(lab, vip)
    entries = json.loads(client.run(["ip", "-json", "neigh", "show", "to", vip]))
    macs = {each.member.mac: each.member.name for each in lab.nodes.values()}
    return next((macs.get(each.get("lladdr", ""), "") for each in entries), "")


def manifest(name: str, namespace: str = "default", **spec: Any) -> str:
    """A DSRService like examples/web.yaml's, with fields of the spec replaced."""
    base = {
        "vips": ["10.77.0.105"],
        "ports": [{"name": "http", "port": 80}],
        "backends": {"nodeSelector": {"matchLabels": {"role": "web"}}},
        "loadBalancerNodes": {"nodeSelector": {"matchLabels": {"role": "lb"}}},
    }
    document = {
        "apiVersion": "dsr-operator.io/v1alpha1",
        "kind": "DSRService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": base | spec,
    }
    return json.dumps(document)


@contextmanager
def applied(lab: Lab, text: str) -> Iterator[None]:
    """Objects that are there for the length of a test."""
    lab.kubectl("apply", "-f", "-", stdin=text)
    try:
        yield
    finally:
        lab.kubectl("delete", "--ignore-not-found", "--timeout=60s", "-f", "-", stdin=text)


@contextmanager
def running(node: Node, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs on a node for the length of a test."""
    process = node.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
