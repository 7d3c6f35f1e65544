"""A logistic regression on the same matrix, as coefficients: steadier than trees where rows are few and rates drift."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from contracts.yaml_file import Strict
from models.design import DesignSpec
from models.risk_calibration import logit

Floats = NDArray[np.float64]
WIDEST = 4.0
DIGITS = 9
# A few dozen coefficients are settled by this many rows.
ENOUGH_ROWS = 20_000
RATE_HOWS = frozenset({"pooled_rate", "pool_step"})
# Where the last value is next to the first.
CYCLES = {"schedule_hour": 24.0, "schedule_weekday": 7.0, "schedule_month": 12.0, "weekday": 7.0, "month": 12.0}


class LinearScore(Strict):
    """Log odds = intercept + sum of coefficient * standardised value; missing counts as the mean.

    `rate_places`: columns of the matrix that are rates and enter as log odds; `places`: columns that enter at all;
    `cycles`: (column, period) of those that enter as sine and cosine too, after all the others.
    """

    places: tuple[int, ...]
    rate_places: tuple[int, ...]
    cycles: tuple[tuple[int, float], ...] = ()
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float

    @property
    def term_places(self) -> tuple[int, ...]:
        """The matrix column of each term."""
        return (*self.places, *(place for place, _ in self.cycles for _ in range(2)))

    def terms(self, matrix: Floats) -> Floats:
        """What each term adds to the log odds, (n, len(term_places))."""
        table = _prepared(matrix, self.places, self.rate_places, self.cycles)
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


def _prepared(
    matrix: Floats, places: tuple[int, ...], rates: tuple[int, ...], cycles: tuple[tuple[int, float], ...]
) -> Floats:
    table = np.empty((len(matrix), len(places) + 2 * len(cycles)))
    for position, place in enumerate(places):
        values = np.ascontiguousarray(matrix[:, place])
        table[:, position] = logit(np.clip(values, 0.01, 0.99)) if place in rates else values
    for number, (place, period) in enumerate(cycles):
        angle = np.ascontiguousarray(matrix[:, place]) * (2 * np.pi / period)
        table[:, len(places) + 2 * number] = np.sin(angle)
        table[:, len(places) + 2 * number + 1] = np.cos(angle)
    return table


def fit_linear(
    spec: DesignSpec, matrix: Floats, actual: Floats, strength: float = 0.02, signs: Mapping[int, int] | None = None
) -> LinearScore:
    """Ridge logistic regression on the numeric columns.

    Args:
        spec: the matrix's recipe. matrix: (n, p). actual: 1 late, 0 on time, both occurring.
        strength: inverse of the ridge penalty on standardised coefficients.
        signs: matrix position -> 1 or -1: a coefficient that comes out the other way is left out.
    """
    every = -(-len(matrix) // ENOUGH_ROWS)
    matrix, actual = matrix[::every], actual[::every]
    numeric = [i for i, c in enumerate(spec.columns) if c.how != "category" and np.isfinite(matrix[:, i]).any()]
    rates = [i for i in numeric if "late_rate" in spec.columns[i].name or spec.columns[i].how in RATE_HOWS]
    wanted = dict(signs or {})
    cycles = tuple((i, CYCLES[c.name]) for i, c in enumerate(spec.columns) if i in numeric and c.name in CYCLES)
    cycles = tuple((place, period) for place, period in cycles if place not in wanted)
    while True:
        fitted = _fitted(matrix, actual, tuple(numeric), tuple(i for i in rates if i in numeric), cycles, strength)
        against = {i for i, c in zip(fitted.places, fitted.coefficients, strict=False) if c * wanted.get(i, 0) < 0}
        if not against:
            return fitted
        if len(against) == len(numeric):
            return fitted.model_copy(update={"coefficients": (0.0,) * len(fitted.coefficients)})
        numeric = [i for i in numeric if i not in against]


def _fitted(
    matrix: Floats,
    actual: Floats,
    numeric: tuple[int, ...],
    rates: tuple[int, ...],
    cycles: tuple[tuple[int, float], ...],
    strength: float,
) -> LinearScore:
    from sklearn.linear_model import LogisticRegression

    table = _prepared(matrix, numeric, rates, cycles)
    centre, spread = np.nanmean(table, axis=0), np.nanstd(table, axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    standard = np.clip((table - centre) / spread, -WIDEST, WIDEST)
    model = LogisticRegression(C=strength, max_iter=200).fit(np.where(np.isnan(standard), 0.0, standard), actual)
    return LinearScore(
        places=numeric,
        rate_places=rates,
        cycles=cycles,
        centre=_rounded(centre),
        spread=_rounded(spread),
        coefficients=_rounded(model.coef_[0]),
        intercept=_rounded(model.intercept_)[0],
    )


def _rounded(values: Floats) -> tuple[float, ...]:
    """Few enough digits that the order of additions inside a solver does not show."""
    return tuple(float(f"{value:.{DIGITS}g}") for value in values)
