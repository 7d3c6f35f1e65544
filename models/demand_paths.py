"""From quantiles of each step to demand over several: fixed paths that keep each step's distribution. Pure.

A path gives each step a rank among `PATHS` equal shares of probability. The ranks are the same for all series and runs
(a Latin hypercube under a Gaussian copula: Iman and Conover 1982), so answers repeat to the bit and the same series
gets the same answer in any batch. Correlation of steps i and j in the copula is correlation ** |i - j|: 0 means steps
that know nothing of each other, 1 means steps that are high or low together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from contracts.errors import InputInvalid, NotEnoughData

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
PATHS = 1024
_SEED = 20_260_101
_FEWEST_RESIDUALS = 30
_MOST_CORRELATED = 0.99
_CHUNK = 256


@dataclass(frozen=True)
class StepDemand:
    """Demand of n series over h steps, each step a distribution.

    Attributes:
        quantiles: units, (n, h, q), >= 0, not falling along the last axis. levels: the q levels, rising, q >= 2.
        mean: units, (n, h), >= 0, or None. It lengthens the upper tail where the quantiles alone would give less.

    Between two levels the distribution is uniform; below the first it goes on with the same slope, not below 0; above
    the last the tail is exponential, with the slope of the last two quantiles or what the mean asks for, if that is
    more. (A series that sells on one day of twenty has quantiles of 0 and a mean above 0.)

    Raises:
        InputInvalid: a shape, a level, or a figure that is negative, falling or not finite; names the field and place.
    """

    quantiles: Floats
    levels: tuple[float, ...]
    mean: Floats | None = None

    def __post_init__(self) -> None:
        table, levels = np.asarray(self.quantiles, dtype=np.float64), np.asarray(self.levels, dtype=np.float64)
        if len(levels) < 2 or not ((levels > 0) & (levels < 1)).all() or not (np.diff(levels) > 0).all():
            raise InputInvalid("quantile levels", "at least 2, rising, between 0 and 1", f"{self.levels}")
        if table.ndim != 3 or table.shape[2] != len(levels) or table.shape[1] == 0:
            raise InputInvalid("quantiles", f"a table (series, steps, {len(levels)})", f"the shape {table.shape}")
        _refuse(~(np.isfinite(table) & (table >= 0)), table, "quantiles", "finite units of at least 0")
        slack = 1e-9 * (1.0 + table[..., :-1])
        _refuse(
            np.diff(table, axis=2) < -slack, table[..., 1:], "quantiles", "quantiles that do not fall with the level"
        )
        object.__setattr__(self, "quantiles", np.maximum.accumulate(table, axis=2))
        if self.mean is not None:
            mean = np.asarray(self.mean, dtype=np.float64)
            if mean.shape != table.shape[:2]:
                raise InputInvalid("mean", f"a table {table.shape[:2]}", f"the shape {mean.shape}")
            _refuse(~(np.isfinite(mean) & (mean >= 0)), mean, "mean", "finite units of at least 0")
            object.__setattr__(self, "mean", mean)

    def lengthened(self, steps: int, season: int) -> StepDemand:
        """At least `steps` steps: the last `season` ones repeat as they are."""
        have = self.quantiles.shape[1]
        if steps <= have:
            return self
        place = np.concatenate([np.arange(have), have - season + np.arange(steps - have) % season])
        return StepDemand(self.quantiles[:, place], self.levels, None if self.mean is None else self.mean[:, place])


def _refuse(bad: NDArray[np.bool_], values: Floats, field: str, wanted: str) -> None:
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputInvalid(f"{field} of series {at[0]}, step {at[1] + 1}", wanted, f"{values[at]:g}")


@dataclass(frozen=True)
class Knots:
    """The distributions of `StepDemand`, ready to be read at any rank.

    Attributes:
        values: units at level 0 and at the q levels, (n, h, q + 1). tail: mean excess above the last level, (n, h).
        levels: the q levels.
    """

    values: Floats
    tail: Floats
    levels: Floats

    def at(self, series: slice, step: int, ranks: Ints) -> Floats:
        """Units of some series at a step, (series, paths); rank r stands for the probability (r + 1/2) / PATHS."""
        below, weight, beyond = _reading(tuple(self.levels.tolist()))
        place, low = below[ranks], self.values[series, step]
        start = low[:, place]
        high = low[:, np.minimum(place + 1, low.shape[1] - 1)]
        return np.asarray(start + weight[ranks] * (high - start) + self.tail[series, step, None] * beyond[ranks])


@lru_cache(maxsize=32)
def _reading(levels: tuple[float, ...]) -> tuple[Ints, Floats, Floats]:
    """For each rank: the knot below it, how far it is to the next, and its place in the upper tail."""
    edges = np.array([0.0, *levels])
    chance = (np.arange(PATHS) + 0.5) / PATHS
    below = np.asarray(np.searchsorted(edges, chance, side="right") - 1, dtype=np.int64)
    above = np.minimum(below + 1, len(levels))
    weight = np.where(
        above > below, (chance - edges[below]) / np.where(above > below, edges[above] - edges[below], 1), 0
    )
    beyond = np.where(below == len(levels), np.log((1.0 - levels[-1]) / (1.0 - chance)), 0.0)
    return below, np.asarray(weight, dtype=np.float64), np.asarray(beyond, dtype=np.float64)


def knots_of(demand: StepDemand) -> Knots:
    """The distributions with their two tails."""
    table, levels = demand.quantiles, np.asarray(demand.levels, dtype=np.float64)
    slope = (table[..., 1] - table[..., 0]) / (levels[1] - levels[0])
    lowest = np.maximum(table[..., 0] - slope * levels[0], 0.0)
    values = np.concatenate([lowest[..., None], table], axis=2)
    tail = (table[..., -1] - table[..., -2]) / np.log((1.0 - levels[-2]) / (1.0 - levels[-1]))
    if demand.mean is not None:
        body = (np.diff(levels, prepend=0.0) * (values[..., 1:] + values[..., :-1]) / 2.0).sum(axis=2)
        tail = np.maximum(tail, (demand.mean - body) / (1.0 - levels[-1]) - table[..., -1])
    return Knots(values, np.asarray(tail), levels)


@lru_cache(maxsize=8)
def path_ranks(steps: int, correlation: float) -> tuple[Ints, ...]:
    """Ranks 0 .. PATHS - 1 of each path: first for its lead time, then for each step; (steps + 1) arrays of (PATHS,).

    The ranks of a step do not depend on how many follow. Normal scores of different steps are made exactly
    uncorrelated before the correlation is put in, so that the spread of a total is right with few paths.
    """
    rng = np.random.default_rng(_SEED)
    scores = normal_scores()[1::2]
    free: list[Floats] = []
    ranks: list[Ints] = []
    felt = scores
    for number in range(steps + 1):
        fresh = scores[rng.permutation(PATHS)]
        for earlier in free if len(free) < PATHS // 4 else []:
            fresh = fresh - (fresh * earlier).sum() / (earlier * earlier).sum() * earlier
        free.append(fresh)
        felt = fresh if number < 2 else correlation * felt + np.sqrt(1.0 - correlation**2) * fresh
        rank = np.empty(PATHS, dtype=np.int64)
        rank[np.argsort(felt, kind="stable")] = np.arange(PATHS)
        rank.setflags(write=False)
        ranks.append(rank)
    return tuple(ranks)


@lru_cache(maxsize=1)
def normal_scores() -> Floats:
    """Normal quantiles at i / (2 PATHS) for i = 0 .. 2 PATHS; the two ends are those of their neighbours."""
    normal = NormalDist()
    inner = [normal.inv_cdf(i / (2 * PATHS)) for i in range(1, 2 * PATHS)]
    return np.array([inner[0], *inner, inner[-1]])


def step_correlation(actual: Floats, demand: StepDemand) -> float:
    """Correlation of steps that explains how far totals missed in a backtest.

    Args:
        actual: units, (m, h), one row a backtested forecast; rows with a NaN are left out. demand: those forecasts.

    Returns:
        the correlation in [0, 0.99] with which the sum of the steps' normal scores varies as it did: a forecast that
        was too low on one day and too low on the next asks for more than 0.

    Raises:
        NotEnoughData: under 30 whole rows. InputInvalid: shapes differ, or there is one step only.
    """
    steps = demand.quantiles.shape[1]
    if actual.shape != demand.quantiles.shape[:2] or steps < 2:
        raise InputInvalid(
            "actual", f"at least two steps and the shape {demand.quantiles.shape[:2]}", f"{actual.shape}"
        )
    whole = np.flatnonzero(np.isfinite(actual).all(axis=1))
    if len(whole) < _FEWEST_RESIDUALS:
        raise NotEnoughData("backtested forecasts with every actual known", _FEWEST_RESIDUALS, len(whole))
    scores = _scores(actual[whole], knots_of(demand), whole)
    scores = scores - scores.mean(axis=0)
    spread = float((scores**2).sum(axis=1).mean())
    ratio = float((scores.sum(axis=1) ** 2).mean()) / spread if spread > 0 else 1.0
    return _solved(ratio, steps)


def _scores(actual: Floats, knots: Knots, rows: Ints) -> Floats:
    """Normal score of each actual in its forecast; in the middle where the forecast has weight on one value."""
    order, table = np.arange(PATHS), normal_scores()
    found = np.empty(actual.shape)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        mine = Knots(knots.values[rows[part]], knots.tail[rows[part]], knots.levels)
        for step in range(actual.shape[1]):
            grid, seen = mine.at(slice(None), step, order), actual[part, step, None]
            found[part, step] = table[(grid < seen).sum(axis=1) + (grid <= seen).sum(axis=1)]
    return found


def _solved(ratio: float, steps: int) -> float:
    """The correlation with which the sum of `steps` scores varies `ratio` times as if they were independent."""
    apart = np.abs(np.subtract.outer(np.arange(steps), np.arange(steps)))
    low, high = 0.0, _MOST_CORRELATED
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if float((middle**apart).sum()) / steps < ratio else (low, middle)
    return round(low, 6)
