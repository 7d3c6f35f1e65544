"""What a candidate would have answered at each rolling origin, with corrections learnt only from earlier origins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.declarations import Declarations
from contracts.policy import Policy
from models import boosters, metrics
from models.calibration import QuantileShift, learn_shift, tidy
from models.combine import Blend, choose_blend
from models.design import DesignSpec, FrameColumns, design_spec
from models.folds import Fold, capped, folds
from models.forecaster import Corrections, ForecastModel, fit_forecast
from models.kept_fits import Keep, fit_now
from models.members import member_values, row_segments, window_of
from models.risk import RiskModel, fit_risk
from models.segments import segment_rule

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Progress = Callable[[str, float], None]
Fit = Callable[[], ForecastModel | RiskModel]
# A correction has to win by this much, so that it is not noise that is adopted.
WORTH = 0.002


@dataclass(frozen=True)
class ForecastBacktest:
    """Forecasts of all scored rows, in order of `fold` number.

    `mean` (n,), `quantiles` (n, q), in units; `corrections`: those that won, for the final model.
    """

    rows: pd.DataFrame
    fold: Ints
    origins: tuple[datetime, ...]
    mean: Floats
    quantiles: Floats
    corrections: Corrections


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


def fold_models(
    policy: Policy,
    rows: pd.DataFrame,
    declarations: Declarations,
    plan: Sequence[Fold],
    params: dict[str, Any] | None,
    progress: Progress | None,
    keep: Keep = fit_now,
) -> list[ForecastModel | RiskModel]:
    """One model an origin, each fitted on what was known at it; `keep` may know it from an interrupted run.

    With SEATRIAL_WORKERS the fits run in so many processes; the models are the same to the last bit.
    """
    fits = {
        f"fold-{number + 1}-{fold.origin:%Y-%m-%d}": partial(fold_model, policy, rows, declarations, fold, params)
        for number, fold in enumerate(plan)
    }
    models = []
    with _begun({name: fit for name, fit in fits.items() if not keep.has(name)}) as begun:
        for number, (name, fit) in enumerate(fits.items()):
            if progress:
                progress(f"backtest from {plan[number].origin:%Y-%m-%d}", number / (len(plan) + 1))
            models.append(keep(name, begun.get(name, fit)))
    return models


@contextmanager
def _begun(fits: Mapping[str, Fit]) -> Iterator[dict[str, Fit]]:
    """The fits as they are being made by worker processes; none where one process does it all."""
    many = min(boosters.workers(), len(fits))
    if many < 2:
        yield {}
        return
    with ProcessPoolExecutor(many, get_context("spawn"), initializer=boosters.alone) as pool:
        yield {name: pool.submit(fit).result for name, fit in fits.items()}


def backtest_forecast(
    policy: Policy,
    rows: pd.DataFrame,
    declarations: Declarations,
    now: datetime,
    params: dict[str, Any] | None = None,
    progress: Progress | None = None,
    keep: Keep = fit_now,
) -> ForecastBacktest:
    """Forecasts at every rolling origin; the shift applied to an origin comes from the origins before it.

    Raises:
        NotEnoughData: no origin has enough rows.
    """
    plan = policy_folds(policy, rows, now)
    models = fold_models(policy, rows, declarations, plan, params, progress, keep)
    scored = rows.iloc[np.concatenate([fold.score for fold in plan])]
    number = np.concatenate([np.full(len(fold.score), k) for k, fold in enumerate(plan)])
    fitted = [m for m in models if isinstance(m, ForecastModel)]
    views = [FrameColumns(rows.iloc[fold.score]) for fold in plan]
    answers = [m.raw(view) for m, view in zip(fitted, views, strict=True)]
    raw = Raw(
        actual=scored["label"].to_numpy(dtype=np.float64),
        step=scored["step"].to_numpy(dtype=np.int64),
        fold=number,
        mean=np.concatenate([answer[0] for answer in answers]),
        quantiles=np.concatenate([answer[1] for answer in answers]),
    )
    rule = segment_rule(_levels(fitted[-1].spec, FrameColumns(rows.iloc[plan[-1].train])))
    segment = np.concatenate([row_segments(m.spec, rule, v) for m, v in zip(fitted, views, strict=True)])
    members = _joined([member_values(m.spec, v) for m, v in zip(fitted, views, strict=True)])
    unit = _unit(fitted[-1].spec.history, FrameColumns(scored))
    mean, blend = choose_shares(raw, members, unit, segment)
    quantiles, shift = choose_shift(policy, raw, segment)
    corrections = Corrections(rule=rule, blend=blend, shift=shift)
    return ForecastBacktest(scored, number, tuple(f.origin for f in plan), mean, quantiles, corrections)


@dataclass(frozen=True)
class Raw:
    """Scored rows of all folds as the boosters answered them; (n,) and (n, q)."""

    actual: Floats
    step: Ints
    fold: Ints
    mean: Floats
    quantiles: Floats


def _levels(spec: DesignSpec, columns: FrameColumns) -> Floats:
    return np.asarray(columns[f"{spec.history}__mean_{window_of(spec)}"], dtype=np.float64)


def _unit(history: str, columns: FrameColumns) -> Floats:
    naive, scale = (np.asarray(columns[f"{history}__{name}"], dtype=np.float64) for name in ("naive_rmse", "scale"))
    return np.maximum(metrics.error_unit(naive, scale), metrics.SMALLEST_SCALE)


def _joined(parts: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def choose_shares(raw: Raw, members: Mapping[str, Floats], unit: Floats, segment: Any) -> tuple[Floats, Blend]:
    """The mean of all scored rows and the blend for the final model.

    Rows of an origin are blended with shares that were chosen on the origins before it, those of the first with none;
    the final model takes shares only if that lowered the loss of the later origins.
    """
    known = np.isfinite(raw.actual) & np.isfinite(raw.mean)

    def chosen(rows: Any) -> Blend:
        given = {name: values[rows] for name, values in members.items()}
        return choose_blend(raw.actual[rows], raw.mean[rows], given, unit[rows], segment[rows])

    mean = raw.mean.copy()
    for k in range(1, int(raw.fold.max()) + 1):
        earlier, here = known & (raw.fold < k), raw.fold == k
        if earlier.any():
            blended = chosen(earlier).apply(raw.mean[here], {n: v[here] for n, v in members.items()}, segment[here])
            mean[here] = np.maximum(blended, 0.0)
    later = known & (raw.fold > 0)
    if not later.any():
        return raw.mean, Blend()
    before, after = (metrics.rmsse(raw.actual[later], value[later], unit[later]) for value in (raw.mean, mean))
    return (mean, chosen(known)) if after < before * (1 - WORTH) else (raw.mean, Blend())


def choose_shift(policy: Policy, raw: Raw, segment: Any) -> tuple[Floats, QuantileShift | None]:
    """Quantiles of all scored rows and the shift for the final model: raw and None unless it won on later origins."""
    levels, horizon = policy.training.quantiles, int(policy.horizon or 1)
    known = np.isfinite(raw.actual) & np.isfinite(raw.quantiles).all(axis=1)

    def learnt(rows: Any) -> QuantileShift:
        return learn_shift(raw.actual[rows], raw.quantiles[rows], raw.step[rows], levels, horizon, segment[rows])

    shifted = raw.quantiles.copy()
    for k in range(1, int(raw.fold.max()) + 1):
        earlier, here = (raw.fold < k) & known, raw.fold == k
        if earlier.any():
            shifted[here] = tidy(learnt(earlier).apply(raw.quantiles[here], raw.step[here], segment[here]))
    later = (raw.fold > 0) & known
    if not later.any():
        return raw.quantiles, None
    before, after = (metrics.wql(raw.actual[later], table[later], levels) for table in (raw.quantiles, shifted))
    if not after < before * (1 - WORTH):
        return raw.quantiles, None
    return shifted, learnt(known)
