"""The global booster family of a panel: sampled (series, origin, step) rows, one matrix, several objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from contracts.errors import NotEnoughData
from models import boosters
from models.calibration import tidy
from models.panel import Floats, Ints
from models.panel_columns import SCALE, PanelColumns

FEWEST_ROWS = 200
# Loss weights of old rows halve in this many periods: what sold last year says less about next month.
HALF_LIFE = {"day": 365.0, "week": 104.0, "month": 18.0}
YEARLY = frozenset({"month", "week"})


@dataclass(frozen=True)
class PanelFit:
    """How a family is fitted: rows and rounds are what it costs; `levels`: quantiles, rising, with the median."""

    levels: tuple[float, ...]
    row_cap: int = 100_000
    quantile_rows: int = 60_000
    rounds: int = 200
    quantile_rounds: int = 150
    seed: int = 7


@dataclass(frozen=True)
class Family:
    """Boosters on series-normalised demand: the mean, the median and the other quantiles."""

    names: tuple[str, ...]
    levels: tuple[float, ...]
    mean: boosters.Booster
    quantiles: tuple[boosters.Booster, ...]
    rows: int

    def ask(self, columns: Mapping[str, Any]) -> tuple[Floats, Floats]:
        """Mean (n,) and quantiles (n, q) in units, >= 0, quantiles rising, of rows made by PanelColumns."""
        matrix = np.column_stack([columns[name] for name in self.names])
        scale = columns[SCALE]
        mean = np.maximum(boosters.ask(self.mean, matrix), 0.0) * scale
        table = np.stack([boosters.ask(b, matrix) for b in self.quantiles], axis=1) * scale[:, None]
        return mean, tidy(table)


def fit_family(columns: PanelColumns, horizon: int, until: int, plan: PanelFit) -> Family:
    """Fit all boosters on targets before place `until`.

    Args:
        columns: of the panel. horizon: steps ahead, each row has one at random. until: targets lie before it.
        plan: rows, rounds, levels and seed.

    Raises:
        NotEnoughData: fewer than 200 rows.
    """
    series, origin, step = sampled(columns, horizon, until, plan)
    found = columns.rows(series, origin, step)
    target = columns.history.at(series, origin + step - 1) / found[SCALE]
    weight = 0.5 ** ((until - origin) / HALF_LIFE[columns.panel.frequency])
    names = _worth_having(found, columns, until)
    matrix = np.column_stack([found[name] for name in names])
    categorical = [name for name in columns.static if name in names]
    data = boosters.dataset(matrix, target, names, categorical, weight)
    mean = boosters.fit(data, boosters.PANEL_MEAN, plan.rounds, plan.seed)
    median = boosters.fit(data, boosters.PANEL_MEDIAN, plan.rounds, plan.seed)
    every = -(-len(matrix) // plan.quantile_rows)
    few = (
        data if every == 1 else boosters.dataset(matrix[::every], target[::every], names, categorical, weight[::every])
    )
    quantiles = [
        median
        if level == 0.5
        else boosters.fit(few, boosters.PANEL_QUANTILE | {"alpha": level}, plan.quantile_rounds, plan.seed)
        for level in plan.levels
    ]
    return Family(tuple(names), plan.levels, mean, tuple(quantiles), len(target))


def sampled(columns: PanelColumns, horizon: int, until: int, plan: PanelFit) -> tuple[Ints, Ints, Ints]:
    """Series, origin and step of training rows: known targets of the recent past, each seen from a random origin.

    Origins fall on every phase of the season: with origins on one weekday, step and weekday would be the same thing.

    Raises:
        NotEnoughData: fewer than 200 rows.
    """
    history = columns.history
    start = max(0, until - history.rhythm.history)
    series, place = np.nonzero(history.known[:, start:until])
    place = place + start
    total = len(series) * horizon
    chosen = np.random.default_rng(plan.seed).choice(total, size=min(plan.row_cap, total), replace=False)
    chosen.sort()
    series, place, step = series[chosen // horizon], place[chosen // horizon], chosen % horizon + 1
    origin = place - step + 1
    enough = origin - history.begun[series] >= min(history.rhythm.season, 7)
    if enough.sum() < FEWEST_ROWS:
        raise NotEnoughData("forecast training rows with a known past", FEWEST_ROWS, int(enough.sum()))
    return series[enough], origin[enough], step[enough]


def _worth_having(found: Mapping[str, Any], columns: PanelColumns, until: int) -> list[str]:
    """Columns with a known value; with under a year of targets a time of year is a date in disguise."""
    short = until - int(columns.history.begun.min()) < 2 * columns.history.rhythm.year
    names = [name for name in found if name != SCALE and np.isfinite(found[name]).any()]
    return [name for name in names if not (short and name in YEARLY)]


def grid(series: int, horizon: int, origins: Sequence[int]) -> tuple[Ints, Ints, Ints]:
    """Rows for every origin, series and step, in that order of nesting."""
    at, which, step = np.meshgrid(np.asarray(origins), np.arange(series), np.arange(1, horizon + 1), indexing="ij")
    return which.ravel(), at.ravel(), step.ravel()
