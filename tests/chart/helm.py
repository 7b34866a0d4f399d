"""helm as tests use it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from lab.controlplane import ensure_binaries
from lab.controlplane.cluster import say

CHART = Path(__file__).resolve().parents[2] / "charts" / "dsr-operator"
RELEASE = "dsr-operator"
NAMESPACE = "dsr-system"

Document = dict[str, Any]


class HelmError(Exception):
    """What helm said on standard error."""


def helm(*arguments: str, kubeconfig: Path | None = None) -> str:
    """What helm prints on standard output. It reads and writes no configuration of the user's.

    Raises HelmError.
    """
    with tempfile.TemporaryDirectory() as home:
        environment = {"PATH": os.defpath, "HOME": home}
        if kubeconfig is not None:
            environment["KUBECONFIG"] = str(kubeconfig)
        done = subprocess.run(
            [str(ensure_binaries(say).helm), *arguments],
            env=environment,
            text=True,
            capture_output=True,
            check=False,
        )
    if done.returncode != 0:
        raise HelmError(done.stderr)
    return done.stdout


def template(*options: str, namespace: str = NAMESPACE) -> list[Document]:
    """The rendered documents of the chart, hooks among them. Raises HelmError."""
    text = helm("template", RELEASE, str(CHART), f"--namespace={namespace}", *options)
    return [document for document in yaml.safe_load_all(text) if document]


def is_hook(document: Document) -> bool:
    return "helm.sh/hook" in document["metadata"].get("annotations", {})


def one(documents: list[Document], kind: str, name: str | None = None) -> Document:
    """The only document of a kind (and name). Fails the test if there is not exactly one."""
    (found,) = [
        document
        for document in documents
        if document["kind"] == kind and name in (None, document["metadata"]["name"])
    ]
    return found
