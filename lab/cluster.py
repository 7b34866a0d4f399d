"""The lab's Kubernetes: a control plane in the hub, the chart's objects, and pods' credentials."""

from __future__ import annotations

import json
import sys
from functools import cached_property
from pathlib import Path

from lab import chart, cluster_objects, names, network
from lab.api import Api
from lab.chart import Chart
from lab.controlplane import Binaries, ControlPlane, Part, ensure_binaries
from lab.names import Home, Member
from lab.namespaces import Namespaces
from lab.node import Program
from lab.settings import Settings

PARTS: tuple[Part, ...] = ("etcd", "apiserver", "controller-manager")
OPERATOR = "operator"
DAEMON = "daemon"


class Cluster:
    """The cluster of one lab, up or down."""

    def __init__(self, home: Home, settings: Settings, hub: Namespaces) -> None:
        self._home = home
        self._hub = hub
        _, self._hub_address = network.host_link_addresses(settings.host_link)

    @cached_property
    def plane(self) -> ControlPlane:
        """Its control plane, which listens on all addresses of the hub."""
        return ControlPlane(
            self._home.control_plane,
            bind="0.0.0.0",  # noqa: S104  in the hub, a network of the lab's own
            extra_sans=(names.HUB.ipv4, names.HUB.ipv6, self._hub_address),
        )

    @property
    def api(self) -> Api:
        """The API as an administrator."""
        return Api(self._home.kubeconfig)

    @cached_property
    def chart(self) -> Chart:
        """The chart as it is now."""
        return chart.render(binaries().helm)

    def start(self) -> None:
        """Start what does not run of the control plane, and write the host's kubeconfig."""
        binaries()
        with self._hub.entered():
            self.plane.start()
        if not self._home.kubeconfig.exists():
            server = f"https://{self._hub_address}:{self._port}"
            groups = ("system:masters",)
            self._home.kubeconfig.symlink_to(
                self.plane.kubeconfig_for("lab-admin", groups, server=server)
            )

    def kill(self) -> None:
        """End the control plane at once; fine if it is down or was never up."""
        if ControlPlane.exists(self._home.control_plane):
            for part in reversed(PARTS):
                self.plane.kill(part)

    def kubectl(self, *argv: str) -> list[str]:
        """The command line of a kubectl that talks to this cluster from the host."""
        return [str(binaries().kubectl), f"--kubeconfig={self._home.kubeconfig}", *argv]

    def apply_chart(self) -> None:
        """Hand the chart's objects to the API server, as helm would."""
        metadata = {"name": chart.NAMESPACE}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        items = [namespace, *self.chart.objects]
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        network.run(self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-"), text)

    def give_operator_account(self) -> None:
        """Put the operator's credentials where a kubelet mounts them."""
        run = self._home.node(names.HUB.name) / "run"
        self._give_account(run, chart.service_account(self.chart.operator), None)

    def give_daemon_account(self, member: Member, run: Path) -> None:
        """Put a node daemon's credentials where a kubelet mounts them; `run`: the node's /run."""
        self._give_account(run, chart.service_account(self.chart.node_daemon), member.name)

    def daemon_program(self, member: Member) -> Program:
        """What the DaemonSet's pod on this node runs."""
        fields = {
            "metadata.name": f"dsr-node-{member.name}",
            "metadata.namespace": chart.NAMESPACE,
            "spec.nodeName": member.name,
            "status.hostIP": member.ipv4,
            "status.podIP": member.ipv4,
        }
        return chart.program_of(self.chart.node_daemon, DAEMON, fields, self._kubernetes())

    def operator_program(self) -> Program:
        """What the Deployment's pod runs."""
        fields = {
            "metadata.name": "dsr-operator-lab",
            "metadata.namespace": chart.NAMESPACE,
            "status.podIP": names.HUB.ipv4,
        }
        return chart.program_of(self.chart.operator, OPERATOR, fields, self._kubernetes())

    @property
    def _port(self) -> str:
        return self.plane.server.rpartition(":")[2]

    def _kubernetes(self) -> dict[str, str]:
        return {
            "KUBERNETES_SERVICE_HOST": names.HUB.ipv4,
            "KUBERNETES_SERVICE_PORT": self._port,
        }

    def _give_account(self, run: Path, account: str, node: str | None) -> None:
        directory = run / "secrets" / "kubernetes.io" / "serviceaccount"
        directory.mkdir(parents=True, exist_ok=True)
        token = cluster_objects.token(self.api, chart.NAMESPACE, account, node)
        (directory / "token").write_text(token)
        (directory / "ca.crt").write_bytes(self.plane.ca_pem)
        (directory / "namespace").write_text(chart.NAMESPACE)


def binaries() -> Binaries:
    """The control plane's programs; they are built if they are missing."""
    return ensure_binaries(lambda line: print(line, file=sys.stderr, flush=True))
