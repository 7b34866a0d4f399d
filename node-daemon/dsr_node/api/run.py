"""All that the daemon has to do with the API server, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dsr_node.api.access import from_kubeconfig, in_cluster
from dsr_node.api.client import Client
from dsr_node.api.lease import LeaseRenewal
from dsr_node.api.own import OwnNode
from dsr_node.api.peers import Peers
from dsr_node.api.report import NodeReporter, identity
from dsr_node.api.watch import Health
from dsr_node.config import Config
from dsr_node.observe.sight import ApiSight
from dsr_node.source.api import ApiSource
from dsr_node.source.disk import PlanFiles


@dataclass(frozen=True)
class Connection:
    """`own`, `source`, `peers` and `reporter` are what the engine needs; `run` keeps them going."""

    client: Client
    own: OwnNode
    source: ApiSource
    peers: Peers
    reporter: NodeReporter
    lease: LeaseRenewal

    def sight(self) -> ApiSight:
        """For the endpoint."""
        return ApiSight(
            watches=self._watches,
            doubt=lambda: self.source.doubt,
            lease_renewed_at=lambda: self.lease.renewed_at,
        )

    async def run(self, on_change: Callable[[], None]) -> None:
        """Endless; ends by being cancelled. No failure of the API server ends it.

        `on_change` is called when `own` or `peers.stale` has changed.
        """

        def on_node_change() -> None:
            self.reporter.node_changed()
            on_change()

        async with self.client, asyncio.TaskGroup() as group:
            group.create_task(self.source.watch.run(), name="plans")
            group.create_task(self.source.saver.run(), name="plans on disk")
            group.create_task(self.own.watch.run(), name="node")
            group.create_task(self.own.run(on_node_change), name="own node")
            group.create_task(self._renew_lease(), name="lease")
            group.create_task(self._watch_peers(), name="leases")
            group.create_task(self.peers.run(on_change), name="peers")
            group.create_task(self.reporter.run(), name="report")

    async def _renew_lease(self) -> None:
        await self.own.settled()
        await self.lease.run()

    async def _watch_peers(self) -> None:
        # Each Lease is renewed each 5 s: if all nodes watched all Leases, the API server would send
        # out the square of their number. Directors alone need them, and these are few.
        await self.source.has_peers.wait()
        await self.peers.watch.run()

    def _watches(self) -> Mapping[str, Health]:
        watches = {"dsrplans": self.source.watch.health, "nodes": self.own.watch.health}
        if self.source.has_peers.is_set():
            watches["leases"] = self.peers.watch.health
        return watches


def connect(config: Config) -> Connection:
    """Everything for one node. Nothing is asked before `run`. Raises AccessError."""
    access = from_kubeconfig(config.kubeconfig) if config.kubeconfig else in_cluster()
    client = Client(access)
    own = OwnNode(client, config.node, config.node_on_disk)
    reporter = NodeReporter(client, config.node, identity(), own)
    return Connection(
        client,
        own,
        ApiSource(client, PlanFiles(config.plans_on_disk), config.node),
        Peers(client, config.namespace, config.node),
        reporter,
        LeaseRenewal(client, config.namespace, config.node, own, reporter.reported),
    )
