"""Corrections learnt on matured backtest rows: shifted quantiles, recalibrated probabilities. Plain data, pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from contracts.yaml_file import Strict

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LARGEST_SHIFT = 0.5
SHRINK_ROWS = 2000.0
CLIP = 1e-6


def thirds(horizon: int) -> tuple[int, ...]:
    """Last step of each third of a horizon: 14 -> (5, 10, 14); fewer parts when the horizon is shorter than three."""
    parts = np.array_split(np.arange(1, horizon + 1), min(3, horizon))
    return tuple(int(part[-1]) for part in parts)


def third_of(step: Ints, ends: Sequence[int]) -> Ints:
    """Which third each step lies in, from 0; steps beyond the last end belong to the last."""
    return np.minimum(np.searchsorted(np.asarray(ends), step), len(ends) - 1)


class QuantileShift(Strict):
    """Asymmetric shifts of quantiles, in units of each row's own interval width, by horizon third and level.

    Source: conformalised quantile regression (Romano et al. 2019), scaled by local width, without its sample guarantee
    because days are not exchangeable.
    """

    ends: tuple[int, ...]
    shifts: tuple[tuple[float, ...], ...]

    def apply(self, quantiles: Floats, step: Ints) -> Floats:
        """Quantiles (n, q) in units, shifted; may cross or be negative until they are sorted and clipped."""
        width = quantiles[:, -1:] - quantiles[:, :1]
        table = np.asarray(self.shifts)
        return np.asarray(quantiles + width * table[third_of(step, self.ends)], dtype=np.float64)


def learn_shift(actual: Floats, quantiles: Floats, step: Ints, levels: Sequence[float], horizon: int) -> QuantileShift:
    """The shift that gives each quantile its nominal share on these rows, at most half a width.

    Args:
        actual: units, (n,). quantiles: units, (n, q), rising in a row. step: 1..horizon, (n,). levels: q levels.
        horizon: steps.
    """
    ends = thirds(horizon)
    width = quantiles[:, -1] - quantiles[:, 0]
    part = third_of(step, ends)
    shifts = []
    for number in range(len(ends)):
        use = (part == number) & (width > 0)
        if not use.any():
            shifts.append(tuple(0.0 for _ in levels))
            continue
        misses = (actual[use, None] - quantiles[use]) / width[use, None]
        raw = [float(np.quantile(misses[:, i], level)) for i, level in enumerate(levels)]
        shrink = use.sum() / (use.sum() + 200.0)
        shifts.append(tuple(float(np.clip(value * shrink, -LARGEST_SHIFT, LARGEST_SHIFT)) for value in raw))
    return QuantileShift(ends=ends, shifts=tuple(shifts))


def tidy(quantiles: Floats) -> Floats:
    """Quantiles that never cross and are never negative."""
    return np.maximum(np.sort(quantiles, axis=1), 0.0)


def logit(probability: Floats) -> Floats:
    """log(p / (1 - p)), p kept 1e-6 away from certainty."""
    p = np.clip(probability, CLIP, 1.0 - CLIP)
    return np.asarray(np.log(p / (1.0 - p)), dtype=np.float64)


def sigmoid(score: Floats) -> Floats:
    """1 / (1 + exp(-score)) kept 1e-6 away from certainty."""
    return np.asarray(np.clip(1.0 / (1.0 + np.exp(-np.clip(score, -30, 30))), CLIP, 1.0 - CLIP), dtype=np.float64)


class RiskCalibration(Strict):
    """A map from scores (log odds) to probabilities, drawn to identity where rows were few.

    identity; platt: slope * score + intercept, slope >= 0; isotonic: `share` of the step function through (x, y),
    linear between its points, and the rest identity.
    """

    method: Literal["identity", "platt", "isotonic"] = "identity"
    slope: float = 1.0
    intercept: float = 0.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()
    share: float = 0.0

    def apply(self, score: Floats) -> Floats:
        """Probabilities in (0, 1) of scores, (n,); rising with the score."""
        if self.method == "platt":
            return sigmoid(self.slope * score + self.intercept)
        p = sigmoid(score)
        if self.method == "isotonic":
            mapped = np.interp(p, np.asarray(self.x), np.asarray(self.y))
            return np.asarray(np.clip((1.0 - self.share) * p + self.share * mapped, CLIP, 1.0 - CLIP), dtype=np.float64)
        return p


def learn_platt(score: Floats, actual: Floats) -> RiskCalibration:
    """Slope and intercept by maximum likelihood (Newton), slope not negative, shrunk to (1, 0) by n / (n + 2000)."""
    slope, intercept = 1.0, 0.0
    for _ in range(25):
        p = sigmoid(slope * score + intercept)
        w = np.maximum(p * (1 - p), 1e-9)
        gradient = np.array([((actual - p) * score).sum(), (actual - p).sum()])
        hessian = np.array([[(w * score * score).sum(), (w * score).sum()], [(w * score).sum(), w.sum()]])
        move = np.linalg.solve(hessian + 1e-6 * np.eye(2), gradient)
        slope, intercept = slope + float(np.clip(move[0], -1, 1)), intercept + float(np.clip(move[1], -1, 1))
        if float(np.abs(move).max()) < 1e-8:
            break
    share = len(score) / (len(score) + SHRINK_ROWS)
    slope = max(slope, 0.0)
    return RiskCalibration(method="platt", slope=1 + share * (slope - 1), intercept=share * intercept)


def learn_isotonic(score: Floats, actual: Floats) -> RiskCalibration:
    """Step function of least squares that rises with the score (pool adjacent violators), shrunk by n / (n + 2000).

    Source: Barlow et al. 1972.
    """
    p = sigmoid(score)
    x, place = np.unique(p, return_inverse=True)
    weight = np.bincount(place).astype(np.float64)
    value = np.bincount(place, weights=actual) / weight
    blocks: list[list[float]] = []
    for position, (w, v) in enumerate(zip(weight, value, strict=True)):
        blocks.append([v, w, position, position])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            last, before = blocks.pop(), blocks.pop()
            total = last[1] + before[1]
            blocks.append([(last[0] * last[1] + before[0] * before[1]) / total, total, before[2], last[3]])
    points = [(float(x[int(b[i])]), float(b[0])) for b in blocks for i in (2, 3)]
    kept = dict(points)
    share = len(score) / (len(score) + SHRINK_ROWS)
    return RiskCalibration(method="isotonic", x=tuple(kept), y=tuple(kept.values()), share=share)
