"""What a candidate would have answered at each rolling origin, with corrections learnt only from earlier origins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.declarations import Declarations
from contracts.policy import Policy
from models import metrics
from models.calibration import QuantileShift, RiskCalibration, learn_isotonic, learn_platt, learn_shift, tidy
from models.design import DesignSpec, FrameColumns, design_spec
from models.folds import Fold, capped, folds
from models.forecaster import ForecastModel, fit_forecast
from models.risk import DEFAULT_LINEAR_SHARE, RiskModel, blend, fit_risk

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Progress = Callable[[str, float], None]
LINEAR_SHARES = (0.0, 0.25, 0.5, 0.75)
# A correction has to win by this much, so that it is not noise that is adopted.
WORTH = 0.002


@dataclass(frozen=True)
class ForecastBacktest:
    """Forecasts of all scored rows, in order of `fold` number.

    `mean` (n,), `quantiles` (n, q), in units; `shift`: the one that won, None when none did.
    """

    rows: pd.DataFrame
    fold: Ints
    origins: tuple[datetime, ...]
    mean: Floats
    quantiles: Floats
    shift: QuantileShift | None


@dataclass(frozen=True)
class RiskBacktest:
    """Probabilities of all scored rows, (n,), with the regression's weight and the calibration for the final fit."""

    rows: pd.DataFrame
    fold: Ints
    origins: tuple[datetime, ...]
    probability: Floats
    linear_share: float
    calibration: RiskCalibration


def policy_folds(policy: Policy, rows: pd.DataFrame, now: datetime) -> tuple[Fold, ...]:
    """The rolling origins that a policy asks for."""
    plan = policy.training
    return folds(rows, now=now, origins=plan.origins, every=plan.every, history=plan.history, horizon=policy.horizon)


def fit_rows(
    policy: Policy, rows: pd.DataFrame, declarations: Declarations, params: dict[str, Any] | None = None
) -> ForecastModel | RiskModel:
    """A model fitted on exactly these rows (labels known), without corrections."""
    spec: DesignSpec = design_spec(policy.kind, declarations, policy.features, rows)
    columns, label = FrameColumns(rows), rows["label"].to_numpy(dtype=np.float64)
    if policy.kind == "forecast":
        return fit_forecast(spec, columns, label, policy.training, int(policy.horizon or 1), params)
    return fit_risk(spec, columns, label, policy.training, params)


def fold_model(
    policy: Policy, rows: pd.DataFrame, declarations: Declarations, fold: Fold, params: dict[str, Any] | None = None
) -> ForecastModel | RiskModel:
    """The model as it would have been fitted at the fold's origin."""
    plan = policy.training
    return fit_rows(policy, rows.iloc[capped(fold.train, plan.row_cap, plan.seed)], declarations, params)


def _fold_models(
    policy: Policy,
    rows: pd.DataFrame,
    declarations: Declarations,
    plan: Sequence[Fold],
    params: dict[str, Any] | None,
    progress: Progress | None,
) -> list[ForecastModel | RiskModel]:
    models = []
    for number, fold in enumerate(plan):
        if progress:
            progress(f"backtest from {fold.origin:%Y-%m-%d}", number / (len(plan) + 1))
        models.append(fold_model(policy, rows, declarations, fold, params))
    return models


def backtest_forecast(
    policy: Policy,
    rows: pd.DataFrame,
    declarations: Declarations,
    now: datetime,
    params: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> ForecastBacktest:
    """Forecasts at every rolling origin; the shift applied to an origin comes from the origins before it.

    Raises:
        NotEnoughData: no origin has enough rows.
    """
    plan = policy_folds(policy, rows, now)
    models = _fold_models(policy, rows, declarations, plan, params, progress)
    scored = rows.iloc[np.concatenate([fold.score for fold in plan])]
    number = np.concatenate([np.full(len(fold.score), k) for k, fold in enumerate(plan)])
    answers = [m.predict(FrameColumns(rows.iloc[f.score])) for m, f in zip(models, plan, strict=True)]
    mean = np.concatenate([np.asarray(answer[0]) for answer in answers])
    raw = np.concatenate([np.asarray(answer[1]) for answer in answers])
    quantiles, shift = choose_shift(policy, scored, number, raw)
    return ForecastBacktest(scored, number, tuple(f.origin for f in plan), mean, quantiles, shift)


def choose_shift(
    policy: Policy, scored: pd.DataFrame, number: Ints, raw: Floats
) -> tuple[Floats, QuantileShift | None]:
    """Quantiles of all scored rows and the shift for the final model: raw and None unless it won on later origins."""
    levels, horizon = policy.training.quantiles, int(policy.horizon or 1)
    actual, step = scored["label"].to_numpy(dtype=np.float64), scored["step"].to_numpy(dtype=np.int64)
    known = np.isfinite(raw).all(axis=1)
    shifted = raw.copy()
    for k in range(1, int(number.max()) + 1):
        earlier, here = (number < k) & known, number == k
        if earlier.any():
            shift = learn_shift(actual[earlier], raw[earlier], step[earlier], levels, horizon)
            shifted[here] = tidy(shift.apply(raw[here], step[here]))
    later = (number > 0) & known
    if not later.any():
        return raw, None
    before, after = (metrics.wql(actual[later], table[later], levels) for table in (raw, shifted))
    if not after < before * (1 - WORTH):
        return raw, None
    return shifted, learn_shift(actual[known], raw[known], step[known], levels, horizon)


def backtest_risk(
    policy: Policy,
    rows: pd.DataFrame,
    declarations: Declarations,
    now: datetime,
    params: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> RiskBacktest:
    """Probabilities at every rolling origin; weight and calibration of an origin come from the origins before it.

    Raises:
        NotEnoughData: no origin has enough rows, or only one outcome.
    """
    plan = policy_folds(policy, rows, now)
    models = _fold_models(policy, rows, declarations, plan, params, progress)
    scored = rows.iloc[np.concatenate([fold.score for fold in plan])]
    number = np.concatenate([np.full(len(fold.score), k) for k, fold in enumerate(plan)])
    parts = [m.scores(FrameColumns(rows.iloc[f.score])) for m, f in zip(models, plan, strict=True) if m.kind == "risk"]
    trees, linear = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    actual = scored["label"].to_numpy(dtype=np.float64)
    score = np.empty(len(actual))
    for k in range(int(number.max()) + 1):
        share = choose_share(actual[number < k], trees[number < k], linear[number < k])
        score[number == k] = blend(trees[number == k], linear[number == k], share)
    share = choose_share(actual, trees, linear)
    method, probability = choose_calibration(actual, score, number)
    calibration = _learn(method, blend(trees, linear, share), actual)
    return RiskBacktest(scored, number, tuple(f.origin for f in plan), probability, share, calibration)


def choose_share(actual: Floats, trees: Floats, linear: Floats) -> float:
    """The regression's weight with the least log loss on these rows; the default while there are none."""
    if not len(actual):
        return DEFAULT_LINEAR_SHARE
    identity = RiskCalibration()
    losses = [metrics.log_loss(actual, identity.apply(blend(trees, linear, share))) for share in LINEAR_SHARES]
    return LINEAR_SHARES[int(np.argmin(losses))]


def _learn(method: str, score: Floats, actual: Floats) -> RiskCalibration:
    if method == "platt":
        return learn_platt(score, actual)
    return learn_isotonic(score, actual) if method == "isotonic" else RiskCalibration()


def choose_calibration(actual: Floats, score: Floats, number: Ints) -> tuple[str, Floats]:
    """The method that, learnt on earlier origins, had the least log loss on later ones, and its probabilities.

    Returns:
        identity unless another won clearly; rows of the first origin are never recalibrated.
    """
    identity = RiskCalibration().apply(score)
    later = number > 0
    best, chosen = "identity", identity
    least = metrics.log_loss(actual[later], identity[later]) * (1 - WORTH)
    for method in ("platt", "isotonic"):
        mapped = identity.copy()
        for k in range(1, int(number.max()) + 1):
            earlier, here = number < k, number == k
            mapped[here] = _learn(method, score[earlier], actual[earlier]).apply(score[here])
        loss = metrics.log_loss(actual[later], mapped[later])
        if loss < least:
            best, chosen, least = method, mapped, loss
    return best, chosen
