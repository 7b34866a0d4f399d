"""What Prometheus reads: names dsr_node_*, base units, counters that end in _total."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TypeVar

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dsr_node.api.report import Identity
from dsr_node.observe.sight import ApiSight, Sight
from dsr_node.state.report import Report
from dsr_node.subsystems.xdp.state import FrontendKey, PoolKey, address_text
from dsr_node.subsystems.xdp.stats import Stats, Traffic
from dsr_node.subsystems.xdp.sweep import Swept

PASS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds."""


K = TypeVar("K", bound=tuple[str, ...])


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"dsr_node_{name}", text, value)


def _by(
    family: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    text: str,
    labels: tuple[str, ...],
    values: Mapping[K, float],
) -> Metric:
    metric = family(f"dsr_node_{name}", text, labels=labels)
    for key, value in values.items():
        metric.add_metric(key, value)
    return metric


def _packets_and_bytes(
    what: str, text: str, labels: tuple[str, ...], counts: Mapping[K, Traffic]
) -> Iterator[Metric]:
    for unit in ("packets", "bytes"):
        values = {key: float(getattr(count, unit)) for key, count in counts.items()}
        name = f"{what}_{unit}"
        yield _by(CounterMetricFamily, name, f"{unit.capitalize()} {text}", labels, values)


def traffic_metrics(stats: Stats, pools: Mapping[FrontendKey, PoolKey]) -> Iterator[Metric]:
    """Per frontend, per backend, drops by reason. `pools` names a frontend's plan."""
    frontends = {
        (
            pools[key].plan if key in pools else "",
            address_text(key.vip),
            str(key).rsplit("/", 1)[1],
            str(key.port),
        ): count
        for key, count in stats.frontends.items()
    }
    labels: tuple[str, ...] = ("plan", "vip", "protocol", "port")
    yield from _packets_and_bytes("frontend", "that came for a frontend.", labels, frontends)
    # Two machines that had one address one after the other are one backend here: a node's UID in
    # a label would end a time series without a reason to be seen.
    backends: dict[tuple[str, str], Traffic] = {}
    for (pool, backend), count in stats.backends.items():
        one = (pool.plan, address_text(backend.address))
        before = backends.get(one, Traffic())
        backends[one] = Traffic(before.packets + count.packets, before.bytes + count.bytes)
    labels = ("plan", "backend")
    yield from _packets_and_bytes("backend", "forwarded to a backend.", labels, backends)
    drops = {(reason,): float(count) for reason, count in stats.drops.items()}
    yield _by(CounterMetricFamily, "drops", "Packets dropped, by reason.", ("reason",), drops)
    text = "Packets of new flows for which the memory of flows had no room."
    yield _by(CounterMetricFamily, "unremembered_packets", text, (), {(): stats.unremembered})


def memory_metrics(swept: Swept) -> Iterator[Metric]:
    """What the last sweep has found."""
    yield _gauge("flows", "Flows remembered, of slots that have moved.", swept.flows)
    yield _gauge("moved_slots", "Slots of tables that have moved and not yet settled.", swept.moved)


def report_metrics(report: Report) -> Iterator[Metric]:
    """What the last pass of the engine has told."""
    refused = len({problem.plan for problem in report.problems})
    plans = {("applied",): float(report.plans - refused), ("not_applied",): float(refused)}
    yield _by(GaugeMetricFamily, "plans", "Plans known, by what came of them.", ("state",), plans)
    reasons = Counter((problem.reason,) for problem in report.problems)
    yield _by(
        GaugeMetricFamily, "problems", "Plans and VIPs not carried out.", ("reason",), reasons
    )
    yield _gauge("applied_revision", "Plan revision carried out.", report.revision)
    yield _gauge("announced_vips", "VIPs whose ARP / NS this node answers.", len(report.announcing))
    yield _gauge("unhealthy_backends", "Backends that get no traffic.", len(report.unhealthy))
    yield _gauge("loss_held_back", "1: too many plans vanished at once.", bool(report.alarm))
    failing = {(name,): 1.0 for name in report.errors}
    text = "1: the last pass of a subsystem failed."
    yield _by(GaugeMetricFamily, "subsystem_failing", text, ("subsystem",), failing)
    repairs = {(name,): float(count) for name, count in report.repairs.items()}
    text = "Times that something of ours was found changed and set again."
    yield _by(CounterMetricFamily, "drift_repairs", text, ("subsystem",), repairs)


def api_metrics(api: ApiSight, now: float) -> Iterator[Metric]:
    """How the daemon stands with the API server. Ages are absent before the first success."""
    up = {(name,): float(not health.problem) for name, health in api.watches().items()}
    yield _by(GaugeMetricFamily, "watch_up", "1: a watch runs.", ("resource",), up)
    ages = {
        (name,): now - health.heard
        for name, health in api.watches().items()
        if health.heard is not None
    }
    text = "Seconds since the last word of a watch; bookmarks come once a minute."
    yield _by(GaugeMetricFamily, "watch_age_seconds", text, ("resource",), ages)
    renewed = api.lease_renewed_at()
    if renewed is not None:
        text = "Seconds since this node's Lease was renewed."
        yield _gauge("lease_age_seconds", text, now - renewed)
    yield _gauge("loss_doubted", "1: plans are gone, but not surely deleted.", bool(api.doubt()))


class NodeCollector(Collector):
    """Everything above at the moment of a scrape.

    `report` is the engine's last one; `stats` what the dataplane has counted, None where that
    cannot be read.
    """

    def __init__(self, sight: Sight, me: Identity) -> None:
        self.report: Report | None = None
        self.stats: Stats | None = None
        self._sight = sight
        self._me = me

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        labels = {"version": self._me.daemon_version, "kernel": self._me.kernel}
        info = GaugeMetricFamily("dsr_node_info", "This daemon; always 1.", labels=[*labels])
        info.add_metric([*labels.values()], 1)
        yield info
        if self.report:
            yield from report_metrics(self.report)
        if self._sight.api:
            yield from api_metrics(self._sight.api, time.monotonic())
        text = "1: the counters of the dataplane could be read."
        yield _gauge("counters_readable", text, self.stats is not None)
        if self.stats:
            yield from traffic_metrics(self.stats, self._sight.state().director.frontends)
            yield from memory_metrics(self._sight.swept())


def registry(collector: NodeCollector) -> tuple[CollectorRegistry, Histogram]:
    """Metrics of this daemon alone, and the histogram that takes the duration of each pass."""
    made = CollectorRegistry(auto_describe=False)
    made.register(collector)
    ProcessCollector(registry=made, pid=os.getpid)
    duration = Histogram(
        "dsr_node_pass_duration_seconds",
        "Duration of a pass over all subsystems.",
        registry=made,
        buckets=PASS_BUCKETS,
    )
    return made, duration
