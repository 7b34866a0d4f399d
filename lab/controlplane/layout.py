"""Where things lie in the directory of one control plane."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Paths below one directory, all absolute if it is."""

    directory: Path

    @property
    def state(self) -> Path:
        """The JSON file that makes the directory a control plane's."""
        return self.directory / "state.json"

    @property
    def lock(self) -> Path:
        """Held by whoever starts or stops processes."""
        return self.directory / "lock"

    @property
    def etcd_data(self) -> Path:
        """All objects of the cluster."""
        return self.directory / "etcd"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.directory / "admin.kubeconfig"

    @property
    def controller_manager_kubeconfig(self) -> Path:
        """kube-controller-manager's own."""
        return self.directory / "controller-manager.kubeconfig"

    def user_kubeconfig(self, name: str) -> Path:
        """That of another user."""
        return self.directory / "kubeconfigs" / f"{name}.kubeconfig"

    def log(self, part: str) -> Path:
        """What a process printed, over all its lives."""
        return self.directory / "log" / f"{part}.log"

    def pid_file(self, part: str) -> Path:
        """See process.Identity."""
        return self.directory / "run" / f"{part}.json"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.directory / "pki"

    @property
    def ca_certificate(self) -> Path:
        """The authority that signed everything here."""
        return self.pki / "ca.crt"

    @property
    def ca_key(self) -> Path:
        """Its key."""
        return self.pki / "ca.key"

    @property
    def apiserver_certificate(self) -> Path:
        """Names the addresses under which clients find the API server."""
        return self.pki / "apiserver.crt"

    @property
    def apiserver_key(self) -> Path:
        """Its key."""
        return self.pki / "apiserver.key"

    @property
    def controller_manager_certificate(self) -> Path:
        """Of its health port."""
        return self.pki / "controller-manager.crt"

    @property
    def controller_manager_key(self) -> Path:
        """Its key."""
        return self.pki / "controller-manager.key"

    @property
    def admin_certificate(self) -> Path:
        """A client of group system:masters."""
        return self.pki / "admin.crt"

    @property
    def admin_key(self) -> Path:
        """Its key."""
        return self.pki / "admin.key"

    @property
    def signing_key(self) -> Path:
        """Signs the tokens of service accounts."""
        return self.pki / "service-account.key"

    @property
    def signing_public_key(self) -> Path:
        """Checks them."""
        return self.pki / "service-account.pub"
