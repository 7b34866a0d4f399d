"""The command lines of etcd, kube-apiserver and kube-controller-manager.

They differ from a production cluster's where that saves start time and changes nothing that a
client of the API sees.
"""

from __future__ import annotations

import ipaddress

from lab.controlplane.build import Binaries
from lab.controlplane.layout import Layout
from lab.controlplane.state import State

LOOPBACK = "127.0.0.1"
ISSUER = "https://kubernetes.default.svc.cluster.local"

SERVICE_CIDRS = ("10.96.0.0/16", "fd00:10:96::/112")
"""Dual stack: the EndpointSlice controller makes IPv6 slices for dual-stack Services only."""
FIRST_SERVICE_ADDRESSES = tuple(str(ipaddress.ip_network(cidr)[1]) for cidr in SERVICE_CIDRS)

CONTROLLERS = (
    "serviceaccount-token-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "namespace-controller",
    "garbage-collector-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "node-lifecycle-controller",
    # Fills the roles admin, edit and view from labelled ones, ours among them.
    "clusterrole-aggregation-controller",
    # Type-checks the CEL of admission policies and writes the warnings to their status.
    "validatingadmissionpolicy-status-controller",
)
"""No scheduler and no kubelet is here, so nothing that makes or evicts pods is of use."""


def etcd(binaries: Binaries, layout: Layout, state: State) -> list[str]:
    """etcd, a cluster of one that does not wait for the disk."""
    client = f"http://{LOOPBACK}:{state.ports.etcd}"
    # A port of the kernel's choice: there is no peer who would need to know it.
    peer = f"http://{LOOPBACK}:0"
    return [
        str(binaries.etcd),
        "--name=lab",
        f"--data-dir={layout.etcd_data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=lab={peer}",
        # What the kernel has survives a killed process; only a power cut could lose data.
        "--unsafe-no-fsync",
        # Alone it wins each election, so the time-out only delays the start.
        "--heartbeat-interval=10",
        "--election-timeout=100",
        "--log-level=warn",
    ]


def apiserver(binaries: Binaries, layout: Layout, state: State) -> list[str]:
    """kube-apiserver with RBAC, dual-stack Services and the admission plug-ins of a real one."""
    return [
        str(binaries.kube_apiserver),
        f"--bind-address={state.bind}",
        f"--secure-port={state.ports.apiserver}",
        # Else it looks for a default route, and a machine or namespace without one fails.
        f"--advertise-address={LOOPBACK if is_unspecified(state.bind) else state.bind}",
        # No endpoints for the Service `kubernetes`: nothing here forwards cluster IPs, and a
        # loopback address would be refused.
        "--endpoint-reconciler-type=none",
        f"--etcd-servers=http://{LOOPBACK}:{state.ports.etcd}",
        f"--cert-dir={layout.pki}",
        f"--tls-cert-file={layout.apiserver_certificate}",
        f"--tls-private-key-file={layout.apiserver_key}",
        f"--client-ca-file={layout.ca_certificate}",
        "--authorization-mode=Node,RBAC",
        # What is on by default, plus what keeps a node's identity to its own objects.
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-signing-key-file={layout.signing_key}",
        f"--service-account-key-file={layout.signing_public_key}",
        f"--service-cluster-ip-range={','.join(SERVICE_CIDRS)}",
        # Else it waits for all watches to end by themselves, a minute, before it ends.
        "--shutdown-watch-termination-grace-period=1s",
        "--profiling=false",
    ]


def controller_manager(binaries: Binaries, layout: Layout, state: State) -> list[str]:
    """kube-controller-manager, each controller under its own service account as in real life."""
    return [
        str(binaries.kube_controller_manager),
        f"--kubeconfig={layout.controller_manager_kubeconfig}",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={state.ports.controller_manager}",
        f"--cert-dir={layout.pki}",
        f"--tls-cert-file={layout.controller_manager_certificate}",
        f"--tls-private-key-file={layout.controller_manager_key}",
        f"--controllers={','.join(CONTROLLERS)}",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={layout.signing_key}",
        f"--root-ca-file={layout.ca_certificate}",
        # There is only one, and to win the lease costs seconds.
        "--leader-elect=false",
        # Deleting a namespace lists every resource: with the default of 20 requests a second that
        # takes seconds.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--profiling=false",
    ]


def is_unspecified(address: str) -> bool:
    """True for 0.0.0.0 and ::, which stand for all addresses."""
    return ipaddress.ip_address(address).is_unspecified
