"""Request facts one row at a time, in plain Python: the audit's second opinion on `features.facts`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from contracts.declarations import CalendarFacts, Facts, ScheduleFacts
from features.facts import HOLIDAY_CAP

NAN = math.nan
NEEDED = {"calendar": ("target_date",), "schedule": ("scheduled_at", "promised_at", "as_of"), "given": ()}


def plain_facts(facts: Facts, row: Mapping[str, Any]) -> dict[str, float]:
    """The facts of one row by name; given facts are the row's own fields and are not among them.

    Args:
        facts: the declaration.
        row: target_date (text) for a calendar; scheduled_at, promised_at, as_of (UTC, None where missing) for a
            schedule.
    """
    if isinstance(facts, CalendarFacts):
        return _calendar(facts, row["target_date"])
    return _schedule(facts, row) if isinstance(facts, ScheduleFacts) else {}


def _calendar(facts: CalendarFacts, text: str | None) -> dict[str, float]:
    names = ("weekday", "day_of_month", "week", "month", "is_holiday", "days_to_holiday", "days_after_holiday")
    if not isinstance(text, str):
        return dict.fromkeys(names, NAN)
    day = date.fromisoformat(text)
    ahead, behind = (
        next((n for n in range(HOLIDAY_CAP) if _is_holiday(facts.country, day + n * step)), HOLIDAY_CAP)
        for step in (timedelta(days=1), timedelta(days=-1))
    )
    values = (day.weekday(), day.day, day.isocalendar().week, day.month, ahead == 0, ahead, behind)
    return dict(zip(names, map(float, values), strict=True))


def _is_holiday(country: str, day: date) -> bool:
    return day in _holidays(country, day.year)


@cache
def _holidays(country: str, year: int) -> frozenset[date]:
    import holidays

    # a holiday that is observed on another day may stand in the table of the year beside it
    found = holidays.country_holidays(country, years=[year - 1, year, year + 1])
    return frozenset(day for day in found if day.year == year)


def _schedule(facts: ScheduleFacts, row: Mapping[str, Any]) -> dict[str, float]:
    scheduled, promised, as_of = (row[name] for name in NEEDED["schedule"])
    shown: datetime | None = promised if scheduled is None else scheduled
    local = None if shown is None else shown.astimezone(ZoneInfo(facts.zone))
    return {
        "schedule_hour": NAN if local is None else float(local.hour),
        "schedule_weekday": NAN if local is None else float(local.weekday()),
        "schedule_month": NAN if local is None else float(local.month),
        "planned_hours": _hours(promised, scheduled),
        "lead_hours": _hours(promised, as_of),
    }


def _hours(later: datetime | None, earlier: datetime | None) -> float:
    if later is None or earlier is None:
        return NAN
    return (later.astimezone(UTC) - earlier.astimezone(UTC)) / timedelta(hours=1)
