"""Who answers in `benchmarks.risk`: the toolkit's candidate as `seatrial train` makes it, and its rivals.

All learn from the same rows: decided before the cut, within the policy's history, with a label that was known at the
cut. All answer the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.risk_data import Trainable
from models.backtest import fit_rows
from models.boosters import threads
from models.design import FrameColumns, design_matrix
from models.folds import capped, matured, moment, utc_times
from models.incumbent import pooled_rate, rate_views, rolling_late_rate
from models.risk import RiskModel
from models.risk_backtest import RiskBacktest, backtest_risk

Floats = NDArray[np.float64]
ROUNDS = 100


@dataclass(frozen=True)
class Answered:
    """Probabilities of each contender for the rows of one test period, with what the candidate chose."""

    rows: pd.DataFrame
    answers: dict[str, Floats]
    backtest: RiskBacktest


def answered(yard: Trainable, number: int) -> Answered:
    """Everybody's answers to the decisions of test period `number`, fitted on what was known at its start."""
    start, end = yard.cuts[number], yard.cuts[number + 1]
    rows = yard.rows
    asked = rows[(rows["as_of"] >= start) & (rows["as_of"] < end)]
    past = rows[rows["as_of"] < start]
    model, known, backtest = candidate(yard, past, start)
    base = float(known["label"].mean())
    rule = rolling_late_rate(FrameColumns(asked), rate_views(yard.declarations, yard.policy.features))
    answers = {
        "seatrial": model.predict(FrameColumns(asked)),
        "base rate": np.full(len(asked), base),
        "rule": _filled(rule, base),
    }
    if yard.history.bands is not None:
        answers["band rule"] = _filled(_band_rate(yard, asked), base)
    spec = model.spec
    seen, new = (design_matrix(spec, FrameColumns(part)) for part in (known, asked))
    categorical = [place for place, column in enumerate(spec.columns) if column.how == "category"]
    label = known["label"].to_numpy(dtype=np.float64)
    answers["logistic"] = logistic(seen, label, new, categorical)
    answers["LightGBM, request only"] = _lightgbm(yard, known, asked, yard.facts)
    answers["LightGBM, all columns"] = _lightgbm(yard, known, asked, (*yard.columns, *yard.facts))
    answers["LightGBM, same matrix"] = boosted(seen, label, new, categorical)
    return Answered(asked, answers, backtest)


def candidate(yard: Trainable, past: pd.DataFrame, start: pd.Timestamp) -> tuple[RiskModel, pd.DataFrame, RiskBacktest]:
    """The model that the toolkit's training would ship at a moment, and the rows that it was fitted on."""
    now, plan = start.to_pydatetime(), yard.policy.training
    backtest = backtest_risk(yard.policy, past, yard.declarations, now)
    known = past[matured(past, now)]
    recent = np.flatnonzero(utc_times(known["as_of"]) >= moment(now - plan.history))
    known = known.iloc[capped(recent, plan.row_cap, plan.seed)]
    model = fit_rows(yard.policy, known, yard.declarations)
    assert isinstance(model, RiskModel)
    return model.with_info({}, backtest.weights, backtest.calibration), known, backtest


def _filled(rate: Floats, base: float) -> Floats:
    return np.where(np.isnan(rate), base, rate)


def _band_rate(yard: Trainable, asked: pd.DataFrame) -> Floats:
    """The late rate of the request's band, as known at each decision."""
    name = str(yard.history.bands)
    days = max(rate_views(yard.declarations, yard.policy.features)[name].windows)
    return pooled_rate(FrameColumns(asked), [(f"{name}__late_rate_{days}", f"{name}__n_{days}")])


def _lightgbm(yard: Trainable, known: pd.DataFrame, asked: pd.DataFrame, names: Sequence[str]) -> Floats:
    """LightGBM with its defaults on columns as they come; categories as their codes."""
    seen, new = np.empty((len(known), len(names))), np.empty((len(asked), len(names)))
    for place, name in enumerate(names):
        if name in yard.categories:
            values = pd.Categorical(known[name]).categories
            seen[:, place], new[:, place] = (_codes(part[name], values) for part in (known, asked))
        else:
            seen[:, place], new[:, place] = known[name], asked[name]
    categorical = [place for place, name in enumerate(names) if name in yard.categories]
    return boosted(seen, known["label"].to_numpy(dtype=np.float64), new, categorical)


def _codes(column: pd.Series[Any], values: pd.Index) -> Floats:
    codes = pd.Categorical(column, categories=values).codes.astype(np.float64)
    return np.where(codes < 0, np.nan, codes)


def boosted(seen: Floats, label: Floats, new: Floats, categorical: Sequence[int]) -> Floats:
    """LightGBM's binary classifier with every default of the library."""
    import lightgbm as lgb

    fixed = {"objective": "binary", "verbosity": -1, "seed": 1, "num_threads": threads()}
    data = lgb.Dataset(seen, label, categorical_feature=list(categorical), params=fixed)
    found = lgb.train(fixed, data, num_boost_round=ROUNDS).predict(new, num_threads=threads())
    return np.asarray(found, dtype=np.float64)


def logistic(seen: Floats, label: Floats, new: Floats, categorical: Sequence[int]) -> Floats:
    """Scikit-learn's logistic regression with its defaults: numbers standardised, means for what is missing, one
    indicator a category."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    there = [place for place in range(seen.shape[1]) if np.isfinite(seen[:, place]).any()]
    numbers = [place for place in there if place not in categorical]
    texts = [place for place in there if place in categorical]
    parts = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), numbers),
            ("texts", OneHotEncoder(handle_unknown="ignore", min_frequency=20), texts),
        ]
    )
    model = make_pipeline(parts, LogisticRegression(max_iter=500)).fit(seen, label)
    return np.asarray(model.predict_proba(new)[:, 1], dtype=np.float64)
