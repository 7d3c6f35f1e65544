"""Statistical rivals on the backtest's own cutoffs, by statsforecast: is the booster worth its keep?

Not on the retraining path: fitting takes seconds. Used for the report and for `seatrial backtest`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.errors import NotEnoughData, UnknownName
from models import metrics

Floats = NDArray[np.float64]
SEASON = 7
RIVALS = ("seasonal_naive_sf", "seasonal_window_average", "window_average", "croston_sba", "optimized_theta")
SHORTEST = 2 * SEASON


def _models(names: Sequence[str]) -> list[Any]:
    from statsforecast import models as sf

    known = {
        "seasonal_naive_sf": lambda: sf.SeasonalNaive(SEASON, alias="seasonal_naive_sf"),
        "seasonal_window_average": lambda: sf.SeasonalWindowAverage(SEASON, 4, alias="seasonal_window_average"),
        "window_average": lambda: sf.WindowAverage(28, alias="window_average"),
        "croston_sba": lambda: sf.CrostonSBA(alias="croston_sba"),
        "optimized_theta": lambda: sf.DynamicOptimizedTheta(SEASON, alias="optimized_theta"),
    }
    for name in names:
        if name not in known:
            raise UnknownName("rival", name, known)
    return [known[name]() for name in names]


def rival_forecasts(
    labels: pd.DataFrame, cutoffs: Sequence[pd.Timestamp], horizon: int, names: Sequence[str] = RIVALS[:4]
) -> pd.DataFrame:
    """What rivals would have forecast at each cutoff.

    Args:
        labels: demand as known: sku, location, target_date (YYYY-MM-DD), quantity (units); closed days left out or NaN.
        cutoffs: midnights in UTC; days before a cutoff are history. horizon: days ahead.
        names: of RIVALS.

    Returns:
        sku, location, as_of, target_date, step, and one column of units (>= 0) for each name. Missing days count as no
        sales, because these methods know no gaps; series shorter than two weeks are left out.

    Raises:
        UnknownName: no such rival. NotEnoughData: no series is long enough.
    """
    from statsforecast import StatsForecast

    methods = _models(names)
    frame = labels.assign(ds=pd.to_datetime(labels["target_date"]))
    found = []
    for cutoff in cutoffs:
        day = pd.Timestamp(cutoff).tz_convert("UTC").tz_localize(None)
        history = _gapless(frame[frame["ds"] < day], day)
        if history.empty:
            continue
        forecast: Any = StatsForecast(models=methods, freq="D").forecast(df=history, h=horizon)
        forecast["as_of"] = pd.Timestamp(cutoff)
        found.append(forecast)
    if not found:
        raise NotEnoughData("days of the longest series before the first cutoff", SHORTEST, 0)
    result = pd.concat(found, ignore_index=True)
    keys = result["unique_id"].str.split("\x1f", n=1, expand=True)
    result["sku"], result["location"] = keys[0], keys[1]
    result["target_date"] = result["ds"].dt.strftime("%Y-%m-%d")
    result["step"] = (result["ds"] - result["as_of"].dt.tz_localize(None)).dt.days + 1
    result[list(names)] = result[list(names)].clip(lower=0.0)
    return pd.DataFrame(result[["sku", "location", "as_of", "target_date", "step", *names]])


def _gapless(frame: pd.DataFrame, until: pd.Timestamp) -> pd.DataFrame:
    """Every series without gaps from its first day to the day before `until`."""
    wide = frame.pivot_table(index="ds", columns=["sku", "location"], values="quantity", aggfunc="sum")
    wide = wide.reindex(pd.date_range(frame["ds"].min(), until - pd.Timedelta(days=1), freq="D"))
    pieces = []
    for key in wide.columns:
        values = wide[key]
        values = values[values.first_valid_index() :].fillna(0.0)
        if len(values) >= SHORTEST:
            pieces.append(pd.DataFrame({"unique_id": "\x1f".join(key), "ds": values.index, "y": values.to_numpy()}))
    return pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame(columns=["unique_id", "ds", "y"])


def rival_metrics(scored: pd.DataFrame, forecasts: pd.DataFrame, naive_rmse: Floats, scale: Floats) -> pd.DataFrame:
    """RMSSE, WAPE and bias of each rival on a backtest's scored rows.

    Args:
        scored: sku, location, as_of, step, label of each scored row (units). forecasts: from `rival_forecasts`.
        naive_rmse, scale: RMSSE's scale and the level of each scored row's series, units, (n,).

    Returns:
        long format: who, metric, segment, slice, value, rows; over the rows that the rivals could answer.
    """
    names = [str(name) for name in forecasts.columns if name not in ("sku", "location", "as_of", "target_date", "step")]
    keys = ["sku", "location", "as_of", "step"]
    joined = scored[keys].merge(forecasts.drop(columns="target_date"), on=keys, how="left", validate="many_to_one")
    actual = scored["label"].to_numpy(dtype=np.float64)
    unit = metrics.error_unit(naive_rmse, scale)
    lines = []
    for name in names:
        value = joined[name].to_numpy(dtype=np.float64)
        use = np.isfinite(value) & np.isfinite(actual) & np.isfinite(unit)
        figures = {
            "rmsse": metrics.rmsse(actual[use], value[use], unit[use]),
            "wape": metrics.wape(actual[use], value[use]),
            "bias": metrics.bias(actual[use], value[use]),
        }
        lines += [(name, metric, "", "", figure, int(use.sum())) for metric, figure in figures.items()]
    return pd.DataFrame(lines, columns=["who", "metric", "segment", "slice", "value", "rows"])
