"""The health of sources and the age of views as Prometheus gauges, looked up on scrape at a bounded cost.

A look reads what landed since the last one, at most once in 30 seconds and beside the scrape, which waits two seconds
at most; ages are told as of the scrape itself. A look that fails never fails the scrape: the last one is told, its ages
go on growing, and `seatrial_source_look_failed` is 1.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from contracts.times import Clock
from features.source_watch import ViewAge
from features.sources import SourceHealth

log = structlog.get_logger("seatrial.serving")
Looked = tuple[Sequence[SourceHealth], Sequence[ViewAge]]
MOST = 100


class SourceGauges(Collector):
    """Series of the sources and views of one workspace.

    Labels are names of sources, kinds and views; of more than 100 sources the least trusted are told, and how many are
    left out.

    Args:
        look: sources and views at a moment.
        clock: where "now" comes from.
        every_s: seconds for which one look is good.
        wait_s: seconds that a scrape waits for a look; the first one reads what has landed so far.
    """

    def __init__(
        self, look: Callable[[datetime], Looked], clock: Clock, *, every_s: float = 30.0, wait_s: float = 2.0
    ) -> None:
        self._look, self._clock, self._every_s, self._wait_s = look, clock, every_s, wait_s
        self._looked: Looked = ((), ())
        self._failed = False
        self._due = -math.inf
        self._turn = threading.Lock()
        self._running: threading.Thread | None = None

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: registering must not look."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges; called by a scrape."""
        now = self._clock.now()
        self._refresh(now)
        sources, views = self._looked
        told = sorted(sources, key=lambda source: (source.state, source.kind, source.source))[:MOST]
        yield from _source_gauges(told, now)
        yield _view_gauge(views, now)
        yield _single("seatrial_sources_left_out", "Sources beyond the first 100", len(sources) - len(told))
        yield _single("seatrial_source_look_failed", "1 when the last look at the sources failed", self._failed)

    def _refresh(self, now: datetime) -> None:
        """Look again when it is due, in a thread of its own; a scrape waits a little, and then tells the last look."""
        with self._turn:
            if self._running is None and time.monotonic() >= self._due:
                self._running = threading.Thread(target=self._run, args=(now,), daemon=True)
                self._running.start()
            running = self._running
        if running is not None:
            running.join(self._wait_s)

    def _run(self, now: datetime) -> None:
        try:
            self._looked = self._look(now)
            self._failed = False
        except Exception as error:
            self._failed = True
            log.error("source_look_failed", kind=type(error).__name__)
        with self._turn:
            self._due = time.monotonic() + self._every_s
            self._running = None


def _source_gauges(sources: Sequence[SourceHealth], now: datetime) -> Iterator[GaugeMetricFamily]:
    labels = ("source", "kind")
    age = GaugeMetricFamily("seatrial_source_age_seconds", "Since something last became known", labels=labels)
    state = GaugeMetricFamily(
        "seatrial_source_state", "0 unavailable, 1 available, 2 validated, 3 safe for automation", labels=labels
    )
    refused = GaugeMetricFamily(
        "seatrial_source_quarantined_share", "Undecided rows of the last 20 deliveries in quarantine", labels=labels
    )
    complete = GaugeMetricFamily("seatrial_source_completeness", "Share of what was due that is there", labels=labels)
    latency = GaugeMetricFamily(
        "seatrial_source_latency_seconds", "From an event to its being known", labels=(*labels, "quantile")
    )
    for source in sources:
        name = (source.source or "none", source.kind)
        age.add_metric(name, _since(source.newest_known, now))
        state.add_metric(name, int(source.state))
        refused.add_metric(name, source.refused_recent)
        complete.add_metric(name, source.completeness)
        for quantile, value in (("0.5", source.latency_p50), ("0.95", source.latency_p95)):
            latency.add_metric((*name, quantile), math.inf if value is None else value.total_seconds())
    yield from (age, state, refused, complete, latency)


def _view_gauge(views: Sequence[ViewAge], now: datetime) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(
        "seatrial_view_age_seconds", "Since the moment up to which a view is online", labels=("view",)
    )
    for view in views:
        gauge.add_metric((view.view,), _since(view.online_until, now))
    return gauge


def _since(moment: datetime | None, now: datetime) -> float:
    """Seconds since a moment; of what never came, infinity, which every alarm on an age notices."""
    return math.inf if moment is None else (now - moment).total_seconds()


def _single(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, value=float(value))
