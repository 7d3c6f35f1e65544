"""The global booster family of a panel: sampled (series, origin, step) rows, one matrix, several objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
SERIES_A_VALUE = 10
YEARLY = frozenset({"month", "week"})


@dataclass(frozen=True)
class Rounds:
    """Trees of the mean's booster, of the median's, and of each other quantile's."""

    mean: int
    median: int
    quantile: int


# How many trees a noisy panel can bear differs by a factor of four, and too many make the mean too low: the number is
# chosen on past origins, among these.
TRIED = {"mean": (50, 100, 150, 200), "median": (50, 100, 150, 200), "quantile": (40, 80, 120)}
MOST_ROUNDS = Rounds(*(max(tried) for tried in TRIED.values()))


@dataclass(frozen=True)
class PanelFit:
    """How a family is fitted: rows and rounds are what it costs; `levels`: quantiles, rising, with the median."""

    levels: tuple[float, ...]
    row_cap: int = 100_000
    quantile_rows: int = 50_000
    rounds: Rounds = Rounds(100, 100, 60)
    seed: int = 7


@dataclass(frozen=True)
class Family:
    """Boosters on series-normalised demand: the mean, the median and the other quantiles."""

    names: tuple[str, ...]
    levels: tuple[float, ...]
    mean: boosters.Booster
    quantiles: tuple[boosters.Booster, ...]
    rows: int
    rounds: Rounds

    def ask(self, columns: Mapping[str, Any]) -> tuple[Floats, Floats]:
        """Mean (n,) and quantiles (n, q) in units, >= 0, quantiles rising, of rows made by PanelColumns."""
        matrix = np.column_stack([columns[name] for name in self.names])
        scale = columns[SCALE]
        rounds = self.rounds
        mean = np.maximum(boosters.ask(self.mean, matrix, rounds=rounds.mean), 0.0) * scale
        trees = [rounds.median if level == 0.5 else rounds.quantile for level in self.levels]
        asked = [boosters.ask(b, matrix, rounds=n) for b, n in zip(self.quantiles, trees, strict=True)]
        return mean, tidy(np.stack(asked, axis=1) * scale[:, None])

    def stages(self, columns: Mapping[str, Any], which: str, rounds: int) -> Floats:
        """Answers of the first `rounds` trees, units: of the `mean`, (n,), or of the `median` or the other `quantile`
        boosters, (n, their levels)."""
        matrix, scale = np.column_stack([columns[name] for name in self.names]), columns[SCALE]
        if which == "mean":
            return np.asarray(np.maximum(boosters.ask(self.mean, matrix, rounds=rounds), 0.0) * scale)
        chosen = [
            b for level, b in zip(self.levels, self.quantiles, strict=True) if (level == 0.5) == (which == "median")
        ]
        table = np.stack([boosters.ask(b, matrix, rounds=rounds) for b in chosen], axis=1)
        return np.asarray(np.maximum(table * scale[:, None], 0.0))

    def cut(self, rounds: Rounds) -> Family:
        """The family as if it had been fitted with so many rounds."""
        return replace(self, rounds=rounds)


def fit_family(columns: PanelColumns, horizon: int, until: int, plan: PanelFit) -> Family:
    """Fit all boosters on targets before place `until`.

    Args:
        columns: of the panel. horizon: steps ahead, each row has one at random. until: targets lie before it.
        plan: rows, rounds, levels and seed.

    Raises:
        NotEnoughData: fewer than 200 rows, none that looks the whole horizon ahead, or none with any demand.
    """
    series, origin, step = sampled(columns, horizon, until, plan)
    found = columns.rows(series, origin, step)
    target = columns.history.at(series, origin + step - 1) / found[SCALE]
    if not target.sum() > 0:
        raise NotEnoughData("forecast training rows with any demand", 1, 0)
    weight = 0.5 ** ((until - origin) / HALF_LIFE[columns.panel.frequency])
    names = _worth_having(found, columns, until)
    matrix = np.column_stack([found[name] for name in names])
    categorical = [name for name in columns.static if name in names]
    data = boosters.dataset(matrix, target, names, categorical, weight)
    mean = boosters.fit(data, boosters.PANEL_MEAN, plan.rounds.mean, plan.seed)
    median = boosters.fit(data, boosters.PANEL_MEDIAN, plan.rounds.median, plan.seed)
    every = -(-len(matrix) // plan.quantile_rows)
    few = (
        data if every == 1 else boosters.dataset(matrix[::every], target[::every], names, categorical, weight[::every])
    )
    quantiles = [
        median
        if level == 0.5
        else boosters.fit(few, boosters.PANEL_QUANTILE | {"alpha": level}, plan.rounds.quantile, plan.seed)
        for level in plan.levels
    ]
    return Family(tuple(names), plan.levels, mean, tuple(quantiles), len(target), plan.rounds)


def sampled(columns: PanelColumns, horizon: int, until: int, plan: PanelFit) -> tuple[Ints, Ints, Ints]:
    """Series, origin and step of training rows: known targets of the recent past, each seen from a random origin.

    Origins fall on every phase of the season: with origins on one weekday, step and weekday would be the same thing.

    Raises:
        NotEnoughData: fewer than 200 rows, or none that looks the whole horizon ahead.
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
    longest = int(step[enough].max())
    if longest < horizon:
        raise NotEnoughData("steps ahead that the panel's past is long enough to learn from", horizon, longest)
    return series[enough], origin[enough], step[enough]


def _worth_having(found: Mapping[str, Any], columns: PanelColumns, until: int) -> list[str]:
    """Columns with a known value, but no attribute that nearly names a series (fewer than ten a value).

    With under two years of targets a time of year is a date in disguise.
    """
    own = len(columns.panel.keys) / SERIES_A_VALUE
    told = {name for name, codes in columns.static.items() if len(np.unique(codes[np.isfinite(codes)])) > own}
    short = until - int(columns.history.begun.min()) < 2 * columns.history.rhythm.year
    names = [name for name in found if name not in told and name != SCALE and np.isfinite(found[name]).any()]
    return [name for name in names if not (short and name in YEARLY)]


def grid(series: int, horizon: int, origins: Sequence[int]) -> tuple[Ints, Ints, Ints]:
    """Rows for every origin, series and step, in that order of nesting."""
    at, which, step = np.meshgrid(
        np.asarray(origins, dtype=np.int64), np.arange(series), np.arange(1, horizon + 1), indexing="ij"
    )
    return which.ravel(), at.ravel(), step.ravel()
