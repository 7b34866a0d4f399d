"""Keys, certificates and kubeconfigs that a control plane needs before its first start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.controlplane import kubeconfig, programs
from lab.controlplane.files import write_private
from lab.controlplane.layout import Layout
from lab.controlplane.pki import Authority, Pair, new_signing_key

NAMES = (
    "localhost",
    "127.0.0.1",
    "::1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    *programs.FIRST_SERVICE_ADDRESSES,
)
"""What each API server's certificate is good for, besides `bind` and the caller's names."""


def create(layout: Layout, server: str, names: Sequence[str]) -> None:
    """Write them all; `server` is the API server's URL, `names` are its own names and addresses."""
    authority = Authority.create("dsr-operator lab")
    authority.save(layout.ca_certificate, layout.ca_key)

    # dict.fromkeys: each once, in order.
    own = authority.server(list(dict.fromkeys([*names, *NAMES])))
    _write(own, layout.apiserver_certificate, layout.apiserver_key)
    health = authority.server([programs.LOOPBACK])
    _write(health, layout.controller_manager_certificate, layout.controller_manager_key)

    private, public = new_signing_key()
    write_private(layout.signing_key, private)
    write_private(layout.signing_public_key, public)

    admin = authority.client("lab-admin", ["system:masters"])
    _write(admin, layout.admin_certificate, layout.admin_key)
    kubeconfig.write_with_certificate(layout.kubeconfig, server, authority.pem, "lab-admin", admin)
    # The user that the bootstrap RBAC policy of the API server knows.
    user = "system:kube-controller-manager"
    kubeconfig.write_with_certificate(
        layout.controller_manager_kubeconfig,
        server,
        authority.pem,
        user,
        authority.client(user, []),
    )


def _write(pair: Pair, certificate: Path, key: Path) -> None:
    write_private(key, pair.key)
    write_private(certificate, pair.certificate)
