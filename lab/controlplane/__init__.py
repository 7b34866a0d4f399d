"""A real Kubernetes control plane on one machine, for the lab and for tests. See README.md."""

from lab.controlplane.build import Binaries, ensure_binaries
from lab.controlplane.cluster import ControlPlane, Part
from lab.controlplane.errors import ControlPlaneError

__all__ = ["Binaries", "ControlPlane", "ControlPlaneError", "Part", "ensure_binaries"]
