"""A backtest for people: the candidate beside the incumbent, the champion and statistical rivals; nothing is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.errors import NotEnoughData
from contracts.policy import Policy
from lifecycle.pipeline import beside_champion, training_set
from lifecycle.progress import Progress
from lifecycle.workspace import Workspace
from models import metrics

Floats = NDArray[np.float64]

RIVALS = ("seasonal_naive", "seasonal_window_average", "window_average", "croston_sba")


def backtest_table(
    ws: Workspace, policy: Policy, now: datetime, progress: Progress
) -> tuple[int, dict[str, dict[str, float]]]:
    """Rows that were scored, and for each contender its metrics over all of them.

    Raises:
        NotEnoughData: too few rows with a known label.
    """
    rows = training_set(ws, policy, now, progress)
    with tempfile.TemporaryDirectory(prefix="seatrial-backtest-") as folder:
        evaluation = beside_champion(ws, policy, rows, now, Path(folder) / "model", progress).evaluation
    found = evaluation.metrics[(evaluation.metrics["segment"] == "") & (evaluation.metrics["slice"] == "")]
    if policy.kind == "forecast":
        progress("statistical rivals", 0.9)
        found = pd.concat([found, _rivals(ws, policy, rows, evaluation.losses, now)], ignore_index=True)
    table: dict[str, dict[str, float]] = {}
    for who, metric, value in found[["who", "metric", "value"]].itertuples(index=False):
        table.setdefault(str(who), {})[str(metric)] = float(value)
    return len(evaluation.losses), table


def _rivals(ws: Workspace, policy: Policy, rows: pd.DataFrame, losses: pd.DataFrame, now: datetime) -> pd.DataFrame:
    from features.population import demand_labels
    from models.incumbent import history_view

    scored = rows[rows["row_id"].isin(losses["row_id"])]
    cutoffs = sorted(scored["as_of"].unique())
    forecasts = rival_forecasts(demand_labels(ws.landing, known_by=now), cutoffs, policy.horizon or 1)
    history = history_view(ws.declarations, policy.features)
    unit, level = (scored[f"{history}__{name}"].to_numpy(dtype=float) for name in ("naive_rmse", "scale"))
    return rival_metrics(scored, forecasts, unit, level)


def rival_forecasts(
    labels: pd.DataFrame, cutoffs: Sequence[pd.Timestamp], horizon: int, names: Sequence[str] = RIVALS
) -> pd.DataFrame:
    """What statistical rivals would have forecast at each cutoff.

    Args:
        labels: demand as known: sku, location, target_date (YYYY-MM-DD), quantity (units); closed days left out or NaN.
        cutoffs: midnights in UTC; days before a cutoff are history. horizon: days ahead.
        names: of `models.statistical.MODELS`.

    Returns:
        sku, location, as_of, target_date, step, and one column of units (>= 0) for each name, NaN where the model could
        not answer; how gaps are filled, see `models.statistical`. Series without a row are not there.

    Raises:
        UnknownName: no such model. NotEnoughData: no row has a quantity.
    """
    from models.panel import panel_of
    from models.statistical import statistical_means

    groups = labels.groupby(["sku", "location"], sort=True)
    keys = groups.size().index.to_frame(index=False)
    rows = labels.assign(series=groups.ngroup().map("{:09d}".format))
    last = max(pd.Timestamp(cutoff) for cutoff in cutoffs).tz_convert("UTC").tz_localize(None)
    panel = panel_of(rows, frequency="day", keys=["series"], period="target_date", until=last)
    found = []
    for cutoff in cutoffs:
        day = np.datetime64(pd.Timestamp(cutoff).tz_convert("UTC").tz_localize(None), "D")
        place = int(day.astype(np.int64)) - panel.first
        if place < 1:
            continue
        means = statistical_means(panel.until(place, horizon), horizon, names)
        step = np.tile(np.arange(1, horizon + 1), len(keys))
        block = keys.loc[np.repeat(np.arange(len(keys)), horizon)].reset_index(drop=True)
        dates = (day + np.arange(horizon)).astype(str)
        block = block.assign(as_of=pd.Timestamp(cutoff), target_date=np.tile(dates, len(keys)), step=step)
        found.append(block.assign(**{name: values.ravel() for name, values in means.items()}))
    if not found:
        raise NotEnoughData("days before the last cutoff", 1, 0)
    return pd.concat(found, ignore_index=True)


def rival_metrics(scored: pd.DataFrame, forecasts: pd.DataFrame, naive_rmse: Floats, scale: Floats) -> pd.DataFrame:
    """RMSSE, WAPE and bias of each rival on a backtest's scored rows.

    Args:
        scored: sku, location, as_of, step, label of each scored row (units). forecasts: from `rival_forecasts`.
        naive_rmse, scale: RMSSE's scale and the level of each scored row's series, units, (n,).

    Returns:
        long format: who, metric, segment, slice, value, rows; over the rows that the rivals could answer.
    """
    keys = ["sku", "location", "as_of", "step"]
    names = [str(name) for name in forecasts.columns if name not in (*keys, "target_date")]
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
