"""What a panel's past looks like from any origin: windows, lags and levels by cumulative sums, vectorised over rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.panel import Floats, Frequency, Ints, Panel

Flags = NDArray[np.bool_]
LONG_RUN_SHARE = 0.2
INTERMITTENT_ZEROS = 0.3
INTERMITTENT_FLOOR = 0.05
TINY = 1e-9


@dataclass(frozen=True)
class Rhythm:
    """What a frequency fixes, in periods: one recipe, nothing tuned to a data set.

    Attributes:
        season: the short cycle. year: a year that keeps the weekday. windows, lags: of levels and single values.
        scale: window of the level that targets are divided by. cycles: same-season values looked at.
        flag_cycles: same-season values searched for the same value of a covariate. history: periods trained on.
        around: half width of the window around the same period last year.
    """

    season: int
    year: int
    windows: tuple[int, ...]
    lags: tuple[int, ...]
    scale: int
    cycles: int
    flag_cycles: int
    history: int
    around: int


RHYTHMS: dict[Frequency, Rhythm] = {
    "day": Rhythm(7, 364, (7, 28, 91, 364), (1, 2, 3, 4, 5, 6, 7), 56, 8, 12, 730, 3),
    "week": Rhythm(52, 52, (4, 13, 52), (1, 2, 3, 4, 8, 13), 26, 3, 3, 208, 1),
    "month": Rhythm(12, 12, (3, 6, 12), (1, 2, 3, 4, 5, 6), 12, 3, 3, 120, 0),
}


class PanelHistory:
    """The panel's known values, ready to be asked about (series, origin) rows.

    An origin t is the number of periods that are known: places 0 .. t - 1 of the panel. Every answer about t uses
    nothing at or after place t.
    """

    def __init__(self, panel: Panel, horizon: int) -> None:
        self.panel, self.horizon = panel, horizon
        self.rhythm = RHYTHMS[panel.frequency]
        demand = panel.demand
        self.known = np.isfinite(demand)
        filled = np.where(self.known, demand, 0.0)
        self.total, self.count = running(filled), running(self.known)
        self._squares, self._zeros = running(filled * filled), running(self.known & (demand == 0))
        # far enough on both sides that no lookup needs a check
        self._left = (
            max(2 * self.rhythm.year + self.rhythm.around, self.rhythm.season * self.rhythm.flag_cycles) + horizon
        )
        self._values = padded(demand, self._left, horizon)

    @cached_property
    def begun(self) -> Ints:
        """Place of each series' first known value, T where there is none, (n,)."""
        return np.where(self.known.any(axis=1), self.known.argmax(axis=1), self.panel.periods)

    @cached_property
    def floor(self) -> Floats:
        """What is added to every scale at each origin, (T + 1,): a twentieth of the mean of all that is known by then
        when over 30% of it is zero, else next to nothing."""
        known = np.maximum(self.count.sum(axis=0), 1.0)
        mean, zeros = self.total.sum(axis=0) / known, self._zeros.sum(axis=0) / known
        share = np.where(zeros > INTERMITTENT_ZEROS, INTERMITTENT_FLOOR, 1e-6)
        return np.asarray(np.maximum(share * mean, TINY))

    def at(self, series: Ints, place: Ints) -> Floats:
        """Demand at places, NaN where it is not known or outside the panel."""
        return np.asarray(self._values[series, np.clip(place + self._left, 0, self._values.shape[1] - 1)])

    def mean(self, series: Ints, origin: Ints, window: int | None = None) -> Floats:
        """Mean of the known values in the last `window` periods (all when None), NaN without any."""
        return self._share(self.total, series, origin, window)

    def zero_share(self, series: Ints, origin: Ints, window: int) -> Floats:
        """Share of the known values that are zero."""
        return self._share(self._zeros, series, origin, window)

    def deviation(self, series: Ints, origin: Ints, window: int) -> Floats:
        """Population standard deviation of the known values."""
        mean = self.mean(series, origin, window)
        return np.sqrt(np.maximum(self._share(self._squares, series, origin, window) - mean * mean, 0.0))

    def _share(self, table: Floats, series: Ints, origin: Ints, window: int | None) -> Floats:
        start = np.zeros_like(origin) if window is None else np.maximum(origin - window, 0)
        origin = np.maximum(origin, 0)
        count = self.count[series, origin] - self.count[series, start]
        with np.errstate(invalid="ignore"):
            return np.asarray((table[series, origin] - table[series, start]) / np.where(count > 0, count, np.nan))

    def scale(self, series: Ints, origin: Ints) -> Floats:
        """The level that a target is divided by: max(recent mean, a fifth of the long-run mean) plus the floor, > 0.

        The floor under the recent mean is what keeps a site that was closed for weeks from outweighing all others.
        """
        level = np.fmax(self.mean(series, origin, self.rhythm.scale), LONG_RUN_SHARE * self.mean(series, origin))
        return np.asarray(np.nan_to_num(level) + self.floor[np.maximum(origin, 0)])

    @cached_property
    def last_sale(self) -> Ints:
        """Place after the last sale before each origin, 0 before the first, (n, T + 1)."""
        sold = self.known & (self.panel.demand > 0)
        places = np.where(sold, np.arange(1, self.panel.periods + 1), 0)
        return np.hstack([np.zeros((len(sold), 1), dtype=np.int64), np.maximum.accumulate(places, axis=1)])

    def smoothed(self, alpha: float) -> Floats:
        """Exponentially weighted level at each origin, unknown periods skipped, NaN before the first, (n, T + 1)."""
        table = np.full((len(self.panel.keys), self.panel.periods + 1), np.nan)
        level = table[:, 0].copy()
        for place in range(self.panel.periods):
            value = self.panel.demand[:, place]
            moved = np.where(np.isnan(level), value, level + alpha * (value - level))
            level = np.where(np.isnan(value), level, moved)
            table[:, place + 1] = level
        return table

    @cached_property
    def _steps(self) -> tuple[Floats, Floats]:
        steps = np.diff(self.panel.demand, axis=1)
        known = np.isfinite(steps)
        return running(np.square(np.where(known, steps, 0.0))), running(known)

    def naive_rmse_at(self, series: Ints, origin: Ints) -> Floats:
        """Root mean square of one-period differences of known neighbours before the origin; NaN without any."""
        squares, count = self._steps
        last = np.clip(origin - 1, 0, None)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.sqrt(squares[series, last] / count[series, last]))


def running(values: NDArray[np.float64] | Flags) -> Floats:
    """Cumulative sums along time with a leading zero, (n, T + 1)."""
    total = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=total[:, 1:])
    return total


def padded(values: Floats, left: int, right: int) -> Floats:
    """The table with NaN on both sides."""
    return np.pad(values, ((0, 0), (left, right)), constant_values=np.nan)
