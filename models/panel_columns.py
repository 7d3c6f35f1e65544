"""The columns of the global forecaster for (series, origin, step) rows of a panel: known at the origin, or ahead."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from contracts.declarations import CalendarFacts
from features.facts import fact_values
from models.panel import Floats, Ints, Panel
from models.panel_history import PanelHistory, padded, running

SCALE = "panel__scale"
STEP = "step"
ALPHAS = {"level_10": 0.1, "level_30": 0.3}
MOST_FLAG_VALUES = 4
FLAG_CAP = 14
RECENT_FLAGS = 13
CALENDAR = {
    "day": ("weekday", "day_of_month", "week", "month", "is_holiday", "days_to_holiday", "days_after_holiday"),
    "week": ("week", "month"),
    "month": ("month",),
}
HOLIDAYS = ("is_holiday", "days_to_holiday", "days_after_holiday")


class PanelColumns:
    """Makes the columns; built once a panel.

    Args:
        panel: demand and what is known ahead.
        horizon: most steps ahead that will be asked for.
        country: ISO code for holidays (daily panels), None for none.
    """

    def __init__(self, panel: Panel, horizon: int, country: str | None) -> None:
        self.panel, self.country = panel, country
        self.history = PanelHistory(panel, horizon)
        self._levels = {name: self.history.smoothed(alpha) for name, alpha in ALPHAS.items()}
        self._covariates = {name: Covariate(self.history, values) for name, values in panel.ahead.items()}
        self._calendar = self._facts(panel.periods + horizon)
        self.static = {name: _codes(values) for name, values in panel.static.items()}

    def rows(self, series: Ints, origin: Ints, step: Ints) -> dict[str, Any]:
        """Columns of n rows.

        Args:
            series: place of each row's series. origin: periods known. step: 1 is the first period that is not known.

        Returns:
            name -> (n,) float64, NaN as missing; levels are in units of the row's scale; `panel__scale` in units a
            period; static attributes as codes.
        """
        rhythm, history = self.history.rhythm, self.history
        scale = history.scale(series, origin)
        target = origin + step - 1
        found: dict[str, Any] = {SCALE: scale, STEP: step.astype(np.float64), "log_scale": np.log(scale)}
        for lag in rhythm.lags:
            found[f"lag_{lag}"] = history.at(series, origin - lag) / scale
        for window in rhythm.windows:
            found[f"mean_{window}"] = history.mean(series, origin, window) / scale
            found[f"zero_share_{window}"] = history.zero_share(series, origin, window)
        for window in rhythm.windows[1:3]:
            found[f"std_{window}"] = history.deviation(series, origin, window) / scale
        for name, levels in self._levels.items():
            found[name] = levels[series, origin] / scale
        found["since_sale"] = (origin - history.last_sale[series, origin]).astype(np.float64)
        found["history"] = np.minimum(np.maximum(origin - history.begun[series], 0), 2 * rhythm.year).astype(np.float64)
        found |= self._seasons(series, origin, step, scale) | self._last_year(series, origin, target, scale)
        for name, covariate in self._covariates.items():
            found |= covariate.rows(name, series, origin, step, scale)
        found |= {name: values[target] for name, values in self._calendar.items()}
        found |= {name: codes[series] for name, codes in self.static.items()}
        return found

    def _seasons(self, series: Ints, origin: Ints, step: Ints, scale: Floats) -> dict[str, Floats]:
        values = season_values(self.history, series, origin, step, self.history.rhythm.cycles) / scale[:, None]
        found = {f"season_{cycle + 1}": values[:, cycle] for cycle in range(min(2, values.shape[1]))}
        found["season_mean_4"] = mean_of(values[:, :4])
        if values.shape[1] > 4:
            found["season_mean_8"] = mean_of(values)
            found["season_median_8"] = median_of(values)
        return found

    def _last_year(self, series: Ints, origin: Ints, target: Ints, scale: Floats) -> dict[str, Floats]:
        """The same period last year, as a share of the level it had then: what the season did to the level."""
        rhythm, history = self.history.rhythm, self.history
        before = np.maximum(origin - rhythm.year, 0)
        then = history.mean(series, before, rhythm.scale)
        then = np.where(origin >= rhythm.year, then, np.nan)
        then = np.where(then > 0, then, np.nan)
        place = target - rhythm.year
        value = history.at(series, place)
        around = np.stack([history.at(series, place + d) for d in range(-rhythm.around, rhythm.around + 1)], axis=1)
        near = np.where(target - rhythm.year < origin, mean_of(around), np.nan)
        return {
            "last_year": value / scale,
            "last_year_ratio": value / then,
            "last_year_near": near / then,
            "growth": history.mean(series, origin, rhythm.scale) / then,
        }

    def _facts(self, periods: int) -> dict[str, Floats]:
        days = self.panel.dates(0, periods)
        if self.panel.frequency == "week":
            days = days + np.timedelta64(3, "D")
        columns: Mapping[str, Any] = {"target_date": np.datetime_as_string(days, unit="D").astype(object)}
        values = fact_values((CalendarFacts(kind="calendar", country=self.country or "US"),), columns)
        names = CALENDAR[self.panel.frequency]
        return {name: values[name] for name in names if self.country is not None or name not in HOLIDAYS}


class Covariate:
    """A covariate known ahead: its value then, against its recent mean, and what demand was under the same value."""

    def __init__(self, history: PanelHistory, values: Floats) -> None:
        self._history = history
        self._left = history.rhythm.season * history.rhythm.flag_cycles + history.horizon
        width = history.panel.periods + history.horizon
        full = np.full((values.shape[0], width), np.nan)
        full[:, : min(width, values.shape[1])] = values[:, :width]
        self._values = padded(full, self._left, 1)
        known = np.isfinite(full)
        self._total, self._count = running(np.where(known, full, 0.0)), running(known)
        distinct = np.unique(full[known])
        self.is_flag = 1 < len(distinct) <= MOST_FLAG_VALUES
        self._distance = _flag_distances(full) if self.is_flag and set(distinct) <= {0.0, 1.0} else None

    def at(self, series: Ints, place: Ints) -> Floats:
        """The value at places, NaN where unknown."""
        return np.asarray(self._values[series, np.clip(place + self._left, 0, self._values.shape[1] - 1)])

    def rows(self, name: str, series: Ints, origin: Ints, step: Ints, scale: Floats) -> dict[str, Floats]:
        """The columns that this covariate gives, see PanelColumns.rows."""
        target, rhythm = origin + step - 1, self._history.rhythm
        now = self.at(series, target)
        start = np.maximum(origin - rhythm.scale, 0)
        count = self._count[series, origin] - self._count[series, start]
        with np.errstate(invalid="ignore", divide="ignore"):
            recent = (self._total[series, origin] - self._total[series, start]) / count
        found = {name: now, f"{name}__against_recent": now - recent}
        if not self.is_flag:
            return found
        places = season_places(self._history, origin, step, rhythm.flag_cycles)
        values = self._history.at(series[:, None], places)
        same = self.at(series[:, None], places) == now[:, None]
        found[f"{name}__same_season"] = mean_of(np.where(same, values, np.nan)) / scale
        back = origin[:, None] - 1 - np.arange(min(RECENT_FLAGS * 2, rhythm.scale))[None, :]
        values, same = self._history.at(series[:, None], back), self.at(series[:, None], back) == now[:, None]
        found[f"{name}__same_recent"] = mean_of(np.where(same, values, np.nan)) / scale
        if self._distance is not None:
            since, until = self._distance
            place = np.minimum(target, since.shape[1] - 1)
            # how far ahead a plan is known at prediction, so that training sees no more of it
            ahead = origin + self._history.horizon - 1 - target
            found[f"{name}__since"] = since[series, place]
            found[f"{name}__until"] = np.where(until[series, place] <= ahead, until[series, place], FLAG_CAP)
        return found


def season_places(history: PanelHistory, origin: Ints, step: Ints, cycles: int) -> Ints:
    """Places of the same season in the newest `cycles` cycles before the origin, newest first, (n, cycles)."""
    season = history.rhythm.season
    newest = origin + step - 1 - season * ((step - 1) // season + 1)
    return np.asarray(newest[:, None] - season * np.arange(cycles)[None, :])


def season_values(history: PanelHistory, series: Ints, origin: Ints, step: Ints, cycles: int) -> Floats:
    """Demand at `season_places`, NaN where unknown."""
    return history.at(series[:, None], season_places(history, origin, step, cycles))


def mean_of(values: Floats) -> Floats:
    """Mean of each row's known values, NaN without any."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    return np.asarray(np.where(known, values, 0.0).sum(axis=1) / np.where(count > 0, count, np.nan))


def median_of(values: Floats) -> Floats:
    """Median of each row's known values, NaN without any."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)
        return np.asarray(np.nanmedian(values, axis=1))


def _flag_distances(flag: Floats) -> tuple[Floats, Floats]:
    """Periods since the flag was last set and until it is next set, capped at 14, 0 where it is set."""
    places = np.arange(flag.shape[1])
    last = np.maximum.accumulate(np.where(flag == 1, places, -FLAG_CAP), axis=1)
    following = np.where(flag == 1, places, flag.shape[1] + FLAG_CAP)[:, ::-1]
    nearest = np.minimum.accumulate(following, axis=1)[:, ::-1]
    return np.minimum(places - last, FLAG_CAP).astype(float), np.minimum(nearest - places, FLAG_CAP).astype(float)


def _codes(values: Any) -> Floats:
    """Codes of text values in sorted order, NaN where missing."""
    known = sorted({str(value) for value in values if value is not None})
    code = {value: float(place) for place, value in enumerate(known)}
    return np.array([code[str(value)] if value is not None else np.nan for value in values])
