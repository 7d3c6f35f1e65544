"""Demand history and price history: what each series looked like, tick by tick, as it was known then."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from contracts.declarations import DemandHistory, PriceHistory, view_columns
from features.demand_panel import DemandPanel, Panel
from features.event_log import EventLog, Floats, Ints, length
from features.gold import GoldStore
from features.view_rows import MICROSECOND_DAY, joined, view_frame

SCALE_DAYS = 56
LONG_RUN_SHARE = 0.2
# 52 weeks: the same weekday a year ago.
YEAR_DAYS = 364
Values = npt.NDArray[np.float64]
Compute = Callable[[DemandPanel], tuple[Ints, Values]]


class DemandBuilder:
    """Builds one view of demand events; see `ViewBuilder`."""

    def __init__(self, view: DemandHistory | PriceHistory, log: EventLog) -> None:
        self.log = log
        self._view = view
        self._columns = view_columns(view)
        fields = ("quantity",) if isinstance(view, DemandHistory) else ("price", "discount")
        self._panel = DemandPanel(log, view.keys, length(view.tick), fields)

    def behind(self) -> int | None:
        """See `ViewBuilder`."""
        tick = self._panel.behind()
        return None if tick is None else tick * self._panel.tick

    def resume(self, gold: GoldStore, after: int) -> None:
        """See `ViewBuilder`."""
        self._panel.advance(after // self._panel.tick)

    def rows(self, until: int) -> tuple[pd.DataFrame, int | None]:
        """See `ViewBuilder`."""
        panel = self._panel
        names = {"text": self._view.keys, "number": self._columns}
        low = panel.first_tick() if panel.at is None else panel.at + 1
        if low is None:
            return joined([], names), None
        codes, ticks, values = [], [], []
        for tick in range(low, until // panel.tick + 1):
            panel.advance(tick)
            series, found = self._at_tick()
            codes.append(series)
            ticks.append(np.full(len(series), tick * panel.tick))
            values.append(found)
        built = None if panel.at is None else panel.at * panel.tick
        if not sum(map(len, codes)):
            return joined([], names), built
        at, series = np.concatenate(ticks), np.concatenate(codes)
        return view_frame(self._view.keys, panel.series, series, at, self._columns, np.vstack(values)), built

    def _at_tick(self) -> tuple[Ints, Values]:
        if isinstance(self._view, DemandHistory):
            return demand_history(self._view, self._panel)
        return price_history(self._view, self._panel)


def demand_history(view: DemandHistory, panel: DemandPanel) -> tuple[Ints, Values]:
    """Values of `view_columns(view)` for every series with a known period, at the panel's tick.

    Missing periods are NaN as lags and do not count in any mean. std is the population's. A season_mean is over the
    same weekdays of the last `season_cycles` weeks. days_since_sale is counted from the beginning of the last period
    with a sale (1 when it was the last day), history_days from the beginning of the first known period. scale and
    naive_rmse are positive always: a series that never sold has scale 1, one without a usable difference of neighbours
    (or with only equal ones) has its scale as naive_rmse.

    Returns:
        codes of the series (n,) and values (n, columns).
    """
    history = panel.history("quantity")
    codes = np.flatnonzero(~np.isnan(history).all(axis=1)) if history.size else np.empty(0, dtype=np.int64)
    if not len(codes):
        return codes, np.empty((0, len(view_columns(view))))
    history = history[codes]
    per_day = MICROSECOND_DAY / panel.tick
    scale_periods, season_periods = (max(1, round(days * per_day)) for days in (SCALE_DAYS, 7 * view.season_cycles))
    longest = max(view.lags, *view.windows, scale_periods, season_periods)
    recent = panel.window("quantity", longest)[codes]
    found = [recent[:, ::-1][:, : view.lags]]
    found += [_rolling(recent[:, longest - window :]) for window in view.windows]
    found.append(_seasons(recent[:, longest - season_periods :], panel))
    known = ~np.isnan(history)
    sold = history > 0
    width = history.shape[1]
    since_first = width - known.argmax(axis=1)
    since_sale = np.where(sold.any(axis=1), sold[:, ::-1].argmax(axis=1) + 1.0, np.nan)
    scale = _scale(recent[:, longest - scale_periods :], history) * per_day
    found.append(np.column_stack([since_sale / per_day, since_first / per_day, scale, _naive_rmse(history, scale)]))
    found += [_smoothed(history, share / 100)[:, None] for share in view.smoothing]
    if view.last_year:
        found.append(_last_year(history, view.last_year, scale_periods, max(1, round(YEAR_DAYS * per_day))) * per_day)
    return codes, np.hstack(found)


def price_history(view: PriceHistory, panel: DemandPanel) -> tuple[Ints, Values]:
    """price_last, price_ratio and discount_mean over the last `window` periods, for series with a price or discount in
    them: the last known price, itself over the mean of the known ones (NaN when that is 0), the mean known discount.

    Returns:
        codes of the series (n,) and values (n, 3).
    """
    price, discount = panel.window("price", view.window), panel.window("discount", view.window)
    codes = np.flatnonzero(~(np.isnan(price).all(axis=1) & np.isnan(discount).all(axis=1)))
    price, discount = price[codes], discount[codes]
    known = ~np.isnan(price)
    place = view.window - 1 - known[:, ::-1].argmax(axis=1)
    last = np.where(known.any(axis=1), price[np.arange(len(codes)), place], np.nan)
    mean = _mean(price)
    ratio = last / np.where(mean > 0, mean, np.nan)
    return codes, np.column_stack([last, ratio, _mean(discount)])


def _mean(values: Panel) -> Floats:
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1)
    return mean


def _rolling(values: Panel) -> Values:
    """mean, std and zero share of the known values of each row: (series, 3)."""
    mean = _mean(values)
    return np.column_stack([mean, np.sqrt(_mean((values - mean[:, None]) ** 2)), _mean(_zeros(values))])


def _zeros(values: Panel) -> Panel:
    return np.where(np.isnan(values), np.nan, values == 0)


def _smoothed(history: Panel, share: float) -> Floats:
    """Exponentially weighted mean of the known values, oldest first, `share` on the newest: (series,)."""
    known = ~np.isnan(history)
    after = known[:, ::-1].cumsum(axis=1)[:, ::-1] - known
    weight = np.where(known, (1.0 - share) ** after, 0.0)
    # the oldest known value is where the mean begins, so it has no share taken off
    first = np.arange(len(history)), known.argmax(axis=1)
    begin = weight[first]
    weight *= share
    weight[first] = begin
    return np.asarray((weight * np.where(known, history, 0.0)).sum(axis=1))


def _last_year(history: Panel, ahead: int, window: int, year: int) -> Values:
    """Values one year before each of the next `ahead` periods, then the mean of the `window` before a year ago."""
    width = history.shape[1]
    padded = np.hstack([np.full((len(history), max(0, year + window - width)), np.nan), history])
    start = padded.shape[1] - year
    values = padded[:, start : start + ahead]
    if values.shape[1] < ahead:
        values = np.hstack([values, np.full((len(history), ahead - values.shape[1]), np.nan)])
    return np.column_stack([values, _mean(padded[:, start - window : start])])


def _seasons(values: Panel, panel: DemandPanel) -> Values:
    """Mean of the known values of each weekday, Monday first: (series, 7)."""
    periods = np.arange(values.shape[1]) - values.shape[1] + (panel.at or 0)
    weekday = (periods * panel.tick // MICROSECOND_DAY + 3) % 7
    return np.column_stack([_mean(values[:, weekday == day]) for day in range(7)])


def _scale(recent: Panel, history: Panel) -> Floats:
    """Units a period: the larger of the recent mean and a fifth of the long-run one; 1 where both are 0."""
    scale = np.fmax(_mean(recent), LONG_RUN_SHARE * _mean(history))
    return np.where(scale > 0, scale, 1.0)


def _naive_rmse(history: Panel, scale: Floats) -> Floats:
    """Root mean square of the differences of known neighbours; `scale` where that is not positive."""
    rmse = np.sqrt(_mean(np.diff(history, axis=1) ** 2))
    return np.where(rmse > 0, rmse, scale)
