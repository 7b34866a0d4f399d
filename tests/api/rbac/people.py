"""Who acts in these tests, and how one sees that the API server lets or forbids."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.api.kubectl import kubectl

Document = dict[str, Any]

PATIENCE = 20.0
"""Seconds for the API server and its controllers to take up what was stored."""

TENANT = "tenant"
"""Namespace and name of a user who is its admin."""


@dataclass(frozen=True)
class Person:
    """Somebody with a kubeconfig."""

    kubeconfig: Path

    def may(self, *arguments: str, document: Document | None = None) -> str:
        """Run kubectl; the test fails if the API server refuses."""
        stdin = json.dumps(document) if document else None
        return kubectl(self.kubeconfig, *arguments, stdin=stdin)

    def may_not(self, *arguments: str, document: Document | None = None) -> str:
        """Run kubectl; the test fails unless the API server forbids it. What it said."""
        with pytest.raises(subprocess.CalledProcessError) as failure:
            self.may(*arguments, document=document)
        said: str = failure.value.stderr
        assert "forbidden" in said.lower(), said
        return said


Daemons = Callable[[str | None], Person]
"""The node daemon on this node, by a token bound to it; None: by a token bound to nothing."""


def ours(kind: str, name: str, **rest: Any) -> Document:
    return {
        "apiVersion": "dsr-operator.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        **rest,
    }


def await_that(condition: Callable[[], bool], what: str) -> None:
    """Ask again until it is so. Fails the test after PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"after {PATIENCE:.0f} s still not so: {what}")
        time.sleep(0.1)
