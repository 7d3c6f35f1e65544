"""LightGBM: fitting, reading, writing and asking boosters; the only file here that knows it.

Source: parameters from rolling-origin trials on 8 real demand sets and 3 risk sets; tuning moved losses by 0 to 6%,
near noise, so the defaults are kept fixed and small.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

# Idle OpenMP threads that spin made two threads many times slower than one on a busy machine; read when lightgbm loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Booster: TypeAlias = lgb.Booster

COMMON: dict[str, Any] = {
    "learning_rate": 0.06,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.6,
    "lambda_l2": 1.0,
    "min_data_in_leaf": 40,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
MEAN = COMMON | {"objective": "tweedie", "tweedie_variance_power": 1.3, "num_leaves": 31}
QUANTILE = COMMON | {"objective": "quantile", "num_leaves": 15, "learning_rate": 0.1}
# The panel's forecaster, from trials on eight real demand sets (daily, weekly, monthly).
PANEL = COMMON | {"learning_rate": 0.05, "num_leaves": 63}
PANEL_MEAN = PANEL | {"objective": "tweedie", "tweedie_variance_power": 1.3}
PANEL_MEDIAN = PANEL | {"objective": "quantile", "alpha": 0.5}
PANEL_QUANTILE = PANEL | {"objective": "quantile", "num_leaves": 31, "learning_rate": 0.1, "min_data_in_leaf": 100}
RISK = COMMON | {
    "objective": "binary",
    "num_leaves": 31,
    "min_data_in_leaf": 100,
    "lambda_l2": 10.0,
    "cat_smooth": 50.0,
}
# Quantile boosters learn faster, from fewer leaves: their share of the policy's rounds.
QUANTILE_ROUNDS = 0.5
TUNABLE = ("learning_rate", "num_leaves", "min_data_in_leaf", "feature_fraction", "bagging_fraction", "lambda_l2")
BATCH = 2000
_THREADS = re.compile(r"\[num_threads: \d+\]")


def threads() -> int:
    """Threads of a fit: SEATRIAL_THREADS, 2 when unset. On a busy machine 1 is faster than more."""
    return max(int(os.environ.get("SEATRIAL_THREADS", "2")), 1)


def workers() -> int:
    """Processes for the fits of a backtest: SEATRIAL_WORKERS, 1 when unset. Each fits with one thread."""
    return max(int(os.environ.get("SEATRIAL_WORKERS", "1")), 1)


def alone() -> None:
    """Makes this process one of several workers: one thread, no workers of its own."""
    os.environ.update({"SEATRIAL_THREADS": "1", "SEATRIAL_WORKERS": "1", "OMP_NUM_THREADS": "1"})


def dataset(
    matrix: Floats, target: Floats, names: Sequence[str], categorical: Sequence[str], weight: Floats | None = None
) -> lgb.Dataset:
    """Binned training data, with a weight a row if given; may be shared by fits with different objectives."""
    params = {"max_bin": 127, "min_data_in_bin": 5, "verbosity": -1, "num_threads": threads(), "force_row_wise": True}
    return lgb.Dataset(
        matrix,
        target,
        weight=weight,
        feature_name=_safe(names),
        categorical_feature=_safe(categorical),
        params=params,
        free_raw_data=False,
    )


def _safe(names: Sequence[str]) -> list[str]:
    return [name.replace(" ", "_") for name in names]


def fit(data: lgb.Dataset, params: Mapping[str, Any], rounds: int, seed: int) -> Booster:
    """A booster of `rounds` trees; the same data, parameters and seed give the same trees."""
    full = {**params, "seed": seed, "num_threads": threads(), "max_bin": 127, "min_data_in_bin": 5}
    return lgb.train(full, data, num_boost_round=rounds)


def ask(booster: Booster, matrix: Floats, *, raw: bool = False, rounds: int | None = None) -> Floats:
    """Predictions, (n,); `raw`: before the link function; `rounds`: of the first trees only.

    One thread for few rows, where starting others costs more.
    """
    workers = 1 if len(matrix) < BATCH else threads()
    found = booster.predict(matrix, raw_score=raw, num_threads=workers, num_iteration=rounds)
    return np.asarray(found, dtype=np.float64)


def contributions(booster: Booster, matrix: Floats) -> Floats:
    """TreeSHAP contributions in raw units, (n, p + 1), the last column is the expected value."""
    return np.asarray(booster.predict(matrix, pred_contrib=True, num_threads=1), dtype=np.float64)


def gains(booster: Booster) -> Floats:
    """Total gain of the splits on each column, (p,), >= 0."""
    return np.asarray(booster.feature_importance(importance_type="gain"), dtype=np.float64)


def write(booster: Booster) -> str:
    """The booster as LightGBM's own text, the same whatever number of threads made it (the trees are the same)."""
    return _THREADS.sub("[num_threads: 1]", str(booster.model_to_string()))


def read(text: str) -> Booster:
    """The booster from LightGBM's own text."""
    return lgb.Booster(model_str=text)
