"""The options of one daemon."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dsr_node.subsystems.xdp.limits import Limits


@dataclass(frozen=True)
class Config:
    """What one daemon was started with.

    - `plans`: a directory of DSRPlan files; None: plans come from the API.
    - `uplink`: override of the uplink choice, "" for none; it wins over the Node's annotation.
    - `sys_net`: where /proc/sys/net is; in a pod a hostPath mounted elsewhere.
    - `listen_address`, `listen_port`: of the HTTP endpoint.
    - `limits`: how much the maps of XDP hold, where they are not pinned yet.
    - `kubeconfig`: None: the pod's service account. `namespace`: the operator's own.
    """

    node: str
    plans: Path | None = None
    state_dir: Path = Path("/var/lib/dsr-operator")
    bpffs: Path = Path("/sys/fs/bpf/dsr-operator")
    sys_net: Path = Path("/proc/sys/net")
    uplink: str = ""
    listen_address: str = "127.0.0.1"
    listen_port: int = 9787
    kubeconfig: Path | None = None
    namespace: str = ""
    limits: Limits = field(default_factory=Limits)

    @property
    def plans_on_disk(self) -> Path:
        """The last plans, for a start without the API server."""
        return self.state_dir / "plans"

    @property
    def node_on_disk(self) -> Path:
        """What was last known of this daemon's Node, for the same."""
        return self.state_dir / "node.json"
