"""How far a model's predictions move when its inputs move a little: a model on a cliff answers anew every morning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.design import FrameColumns
from models.forecaster import ForecastModel
from models.risk import RiskModel

Floats = NDArray[np.float64]
SAMPLE = 2000
# Where a row stands on its horizon is no measurement.
EXACT = ("step",)


def stability(model: ForecastModel | RiskModel, rows: pd.DataFrame, *, noise: float, seed: int) -> dict[str, float]:
    """The mean change of predictions under noise on every numeric input.

    Each value moves by `noise` times a standard normal draw times its column's own standard deviation, not beyond the
    smallest and largest value of its column (a rate stays a rate). A zero stays: nothing sold, no rain are facts, not
    measurements. Missing values stay missing, and texts, dates and the step stay as they are.

    Args:
        model: what predicts. rows: with the model's columns; at most 2,000, drawn with `seed`, are asked about.
        noise: share of a standard deviation, > 0. seed: of the draws; the same inputs give the same figures.

    Returns:
        noise; change: mean |change of the mean forecast or probability| over the standard deviation of the predictions,
        >= 0, 0 is unmoved; rows: how many count. Without a change when fewer than two rows have a prediction, or all
        have the same.
    """
    rng = np.random.default_rng(seed)
    if len(rows) > SAMPLE:
        rows = rows.iloc[np.sort(rng.choice(len(rows), size=SAMPLE, replace=False))]
    given = FrameColumns(rows)
    moved = {name: _moved(given[name], noise, rng) if name not in EXACT else given[name] for name in model.columns}
    if "target_date" in given:
        moved["target_date"] = given["target_date"]
    before, after = _answers(model, given), _answers(model, moved)
    known = np.isfinite(before) & np.isfinite(after)
    found = {"noise": noise, "rows": float(known.sum())}
    spread = float(before[known].std()) if known.sum() > 1 else 0.0
    if spread > 0:
        found["change"] = float(np.abs(after[known] - before[known]).mean()) / spread
    return found


def _answers(model: ForecastModel | RiskModel, columns: Mapping[str, Any]) -> Floats:
    return model.predict(columns)[0] if isinstance(model, ForecastModel) else model.predict(columns)


def _moved(values: Any, noise: float, rng: np.random.Generator) -> Any:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return values
    known = np.isfinite(numbers)
    if not known.any():
        return numbers
    smallest, largest, spread = numbers[known].min(), numbers[known].max(), numbers[known].std()
    drawn = rng.standard_normal(len(numbers))
    return np.where(known & (numbers != 0), np.clip(numbers + noise * spread * drawn, smallest, largest), numbers)
