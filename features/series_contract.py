"""The contract of time series: gaps, duplicates, short, negative, constant and missing values, units that jump.

Found before any model sees the series, and reported by series; nothing is refused or mended here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from contracts.errors import InputInvalid, TimeInvalid

RULES = ("duplicate", "gap", "short", "negative", "missing", "constant", "unit_level", "unit_value")
PERIODS = ("day", "week", "month")
_EXAMPLES = 3


@dataclass(frozen=True)
class SeriesTerms:
    """Thresholds of the contract.

    Attributes:
        short: a series with fewer different periods is `short`.
        constant: a series of so many values or more that are all the same is `constant`.
        jumps: factors between two units (10: a slipped digit, 1000: grams for kilograms), tried up and down.
        window: so many positive values before and as many after a jump must agree among themselves.
        slack: how far a jump may be from its factor, as a share of the factor's power of ten: 0.2 takes 6.3 to 15.8 for
            10, and 250 to 4,000 for 1,000.
    """

    short: int = 8
    constant: int = 8
    jumps: tuple[float, ...] = (10.0, 1000.0)
    window: int = 4
    slack: float = 0.2


@dataclass(frozen=True)
class _Rows:
    """The frame's rows as arrays, ordered by series, then time."""

    series: np.ndarray
    times: np.ndarray
    values: np.ndarray
    periods: np.ndarray

    @property
    def follows(self) -> np.ndarray:
        """True where the row above is of the same series."""
        return np.concatenate([[False], self.series[1:] == self.series[:-1]])


def check_series(
    frame: pd.DataFrame,
    *,
    keys: tuple[str, ...] = ("sku", "location"),
    time: str = "event_time",
    value: str = "quantity",
    period: str = "period",
    terms: SeriesTerms | None = None,
) -> pd.DataFrame:
    """What is wrong with which series.

    Args:
        frame: one row a series and period; any order.
        keys: columns that name a series.
        time: column with the period's first moment, with a zone.
        value: column with the number; zeros are values.
        period: `day`, `week` or `month` for all rows, or else the column that says so.
        terms: thresholds; the stated defaults when not given.

    Returns:
        one row a series and rule that it breaks, ordered by series, then rule: the keys, `rule`, `first` and `last`
        (moments in UTC: of the rows, or for `gap` of the periods that are not there), `count` (rows, missing periods or
        jumps; for `short` and `constant` the rows of the series) and up to three `examples` as text.
        Rules: `duplicate`, `gap`, `short`, `negative`, `missing`, `constant`, `unit_level` (the level jumps by a factor
        and stays) and `unit_value` (a single value is off by a factor).

    Raises:
        InputInvalid: a column is not there, or a period is unknown.
        TimeInvalid: the times have no zone, or some are missing.
    """
    terms = terms or SeriesTerms()
    names, rows = _sorted(frame, keys, time, value, period)
    if not len(rows.series):
        return _report(names, [])
    found = [
        _duplicates(rows),
        _gaps(rows),
        _short(rows, terms.short),
        _rows_where(rows, "negative", rows.values < 0),
        _rows_where(rows, "missing", np.isnan(rows.values)),
        _constant(rows, terms.constant),
        *_jumps(rows, terms),
    ]
    return _report(names, found)


def _sorted(
    frame: pd.DataFrame, keys: tuple[str, ...], time: str, value: str, period: str
) -> tuple[pd.DataFrame, _Rows]:
    """The series' names by number, and the rows in order."""
    for name in (*keys, time, value, *(() if period in PERIODS else (period,))):
        if name not in frame:
            raise InputInvalid("time series", f"a column {name!r}", f"columns {', '.join(map(str, frame.columns))}")
    if not isinstance(frame[time].dtype, pd.DatetimeTZDtype) or frame[time].isna().any():
        raise TimeInvalid(
            f"time series: column {time}", f"{frame[time].dtype}, {int(frame[time].isna().sum())} missing"
        )
    groups = frame.groupby(list(keys), sort=True, dropna=False)
    numbers = groups.ngroup().to_numpy()
    names = frame.loc[~pd.Series(numbers, index=frame.index).duplicated(), list(keys)]
    names = names.iloc[np.argsort(numbers[~pd.Series(numbers).duplicated().to_numpy()])].reset_index(drop=True)
    times = frame[time].dt.tz_convert("UTC").to_numpy(dtype="datetime64[us]")
    lengths = np.full(len(frame), period) if period in PERIODS else frame[period].to_numpy(dtype=str)
    unknown = np.setdiff1d(lengths, PERIODS)
    if len(unknown):
        raise InputInvalid("time series", f"a period out of {', '.join(PERIODS)}", repr(str(unknown[0])))
    order = np.lexsort((times, numbers))
    values = frame[value].to_numpy(dtype="float64", na_value=np.nan)
    return names, _Rows(numbers[order], times[order], values[order], lengths[order])


@dataclass(frozen=True)
class _Found:
    """Findings of one rule: series number, first and last moment, count and examples, one entry a series."""

    rule: str
    series: np.ndarray
    first: np.ndarray
    last: np.ndarray
    count: np.ndarray
    examples: list[str]


def _duplicates(rows: _Rows) -> _Found:
    again = rows.follows & np.concatenate([[False], rows.times[1:] == rows.times[:-1]])
    return _rows_where(rows, "duplicate", again)


def _gaps(rows: _Rows) -> _Found:
    """Periods between two rows of a series that no row is for."""
    days = rows.times.astype("datetime64[D]").astype(np.int64)
    months = rows.times.astype("datetime64[M]").astype(np.int64)
    week, month = rows.periods == "week", rows.periods == "month"
    place = np.where(month, months, np.where(week, days // 7, days))
    steps = np.diff(np.where(week, days, place), prepend=0)
    steps = np.where(week, np.rint(steps / 7).astype(np.int64), steps)
    at = np.flatnonzero(rows.follows & (steps > 1))
    above = np.maximum(at - 1, 0)
    first, last = _moved(rows, above, 1), _moved(rows, at, -1)
    words = [f"{start:.10} to {end:.10}" for start, end in zip(first.astype(str), last.astype(str), strict=True)]
    return _by_series("gap", rows.series[at], first, last, steps[at] - 1, np.array(words, dtype=object))


def _moved(rows: _Rows, at: np.ndarray, by: int) -> np.ndarray:
    """Moments one period on or back."""
    times, periods = rows.times[at], rows.periods[at]
    months = (times.astype("datetime64[M]") + np.timedelta64(by, "M")).astype("datetime64[us]")
    days = np.where(periods == "week", 7 * by, by).astype("timedelta64[D]")
    return np.asarray(np.where(periods == "month", months, times + days))


def _short(rows: _Rows, least: int) -> _Found:
    different = ~(rows.follows & np.concatenate([[False], rows.times[1:] == rows.times[:-1]]))
    counts = np.bincount(rows.series[different])
    return _whole_series(rows, "short", counts < least)


def _constant(rows: _Rows, least: int) -> _Found:
    starts = np.flatnonzero(~rows.follows)
    lowest, highest = np.minimum.reduceat(rows.values, starts), np.maximum.reduceat(rows.values, starts)
    counts = np.diff(np.append(starts, len(rows.series)))
    return _whole_series(rows, "constant", (lowest == highest) & (counts >= least))


def _whole_series(rows: _Rows, rule: str, chosen: np.ndarray) -> _Found:
    """Findings about series as a whole. `chosen`: boolean mask over series numbers."""
    return _rows_where(rows, rule, chosen[rows.series])


def _jumps(rows: _Rows, terms: SeriesTerms) -> list[_Found]:
    """Levels and single values that are off by one of the factors, seen among the positive values of each series."""
    here = np.flatnonzero(rows.values > 0)
    logs, series, width = np.log10(rows.values[here]), rows.series[here], terms.window
    if len(here) < 2 * width + 1:
        return []
    windows = np.sort(np.lib.stride_tricks.sliding_window_view(logs, width), axis=1)
    middle = (windows[:, (width - 1) // 2] + windows[:, width // 2]) / 2
    spread = np.where(series[width - 1 :] == series[: len(middle)], windows[:, -1] - windows[:, 0], np.inf)
    found = []
    for rule, skipped in (("unit_level", 0), ("unit_value", 1)):
        before = np.arange(len(middle) - width - skipped)
        after = before + width + skipped
        joined = series[before] == series[after]
        widest = np.maximum(spread[before], spread[after])
        was, now = middle[before], middle[after]
        if skipped:
            joined &= np.abs(now - was) <= terms.slack
            was, now = (was + now) / 2, logs[before + width]
        fits = np.zeros(len(before), dtype=bool)
        for factor in np.log10(terms.jumps):
            fits |= (np.abs(np.abs(now - was) - factor) <= terms.slack * factor) & (widest <= factor / 2)
        hit = np.flatnonzero(fits & joined)
        found.append(_jumped(rows, rule, here[hit + width], 10 ** was[hit], 10 ** now[hit]))
    return found


def _jumped(rows: _Rows, rule: str, at: np.ndarray, was: np.ndarray, now: np.ndarray) -> _Found:
    words = [f"{before:g} then {after:g} (x{after / before:.3g})" for before, after in zip(was, now, strict=True)]
    ones = np.ones(len(at), dtype=np.int64)
    return _by_series(rule, rows.series[at], rows.times[at], rows.times[at], ones, np.array(words, dtype=object))


def _rows_where(rows: _Rows, rule: str, mask: np.ndarray) -> _Found:
    at = np.flatnonzero(mask)
    ones = np.ones(len(at), dtype=np.int64)
    return _by_series(rule, rows.series[at], rows.times[at], rows.times[at], ones, rows.values[at])


def _by_series(
    rule: str, series: np.ndarray, first: np.ndarray, last: np.ndarray, count: np.ndarray, examples: np.ndarray
) -> _Found:
    """Single findings, ordered by series and time, as one finding a series."""
    numbers, starts = np.unique(series, return_index=True)
    ends = np.append(starts[1:], len(series))
    told: list[list[str]] = [[] for _ in numbers]
    for turn in range(_EXAMPLES):
        more = np.flatnonzero(starts + turn < ends)
        for place, example in zip(more.tolist(), examples[starts[more] + turn].tolist(), strict=True):
            told[place].append(example if isinstance(example, str) else f"{example:g}")
    counts = np.add.reduceat(count, starts) if len(starts) else count
    words = ["; ".join(parts) for parts in told]
    return _Found(rule, numbers, first[starts], last[ends - 1] if len(starts) else last, counts, words)


def _report(names: pd.DataFrame, found: list[_Found]) -> pd.DataFrame:
    parts = []
    for one in found:
        part = names.iloc[one.series].reset_index(drop=True)
        part["rule"] = one.rule
        part["first"] = pd.DatetimeIndex(one.first.astype("datetime64[us]")).tz_localize("UTC")
        part["last"] = pd.DatetimeIndex(one.last.astype("datetime64[us]")).tz_localize("UTC")
        part["count"], part["examples"], part["_series"] = one.count, one.examples, one.series
        parts.append(part)
    if not parts:
        empty = pd.DatetimeIndex([], tz="UTC").as_unit("us")
        words = np.zeros(0, dtype=object)
        return names.assign(rule=words, first=empty, last=empty, count=np.zeros(0, dtype=np.int64), examples=words)
    report = pd.concat(parts, ignore_index=True).sort_values("_series", kind="stable")
    return report.drop(columns="_series").reset_index(drop=True)
