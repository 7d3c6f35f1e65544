"""How far a challenger's answers lie from the champion's to the same decisions, and how much of that may be chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drift.psi import DECILES

Floats = NDArray[np.float64]
ROWS_A_BIN = 25
_SMOOTHED = 0.5
_SHARPEST_AT = 100  # decisions at which the bound is tightest


@dataclass(frozen=True)
class PairedShift:
    """`psi`: population stability index of two versions' answers, >= 0; `low`: below which it is not by chance."""

    psi: float
    low: float


def paired_shift(champion: Sequence[float] | Floats, challenger: Sequence[float] | Floats, alpha: float) -> PairedShift:
    """PSI between two versions' answers to the same decisions, over quantile bins of the champion's.

    With tens of decisions a PSI is mostly noise, and looking daily finds the worst of it (docs/verdicts.md has the
    figures), so a failure needs `low` over the limit: the PSI less its own bias from sampling and less a confidence
    sequence's width. The PSI is a smooth function of paired bin counts, so its error is the mean of one influence value
    a decision, which keeps what pairing saves: versions that agree on nearly every decision have nearly no noise.

    Args:
        champion, challenger: finite answers to the same decisions, in the same order; at least one.
        alpha: chance that `low` is ever over the true PSI, however often it is looked at, in (0, 0.5); in the limit of
            many decisions, each taken as independent of the others.

    Returns:
        the figure and its lower bound. Every bin's count is raised by a half, so that an empty one counts as few.

    Source: Siddiqi 2006 (PSI), Yurdakul and Naranjo 2020 (its distribution under no shift: the bias), delta method;
        Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, "Time-uniform central limit theory and asymptotic
        confidence sequences", Annals of Statistics 52 (the width).
    """
    before, after = np.asarray(champion, dtype=np.float64), np.asarray(challenger, dtype=np.float64)
    rows = len(before)
    bins = min(DECILES, max(2, rows // ROWS_A_BIN))
    edges = np.unique(np.quantile(before, np.arange(1, bins) / bins))
    places = [np.searchsorted(edges, values, side="right") for values in (before, after)]
    p, q = (_shares(place, len(edges) + 1) for place in places)
    psi = float(np.sum((p - q) * np.log(p / q)))
    of_p, of_q = np.log(p / q) + 1 - q / p, np.log(q / p) + 1 - p / q
    influence = of_p[places[0]] + of_q[places[1]]
    moved = places[0] != places[1]
    middle = (p + q) / 2
    bias = float(np.sum(moved / middle[places[0]] + moved / middle[places[1]])) / rows**2
    return PairedShift(psi, psi - bias - float(influence.std()) * _width(rows, alpha))


def _shares(places: NDArray[np.int64], bins: int) -> Floats:
    counts = np.bincount(places, minlength=bins) + _SMOOTHED
    return np.asarray(counts / counts.sum(), dtype=np.float64)


def _width(rows: int, alpha: float) -> float:
    """Half the width of a one-sided asymptotic confidence sequence after `rows` values of spread 1."""
    log = -2 * math.log(2 * alpha)
    rho = (log + math.log(log + 1)) / _SHARPEST_AT
    return math.sqrt(2 * (rows * rho + 1) / (rows**2 * rho) * math.log(1 + math.sqrt(rows * rho + 1) / (2 * alpha)))
