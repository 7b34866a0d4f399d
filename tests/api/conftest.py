"""One real control plane for all API tests of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.controlplane import ControlPlane
from tests.api.kubectl import kubectl

CRDS = Path(__file__).resolve().parents[2] / "crds"


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A running control plane that serves our API; nothing else of ours is in it."""
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane"))
    plane.start()
    try:
        kubectl(plane.kubeconfig, "apply", "-f", str(CRDS))
        kubectl(plane.kubeconfig, "wait", "--for=condition=Established", "crd", "--all")
        yield plane
    finally:
        plane.stop()
