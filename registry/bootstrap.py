"""Bounds on how much less loss a candidate has than a rival: a bootstrap of blocks of days that few days do not fool.

Rows of a day share shocks, and neighbouring days too, so whole blocks of days are drawn. With few blocks the plain
percentile bounds of such a bootstrap are far too narrow (docs/gates.md: at seven days every fifth equal candidate
"wins" where one in twenty was promised). Hence the spread of the draws is widened as for the mean of as many
independent values as there are blocks: Bessel's factor and Student's t in place of the normal quantile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit

Floats = NDArray[np.float64]
DRAWS = 2000
FEWEST_DAYS = 4
FEWEST_BLOCKS = 3.5
_TAIL = 0.95
_LARGEST = 5.0


@dataclass(frozen=True)
class Improvement:
    """Relative improvement over a rival (0.02 = 2% less loss, negative = worse) with one-sided bounds.

    `blocks`: days with rows; `block_days`: days in a block; `spread`: standard error of log(1 - improvement), widened
    for few blocks; `freedom`: degrees of freedom of the bounds' t. Bounds, spread and freedom are NaN where there are
    too few days.
    """

    estimate: float
    lower: float
    upper: float
    blocks: int
    block_days: int = 0
    spread: float = math.nan
    freedom: float = math.nan

    def chance_if(self, limit: float) -> float:
        """Chance of an improvement as low as this or lower where the true one is `limit`; NaN without a spread."""
        if not math.isfinite(self.spread):
            return math.nan
        if limit >= 1:
            return 0.0
        distance = math.log1p(-limit) - math.log1p(-self.estimate)
        if self.spread == 0:
            return 0.5 + 0.5 * float(np.sign(distance))
        return float(stdtr(self.freedom, distance / self.spread))


def relative_improvement(candidate: float, rival: float, *, root: bool) -> float:
    """1 - candidate / rival of two mean losses, of their square roots when `root`; NaN when the rival has no loss.

    >>> relative_improvement(0.9, 1.0, root=False)
    0.09999999999999998
    """
    if not (math.isfinite(candidate) and math.isfinite(rival)) or candidate < 0 or rival <= 0:
        return math.nan
    ratio = candidate / rival
    return 1 - (math.sqrt(ratio) if root else ratio)


def block_length(days: int) -> int:
    """Days in a block: 2.5 times the cube root of the number of days, but at least 3.5 blocks and at least one day.

    >>> [block_length(days) for days in (5, 7, 20, 43, 120)]
    [1, 2, 5, 9, 12]
    """
    return max(1, min(round(2.5 * float(np.cbrt(days))), int(days / FEWEST_BLOCKS)))


def block_bootstrap(
    candidate: Floats,
    rival: Floats,
    days: NDArray[np.int64],
    *,
    confidence: float,
    root: bool,
    seed: int,
    draws: int = DRAWS,
) -> Improvement:
    """Relative improvement of mean loss with lower and upper confidence bounds; see `day_bootstrap`.

    Args:
        candidate, rival: finite losses >= 0 of the same rows, shape (n,).
        days: the day of each row as an integer, shape (n,).
    """
    _, place = np.unique(days, return_inverse=True)
    size = int(place.max()) + 1 if len(place) else 0
    mine, theirs = (np.bincount(place, losses, size).astype(np.float64)[:, None] for losses in (candidate, rival))
    return day_bootstrap(mine, theirs, confidence=confidence, root=root, seed=seed, draws=draws)[0]


def day_bootstrap(
    candidate: Floats, rival: Floats, *, confidence: float, root: bool, seed: int, draws: int = DRAWS
) -> tuple[Improvement, ...]:
    """Relative improvements with one-sided confidence bounds of several groups of rows, from the same draws of days.

    Args:
        candidate, rival: sums of losses by day, in order of time, shape (days, groups).
        confidence: of each bound by itself, like 0.95.
        root: compare square roots of mean losses (RMSSE) in place of mean losses.
        seed: of the draws; the same input gives the same bounds.

    Returns:
        one improvement a group; bounds are NaN with fewer than four days, and where a side has next to no loss.

    Source: circular blocks, Politis and Romano (1992), after Künsch (1989). Widening: the expanded percentile interval
    of Hesterberg (2015, The American Statistician 69) with as many values as there are blocks, never more than one for
    two days, and the longer of the two tails on both sides, as rare large losses show too seldom to be drawn. On the
    scale of log ratios, where better and worse are mirror images. Length of blocks and level: simulated, docs/gates.md.
    """
    size, groups = candidate.shape
    totals, rivals = candidate.sum(axis=0), rival.sum(axis=0)
    estimates = [relative_improvement(float(a), float(b), root=root) for a, b in zip(totals, rivals, strict=True)]
    if size < FEWEST_DAYS:
        return tuple(Improvement(estimate, math.nan, math.nan, size) for estimate in estimates)
    length = block_length(size)
    number = math.ceil(size / length)
    drawn = _log_ratios(candidate, rival, length, number, root=root, seed=seed, draws=draws)
    independent = min(size / length, size / 2)
    freedom = independent - 1
    widening = math.sqrt(number * length / size * independent / freedom) / float(ndtri(_TAIL))
    t = float(stdtrit(freedom, confidence))
    found = []
    low = np.quantile(drawn, 1 - _TAIL, axis=0, method="lower")
    high = np.quantile(drawn, _TAIL, axis=0, method="higher")
    for group in range(groups):
        estimate = estimates[group]
        centre = math.log1p(-estimate) if estimate < 1 else math.nan
        spread = widening * float(max(high[group] - centre, centre - low[group], 0.0))
        if not math.isfinite(spread + centre):
            found.append(Improvement(estimate, math.nan, math.nan, size, length))
            continue
        lower, upper = (-math.expm1(min(centre + side * t * spread, _LARGEST)) for side in (1, -1))
        found.append(Improvement(estimate, lower, upper, size, length, spread, freedom))
    return tuple(found)


def _log_ratios(
    candidate: Floats, rival: Floats, length: int, number: int, *, root: bool, seed: int, draws: int
) -> Floats:
    """log(1 - improvement) of `draws` histories of `number` blocks of `length` days, (draws, groups)."""
    size = len(candidate)
    starts = np.random.default_rng(seed).integers(0, size, size=(draws, number))
    rows = np.arange(draws)[:, None] * size
    counts = np.bincount((starts + rows).ravel(), minlength=draws * size).reshape(draws, size).astype(np.float64)
    sums, rival_sums = (counts @ _block_sums(losses, length) for losses in (candidate, rival))
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(rival_sums > 0, np.log(sums) - np.log(rival_sums), np.inf)
    return np.asarray(logs / 2 if root else logs, dtype=np.float64)


def _block_sums(daily: Floats, length: int) -> Floats:
    """Sums of `length` days from each day on, the first day after the last; shape (days, groups)."""
    wrapped = np.concatenate((daily, daily[: length - 1]))
    return np.asarray(sliding_window_view(wrapped, length, axis=0).sum(axis=-1), dtype=np.float64)
