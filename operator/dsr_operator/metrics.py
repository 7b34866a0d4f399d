"""Prometheus metrics of the operator."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """All of them, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconcile_seconds = Histogram(
            "dsr_operator_reconcile_seconds",
            "Time to look at one service, writes included",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.errors = Counter(
            "dsr_operator_errors_total",
            "Failed looks at a service, by cause (api, conflict, bug)",
            ["cause"],
            registry=self.registry,
        )
        self.writes = Counter(
            "dsr_operator_writes_total",
            "Writes to the API server, by what was written and how it went",
            ["what", "result"],
            registry=self.registry,
        )
        self.queue = Gauge(
            "dsr_operator_queue_depth", "Services that wait to be looked at", registry=self.registry
        )
        self.services = Gauge(
            "dsr_operator_services",
            "DSRServices by the status of their Ready condition",
            ["ready"],
            registry=self.registry,
        )
        self.oldest = Gauge(
            "dsr_operator_unacknowledged_seconds",
            "Age of the oldest plan that a live node has not carried out",
            registry=self.registry,
        )
        self.leading = Gauge(
            "dsr_operator_is_leader", "1 on the replica that writes", registry=self.registry
        )
        self.watch_age = Gauge(
            "dsr_operator_watch_checked_seconds",
            "Seconds since the cache of a kind was last found to agree with the API server",
            ["kind"],
            registry=self.registry,
        )
