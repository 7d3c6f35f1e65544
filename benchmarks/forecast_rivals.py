"""Those who are measured: statsforecast's models, mlforecast with LightGBM as it comes, and ours; one shape of answer.

All see the same panel, cut at the origin. mlforecast gets the usual lags, lag means and calendar of the frequency, and
the static and known-ahead columns; it is recursive, its intervals are its own conformal ones. Its series are without
gaps, filled as those of the statistical models are.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from models.panel import Floats, Panel, PanelForecast
from models.statistical import SEASON, filled, statistical_forecast

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
OURS = "ours"
NAIVE = "seasonal_naive"
MLFORECAST = "mlforecast_lightgbm"
SEED = 7

_CHEAP = (
    NAIVE, "historic_average", "window_average", "seasonal_window_average", "croston_sba", "imapa", "tsb", "ses",
)  # fmt: skip
STATISTICAL: dict[str, tuple[str, ...]] = {
    # AutoETS fits 3 to 10 series of two years of days a CPU second, AutoTheta 8: longer than all else here together
    "day": (*_CHEAP, "dynamic_optimized_theta", "mstl"),
    "month": (*_CHEAP, "dynamic_optimized_theta", "auto_theta", "auto_ets", "mstl"),
}
_LAGS = {"day": (1, 2, 3, 7, 14, 21, 28), "month": (1, 2, 3, 6, 12)}
_MEANS = {"day": (7, 28), "month": (3, 6, 12)}
_CALENDAR = {"day": ["dayofweek", "day", "week", "month"], "month": ["month", "quarter"]}
_OFFSET = {"day": "D", "month": "MS"}
_WINDOWS = 4  # of the conformal intervals; 2 is the library's own choice and gives four residuals a step


def contenders(panel: Panel) -> tuple[str, ...]:
    """Names of the rivals for such a panel, the seasonal naive first."""
    return (*STATISTICAL[panel.frequency], MLFORECAST)


def answered_by(name: str, panel: Panel, horizon: int, country: str | None) -> tuple[PanelForecast, float]:
    """A contender's forecast of the panel and its CPU seconds, imports left out."""
    work = _work(name, country)
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forecast = work(panel, horizon)
    return forecast, time.process_time() - began


def _work(name: str, country: str | None) -> Callable[[Panel, int], PanelForecast]:
    if name == OURS:
        from models.panel_forecast import forecast_panel

        return lambda panel, horizon: forecast_panel(panel, horizon, levels=LEVELS, seed=SEED, country=country)
    if name == MLFORECAST:
        import lightgbm  # noqa: F401
        import mlforecast  # noqa: F401

        return by_mlforecast
    import statsforecast.models  # noqa: F401

    return lambda panel, horizon: statistical_forecast(panel, horizon, name, LEVELS)


def by_mlforecast(panel: Panel, horizon: int) -> PanelForecast:
    """Recursive LightGBM with default parameters.

    Series too short for its conformal windows get their mean from a model without intervals, fitted on all series, and
    no quantiles (NaN).
    """
    series = filled(panel.demand, SEASON[panel.frequency])
    length = np.array([len(values) for values in series])
    shortest = _WINDOWS * horizon + 2
    mean = np.full((len(series), horizon), np.nan)
    quantiles = np.full((len(series), horizon, len(LEVELS)), np.nan)
    if ((length > 0) & (length < shortest)).any():
        used = np.flatnonzero(length > 0)
        mean[used] = _recursive(panel, series, used, horizon, intervals=False)[:, :, 0]
    used = np.flatnonzero(length >= shortest)
    found = _recursive(panel, series, used, horizon, intervals=True)
    mean[used] = found[:, :, 0]
    quantiles[used] = np.sort(found[:, :, 1:], axis=2)
    return PanelForecast(np.maximum(mean, 0.0), np.maximum(quantiles, 0.0), LEVELS)


def _recursive(panel: Panel, series: list[Floats], used: Any, horizon: int, *, intervals: bool) -> Floats:
    """Mean, and quantiles when wanted, of the used series, (used, horizon, 1 + levels)."""
    from lightgbm import LGBMRegressor
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMean
    from mlforecast.utils import PredictionIntervals

    history, ahead, static = _frames(panel, series, used, horizon)
    model = MLForecast(
        models={"lgbm": LGBMRegressor(n_jobs=1, random_state=SEED, verbosity=-1)},
        freq=_OFFSET[panel.frequency],
        lags=list(_LAGS[panel.frequency]),
        lag_transforms={1: [RollingMean(window) for window in _MEANS[panel.frequency]]},
        date_features=_CALENDAR[panel.frequency],
    )
    asked = PredictionIntervals(n_windows=_WINDOWS, h=horizon) if intervals else None
    model.fit(history, static_features=static, prediction_intervals=asked)
    answer = model.predict(horizon, level=[50, 80, 90] if intervals else None, X_df=ahead)
    columns = ["lgbm"]
    if intervals:
        columns += ["lgbm-lo-90", "lgbm-lo-80", "lgbm-lo-50", "lgbm", "lgbm-hi-50", "lgbm-hi-80", "lgbm-hi-90"]
    table = answer.sort_values(["unique_id", "ds"], kind="stable")[columns].to_numpy(dtype=np.float64)
    return np.asarray(table.reshape(len(used), horizon, len(columns)), dtype=np.float64)


def _frames(
    panel: Panel, series: list[Floats], used: Any, horizon: int
) -> tuple[pd.DataFrame, pd.DataFrame | None, list[str]]:
    """Long history of the used series, covariates of the steps ahead (None where there are none), static columns."""
    dates = panel.dates(0, panel.periods + horizon).astype("datetime64[ns]")
    codes = {name: pd.factorize(values)[0] for name, values in panel.static.items()}
    pieces, futures = [], []
    for place in used:
        values = series[place]
        start = panel.periods - len(values)
        known = {name: table[place] for name, table in panel.ahead.items()}
        piece = {"unique_id": place, "ds": dates[start : panel.periods], "y": values}
        piece |= {name: row[start : panel.periods] for name, row in known.items()}
        pieces.append(pd.DataFrame(piece | {name: column[place] for name, column in codes.items()}))
        if known:
            future = {name: row[panel.periods :] for name, row in known.items()}
            futures.append(pd.DataFrame({"unique_id": place, "ds": dates[panel.periods :]} | future))
    history = pd.concat(pieces, ignore_index=True)
    history[list(codes)] = history[list(codes)].astype("category")
    return history, pd.concat(futures, ignore_index=True) if futures else None, list(codes)
