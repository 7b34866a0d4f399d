"""One real control plane for all API tests of a run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.controlplane import ControlPlane, ensure_binaries
from lab.controlplane.cluster import say

CRDS = Path(__file__).resolve().parents[2] / "crds"


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A running control plane that serves our API; nothing else of ours is in it."""
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane"))
    plane.start()
    try:
        kubectl(plane, "apply", "-f", str(CRDS))
        kubectl(plane, "wait", "--for=condition=Established", "crd", "--all", "--timeout=20s")
        yield plane
    finally:
        plane.stop()


def kubectl(plane: ControlPlane, *arguments: str, stdin: str | None = None) -> str:
    """Run kubectl as the administrator; what it prints. Raises CalledProcessError."""
    binary = ensure_binaries(say).kubectl
    command = [str(binary), f"--kubeconfig={plane.kubeconfig}", *arguments]
    return subprocess.run(
        command, input=stdin, check=True, text=True, stdout=subprocess.PIPE
    ).stdout
