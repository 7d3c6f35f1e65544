"""A logistic regression on the same matrix, as coefficients: steadier than trees where rows are few and rates drift."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from contracts.yaml_file import Strict
from models.calibration import logit
from models.design import DesignSpec

Floats = NDArray[np.float64]
WIDEST = 4.0
DIGITS = 9
# A few dozen coefficients are settled by this many rows.
ENOUGH_ROWS = 20_000


class LinearScore(Strict):
    """Log odds = intercept + sum of coefficient * standardised value; missing counts as the mean.

    `rate_places`: columns of the matrix that are rates and enter as log odds; `places`: columns that enter at all.
    """

    places: tuple[int, ...]
    rate_places: tuple[int, ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float

    def terms(self, matrix: Floats) -> Floats:
        """What each column of `places` adds to the log odds, (n, len(places))."""
        table = _prepared(matrix, self.places, self.rate_places)
        table = np.clip((table - np.asarray(self.centre)) / np.asarray(self.spread), -WIDEST, WIDEST)
        return np.asarray(np.where(np.isnan(table), 0.0, table) * np.asarray(self.coefficients), dtype=np.float64)

    def score(self, matrix: Floats) -> Floats:
        """Log odds, (n,); a row's value does not depend on the rows beside it."""
        table = self.terms(matrix)
        # A matrix product may round one row otherwise than many; adding column by column never does.
        total = np.full(len(table), self.intercept)
        for place in range(table.shape[1]):
            total += table[:, place]
        return total


def _prepared(matrix: Floats, places: tuple[int, ...], rates: tuple[int, ...]) -> Floats:
    table = np.ascontiguousarray(matrix[:, places])
    for position, place in enumerate(places):
        if place in rates:
            table[:, position] = logit(np.clip(np.ascontiguousarray(table[:, position]), 0.01, 0.99))
    return table


def fit_linear(spec: DesignSpec, matrix: Floats, actual: Floats, strength: float = 0.1) -> LinearScore:
    """Ridge logistic regression on the numeric columns.

    Args:
        spec: the matrix's recipe. matrix: (n, p). actual: 1 late, 0 on time, both occurring.
        strength: inverse of the ridge penalty on standardised coefficients.
    """
    from sklearn.linear_model import LogisticRegression

    every = -(-len(matrix) // ENOUGH_ROWS)
    matrix, actual = matrix[::every], actual[::every]
    numeric = [i for i, c in enumerate(spec.columns) if c.how != "category" and np.isfinite(matrix[:, i]).any()]
    rates = tuple(i for i in numeric if "late_rate" in spec.columns[i].name or spec.columns[i].how == "pooled_rate")
    table = _prepared(matrix, tuple(numeric), rates)
    centre, spread = np.nanmean(table, axis=0), np.nanstd(table, axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    standard = np.clip((table - centre) / spread, -WIDEST, WIDEST)
    model = LogisticRegression(C=strength, max_iter=200).fit(np.where(np.isnan(standard), 0.0, standard), actual)
    return LinearScore(
        places=tuple(numeric),
        rate_places=rates,
        centre=_rounded(centre),
        spread=_rounded(spread),
        coefficients=_rounded(model.coef_[0]),
        intercept=_rounded(model.intercept_)[0],
    )


def _rounded(values: Floats) -> tuple[float, ...]:
    """Few enough digits that the order of additions inside a solver does not show."""
    return tuple(float(f"{value:.{DIGITS}g}") for value in values)
