"""Prometheus gauges of sources and views: bounded, cheap, and never in the way of a scrape."""

from __future__ import annotations

import math
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from contracts.source_terms import SourceTerms
from contracts.times import SetClock
from features.landing import Landing
from features.source_watch import ViewAge
from features.sources import never, source_health
from serving.app import Limits, make_app
from serving.metrics import DecisionMetrics
from serving.source_gauges import MOST, SourceGauges

NOW = datetime(2026, 3, 4, 6, 0, tzinfo=UTC)
TERMS = SourceTerms(frequency="1d", latency="1d", freshness="4d", completeness=0.9, refused=0.05)


def series(text: bytes | str) -> dict[tuple[str, ...], float]:
    """(name, label values...) -> value."""
    plain = text.decode() if isinstance(text, bytes) else text
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(plain):
        for sample in family.samples:
            found[(sample.name, *(sample.labels[name] for name in sorted(sample.labels)))] = sample.value
    return found


def sales(day: int) -> pd.DataFrame:
    at = datetime(2026, 2, 1, tzinfo=UTC) + timedelta(days=day)
    rows = {"event_id": [f"{day}-0", f"{day}-1"], "quantity": [1.0, -1.0 if day == 0 else 2.0], "sku": "milk"}
    more = {"event_time": at, "known_at": at + timedelta(days=1), "location": "n", "period": "day"}
    return pd.DataFrame(rows | more | {"source_system": "till"})


def test_a_scrape_tells_sources_and_views(port: Any) -> None:
    """/metrics shows age, state, refused share and latency of what landed, and how old each view is online."""
    landing = Landing(port.settings.lake)
    for day in range(31):
        landing.append("demand", sales(day), source="till")
    handler = port.handler()
    with TestClient(make_app(lambda: handler, Limits(refresh_s=60))) as http:
        found = series(http.get("/metrics").text)
    handler.close()
    assert found["seatrial_source_age_seconds", "demand", "till"] == 6 * 3600
    assert found["seatrial_source_state", "demand", "till"] == 3
    assert found["seatrial_source_quarantined_share", "demand", "till"] == 0
    assert found["seatrial_source_latency_seconds", "demand", "0.95", "till"] == 86400
    assert found["seatrial_source_state", "outcome", "none"] == 0
    assert math.isinf(found["seatrial_source_age_seconds", "outcome", "none"])
    assert math.isinf(found["seatrial_view_age_seconds", "demand_history"])
    assert found["seatrial_source_look_failed",] == 0


def test_ages_grow_with_the_clock_between_looks() -> None:
    """While one look is good, nothing is read again, and ages go on growing all the same."""
    clock, looks = SetClock(NOW), []
    mark = NOW - timedelta(hours=1)

    def look(now: datetime) -> Any:
        looks.append(now)
        return (), (ViewAge("history", None, None, mark, None),)

    metrics = DecisionMetrics()
    metrics.watch(SourceGauges(look, clock, every_s=3600, wait_s=60))
    assert looks == []
    first = series(metrics.text())["seatrial_view_age_seconds", "history"]
    clock.set(NOW + timedelta(hours=2))
    second = series(metrics.text())["seatrial_view_age_seconds", "history"]
    assert (first, second, len(looks)) == (3600, 3 * 3600, 1)


def test_a_look_that_fails_never_fails_the_scrape() -> None:
    """The last look is told and marked as failed; the decisions' own series are there; the next good look clears it."""
    good = [True]

    def look(now: datetime) -> Any:
        if not good[0]:
            raise OSError("the disk is gone")
        return (never("till", "demand"),), ()

    metrics = DecisionMetrics()
    metrics.watch(SourceGauges(look, SetClock(NOW), every_s=0, wait_s=60))
    metrics.in_service("demand", 7)
    failed = []
    for now_good in (True, False, True):
        good[0] = now_good
        found = series(metrics.text())
        failed.append(found["seatrial_source_look_failed",])
        assert found["seatrial_source_state", "demand", "till"] == 0
        assert found["seatrial_snapshot_revision", "demand"] == 7
    assert failed == [0, 1, 0]


def test_a_slow_look_does_not_hold_the_scrape() -> None:
    """A scrape tells what it has while a look goes on; when that is done, the next one tells it."""
    go = threading.Event()

    def look(now: datetime) -> Any:
        assert go.wait(60)
        return (never("till", "demand"),), ()

    metrics = DecisionMetrics()
    metrics.watch(SourceGauges(look, SetClock(NOW), wait_s=0.01))
    assert ("seatrial_source_state", "demand", "till") not in series(metrics.text())
    go.set()
    for _ in range(1000):
        if ("seatrial_source_state", "demand", "till") in series(metrics.text()):
            return
    pytest.fail("the look was never told")


def test_label_values_are_bounded() -> None:
    """Of very many sources the least trusted are told, and how many are left out is told too."""
    safe = source_health("good", "demand", [], TERMS, NOW)
    many = [never(f"s{number}", "demand") for number in range(MOST + 50)]
    metrics = DecisionMetrics()
    metrics.watch(SourceGauges(lambda now: ([safe, *many], ()), SetClock(NOW), wait_s=60))
    found = series(metrics.text())
    assert sum(name[0] == "seatrial_source_state" for name in found) == MOST
    assert found["seatrial_sources_left_out",] == 51


@pytest.mark.parametrize("name", ['a"b', "a\nb", "ü" * 50])
def test_any_source_name_can_be_told(name: str) -> None:
    """A source's name is a label value whatever is in it."""
    metrics = DecisionMetrics()
    metrics.watch(SourceGauges(lambda now: ([never(name, "demand")], ()), SetClock(NOW), wait_s=60))
    assert series(metrics.text())["seatrial_source_state", "demand", name] == 0
