"""What Prometheus reads: names dsr_node_*, base units, counters that end in _total."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dsr_node.observe.sight import ApiSight, Sight
from dsr_node.state.report import Report
from dsr_node.subsystems.xdp.state import FrontendKey, PoolKey, address_text
from dsr_node.subsystems.xdp.stats import Stats, Traffic
from dsr_node.subsystems.xdp.sweep import Swept

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

    `stats`: what the dataplane has counted, None where that cannot be read.
    """

    def __init__(self, sight: Sight, stats: Stats | None) -> None:
        self._sight = sight
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        sight = self._sight
        labels = {"version": sight.me.daemon_version, "kernel": sight.me.kernel}
        info = GaugeMetricFamily("dsr_node_info", "This daemon; always 1.", labels=[*labels])
        info.add_metric([*labels.values()], 1)
        yield info
        if sight.passes.last:
            yield from report_metrics(sight.passes.last)
        if sight.api:
            yield from api_metrics(sight.api, time.monotonic())
        text = "1: the counters of the dataplane could be read."
        yield _gauge("counters_readable", text, self._stats is not None)
        if self._stats:
            yield from traffic_metrics(self._stats, sight.engine.state.director.frontends)
            yield from memory_metrics(sight.engine.swept)


def exposition(sight: Sight, stats: Stats | None) -> bytes:
    """The text of all metrics of this daemon."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(sight, stats))
    registry.register(sight.passes.duration)
    ProcessCollector(registry=registry)
    return generate_latest(registry)
