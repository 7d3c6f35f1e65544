"""Probabilities recalibrated by what matured backtest rows say: Platt, isotonic, prior shift. Plain data, pure."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from contracts.yaml_file import Strict

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

METHODS = ("platt", "isotonic", "shift")
SHRINK_ROWS = 2000.0
# A step function of fewer rows follows their noise: on small sets it cost 8 points of AUC.
ISOTONIC_ROWS = 5000
CLIP = 1e-6


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


def learn_shift_of_prior(score: Floats, actual: Floats) -> RiskCalibration:
    """The intercept that makes the mean probability the late share of these rows, shrunk by n / (n + 2000).

    Source: Saerens, Latinne and Decaestecker 2002, with the base rate observed rather than estimated.
    """
    intercept = 0.0
    for _ in range(25):
        p = sigmoid(score + intercept)
        move = float((actual - p).sum() / max(float((p * (1 - p)).sum()), 1e-9))
        intercept += float(np.clip(move, -1, 1))
        if abs(move) < 1e-8:
            break
    return RiskCalibration(method="platt", intercept=len(score) / (len(score) + SHRINK_ROWS) * intercept)


def learn(method: str, score: Floats, actual: Floats, number: Ints) -> RiskCalibration:
    """The calibration of a method on these rows.

    Args:
        method: one of METHODS, or identity. score: log odds, (n,). actual: 1 late, 0 on time, (n,).
        number: of each row's origin: a shift of the prior is learnt on the newest alone.

    Returns:
        identity for isotonic with fewer than 5,000 rows.
    """
    if method == "platt":
        return learn_platt(score, actual)
    if method == "isotonic" and len(score) >= ISOTONIC_ROWS:
        return learn_isotonic(score, actual)
    if method == "shift":
        newest = number == number.max()
        return learn_shift_of_prior(score[newest], actual[newest])
    return RiskCalibration()
