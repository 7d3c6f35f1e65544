"""The rules that every model must beat, and that answer when no model can: seasonal naive, rolling late rate.

Pure functions of the columns that models see (`<view>__<column>`, request fields, facts).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from contracts.declarations import Declarations, DemandHistory, OutcomeRates
from contracts.errors import InputInvalid, UnknownName

Floats = NDArray[np.float64]
Columns = Mapping[str, Any]

INCUMBENTS: dict[str, Literal["forecast", "risk"]] = {"seasonal_naive": "forecast", "rolling_late_rate": "risk"}
SEASON = 7
PRIOR_RATE = 0.2
PRIOR_ROWS = 20.0


def check_incumbent(name: str, kind: str) -> None:
    """Pass when `name` is a rule for models of this kind.

    Raises:
        UnknownName: there is no such rule for the kind; names the nearest.
    """
    known = [rule for rule, of_kind in INCUMBENTS.items() if of_kind == kind]
    if name not in known:
        raise UnknownName(f"{kind} incumbent", name, known)


def history_view(declarations: Declarations, service: str) -> str:
    """Name of the service's view of kind demand_history.

    Raises:
        InputInvalid: the service has none, so there is nothing to forecast from.
    """
    for name in _service_views(declarations, service):
        if isinstance(declarations.views[name], DemandHistory):
            return name
    raise InputInvalid(f"service {service}", "a view of kind demand_history", "none")


def rate_views(declarations: Declarations, service: str) -> dict[str, OutcomeRates]:
    """The service's views of kind outcome_rates by name, coarsest first (fewest keys, then order of declaration)."""
    found = {
        n: v for n in _service_views(declarations, service) if isinstance(v := declarations.views[n], OutcomeRates)
    }
    return dict(sorted(found.items(), key=lambda item: len(item[1].keys)))


def _service_views(declarations: Declarations, service: str) -> tuple[str, ...]:
    if service not in declarations.services:
        raise UnknownName("feature service", service, declarations.services)
    return declarations.services[service].views


@cache
def _normal_scores(levels: tuple[float, ...]) -> Floats:
    return np.array([NormalDist().inv_cdf(level) for level in levels])


def floats(columns: Columns, name: str) -> Floats:
    """One column as contiguous float64, None as NaN.

    Raises:
        InputInvalid: the column is not there.
    """
    try:
        value = columns[name]
    except KeyError:
        raise InputInvalid("columns", f"a column {name}", f"{len(list(columns))} others") from None
    return np.ascontiguousarray(value, dtype=np.float64)


def season_lag(step: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which lag is the newest day of the target's weekday that is known at the cutoff.

    Args:
        step: 1 is the day that starts at the cutoff; lag 1 is the day before it.

    Returns:
        lags in 1..7: step 1 -> 7, step 7 -> 1, step 8 -> 7.
    """
    return SEASON - (step - 1) % SEASON


def lag_values(columns: Columns, view: str, step: NDArray[np.int64]) -> list[Floats]:
    """Values of the target's weekday in the last weeks, newest first: one (n,) array for each full week of lags."""
    first = season_lag(step)
    lags = SEASON
    while all(f"{view}__lag_{lag}" in columns for lag in range(lags + 1, lags + SEASON + 1)):
        lags += SEASON
    table = np.stack([floats(columns, f"{view}__lag_{lag}") for lag in range(1, lags + 1)])
    rows = np.arange(len(first))
    return [table[first - 1 + SEASON * week, rows] for week in range(lags // SEASON)]


def seasonal_naive(columns: Columns, history_view: str, levels: Sequence[float]) -> tuple[Floats, Floats]:
    """The last observed value of the same weekday, repeated over the horizon.

    Args:
        columns: `<history_view>__lag_1` .. `lag_7` (and as many more as there are: a value missing last week is taken
            from the week before), `<history_view>__naive_rmse`, `step` (1: the day that starts at the cutoff); n rows.
        history_view: name of the demand_history view.
        levels: q quantile levels, rising.

    Returns:
        mean (n,) and quantiles (n, q), in units, never negative; NaN where no same weekday is known. Quantiles are
        normal around the mean with `naive_rmse` times the square root of the number of seasons ahead.

    Raises:
        InputInvalid: a column is missing.

    Source: equals statsforecast's SeasonalNaive(season_length=7) on complete series; spread as for a seasonal random
        walk (Hyndman and Athanasopoulos, Forecasting, 5.5) with one-day differences as its unit.
    """
    step = floats(columns, "step").astype(np.int64)
    weeks = lag_values(columns, history_view, step)
    mean = weeks[0]
    for older in weeks[1:]:
        mean = np.where(np.isnan(mean), older, mean)
    spread = np.nan_to_num(floats(columns, f"{history_view}__naive_rmse"))
    spread = spread * np.sqrt((step - 1) // SEASON + 1.0)
    quantiles = np.maximum(mean[:, None] + spread[:, None] * _normal_scores(tuple(levels))[None, :], 0.0)
    return np.maximum(mean, 0.0), quantiles


def rolling_late_rate(columns: Columns, rate_views: Mapping[str, OutcomeRates], prior: float = PRIOR_RATE) -> Floats:
    """The late rate of the most specific key in its longest window, drawn to coarser keys where outcomes are few.

    Args:
        columns: for each view `<view>__late_rate_D` and `<view>__n_D` of its longest window D; n rows.
        rate_views: the views, see `rate_views`; any order.
        prior: the rate before anything is known.

    Returns:
        (n,) probability in [0, 1]: from the coarsest view (fewest keys) to the finest p = (n * rate + 20 p) / (n + 20),
        starting at the prior; NaN where no view knows a single outcome.

    Raises:
        InputInvalid: a column is missing, or there is no view.

    Source: partial pooling with a fixed prior weight (empirical Bayes), as buyers keep supplier scores.
    """
    sources = rate_sources(rate_views)
    if not sources:
        raise InputInvalid("rolling_late_rate", "at least one view of kind outcome_rates", "none")
    return pooled_rate(columns, sources, prior)


def rate_sources(views: Mapping[str, OutcomeRates]) -> tuple[tuple[str, str], ...]:
    """(late rate column, count column) of each view's longest window, coarsest keys first."""
    ordered = sorted(views.items(), key=lambda item: len(item[1].keys))
    return tuple((f"{name}__late_rate_{max(v.windows)}", f"{name}__n_{max(v.windows)}") for name, v in ordered)


def pooled_rate(columns: Columns, sources: Sequence[tuple[str, str]], prior: float = PRIOR_RATE) -> Floats:
    """Partial pooling over (rate, count) columns from coarse to fine; see `rolling_late_rate`."""
    rate: Floats | None = None
    known: NDArray[np.bool_] | None = None
    for rate_column, count_column in sources:
        value, count = floats(columns, rate_column), floats(columns, count_column)
        usable = np.isfinite(value) & (count > 0)
        before = np.full(len(value), prior) if rate is None else rate
        weight = np.where(usable, count, 0.0)
        rate = (weight * np.where(usable, value, 0.0) + PRIOR_ROWS * before) / (weight + PRIOR_ROWS)
        known = usable if known is None else known | usable
    if rate is None or known is None:
        raise InputInvalid("pooled_rate", "at least one rate column", "none")
    return np.where(known, rate, np.nan)
