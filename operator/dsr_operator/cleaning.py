"""The uninstall's third step: a pod on every node undoes, once, what the daemon did there.

The daemons' DaemonSet is deleted, for two of them exclude each other and a rollback of the release
makes it again. The pods that clean are made from the chart's PodTemplate, which owns them. They run
to their end and never again, so that none of them can meet a daemon that has come back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Any

from dsr_operator import kinds
from dsr_operator.kinds import Kind
from dsr_operator.patient import PatientClient

log = logging.getLogger(__name__)

DAEMON_SET = Kind("DaemonSet", "apps", "v1", "daemonsets", namespaced=True)
POD_TEMPLATE = Kind("PodTemplate", "", "v1", "podtemplates", namespaced=True)
POD = Kind("Pod", "", "v1", "pods", namespaced=True)

COMPONENT = "app.kubernetes.io/component"
DAEMONS, CLEANUP = "node", "cleanup"
"""What that label says of the daemons' pods and of those that clean."""

POLL = 0.5
PATIENCE = 60.0
"""Seconds without any progress after which nodes that do not answer are left as they are."""
ATTEMPTS = 3
"""Pods made for one node: a kubelet may turn one away or evict it."""

Json = dict[str, Any]


@dataclass(slots=True)
class Sight:
    """Nodes, by what their pods say. `failed`: how many of ours have failed there."""

    daemons: set[str] = field(default_factory=set)
    clean: set[str] = field(default_factory=set)
    busy: set[str] = field(default_factory=set)
    failed: Counter[str] = field(default_factory=Counter)


def look(pods: Iterable[Json], made: Set[str]) -> Sight:
    """Sort the pods; of those that clean only the `made` ones count. Pure."""
    seen = Sight()
    for pod in pods:
        node = pod["spec"].get("nodeName")
        phase = pod.get("status", {}).get("phase")
        if node is None:
            continue
        if pod["metadata"]["labels"].get(COMPONENT) == DAEMONS:
            seen.daemons.add(node)
        elif pod["metadata"]["name"] not in made:
            continue
        elif phase == "Succeeded":
            seen.clean.add(node)
        elif phase == "Failed":
            seen.failed[node] += 1
        else:
            seen.busy.add(node)
    return seen


async def clean_nodes(
    client: PatientClient, namespace: str, daemon_set: str, template_name: str
) -> None:
    """Stop the daemons and have every node cleaned where one was or has ever reported.

    A node that is down cannot be cleaned and does not hold up the rest: it is named.
    """
    template = await client.request("GET", POD_TEMPLATE.path(namespace, template_name))
    nodes = {report["metadata"]["name"] for report in await client.items(kinds.REPORT.path())}
    nodes |= look(await _pods(client, namespace, template), frozenset()).daemons
    log.info("stopping the daemons (DaemonSet %s) and cleaning %d nodes", daemon_set, len(nodes))
    await client.delete(DAEMON_SET.path(namespace, daemon_set))
    made: set[str] = set()
    clean, since = -1, time.monotonic()
    while True:
        seen = look(await _pods(client, namespace, template), made)
        unclean = nodes - seen.clean
        if len(seen.clean) != clean:
            clean, since = len(seen.clean), time.monotonic()
            log.info("%d of %d nodes are clean", clean, len(nodes))
        if not unclean:
            return
        if time.monotonic() - since > PATIENCE:
            _name(unclean)
            return
        for node in sorted(unclean - seen.daemons - seen.busy):
            if seen.failed[node] < ATTEMPTS:
                made.add(await _make(client, namespace, template, node))
        await asyncio.sleep(POLL)


async def _pods(client: PatientClient, namespace: str, template: Json) -> list[Json]:
    """The daemons' pods and those that clean."""
    labels = template["template"]["metadata"]["labels"]
    release = [
        f"{key}={labels[key]}" for key in ("app.kubernetes.io/name", "app.kubernetes.io/instance")
    ]
    selector = ",".join([*release, f"{COMPONENT} in ({DAEMONS},{CLEANUP})"])
    return await client.items(POD.path(namespace), labelSelector=selector)


async def _make(client: PatientClient, namespace: str, template: Json, node: str) -> str:
    """A pod that cleans a node; returns its name."""
    meta = template["metadata"]
    owner = {"apiVersion": "v1", "kind": POD_TEMPLATE.name, "name": meta["name"]}
    pod = {
        "apiVersion": "v1",
        "kind": POD.name,
        "metadata": {
            "generateName": f"{meta['name']}-",
            "labels": template["template"]["metadata"]["labels"],
            "ownerReferences": [{**owner, "uid": meta["uid"]}],
        },
        "spec": {**template["template"]["spec"], "nodeName": node},
    }
    answer = await client.request("POST", POD.path(namespace), body=pod)
    return str(answer["metadata"]["name"])


def _name(unclean: Iterable[str]) -> None:
    log.warning(
        "these nodes do not answer and were not cleaned: %s; reboot them, or run"
        " `dsr-node --cleanup` there",
        ", ".join(sorted(unclean)),
    )
