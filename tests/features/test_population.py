"""Entity rows and labels from landed events."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.errors import TimeInvalid
from features.landing import Landing
from features.population import demand_labels, demand_population, shipment_population
from tests.features.view_events import DAY, ORIGIN, at, events


def landed(tmp_path: Path, **kinds: list[dict[str, Any]]) -> Landing:
    landing = Landing(tmp_path)
    for kind, rows in kinds.items():
        receipt = landing.append(kind, events(kind, rows), source="test")
        assert receipt.quarantined == 0, receipt.reasons
    return landing


def shipment(name: str, hour: float, known: float, **fields: Any) -> dict[str, Any]:
    fixed = {"carrier": "A", "origin": "o", "destination": "d", "promised_at": at(hour + 30)}
    return {"shipment_id": name, "event_time": at(hour), "known_at": at(known), **fixed, **fields}


def outcome(name: str, known: float, late: bool, delay: float) -> dict[str, Any]:
    return {"shipment_id": name, "event_time": at(known), "known_at": at(known), "late": late, "delay_minutes": delay}


def test_a_shipment_shows_what_was_known_at_its_decision(tmp_path: Path) -> None:
    """A correction learned after the decision is not in the row; one learned before is."""
    rows = [
        shipment("s", 10, 5, carrier="first"),
        shipment("s", 10, 9, carrier="in time"),
        shipment("s", 10, 11, carrier="after"),
    ]
    landing = landed(tmp_path, shipment=rows)
    found = shipment_population(landing, since=at(10), until=at(11), known_by=at(99))
    assert found[["row_id", "carrier", "as_of"]].values.tolist() == [["s", "in time", at(10)]]
    assert shipment_population(landing, since=at(0), until=at(10), known_by=at(99)).empty
    assert shipment_population(landing, since=at(0), until=at(99), known_by=at(6))["carrier"].tolist() == ["first"]


def test_a_shipment_learned_late_shows_its_first_version(tmp_path: Path) -> None:
    """Without any version known in time the first one to become known stands in."""
    landing = landed(tmp_path, shipment=[shipment("s", 1, 4, carrier="late"), shipment("s", 1, 6, carrier="later")])
    found = shipment_population(landing, since=at(0), until=at(9), known_by=at(99))
    assert found["carrier"].tolist() == ["late"]


def test_the_label_is_the_newest_outcome_known(tmp_path: Path) -> None:
    """Labels follow corrections as they become known, and are NaN before anything is."""
    landing = landed(
        tmp_path,
        shipment=[shipment("s", 1, 1), shipment("t", 2, 2)],
        outcome=[outcome("s", 40, True, 30.0), outcome("s", 60, False, 5.0)],
    )
    labels = [
        shipment_population(landing, since=at(0), until=at(9), known_by=at(hour))["label"].tolist()
        for hour in (39, 40, 60)
    ]
    np.testing.assert_array_equal(labels, [[np.nan, np.nan], [1.0, np.nan], [0.0, np.nan]])
    found = shipment_population(landing, since=at(0), until=at(9), known_by=at(60))
    assert found["label_known_at"].tolist()[0] == at(60)
    assert found["label_known_at"].isna().tolist() == [False, True]
    assert found["delay_minutes"].tolist()[0] == 5.0
    assert found["label"].dtype == np.float64


def day(sku: str, number: int, quantity: float, known: float | None = None, **fields: Any) -> dict[str, Any]:
    known_at = at(24 * (number + 1) if known is None else known)
    fixed = {"sku": sku, "location": "x", "period": "day", "quantity": quantity}
    return {**fixed, "event_time": ORIGIN + number * DAY, "known_at": known_at, **fields}


def test_demand_rows_are_series_by_cutoff_by_step(tmp_path: Path) -> None:
    """Step 1 is the cutoff's own day; series without an event known before the cutoff are not asked about."""
    landing = landed(tmp_path, demand=[day("a", n, float(n)) for n in range(6)] + [day("b", 3, 7.0)])
    found = demand_population(landing, cutoffs=[ORIGIN + 2 * DAY, ORIGIN + 4 * DAY], horizon=3, known_by=at(999))
    assert found["row_id"].tolist()[:3] == ["a|x|2024-01-03|1", "a|x|2024-01-03|2", "a|x|2024-01-03|3"]
    assert found["sku"].tolist() == ["a"] * 6 + ["b"] * 3
    assert found["target_date"].tolist()[3:6] == ["2024-01-05", "2024-01-06", "2024-01-07"]
    np.testing.assert_array_equal(found["label"], [2, 3, 4, 4, 5, np.nan, np.nan, np.nan, np.nan])
    assert found["as_of"].tolist()[3] == ORIGIN + 4 * DAY
    assert found["label_known_at"].isna().tolist() == [False] * 5 + [True] * 4


def test_closed_and_stocked_out_days_have_no_label(tmp_path: Path) -> None:
    """They are known to have none: label_known_at is set. A correction replaces the label once it is known."""
    rows = [
        day("a", 0, 1.0),
        day("a", 1, 0.0, closed=True),
        day("a", 2, 2.0, stocked_out=True),
        day("a", 3, 5.0),
        day("a", 3, 6.0, known=200),
    ]
    landing = landed(tmp_path, demand=rows)
    found = demand_population(landing, cutoffs=[ORIGIN + DAY], horizon=4, known_by=at(150))
    np.testing.assert_array_equal(found["label"], [np.nan, np.nan, 5.0, np.nan])
    assert found["label_known_at"].isna().tolist() == [False, False, False, True]
    later = demand_population(landing, cutoffs=[ORIGIN + DAY], horizon=4, known_by=at(200))
    assert later["label"].tolist()[2] == 6.0
    labels = demand_labels(landing, at(150))
    assert labels["target_date"].tolist() == ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"]
    np.testing.assert_array_equal(labels["quantity"], [1.0, np.nan, np.nan, 5.0])


def test_a_cutoff_is_the_first_moment_of_a_day(tmp_path: Path) -> None:
    """Another hour, or a time without a zone, is refused."""
    landing = landed(tmp_path, demand=[day("a", 0, 1.0)])
    with pytest.raises(TimeInvalid, match="first moment"):
        demand_population(landing, cutoffs=[at(25)], horizon=1, known_by=at(99))
    with pytest.raises(TimeInvalid):
        demand_population(landing, cutoffs=[datetime(2024, 1, 2)], horizon=1, known_by=at(99))  # noqa: DTZ001


def test_nothing_landed_is_nobody_to_ask(tmp_path: Path) -> None:
    """Without events the populations are empty frames with all their columns."""
    landing = Landing(tmp_path)
    moment = datetime(2024, 2, 1, tzinfo=UTC)
    shipments = shipment_population(landing, since=ORIGIN, until=moment, known_by=moment)
    assert shipments.empty
    assert "label_known_at" in shipments.columns
    demand = demand_population(landing, cutoffs=[moment], horizon=2, known_by=moment)
    assert demand.empty
    assert demand["step"].dtype == np.int64
    assert str(pd.Series(demand["as_of"]).dtype) == "datetime64[us, UTC]"
    assert demand_labels(landing, moment).empty
