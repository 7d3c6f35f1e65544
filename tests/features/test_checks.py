"""Row checks against event contracts: each fault has its words, and only the faulty rows are set apart."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.errors import InputInvalid, UnknownName
from features.checks import check
from features.odcs_checks import flags

DAY = datetime(2026, 1, 1, tzinfo=UTC)


def demand(**changed: Any) -> pd.DataFrame:
    row: dict[str, Any] = {
        "event_id": "e1",
        "event_time": DAY,
        "known_at": DAY + timedelta(days=1),
        "sku": "tea",
        "location": "north",
        "period": "day",
        "quantity": 3.0,
        "source_system": "till",
    }
    row |= changed
    return pd.DataFrame({name: pd.Series([value], dtype=object) for name, value in row.items()})


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("quantity", "twelve", "quantity: wanted a number, got 'twelve'"),
        ("quantity", "12", "quantity: wanted a number, got '12'"),
        ("quantity", True, "quantity: wanted a number, got True"),
        ("quantity", -1, "quantity: wanted at least 0, got -1"),
        ("quantity", math.inf, "quantity: wanted a finite number, got inf"),
        ("quantity", None, "quantity: wanted a value, got nothing"),
        ("discount", 1.5, "discount: wanted at most 1, got 1.5"),
        ("sku", "  ", "sku: wanted a value, got '  '"),
        ("sku", 7, "sku: wanted text, got 7"),
        ("sku", "a\x00b", "sku: wanted text without control characters, got 'a\\x00b'"),
        ("sku", "\ud800", "sku: wanted text, got '\\\\ud800'"),
        ("sku", "x" * 201, "sku: wanted at most 200 characters, got '" + "x" * 79),
        ("period", "fortnight", "period: wanted one of day, week, month, got 'fortnight'"),
        ("stocked_out", 1, "stocked_out: wanted true or false, got 1"),
        ("known_at", "2026-01-01", "known_at: wanted a time with a zone, like 2026-01-31T00:00:00Z, got '2026-01-01'"),
        (
            "event_time",
            datetime(2026, 1, 1),  # noqa: DTZ001
            "event_time: wanted a time with a zone, like 2026-01-31T00:00:00Z, got 2026-01-01T00:00:00",
        ),
        ("known_at", DAY - timedelta(days=2), "event_time: wanted a time at most a day after known_at, got 2026-01-01"),
        ("event_time", datetime(1900, 1, 1, tzinfo=UTC), "event_time: wanted a time between 1970 and 2200, got 1900"),
    ],
)
def test_each_fault_has_its_words(field: str, value: Any, reason: str) -> None:
    """A row that breaks one rule is refused in words that name the field, what was wanted and what came."""
    checked = check("demand", demand(**{field: value}))
    assert checked.good.empty
    assert checked.bad["reason"].iloc[0].startswith(reason)


def test_only_faulty_rows_are_set_apart() -> None:
    """Good rows stay in their order; a row with two faults has one line with both."""
    frame = pd.concat([demand(event_id=f"e{n}") for n in range(4)], ignore_index=True)
    frame.loc[2, "quantity"] = -5
    frame.loc[2, "period"] = "decade"
    checked = check("demand", frame)
    assert checked.good["event_id"].tolist() == ["e0", "e1", "e3"]
    assert checked.bad["reason"].tolist() == [
        "period: wanted one of day, week, month, got 'decade' [enum]; quantity: wanted at least 0, got -5 [minimum]"
    ]
    assert checked.rule == ("period: wanted one of day, week, month",)


def test_mixed_zones_become_utc_and_naive_rows_are_refused() -> None:
    """Times of several zones in one column become UTC; only the ones without a zone are refused."""
    tokyo = timezone(timedelta(hours=9))
    times = [DAY, datetime(2026, 1, 1, 9, tzinfo=tokyo), datetime(2026, 1, 1)]  # noqa: DTZ001
    checked = check("demand", pd.concat([demand(event_id=f"e{n}", event_time=time) for n, time in enumerate(times)]))
    assert checked.good["event_time"].tolist() == [DAY, DAY]
    assert checked.bad["event_id"].tolist() == ["e2"]


def test_typed_columns_pass_as_they_are() -> None:
    """Nanosecond times, integers for numbers and numpy booleans are taken; absent optional columns are missing."""
    frame = demand().assign(quantity=np.array([3]), closed=np.array([True]))
    frame["event_time"] = pd.to_datetime(["2026-01-01T02:00:00+02:00"]).as_unit("ns")
    good = check("demand", frame).good
    assert good["event_time"].iloc[0] == DAY
    assert good["closed"].tolist() == [True]
    assert good["price"].isna().all()


def test_a_naive_time_column_is_refused_row_by_row() -> None:
    """A whole column of times without a zone is quarantined, not guessed."""
    frame = demand()
    frame["known_at"] = pd.to_datetime(["2026-01-02"])
    checked = check("demand", frame)
    assert checked.rule == ("known_at: wanted a time with a zone, like 2026-01-31T00:00:00Z",)


@pytest.mark.parametrize("day", ["2026-1-5", "2026-02-30", "20260105", "tomorrow"])
def test_a_target_date_must_be_a_day(day: str) -> None:
    """A promotion's target date that is no calendar day in ISO form is refused."""
    frame = demand(target_date=day).drop(columns=["period", "quantity"])
    assert check("price_promotion", frame).rule == ("target_date: wanted a day like 2026-01-31",)


def test_unknown_columns_and_kinds_are_refused_whole() -> None:
    """A column that the contract does not know, or a kind that does not exist, is named with the nearest one."""
    with pytest.raises(InputInvalid, match="did you mean 'quantity'"):
        check("demand", demand(quantitty=1))
    with pytest.raises(UnknownName, match="did you mean 'demand'"):
        check("demnad", demand())


def test_unusual_quantities_are_flagged_and_kept() -> None:
    """Ten times the series' usual quantity is flagged; a series too short to know what is usual is not."""
    steady = [demand(event_id=f"a{n}", quantity=4.0) for n in range(9)]
    rows = [*steady, demand(event_id="spike", quantity=40.0), demand(event_id="new", sku="rice", quantity=900.0)]
    good = check("demand", pd.concat(rows)).good
    assert len(good) == 11
    found = {"event_id": "spike", "field": "quantity", "rule": "unusual"}
    assert flags("demand", good).to_dict("records") == [found | {"flag": "quantity: 40 is 10 times the usual 4"}]
