"""All that the daemon has to do with the API server, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dsr_node.api.access import Access
from dsr_node.api.client import Client
from dsr_node.api.lease import LeaseRenewal
from dsr_node.api.peers import Peers
from dsr_node.api.report import NodeReporter, identity
from dsr_node.source.api import ApiSource
from dsr_node.source.disk import PlanFiles


@dataclass(frozen=True)
class Connection:
    """`source`, `peers` and `reporter` are what the engine needs; `run` keeps them going."""

    client: Client
    source: ApiSource
    peers: Peers
    reporter: NodeReporter
    lease: LeaseRenewal

    async def run(self) -> None:
        """Endless; ends by being cancelled. No failure of the API server ends it."""
        async with self.client, asyncio.TaskGroup() as group:
            group.create_task(self.source.watch.run(), name="plans")
            group.create_task(self.source.saver.run(), name="plans on disk")
            group.create_task(self.lease.run(), name="lease")
            group.create_task(self.peers.watch.run(), name="leases")
            group.create_task(self.peers.run(), name="peers")
            group.create_task(self.reporter.run(), name="report")


def connect(
    access: Access,
    *,
    node: str,
    namespace: str,
    plans_on_disk: Path,
    on_peers_change: Callable[[], None],
) -> Connection:
    """Everything for one node. `namespace` is the operator's: the Leases lie there.

    Nothing is asked before `run`. `on_peers_change` is called when `peers.stale` has changed.
    """
    client = Client(access)
    return Connection(
        client,
        ApiSource(client, PlanFiles(plans_on_disk)),
        Peers(client, namespace, node, on_peers_change),
        NodeReporter(client, node, identity()),
        LeaseRenewal(client, namespace, node),
    )
