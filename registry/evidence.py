"""Statistics behind verdicts: a sequential test that may be looked at all the time, and a bootstrap by days."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.rollout import Outcome

Floats = NDArray[np.float64]
_BET_CAP = 0.5
_ADAPTIVE_BET_CAP = 0.75
_SPREADS = 3.0
_BURN_IN = 5
_HALVINGS = 24
_PRIOR_VARIANCE = 0.1
_E_CAP = 700.0


@dataclass(frozen=True)
class SequentialResult:
    """What paired losses say so far of challenger minus champion (negative: the challenger is better).

    `n`: pairs used; `mean_difference`, `lower`, `upper`: mean of the differences in units of the loss and its
    confidence sequence; `e_better`: evidence as of the last pair that the challenger is not worse by the margin;
    `e_worse`: the largest evidence at any pair that it is worse by more than the margin. Both are e-values: 1 is
    nothing, 20 has at most one chance in twenty where it is untrue.
    """

    outcome: Outcome
    n: int
    mean_difference: float
    lower: float
    upper: float
    e_better: float
    e_worse: float


def sequential_test(
    challenger: Sequence[float],
    champion: Sequence[float],
    *,
    bound: float,
    alpha: float,
    margin: float,
    adaptive: bool = False,
) -> SequentialResult:
    """Is the challenger's mean loss within (1 + margin) times the champion's? Valid at every look.

    Two test martingales bet on z = challenger - (1 + margin) * champion, losses winsorised at `bound`. One grows when
    z is below 0 on average (not worse by the margin: non-inferior), the other when it is above (worse by more than the
    margin). The bet on each pair is fixed from the pairs before it (Kelly's bet from running mean and variance,
    capped at a half), so under its null each martingale starts at 1 and does not grow on average, and Ville's
    inequality bounds the chance that it **ever** reaches 1 / alpha by alpha: no price for looking often.

    pass: e_better >= 1 / alpha now, and e_worse never. fail: e_worse >= 1 / alpha at any pair. Else inconclusive.
    The promise supposes that, given the pairs before, a pair's mean obeys the null; pairs that share most of their
    outcome (overlapping horizons of one series) should be averaged into one before.

    Args:
        challenger, champion: losses >= 0 of the same subjects, in order of maturity. A challenger's loss that is not
            finite counts as `bound`; a pair whose champion loss is not finite is left out.
        bound: losses above it count as it; > 0, in units of the loss.
        alpha: error rate of each wrong verdict, in (0, 1).
        margin: relative, >= 0; 0.02 tolerates 2% more loss.
        adaptive: winsorise each difference at three times the spread of those before it (after the first five), not
            only at the bound. Bets are then on the scale of what is seen, and a verdict needs tens of blocks instead of
            thousands of pairs; what is tested is the mean of the winsorised differences. For means over blocks, which
            are near symmetric; single pairs of a rare outcome are not, and stay at the bound.

    Returns:
        the outcome with its figures; without pairs inconclusive, NaN and e-values of 1.

    Raises:
        ValueError: sequences of different length, or a bound that is not positive.

    Source: Waudby-Smith and Ramdas (2024), "Estimating means of bounded random variables by betting", JRSS-B 86:
        section 4 (betting martingales, predictable plug-in bets), theorem 2 (the confidence sequence).
    """
    first, second = _usable(challenger, champion, bound)
    if not len(first):
        return SequentialResult(Outcome.INCONCLUSIVE, 0, math.nan, math.nan, math.nan, 1.0, 1.0)
    excess = first - (1 + margin) * second
    limit = (1 + margin) * bound
    scale = _scales(excess, limit) if adaptive else np.full(len(excess), limit)
    cap = _ADAPTIVE_BET_CAP if adaptive else _BET_CAP
    gains = np.clip(excess / scale, -1.0, 1.0)
    better, worse = _log_wealth(-gains, cap), _log_wealth(gains, cap)
    needed = -math.log(alpha)
    outcome = Outcome.INCONCLUSIVE
    if float(worse.max()) >= needed:
        outcome = Outcome.FAIL
    elif float(better[-1]) >= needed:
        outcome = Outcome.PASS
    sequence = _adaptive_confidence_sequence if adaptive else _confidence_sequence
    mean, lower, upper = sequence(first - second, bound, alpha)
    e_better, e_worse = (math.exp(min(float(x), _E_CAP)) for x in (better[-1], max(0.0, float(worse.max()))))
    return SequentialResult(outcome, len(first), mean, lower, upper, e_better, e_worse)


def _usable(challenger: Sequence[float], champion: Sequence[float], bound: float) -> tuple[Floats, Floats]:
    """Both losses winsorised, without pairs whose champion loss is unknown."""
    first, second = np.asarray(challenger, dtype=np.float64), np.asarray(champion, dtype=np.float64)
    if first.shape != second.shape or not bound > 0:
        raise ValueError("as many challenger losses as champion losses, and a positive bound")
    usable = np.isfinite(second)
    first, second = first[usable], np.clip(second[usable], 0.0, bound)
    return np.clip(np.where(np.isfinite(first), first, bound), 0.0, bound), second


def block_means(
    challenger: Sequence[float], champion: Sequence[float], blocks: Sequence[object]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Pairs averaged within each block (a day, a cutoff), in order of the blocks' first pair.

    For pairs that share a shock: one by one they look like more evidence than they are.

    Returns:
        challenger's and champion's mean losses, one a block; NaN where a block holds one.
    """
    places = {block: place for place, block in enumerate(dict.fromkeys(blocks))}
    where = np.array([places[block] for block in blocks], dtype=np.int64)
    counts = np.bincount(where, minlength=len(places))
    first, second = (
        np.bincount(where, weights=np.asarray(losses, dtype=np.float64), minlength=len(places)) / counts
        for losses in (challenger, champion)
    )
    return tuple(first.tolist()), tuple(second.tolist())


def _scales(differences: Floats, limit: float) -> Floats:
    """At what each difference is winsorised: three spreads of those before it, at most `limit`; fixed before it."""
    seen = np.arange(1, len(differences) + 1)
    mean = np.cumsum(differences) / seen
    variance = np.maximum(np.cumsum(differences**2) / seen - mean**2, 0.0)
    before = np.concatenate(([math.inf], _SPREADS * np.sqrt(variance[:-1])))
    before[:_BURN_IN] = math.inf
    return np.asarray(np.clip(before, 1e-9 * limit, limit), dtype=np.float64)


def _adaptive_confidence_sequence(differences: Floats, bound: float, alpha: float) -> tuple[float, float, float]:
    """Mean of winsorised differences with the ends of what neither of two betting martingales has refuted so far."""
    mean, scale, needed = float(differences.mean()), _scales(differences, bound), math.log(2 / alpha)

    def refuted(value: float) -> bool:
        gains = np.clip((differences - value) / scale, -1.0, 1.0)
        return max(float(_log_wealth(side, _ADAPTIVE_BET_CAP).max()) for side in (gains, -gains)) >= needed

    def end(far: float) -> float:
        near = mean
        if not refuted(far):
            return far
        for _ in range(_HALVINGS):
            middle = (near + far) / 2
            near, far = (near, middle) if refuted(middle) else (middle, far)
        return near

    return mean, end(-bound), end(bound)


def _log_wealth(gains: Floats, cap: float) -> Floats:
    """Log wealth after each gain in [-1, 1] of one who bets that they are positive on average."""
    seen = np.arange(1, len(gains) + 1)
    mean = np.concatenate(([0.0], np.cumsum(gains)[:-1])) / seen
    spread = np.concatenate(([0.0], np.cumsum((gains - mean) ** 2)[:-1]))
    variance = (_PRIOR_VARIANCE + spread) / seen
    bets = np.clip(mean / (variance + mean**2), 0.0, cap)
    return np.asarray(np.cumsum(np.log1p(bets * gains)), dtype=np.float64)


def _confidence_sequence(differences: Floats, bound: float, alpha: float) -> tuple[float, float, float]:
    """Mean of differences in [-bound, bound] with its predictable plug-in empirical-Bernstein confidence sequence."""
    x = (differences / bound + 1) / 2
    seen = np.arange(1, len(x) + 1)
    running = (0.5 + np.cumsum(x)) / (seen + 1)
    before = np.concatenate(([0.5], running[:-1]))
    variance = (0.25 + np.cumsum((x - running) ** 2)) / (seen + 1)
    variance_before = np.concatenate(([0.25], variance[:-1]))
    needed = math.log(2 / alpha)
    weights = np.minimum(np.sqrt(2 * needed / (variance_before * seen * np.log1p(seen))), _BET_CAP)
    cost = (x - before) ** 2 * (-np.log1p(-weights) - weights)
    centre = float((weights * x).sum() / weights.sum())
    radius = float((needed + cost.sum()) / weights.sum())
    low, high = max(0.0, centre - radius), min(1.0, centre + radius)
    return float(differences.mean()), (2 * low - 1) * bound, (2 * high - 1) * bound


def rate_evidence(bad: int, total: int, limit: float) -> float:
    """Evidence that the rate behind `bad` of `total` is above `limit`; an e-value, valid at every look.

    A mixture of likelihood ratios of rates above the limit against the limit itself: whatever the true rate up to the
    limit, it reaches 1 / alpha at any time with chance at most alpha.

    Args:
        bad, total: counts, 0 <= bad <= total.
        limit: a share in [0, 1].

    Returns:
        the e-value, > 0; 1 without decisions.

    Source: Ville's inequality for a mixture likelihood ratio (Robbins 1970, Annals of Mathematical Statistics 41).
    """
    if total == 0 or limit >= 1:
        return 1.0
    floor = max(limit, 1e-9)
    rates = floor + (1 - floor) * np.array([0.01, 0.03, 0.1, 0.25, 0.5, 0.75])
    logs = bad * np.log(rates / floor) + (total - bad) * np.log((1 - rates) / (1 - floor))
    top = float(logs.max())
    return math.exp(min(top + math.log(float(np.exp(logs - top).mean())), _E_CAP))


@dataclass(frozen=True)
class Improvement:
    """Relative improvement over a rival (0.02 = 2% less loss, negative = worse) with one-sided bounds."""

    estimate: float
    lower: float
    upper: float
    blocks: int


def relative_improvement(candidate: float, rival: float, *, root: bool) -> float:
    """1 - candidate / rival of two mean losses, of their square roots when `root`; NaN when the rival has no loss.

    >>> relative_improvement(0.9, 1.0, root=False)
    0.09999999999999998
    """
    if not (math.isfinite(candidate) and math.isfinite(rival)) or candidate < 0 or rival <= 0:
        return math.nan
    ratio = candidate / rival
    return 1 - (math.sqrt(ratio) if root else ratio)


def block_bootstrap(
    candidate: Floats,
    rival: Floats,
    days: NDArray[np.int64],
    *,
    confidence: float,
    root: bool,
    seed: int,
    draws: int = 2000,
) -> Improvement:
    """Relative improvement of mean loss with lower and upper confidence bounds by a moving-block bootstrap of days.

    Rows of a day go together, and neighbouring days too (circular blocks of the cube root of the number of days), so
    what all rows of a day share does not make the bounds too narrow.

    Args:
        candidate, rival: finite losses >= 0 of the same rows, shape (n,).
        days: the day of each row as an integer, shape (n,).
        confidence: of each bound by itself, like 0.95.
        root: compare square roots of mean losses (RMSSE) in place of mean losses.
        seed: of the draws; the same input gives the same bounds.

    Returns:
        the improvement; bounds are NaN with fewer than three days.

    Source: Künsch (1989), Politis and Romano (1992, circular blocks), percentile bounds.
    """
    _, place = np.unique(days, return_inverse=True)
    size = int(place.max()) + 1 if len(place) else 0
    mine, theirs = (np.bincount(place, weights=x, minlength=size) for x in (candidate, rival))
    total, rival_total = float(mine.sum()), float(theirs.sum())
    estimate = relative_improvement(total, rival_total, root=root)
    if size < 3 or math.isnan(estimate):
        return Improvement(estimate, math.nan, math.nan, size)
    length = max(1, round(size ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(0, size, size=(draws, math.ceil(size / length)))
    picked = ((starts[:, :, None] + np.arange(length)) % size).reshape(draws, -1)[:, :size]
    sums, rival_sums = mine[picked].sum(axis=1), theirs[picked].sum(axis=1)
    ratios = sums / np.maximum(rival_sums, np.finfo(np.float64).tiny)
    drawn = 1 - (np.sqrt(ratios) if root else ratios)
    lower, upper = np.quantile(drawn, [1 - confidence, confidence])
    return Improvement(estimate, float(lower), float(upper), size)
