"""What the lab's objects and counters say, and how to wait for what they should say."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from dsr_api.base import decode
from dsr_api.node import DSRNode
from dsr_api.plan import DSRPlan, plan_name
from dsr_api.service import DSRService

from lab.errors import LabError
from lab.laboratory import Lab
from lab.network import UPLINK
from lab.node import Node

API = "/apis/dsr-operator.io/v1alpha1"
INTERVAL = 0.05

T = TypeVar("T")


def until(what: str, question: Callable[[], T | None], timeout: float) -> T:
    """Ask until the answer is true, and return it. Raises LabError that names `what`."""
    end = time.monotonic() + timeout
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > end:
            raise LabError(f"after {timeout:.0f} s still not: {what} (last answer: {answer!r})")
        time.sleep(INTERVAL)


def service(lab: Lab, name: str, namespace: str = "default") -> DSRService:
    """A DSRService, with its status."""
    path = f"{API}/namespaces/{namespace}/dsrservices/{name}"
    return decode(DSRService, lab.api.get(path))


def plan(lab: Lab, name: str, namespace: str = "default") -> DSRPlan:
    """The plan of a DSRService."""
    return decode(DSRPlan, lab.api.get(f"{API}/dsrplans/{plan_name(namespace, name)}"))


def node_status(lab: Lab, name: str) -> DSRNode:
    """What a node's daemon reports."""
    return decode(DSRNode, lab.api.get(f"{API}/dsrnodes/{name}"))


def all_report(lab: Lab) -> bool:
    """Whether every node's daemon has written its DSRNode."""
    listed = lab.api.get(f"{API}/dsrnodes")["items"]
    reporting = {each["metadata"]["name"] for each in listed if each.get("status")}
    return reporting == {each for each, node in lab.nodes.items() if node.member.in_cluster}


@dataclass(frozen=True)
class Traffic:
    """Bytes through an interface, received and sent."""

    received: int
    sent: int

    def __sub__(self, before: Traffic) -> Traffic:
        return Traffic(self.received - before.received, self.sent - before.sent)

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.received + other.received, self.sent + other.sent)


def uplink_traffic(node: Node) -> Traffic:
    """All bytes through a node's uplink since it booted."""
    (link,) = json.loads(node.run(["ip", "-json", "-stats", "link", "show", UPLINK]))
    stats = link["stats64"]
    return Traffic(stats["rx"]["bytes"], stats["tx"]["bytes"])


def addresses(node: Node) -> set[str]:
    """All addresses on all interfaces of a node."""
    links = json.loads(node.run(["ip", "-json", "addr", "show"]))
    return {each["local"] for link in links for each in link["addr_info"]}
