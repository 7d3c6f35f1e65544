"""Backtests that are made up, for docs/gates.md: days that share shocks, days that depend on days before, long tails.

Two models of the same quality, made independently, so that their true improvement over each other is exactly none;
multiplying one's losses makes it exactly as much better or worse as wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """How much is scored: `runs` backtests of `days` with `rows` a day, in `origins` of equal length.

    `dependence`: correlation of a day's shock, and of a model's drift, with the day before; a drift begins anew at each
    origin, where the model was trained anew.
    """

    runs: int
    days: int
    rows: int
    dependence: float
    origins: int = 1


Losses = Callable[[np.random.Generator, Shape], tuple[Floats, Floats]]


@dataclass(frozen=True)
class World:
    """How losses come about.

    `name`: in the tables; `make`: losses of two equal models, each (runs, days, rows); `root`: whether the metric is
    the root of the mean loss.
    """

    name: str
    make: Losses
    root: bool


def _chained(rng: np.random.Generator, runs: int, days: int, dependence: float) -> Floats:
    fresh = rng.standard_normal((runs, days))
    values = np.empty_like(fresh)
    values[:, 0] = fresh[:, 0]
    for day in range(1, days):
        values[:, day] = dependence * values[:, day - 1] + np.sqrt(1 - dependence**2) * fresh[:, day]
    return values


def shocks(rng: np.random.Generator, shape: Shape) -> Floats:
    """Standard normal values a day, (runs, days, 1)."""
    return _chained(rng, shape.runs, shape.days, shape.dependence)[:, :, None]


def drifts(rng: np.random.Generator, shape: Shape) -> Floats:
    """As shocks, begun anew at each origin."""
    parts = _chained(rng, shape.runs * shape.origins, shape.days // shape.origins, shape.dependence)
    return parts.reshape(shape.runs, shape.days, 1)


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-values)), dtype=np.float64)


def late(base: float) -> Losses:
    """Brier losses of late deliveries: a daily shock for all shipments, and each model off by a drift of its own."""

    def make(rng: np.random.Generator, shape: Shape) -> tuple[Floats, Floats]:
        size = (shape.runs, shape.days, shape.rows)
        level = np.log(base / (1 - base)) + rng.standard_normal(size)
        outcome = rng.random(size) < _sigmoid(level + 0.6 * shocks(rng, shape))

        def losses() -> Floats:
            said = _sigmoid(level + 0.3 * drifts(rng, shape) + 0.5 * rng.standard_normal(size))
            return np.asarray((said - outcome) ** 2, dtype=np.float64)

        return losses(), losses()

    return make


def demand(rng: np.random.Generator, shape: Shape) -> tuple[Floats, Floats]:
    """Squared errors of demand with a long tail (log-normal), a daily shock, and a drift of each forecaster's own."""
    size = (shape.runs, shape.days, shape.rows)
    level = np.exp(0.5 * rng.standard_normal(size))
    actual = level * np.exp(0.3 * shocks(rng, shape) + 0.6 * rng.standard_normal(size))

    def losses() -> Floats:
        forecast = 1.2 * level * np.exp(0.15 * drifts(rng, shape) + 0.25 * rng.standard_normal(size))
        return np.asarray((actual - forecast) ** 2, dtype=np.float64)

    return losses(), losses()


def drift_alone(rng: np.random.Generator, shape: Shape) -> tuple[Floats, Floats]:
    """Losses of so many rows a day that little but the two models' drifts is left in their means: the hardest case."""
    size = (shape.runs, shape.days, 1)
    shared = np.exp(0.5 * shocks(rng, shape))

    def losses() -> Floats:
        return np.asarray(shared * np.exp(0.3 * drifts(rng, shape)) * rng.gamma(20, 0.05, size), dtype=np.float64)

    return losses(), losses()


DRIFT = World("drift alone", drift_alone, root=False)
WORLDS = (
    World("late, one in five", late(0.2), root=False),
    World("late, one in twenty", late(0.05), root=False),
    World("demand, long tail", demand, root=True),
)


def scaled(losses: Floats, improvement: float, *, root: bool) -> Floats:
    """Losses of a model that is better by exactly so much, relative, on the metric (the root of the mean for rmsse)."""
    factor = 1 - improvement
    return losses * (factor**2 if root else factor)


def plain_percentiles(candidate: Floats, rival: Floats, *, root: bool, seed: int, draws: int) -> tuple[Floats, Floats]:
    """95% bounds as version 0.1 had them: percentiles of blocks of the cube root of the days, nothing widened.

    Args:
        candidate, rival: sums of losses by day, (days, groups).

    Returns:
        lower and upper bounds, (groups,).
    """
    size = len(candidate)
    length = max(1, round(size ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(0, size, size=(draws, -(-size // length)))
    picked = ((starts[:, :, None] + np.arange(length)) % size).reshape(draws, -1)[:, :size]
    counts = np.stack([np.bincount(row, minlength=size) for row in picked]).astype(np.float64)
    ratios = (counts @ candidate) / (counts @ rival)
    drawn = 1 - (np.sqrt(ratios) if root else ratios)
    lower, upper = np.quantile(drawn, [0.05, 0.95], axis=0)
    return lower, upper
