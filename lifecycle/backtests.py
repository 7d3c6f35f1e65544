"""A backtest for people: the candidate beside the incumbent, the champion and statistical rivals; nothing is kept."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path

import pandas as pd

from contracts.policy import Policy
from lifecycle.pipeline import beside_champion, training_set
from lifecycle.progress import Progress
from lifecycle.workspace import Workspace


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
    from models.rivals import rival_forecasts, rival_metrics

    scored = rows[rows["row_id"].isin(losses["row_id"])]
    cutoffs = sorted(scored["as_of"].unique())
    forecasts = rival_forecasts(demand_labels(ws.landing, known_by=now), cutoffs, policy.horizon or 1)
    history = history_view(ws.declarations, policy.features)
    unit, level = (scored[f"{history}__{name}"].to_numpy(dtype=float) for name in ("naive_rmse", "scale"))
    return rival_metrics(scored, forecasts, unit, level)
