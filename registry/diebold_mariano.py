"""The Diebold-Mariano test of equal accuracy: reported beside the gate's bootstrap, which decides."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DieboldMariano:
    """`statistic`: positive when the candidate has less loss; `p_value`: two-sided. NaN where they are not defined."""

    statistic: float
    p_value: float


def diebold_mariano(differences: Floats, *, lags: int) -> DieboldMariano:
    """Is the mean of loss differences zero, when each may depend on the `lags` before it?

    Args:
        differences: rival's loss minus candidate's, one a day (the day's mean), in order of time, shape (n,), finite.
        lags: autocovariances that count, 0 <= lags < n, with Bartlett's weights.

    Returns:
        the statistic with the correction for small samples, against Student's t with n - 1 degrees of freedom; NaN with
        fewer than two days, or when all differences are the same.

    Source: Diebold and Mariano (1995), variance by Newey and West (1987), correction by Harvey, Leybourne and Newbold
    (1997, International Journal of Forecasting 13) with horizon lags + 1.
    """
    size = len(differences)
    if size < 2:
        return DieboldMariano(math.nan, math.nan)
    mean = float(differences.mean())
    centred = differences - mean
    variance = float(centred @ centred) / size
    scale = float(np.abs(differences).max())
    for lag in range(1, min(lags, size - 1) + 1):
        variance += 2 * (1 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag]) / size
    if not variance > (1e-12 * scale) ** 2:
        return DieboldMariano(math.nan, math.nan)
    horizon = lags + 1
    correction = (size + 1 - 2 * horizon + horizon * (horizon - 1) / size) / size
    if correction <= 0:
        return DieboldMariano(math.nan, math.nan)
    statistic = mean / math.sqrt(variance / size) * math.sqrt(correction)
    return DieboldMariano(statistic, 2 * float(stdtr(size - 1, -abs(statistic))))
