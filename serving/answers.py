"""One rung's try at an answer, from columns: the same for a live decision, its replay and a shadow score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contracts.decisions import Rung, Step
from contracts.declarations import Declarations
from contracts.errors import SeatrialError
from contracts.policy import Policy
from models.forecaster import ForecastModel
from models.incumbent import rate_views, rolling_late_rate, seasonal_naive
from models.risk import RiskModel
from serving.ladder import Attempt

Columns = Mapping[str, np.ndarray[Any, Any]]
Model = ForecastModel | RiskModel


def try_model(rung: Rung, version: str, model: Model, columns: Columns, *, explain: bool = False) -> Attempt:
    """A model version's answer, or why there is none; never raises.

    Args:
        rung: whose try it is.
        version: the model's version.
        model: a loaded ForecastModel or RiskModel.
        columns: of one decision, see `assemble.columns_for`.
        explain: also give a risk's reasons.
    """
    try:
        if isinstance(model, ForecastModel):
            mean, quantiles = model.predict(columns)
            return _forecast(rung, version, mean, quantiles, model.levels, columns)
        probability = model.predict(columns)
        attempt = _risk(rung, version, probability)
        if attempt.failure or not explain:
            return attempt
        reasons = tuple(model.reasons(columns)[0])
        return Attempt(rung=rung, version=version, probability=attempt.probability, reasons=reasons)
    except SeatrialError as error:
        return Attempt(rung=rung, version=version, failure=f"model_failed: {error}")
    except Exception as error:
        # Whatever a model does, the request gets its answer from the next rung; the class name is safe to show.
        return Attempt(rung=rung, version=version, failure=f"model_failed: {type(error).__name__}")


def try_rule(
    name: str, declarations: Declarations, service: str, history: str, levels: Sequence[float], columns: Columns
) -> Attempt:
    """The incumbent rule's answer, or why there is none.

    Args:
        name: seasonal_naive or rolling_late_rate.
        declarations, service: say which views hold the rates.
        history: name of the demand_history view, for a forecast.
        levels: quantile levels, for a forecast.
        columns: of one decision.
    """
    rung = Rung.INCUMBENT
    try:
        if name == "seasonal_naive":
            mean, quantiles = seasonal_naive(columns, history, levels)
            return _forecast(rung, None, mean, quantiles, levels, columns)
        return _risk(rung, None, rolling_late_rate(columns, rate_views(declarations, service)))
    except SeatrialError as error:
        return Attempt(rung=rung, failure=f"rule_failed: {error}")


def levels_of(policy: Policy) -> tuple[float, ...]:
    """Quantile levels that a policy's answers carry; none for a risk."""
    return policy.training.quantiles if policy.kind == "forecast" else ()


def _forecast(
    rung: Rung,
    version: str | None,
    mean: np.ndarray[Any, Any],
    quantiles: np.ndarray[Any, Any],
    levels: Sequence[float],
    columns: Columns,
) -> Attempt:
    if not (np.isfinite(mean).all() and np.isfinite(quantiles).all()):
        return Attempt(rung=rung, version=version, failure="not_finite: a step of the forecast is no finite number")
    names = [repr(float(level)) for level in levels]
    rows = zip(columns["target_date"].tolist(), mean.tolist(), quantiles.tolist(), strict=True)
    steps = tuple(
        Step.model_construct(target_date=date, mean=value, quantiles=dict(zip(names, row, strict=True)))
        for date, value, row in rows
    )
    return Attempt(rung=rung, version=version, steps=steps)


def _risk(rung: Rung, version: str | None, probability: np.ndarray[Any, Any]) -> Attempt:
    value = float(probability[0])
    if not 0.0 <= value <= 1.0:
        return Attempt(rung=rung, version=version, failure="not_finite: the probability is none between 0 and 1")
    return Attempt(rung=rung, version=version, probability=value)
