"""Figures of a backtest as PNG files (matplotlib without a display); the same figures give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.policy import Policy
from models.evaluate import Answers

mpl.use("Agg", force=False)
from matplotlib.figure import Figure

Floats = NDArray[np.float64]
SHOWN_COLUMNS = 15
BINS = 10


def draw(
    out: Path, policy: Policy, rows: pd.DataFrame, answers: Answers, importance: Mapping[str, float]
) -> dict[str, Path]:
    """Draw what fits the kind: importance, and a fan chart (forecast) or a calibration curve (risk).

    Returns:
        name -> file in `out`.
    """
    figures = {"importance": _importance(importance)}
    if policy.kind == "forecast":
        figures["fan"] = _fan(rows, answers, policy.training.quantiles)
    else:
        figures["calibration"] = _calibration(rows["label"].to_numpy(dtype=np.float64), answers.value)
    paths = {}
    for name, figure in figures.items():
        paths[name] = out / f"figure_{name}.png"
        figure.savefig(paths[name], dpi=80, metadata={"Software": None})
    return paths


def _axes(title: str, x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _importance(importance: Mapping[str, float]) -> Figure:
    top = list(importance.items())[:SHOWN_COLUMNS][::-1]
    figure, axes = _axes("What the model looks at", "share of gain", "")
    axes.barh([name for name, _ in top], [share for _, share in top], color="#2b6c8f")
    return figure


def _fan(rows: pd.DataFrame, answers: Answers, levels: tuple[float, ...]) -> Figure:
    """The largest series from the newest cutoff: actual demand, mean and the widest interval by step."""
    newest = rows["as_of"].max()
    series = rows["row_id"].astype("string").str.rsplit("|", n=2).str[0]
    label = rows["label"].to_numpy(dtype=np.float64)
    here = (rows["as_of"] == newest).to_numpy()
    totals = pd.Series(label[here]).groupby(series[here].to_numpy()).sum()
    largest = str(totals.idxmax())
    use = np.flatnonzero(here & (series == largest).to_numpy())
    use = use[np.argsort(rows["step"].to_numpy()[use], kind="stable")]
    step = rows["step"].to_numpy()[use]
    figure, axes = _axes(f"{largest}, forecast from {newest:%Y-%m-%d}", "day ahead", "units")
    low, high = answers.quantiles[use, 0], answers.quantiles[use, -1]
    axes.fill_between(step, low, high, alpha=0.25, color="#2b6c8f", label=f"{levels[0]:.0%} to {levels[-1]:.0%}")
    axes.plot(step, answers.value[use], color="#2b6c8f", label="mean")
    axes.plot(step, label[use], "o", color="#b3431e", label="actual")
    axes.legend(frameon=False)
    return figure


def _calibration(actual: Floats, probability: Floats) -> Figure:
    """Observed late share against mean probability in tenths of the rows."""
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    figure, axes = _axes("Said and seen", "mean probability", "observed late share")
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1)
    axes.plot([probability[p].mean() for p in parts], [actual[p].mean() for p in parts], "o-", color="#2b6c8f")
    limit = max(0.05, 1.15 * max(max(probability[p].mean(), actual[p].mean()) for p in parts))
    axes.set_xlim(0, min(limit, 1))
    axes.set_ylim(0, min(limit, 1))
    return figure
