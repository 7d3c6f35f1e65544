"""Counters of what was answered, for Prometheus; labels are bounded by models, versions and rungs, never by callers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

from contracts.decisions import DecisionRecord

BUCKETS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0)


class DecisionMetrics:
    """Series of one handler, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._decisions = Counter(
            "seatrial_decisions", "Decisions answered", ("model", "version", "rung", "arm"), registry=self.registry
        )
        self._degraded = Counter(
            "seatrial_degraded", "Decisions with a degradation, by its code", ("model", "code"), registry=self.registry
        )
        self._latency = Histogram(
            "seatrial_decision_seconds", "Time of one decision", ("model",), buckets=BUCKETS, registry=self.registry
        )
        self._repeats = Counter(
            "seatrial_repeats", "Decisions answered from the log", ("model",), registry=self.registry
        )
        self._problems = Counter(
            "seatrial_snapshot_problems", "Snapshots or versions refused", ("model",), registry=self.registry
        )
        self._outcomes = Counter("seatrial_outcomes", "Outcomes taken", ("late",), registry=self.registry)
        self._revision = Gauge(
            "seatrial_snapshot_revision", "Ledger revision in service", ("model",), registry=self.registry
        )
        self._children: dict[tuple[str, ...], Counter] = {}

    def watch(self, collector: Collector) -> None:
        """Tell the series of a collector too; it looks them up on each scrape."""
        self.registry.register(collector)

    def decision(self, record: DecisionRecord) -> None:
        """Count one new decision."""
        answer = record.answer
        labels = (record.model, answer.version or "", answer.rung.value, record.route.arm)
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._decisions.labels(*labels)
        child.inc()
        self._latency.labels(record.model).observe(record.latency_ms / 1000)
        for words in answer.degraded:
            self._degraded.labels(record.model, words.partition(":")[0]).inc()

    def repeat(self, model: str) -> None:
        """Count one repeated request's decision."""
        self._repeats.labels(model).inc()

    def outcome(self, late: bool) -> None:
        """Count one new outcome."""
        self._outcomes.labels("yes" if late else "no").inc()

    def problem(self, model: str, words: str) -> None:
        """Count one refused snapshot or version."""
        self._problems.labels(model).inc()

    def in_service(self, model: str, revision: int) -> None:
        """Note which ledger revision is served."""
        self._revision.labels(model).set(revision)

    def text(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self.registry)
