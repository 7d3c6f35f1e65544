"""Statistics behind online verdicts: a sequential test that may be looked at all the time, and evidence on a rate."""

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
_LEFT = 0.01
_GRID, _ROUNDS = 16, 4
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
    The promise supposes that, given the pairs before, a pair's mean obeys the null.

    Args:
        challenger, champion: losses >= 0 of the same subjects, in order of maturity. A challenger's loss that is not
            finite counts as `bound`; a pair whose champion loss is not finite is left out.
        bound: losses above it count as it; > 0, in units of the loss.
        alpha: error rate of each wrong verdict, in (0, 1).
        margin: relative, >= 0; 0.02 tolerates 2% more loss.
        adaptive: bet on the scale of what is seen, three times the spread of the differences before each one (after
            the first five), not on that of the bound: a verdict then needs tens of blocks instead of thousands of
            pairs. What speaks for the bet is winsorised there, which only makes the test more careful; what speaks
            against it counts until 99% of the wealth is lost. One adverse block in fifty, many spreads away, cannot be
            excluded by sixty blocks (docs/verdicts.md). For means over blocks, which are near symmetric; single pairs
            of a rare outcome are not, and stay at the bound.

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
    better, worse = _log_wealth(-excess / scale, cap), _log_wealth(excess / scale, cap)
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
    """Mean of the differences with the ends of what neither of two betting martingales has refuted so far."""
    mean, scale, needed = float(differences.mean()), _scales(differences, bound), math.log(2 / alpha)

    def refuted(values: Floats) -> NDArray[np.bool_]:
        bets = (differences - values[:, None]) / scale
        wealth = _log_wealth(np.concatenate((bets, -bets)), _ADAPTIVE_BET_CAP).max(axis=-1)
        return np.asarray(np.maximum(wealth[: len(values)], wealth[len(values) :]) >= needed)

    def end(far: float) -> float:
        near = mean
        for _ in range(_ROUNDS):
            grid = np.linspace(near, far, _GRID + 1)
            held = np.flatnonzero(~refuted(grid[1:]))
            last = int(held[-1]) + 1 if len(held) else 0
            if last == _GRID:
                return far
            near, far = float(grid[last]), float(grid[last + 1])
        return far

    return mean, end(-bound), end(bound)


def _log_wealth(bets_on: Floats, cap: float) -> Floats:
    """Log wealth after each value of one who bets that they are positive on average; along the last axis.

    A value over 1 counts as 1, and a loss of more than 99% of the wealth as 99%.
    """
    gains = np.minimum(bets_on, 1.0)
    seen = np.arange(1, gains.shape[-1] + 1)
    mean = _before(np.cumsum(gains, axis=-1)) / seen
    variance = (_PRIOR_VARIANCE + _before(np.cumsum((gains - mean) ** 2, axis=-1))) / seen
    stakes = np.clip(mean / (variance + mean**2), 0.0, cap)
    return np.asarray(np.cumsum(np.log(np.maximum(1.0 + stakes * gains, _LEFT)), axis=-1))


def _before(sums: Floats) -> Floats:
    """Running sums as they were before each value."""
    shifted = np.zeros_like(sums)
    shifted[..., 1:] = sums[..., :-1]
    return shifted


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
