"""Corrections of forecasts learnt on matured backtest rows: shifted quantiles. Plain data, pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from contracts.yaml_file import Strict

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LARGEST_SHIFT = 0.5
LEVEL_ROWS = 200.0
SEGMENT_ROWS = 1000.0
STRETCH = (0.7, 2.0)
SMALLEST_WIDTH = 1e-6


def thirds(horizon: int) -> tuple[int, ...]:
    """Last step of each third of a horizon: 14 -> (5, 10, 14); fewer parts when the horizon is shorter than three."""
    parts = np.array_split(np.arange(1, horizon + 1), min(3, horizon))
    return tuple(int(part[-1]) for part in parts)


def third_of(step: Ints, ends: Sequence[int]) -> Ints:
    """Which third each step lies in, from 0; steps beyond the last end belong to the last."""
    return np.minimum(np.searchsorted(np.asarray(ends), step), len(ends) - 1)


class QuantileShift(Strict):
    """Asymmetric shifts of quantiles, in units of each row's own interval width, by horizon third, level and segment.

    `shifts`: by third and level, for rows whose segment is not in `by_segment`.

    Source: conformalised quantile regression (Romano et al. 2019), scaled by local width, without its sample guarantee
    because days are not exchangeable.
    """

    ends: tuple[int, ...]
    shifts: tuple[tuple[float, ...], ...]
    by_segment: dict[str, tuple[tuple[float, ...], ...]] = Field(default_factory=dict)

    def apply(self, quantiles: Floats, step: Ints, segment: Any = None) -> Floats:
        """Quantiles (n, q) in units, shifted; may cross or be negative until they are sorted and clipped.

        Args:
            quantiles: (n, q). step: 1..horizon, (n,). segment: of each row, (n,) text, None when there are none.
        """
        width = quantiles[:, -1:] - quantiles[:, :1]
        part = third_of(step, self.ends)
        moves = np.asarray(self.shifts)[part]
        if segment is not None:
            for name, shifts in self.by_segment.items():
                here = segment == name
                moves[here] = np.asarray(shifts)[part[here]]
        return np.asarray(quantiles + width * moves, dtype=np.float64)


def learn_shift(
    actual: Floats, quantiles: Floats, step: Ints, levels: Sequence[float], horizon: int, segment: Any = None
) -> QuantileShift:
    """The shift that gives each quantile its nominal share on these rows, at most half a width.

    Args:
        actual: units, (n,). quantiles: units, (n, q), rising in a row. step: 1..horizon, (n,). levels: q levels.
        horizon: steps. segment: of each row, (n,) text; a segment's own shift is drawn to that of all rows by
            n / (n + 1000).
    """
    ends = thirds(horizon)
    part = third_of(step, ends)
    whole = np.array([_misses(actual, quantiles, part == number, levels, LEVEL_ROWS) for number in range(len(ends))])
    own: dict[str, tuple[tuple[float, ...], ...]] = {}
    for name in [] if segment is None else sorted({str(value) for value in segment}):
        here = segment == name
        rows = np.array([(here & (part == number)).sum() for number in range(len(ends))])[:, None]
        raw = np.array(
            [_misses(actual, quantiles, here & (part == number), levels, 0.0) for number in range(len(ends))]
        )
        own[name] = _table(whole + rows / (rows + SEGMENT_ROWS) * (raw - whole))
    return QuantileShift(ends=ends, shifts=_table(whole), by_segment=own)


class QuantileStretch(Strict):
    """Factors by which quantiles move away from the median, by horizon third and segment: width without a new location.

    `factors`: by third, for rows whose segment is not in `by_segment`; 1 changes nothing.

    Source: split conformal prediction with the interval's own half widths as local scale (Lei et al. 2018), without its
    sample guarantee because days are not exchangeable.
    """

    ends: tuple[int, ...]
    factors: tuple[float, ...]
    by_segment: dict[str, tuple[float, ...]] = Field(default_factory=dict)

    def apply(self, quantiles: Floats, step: Ints, segment: Any, median: int) -> Floats:
        """Quantiles (n, q) in units, stretched around the one at place `median`; may be negative until clipped."""
        part = third_of(step, self.ends)
        factor = np.asarray(self.factors)[part]
        for name, factors in self.by_segment.items():
            here = segment == name
            factor[here] = np.asarray(factors)[part[here]]
        middle = quantiles[:, median : median + 1]
        return np.asarray(middle + factor[:, None] * (quantiles - middle), dtype=np.float64)


def learn_stretch(
    actual: Floats, quantiles: Floats, step: Ints, levels: Sequence[float], horizon: int, segment: Any
) -> QuantileStretch:
    """The factors that give the widest interval its nominal share on these rows, within [0.7, 2].

    Args:
        as `learn_shift`; levels hold the median. A segment's own factor is drawn to that of all rows by n / (n + 1000).
    """
    ends, median = thirds(horizon), list(levels).index(0.5)
    part = third_of(step, ends)
    gap = actual - quantiles[:, median]
    half = np.where(gap > 0, quantiles[:, -1] - quantiles[:, median], quantiles[:, median] - quantiles[:, 0])
    reach = np.abs(gap) / np.maximum(half, SMALLEST_WIDTH * np.maximum(np.abs(actual), 1.0))
    nominal = levels[-1] - levels[0]

    def factors(use: Any) -> Floats:
        found = [reach[use & (part == number)] for number in range(len(ends))]
        return np.array([float(np.quantile(r, nominal)) if len(r) else 1.0 for r in found])

    whole = np.clip(factors(np.ones(len(part), dtype=bool)), *STRETCH)
    own = {}
    for name in sorted({str(value) for value in segment}):
        here = segment == name
        rows = np.array([(here & (part == number)).sum() for number in range(len(ends))])
        drawn = whole + rows / (rows + SEGMENT_ROWS) * (np.clip(factors(here), *STRETCH) - whole)
        own[name] = tuple(float(value) for value in drawn)
    return QuantileStretch(ends=ends, factors=tuple(float(value) for value in whole), by_segment=own)


def _misses(actual: Floats, quantiles: Floats, use: Any, levels: Sequence[float], prior: float) -> Floats:
    """How many widths each quantile has to move, (q,), drawn to 0 by n / (n + prior)."""
    width = quantiles[:, -1] - quantiles[:, 0]
    use = use & (width > 0)
    if not use.any():
        return np.zeros(len(levels))
    misses = (actual[use, None] - quantiles[use]) / width[use, None]
    raw = np.array([float(np.quantile(misses[:, i], level)) for i, level in enumerate(levels)])
    return np.asarray(raw * (use.sum() / (use.sum() + prior)), dtype=np.float64)


def _table(shifts: Floats) -> tuple[tuple[float, ...], ...]:
    cut = np.clip(shifts, -LARGEST_SHIFT, LARGEST_SHIFT)
    return tuple(tuple(float(value) for value in row) for row in cut)


def tidy(quantiles: Floats) -> Floats:
    """Quantiles that never cross and are never negative."""
    return np.maximum(np.sort(quantiles, axis=1), 0.0)
