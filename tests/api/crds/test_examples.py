"""Every example is accepted as it stands, with unknown fields refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.controlplane import ControlPlane
from tests.api.kubectl import kubectl

EXAMPLES = sorted((Path(__file__).resolve().parents[3] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_applies(control_plane: ControlPlane, path: Path) -> None:
    # Stored and taken back, not a dry run: tenant.yaml puts an object into a namespace of its own.
    try:
        kubectl(control_plane.kubeconfig, "apply", "--validate=strict", "-f", str(path))
    finally:
        kubectl(control_plane.kubeconfig, "delete", "--ignore-not-found", "-f", str(path))
