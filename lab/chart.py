"""The Helm chart as the lab uses it: all its objects, and its two programs without their images.

There is no kubelet, so nothing would run the DaemonSet and the Deployment. The lab starts what
they say, with the arguments, the environment and the service account they say.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab import network
from lab.errors import LabError
from lab.node import Program

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "dsr-operator"
RELEASE = "dsr-operator"
NAMESPACE = "dsr-system"
NEEDS_KUBELET = frozenset({"Deployment", "DaemonSet", "Job", "CronJob", "Pod"})
HOOK = "helm.sh/hook"

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Chart:
    """A rendered chart. `objects` go to the API server; the other two are started by the lab."""

    objects: tuple[Document, ...]
    node_daemon: Document
    operator: Document


def render(helm: Path) -> Chart:
    """The chart with its default values. Raises LabError if it does not render."""
    argv = [str(helm), "template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--include-crds"]
    documents = [each for each in yaml.safe_load_all(network.run(argv)) if each]
    return Chart(
        objects=tuple(each for each in documents if _goes_to_the_server(each)),
        node_daemon=_the_one(documents, "DaemonSet"),
        operator=_the_one(documents, "Deployment"),
    )


def _goes_to_the_server(document: Document) -> bool:
    annotations = document["metadata"].get("annotations") or {}
    return document["kind"] not in NEEDS_KUBELET and HOOK not in annotations


def _the_one(documents: Iterable[Document], kind: str) -> Document:
    found = [each for each in documents if each["kind"] == kind]
    if len(found) != 1:
        raise LabError(f"the chart has {len(found)} {kind}s; the lab expects one")
    return found[0]


def service_account(workload: Document) -> str:
    """The account under which the workload's pods run."""
    name: str = workload["spec"]["template"]["spec"]["serviceAccountName"]
    return name


def program_of(
    workload: Document, name: str, fields: Mapping[str, str], extra: Mapping[str, str]
) -> Program:
    """What a pod of the workload would run.

    `fields`: values of the downward API (spec.nodeName, ...); `extra` is what a kubelet adds to
    the environment. Raises LabError for a field it lacks.
    """
    container = workload["spec"]["template"]["spec"]["containers"][0]
    environment = dict(extra)
    for each in container.get("env", ()):
        environment[each["name"]] = _value(each, fields)
    argv = [*container["command"], *container.get("args", ())]
    expanded = [_expand(each, environment) for each in argv]
    # The image has the two entry points in its PATH; here they are beside the interpreter.
    entry_point = Path(sys.executable).parent / Path(expanded[0]).name
    return Program(name, (str(entry_point), *expanded[1:]), environment)


def _value(variable: Document, fields: Mapping[str, str]) -> str:
    if "valueFrom" not in variable:
        return str(variable.get("value", ""))
    path = variable["valueFrom"].get("fieldRef", {}).get("fieldPath")
    if path not in fields:
        raise LabError(f"the chart's {variable['name']} comes from {path}; the lab has no such")
    return fields[path]


def _expand(argument: str, environment: Mapping[str, str]) -> str:
    """$(NAME) in an argument, as a kubelet replaces it."""
    return re.sub(r"\$\((\w+)\)", lambda found: environment.get(found[1], found[0]), argument)
