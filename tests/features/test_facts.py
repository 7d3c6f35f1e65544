"""Request facts against the standard library's calendar and time zones."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import holidays
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.declarations import CalendarFacts, GivenFacts, ScheduleFacts, fact_columns
from contracts.errors import InputInvalid, UnknownName
from features.facts import fact_values

US = CalendarFacts(kind="calendar", country="US")
NEW_YORK = ScheduleFacts(kind="schedule", zone="America/New_York")
HOLIDAYS = holidays.country_holidays("US", years=range(2008, 2034))


@settings(max_examples=200, deadline=None)
@given(day=st.dates(date(2010, 1, 1), date(2031, 12, 31)))
def test_calendar_facts_are_the_calendars(day: date) -> None:
    """Weekday, day, ISO week, month, and the distances to holidays, capped at 14."""
    found = fact_values([US], {"target_date": np.array([day.isoformat()], dtype=object)})
    ahead = next(n for n in range(15) if n == 14 or day + timedelta(days=n) in HOLIDAYS)
    behind = next(n for n in range(15) if n == 14 or day - timedelta(days=n) in HOLIDAYS)
    wanted = [day.weekday(), day.day, day.isocalendar().week, day.month, day in HOLIDAYS, ahead, behind]
    assert [found[name][0] for name in fact_columns(US)] == wanted
    assert all(value.dtype == np.float64 for value in found.values())


ZONES = st.sampled_from(["America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"])
moments = st.integers(0, 20 * 365 * 86400).map(
    lambda second: datetime(2012, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
)


@settings(max_examples=200, deadline=None)
@given(scheduled=st.none() | moments, promised=moments, as_of=moments, zone=ZONES)
def test_schedule_facts_are_local_time(
    scheduled: datetime | None, promised: datetime, as_of: datetime, zone: str
) -> None:
    """Hour, weekday and month in the zone, of the promise where no schedule is known; differences in hours."""
    columns = {
        name: np.array([np.datetime64("NaT" if value is None else value.replace(tzinfo=None), "us")])
        for name, value in (("scheduled_at", scheduled), ("promised_at", promised), ("as_of", as_of))
    }
    facts = ScheduleFacts(kind="schedule", zone=zone)
    found = fact_values([facts], columns)
    local = (scheduled or promised).astimezone(ZoneInfo(zone))
    planned = np.nan if scheduled is None else (promised - scheduled) / timedelta(hours=1)
    wanted = [local.hour, local.weekday(), local.month, planned, (promised - as_of) / timedelta(hours=1)]
    np.testing.assert_allclose([found[name][0] for name in fact_columns(facts)], wanted, rtol=1e-12)


@pytest.mark.parametrize(("utc_hour", "local_hour"), [(5, 0), (6, 1), (7, 3)])
def test_the_hour_that_spring_skips(utc_hour: int, local_hour: int) -> None:
    """On the night clocks go forward in New York, 2 o'clock does not come."""
    when = np.array([np.datetime64(f"2013-03-10T{utc_hour:02d}:00", "us")])
    found = fact_values([NEW_YORK], {"scheduled_at": when, "promised_at": when, "as_of": when})
    assert found["schedule_hour"][0] == local_hour


def test_times_with_a_zone_mean_the_same() -> None:
    """Zoned pandas values, zoned objects and plain UTC arrays give the same facts."""
    zoned = pd.Series(pd.to_datetime(["2013-07-01T23:30:00-04:00", None], utc=True)).dt.tz_convert("America/New_York")
    plain = np.array(["2013-07-02T03:30", "NaT"], dtype="M8[us]")
    answers = [
        fact_values([NEW_YORK], {"scheduled_at": times, "promised_at": times, "as_of": times})
        for times in (zoned, zoned.astype(object).to_numpy(), plain)
    ]
    for name in fact_columns(NEW_YORK):
        np.testing.assert_array_equal(answers[0][name], answers[2][name])
        np.testing.assert_array_equal(answers[1][name], answers[2][name])
    assert answers[2]["schedule_hour"].tolist()[0] == 23
    assert np.isnan(answers[2]["schedule_hour"][1])


def test_given_facts_are_taken_as_they_are() -> None:
    """Numbers become float64, categories text; what is missing is NaN or None."""
    facts = GivenFacts(kind="given", numbers=("distance_km",), categories=("carrier",))
    columns = {"distance_km": np.array([12, None], dtype=object), "carrier": np.array(["UA", np.nan], dtype=object)}
    found = fact_values([facts], columns)
    np.testing.assert_array_equal(found["distance_km"], [12.0, np.nan])
    assert found["carrier"].tolist() == ["UA", None]


def test_missing_and_wrong_inputs_are_named() -> None:
    """A missing date gives NaN; a missing field, an unknown country and a wrong date are errors that name them."""
    found = fact_values([US], {"target_date": np.array([None, "2024-07-04"], dtype=object)})
    assert np.isnan(found["weekday"][0])
    assert found["is_holiday"].tolist()[1] == 1.0
    assert len(fact_values([US], {"target_date": np.array([], dtype=object)})["week"]) == 0
    with pytest.raises(UnknownName, match="target_date"):
        fact_values([US], {"target": np.array(["2024-07-04"])})
    with pytest.raises(UnknownName, match="country"):
        fact_values([CalendarFacts(kind="calendar", country="XX")], {"target_date": np.array(["2024-07-04"])})
    with pytest.raises(InputInvalid, match="target_date"):
        fact_values([US], {"target_date": np.array(["4th of July"])})
