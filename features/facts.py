"""Request facts: values that follow from the request alone (calendar, schedule, given fields), the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from contracts.declarations import CalendarFacts, Facts, GivenFacts, ScheduleFacts
from contracts.errors import InputInvalid, UnknownName

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
HOLIDAY_CAP = 14
_NAT = np.iinfo(np.int64).min
_EPOCH = date(1970, 1, 1)
_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US


def fact_values(facts: Sequence[Facts], columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The fact columns of n rows.

    Args:
        facts: groups of facts, as declared for a service.
        columns: n values each. calendar needs target_date (text, YYYY-MM-DD); schedule needs scheduled_at,
            promised_at and as_of (datetime64 without zone meaning UTC, or values with a zone); given needs its fields.

    Returns:
        The names of `fact_columns` of every group. Numbers are float64 (weekday 0 = Monday, week = ISO week, hours as
        fractions of hours, NaN where the input is missing); categories are object text, None where missing.
        The hour, weekday and month of a schedule are those of scheduled_at, or of promised_at where that is missing.

    Raises:
        UnknownName: a needed column is not there, or no such country.
        InputInvalid: a target_date is not a date, or a number is not a number.
    """
    found: dict[str, npt.NDArray[Any]] = {}
    for group in facts:
        if isinstance(group, CalendarFacts):
            found.update(_calendar(group, columns))
        elif isinstance(group, ScheduleFacts):
            found.update(_schedule(group, columns))
        else:
            found.update(_given(group, columns))
    return found


def _column(columns: Mapping[str, npt.NDArray[Any]], name: str) -> Any:
    try:
        return columns[name]
    except KeyError:
        raise UnknownName("request field", name, columns) from None


def _calendar(facts: CalendarFacts, columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, Floats]:
    days = _day_numbers(_column(columns, "target_date"))
    missing = days == _NAT
    known = np.where(missing, 0, days) if missing.any() else days
    weekday = (known + 3) % 7
    month_number = known.astype("M8[D]").astype("M8[M]").astype(np.int64)
    month_start = month_number.astype("M8[M]").astype("M8[D]").astype(np.int64)
    # an ISO week belongs to the year of its Thursday
    thursday = known - weekday + 3
    year_start = thursday.astype("M8[D]").astype("M8[Y]").astype("M8[D]").astype(np.int64)
    ahead, behind = _holiday_distances(facts.country, known)
    values = {
        "weekday": weekday,
        "day_of_month": known - month_start + 1,
        "week": (thursday - year_start) // 7 + 1,
        "month": month_number % 12 + 1,
        "is_holiday": ahead == 0,
        "days_to_holiday": np.minimum(ahead, HOLIDAY_CAP),
        "days_after_holiday": np.minimum(behind, HOLIDAY_CAP),
    }
    found = {name: value.astype(np.float64) for name, value in values.items()}
    if missing.any():
        for value in found.values():
            value[missing] = np.nan
    return found


def _day_numbers(texts: Any) -> Ints:
    array = np.asarray(texts)
    if array.dtype == object:
        array = np.array([text if isinstance(text, str) else "NaT" for text in array], dtype="U")
    try:
        return array.astype("M8[D]").astype(np.int64)
    except ValueError as wrong:
        raise InputInvalid("target_date", "dates like 2026-01-31", str(wrong)) from None


def _holiday_distances(country: str, days: Ints) -> tuple[Ints, Ints]:
    """Days until the next holiday and since the last one; 0 and 0 on a holiday itself."""
    if not len(days):
        return days, days
    low, high = int(days.min()), int(days.max())
    # a margin of a month: caps are at 14 days
    table = _holiday_table(country, (low - 31) // 366 + 1969, (high + 31) // 365 + 1971)
    position = np.searchsorted(table, days)
    ahead = table[np.minimum(position, len(table) - 1)] - days
    behind = days - table[np.maximum(position - 1, 0)]
    ahead = np.where(ahead < 0, HOLIDAY_CAP, ahead)
    behind = np.where(behind < 0, HOLIDAY_CAP, behind)
    return ahead, np.where(ahead == 0, 0, behind)


def _holiday_table(country: str, first: int, last: int) -> Ints:
    """Sorted day numbers of a country's holidays over whole decades that hold the years first..last."""
    return _holidays(country, first // 10 * 10, last // 10 * 10 + 9)


@cache
def _holidays(country: str, first: int, last: int) -> Ints:
    import holidays

    known = holidays.list_supported_countries()
    if country not in known:
        raise UnknownName("holiday country", country, known)
    table = holidays.country_holidays(country, years=range(first, last + 1))
    days = sorted((day - _EPOCH).days for day in table)
    # a country without any holiday in these years still needs one entry to search
    return np.array(days or [_NAT // 2], dtype=np.int64)


def _schedule(facts: ScheduleFacts, columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, Floats]:
    scheduled = _microseconds(_column(columns, "scheduled_at"), "scheduled_at")
    promised = _microseconds(_column(columns, "promised_at"), "promised_at")
    as_of = _microseconds(_column(columns, "as_of"), "as_of")
    shown = np.where(scheduled == _NAT, promised, scheduled)
    missing = shown == _NAT
    safe = np.where(missing, 0, shown)
    starts, offsets = _zone_table(facts.zone)
    local = safe + offsets[np.maximum(np.searchsorted(starts, safe, side="right") - 1, 0)]
    day = local // _DAY_US
    values = {
        "schedule_hour": (local // _HOUR_US) % 24,
        "schedule_weekday": (day + 3) % 7,
        "schedule_month": day.astype("M8[D]").astype("M8[M]").astype(np.int64) % 12 + 1,
    }
    found: dict[str, Floats] = {}
    for name, value in values.items():
        number = value.astype(np.float64)
        number[missing] = np.nan
        found[name] = number
    found["planned_hours"] = _hours(promised, scheduled)
    found["lead_hours"] = _hours(promised, as_of)
    return found


def _hours(later: Ints, earlier: Ints) -> Floats:
    missing = (later == _NAT) | (earlier == _NAT)
    hours = (np.where(missing, 0, later) - np.where(missing, 0, earlier)) / _HOUR_US
    hours[missing] = np.nan
    return np.asarray(hours, dtype=np.float64)


def _microseconds(values: Any, name: str) -> Ints:
    """Microseconds since the epoch in UTC; the smallest integer where missing."""
    kind = getattr(values, "dtype", None)
    if isinstance(kind, np.dtype) and kind.kind == "M":
        return np.asarray(values).astype("M8[us]").astype(np.int64)
    try:
        index = pd.DatetimeIndex(pd.to_datetime(np.asarray(values, dtype=object), utc=True))
    except (ValueError, TypeError) as wrong:
        raise InputInvalid(name, "times", str(wrong)) from None
    return index.tz_localize(None).to_numpy().astype("M8[us]").astype(np.int64)


@cache
def _zone_table(name: str) -> tuple[Ints, Ints]:
    """Starts (microseconds, UTC) and offsets (microseconds) of a zone's rules from 1970 to 2100."""
    try:
        zone = ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InputInvalid("schedule facts", "a time zone like America/New_York", repr(name)) from None
    start, end, half_day = datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC), timedelta(hours=12)
    starts, offsets = [_NAT], [_offset(zone, start)]
    moment = start
    while moment < end:
        following = moment + half_day
        offset = _offset(zone, following)
        if offset != offsets[-1]:
            change = _change(zone, offset, moment, following)
            starts.append(int(change.timestamp()) * 1_000_000)
            offsets.append(offset)
        moment = following
    return np.array(starts, dtype=np.int64), np.array(offsets, dtype=np.int64)


def _offset(zone: ZoneInfo, moment: datetime) -> int:
    offset = moment.astimezone(zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds()) * 1_000_000


def _change(zone: ZoneInfo, offset: int, low: datetime, high: datetime) -> datetime:
    """The first whole second in (low, high] from which on the zone's offset is `offset`."""
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=int((high - low).total_seconds()) // 2)
        low, high = (low, middle) if _offset(zone, middle) == offset else (middle, high)
    return high


def _given(facts: GivenFacts, columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    found: dict[str, npt.NDArray[Any]] = {}
    for name in facts.numbers:
        found[name] = _numbers(_column(columns, name), name)
    for name in facts.categories:
        values = _column(columns, name)
        texts = np.empty(len(values), dtype=object)
        texts[:] = [value if isinstance(value, str) else _text(value) for value in values]
        found[name] = texts
    return found


def _text(value: Any) -> str | None:
    return None if value is None or value is pd.NA or value != value else str(value)


def _numbers(values: Any, name: str) -> Floats:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        pass
    try:
        return np.array([np.nan if value is None or value is pd.NA else float(value) for value in values])
    except (TypeError, ValueError) as wrong:
        raise InputInvalid(name, "numbers", str(wrong)) from None
