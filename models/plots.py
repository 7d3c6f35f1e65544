"""Figures of a backtest as PNG files (matplotlib without a display); the same backtest gives the same bytes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import boosters, metrics
from models.card_page import TITLES
from models.design import FrameColumns, design_matrix
from models.evaluate import Answers, Scoreboard
from models.forecaster import ForecastModel
from models.risk import RiskModel

mpl.use("Agg", force=False)
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
SHOWN_COLUMNS = 15
SHOWN_SEGMENTS = 5
BINS = 10
# Enough rows for a mean of contributions; TreeSHAP costs about a tenth of a millisecond a row.
EXPLAINED_ROWS = 400
FEWEST_IN_SEGMENT = 50
BLUE, RED, GREY = "#2b6c8f", "#b3431e", "#8a8f94"
COLOUR = {"candidate": BLUE, "incumbent": GREY, "champion": RED}


def draw(
    out: Path,
    board: Scoreboard,
    answers: Mapping[str, Answers],
    named: Mapping[str, Any],
    model: ForecastModel | RiskModel,
) -> dict[str, Path]:
    """Draw a backtest and the model that came of it.

    Args:
        out: folder for the files.
        board: the scored rows. answers: by who: candidate, incumbent, and perhaps champion (NaN where not compared).
        named: segment name -> text of each scored row.
        model: of the final fit.

    Returns:
        name -> file in `out`: importance, contribution, reliability; for a forecast also fan and horizon.
    """
    figures: dict[str, Figure] = {}
    # Names of series and segments are data: a dollar sign in them is no formula, and a letter may not be in the font.
    with mpl.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figures["importance"] = _importance(model.importance())
        figures["contribution"] = _contribution(board.rows, model)
        if board.policy.kind == "forecast":
            figures["fan"] = _fan(board, answers["candidate"])
            figures["horizon"] = _horizon(board, answers)
        figures["reliability"] = _reliability(board, answers["candidate"], named)
        paths = {}
        for name, figure in figures.items():
            paths[name] = out / f"figure_{name}.png"
            figure.savefig(paths[name], dpi=80, metadata={"Software": None})
    return paths


def _axes(title: str, x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def _importance(importance: Mapping[str, float]) -> Figure:
    top = list(importance.items())[:SHOWN_COLUMNS][::-1]
    figure, axes = _axes(TITLES["importance"], "share of gain", "")
    axes.barh([name for name, _ in top], [share for _, share in top], color=BLUE)
    return figure


def _contribution(rows: pd.DataFrame, model: ForecastModel | RiskModel) -> Figure:
    """Mean size of each column's TreeSHAP contribution over some of the scored rows, and which way it goes."""
    some = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), EXPLAINED_ROWS)).astype(np.int64))]
    matrix = design_matrix(model.spec, FrameColumns(some))
    booster = model.mean if isinstance(model, ForecastModel) else model.trees
    parts = boosters.contributions(booster, matrix)[:, :-1]
    size = np.abs(parts).mean(axis=0)
    top = np.argsort(-size, kind="stable")[:SHOWN_COLUMNS][::-1]
    figure, axes = _axes(TITLES["contribution"], "mean size of contribution, before the link function", "")
    colour = {1: RED, -1: BLUE, 0: GREY}
    axes.barh(
        [model.spec.columns[i].name for i in top],
        size[top],
        color=[colour[_direction(model.spec.columns[i].how, matrix[:, i], parts[:, i])] for i in top],
    )
    for words, shade in (("higher raises", RED), ("higher lowers", BLUE), ("neither or both", GREY)):
        axes.plot([], [], "s", color=shade, label=words)
    axes.legend(frameon=False, loc="lower right")
    return figure


def _direction(how: str, value: Floats, part: Floats) -> int:
    """1 when contributions rise with the value, -1 when they fall, 0 when neither is clear (rank correlation < 0.3)."""
    known = np.isfinite(value)
    if how == "category" or known.sum() < BINS or np.ptp(value[known]) == 0 or np.ptp(part[known]) == 0:
        return 0
    together = float(pd.Series(value[known]).rank().corr(pd.Series(part[known]).rank()))
    return 0 if abs(together) < 0.3 else int(np.sign(together))


def _fan(board: Scoreboard, answers: Answers) -> Figure:
    """Three series from the newest cutoff: those with the least, the middle and the most loss over the backtest."""
    rows, levels = board.rows, board.policy.training.quantiles
    series = rows["row_id"].astype("string").str.rsplit("|", n=2).str[0].to_numpy(dtype=object)
    newest = rows["as_of"].max()
    here = (rows["as_of"] == newest).to_numpy()
    ranked = _ranked(board, answers, series, here)
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    figure.suptitle(f"{TITLES['fan']}, {newest:%Y-%m-%d}")
    shown = {"best": ranked[:1], "typical": ranked[len(ranked) // 2 :][:1], "worst": ranked[-1:]}
    for axes, (word, names) in zip(figure.subplots(1, 3), shown.items(), strict=True):
        axes.set(xlabel="step", title=f"{word}: {_short(names[0])}" if names else f"{word}: none")
        for name in names:
            use = np.flatnonzero(here & (series == name))
            use = use[np.argsort(rows["step"].to_numpy()[use], kind="stable")]
            step, table = rows["step"].to_numpy()[use], answers.quantiles[use]
            band = f"{levels[0]:.0%} to {levels[-1]:.0%}"
            axes.fill_between(step, table[:, 0], table[:, -1], alpha=0.25, color=BLUE, label=band)
            axes.plot(step, answers.value[use], color=BLUE, label="mean")
            axes.plot(step, board.actual[use], "o", color=RED, label="actual")
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.axes[0].set_ylabel("units")
    figure.axes[0].legend(frameon=False, fontsize="small")
    return figure


def _ranked(board: Scoreboard, answers: Answers, series: Any, here: Mask) -> list[str]:
    """Series that the newest cutoff has, from the least to the most mean loss; those without demand are left out."""
    frame = pd.DataFrame({"series": series, "loss": board.losses(answers), "demand": board.actual})
    frame = frame[np.isfinite(frame["loss"])]
    mean = frame.groupby("series").agg(loss=("loss", "mean"), demand=("demand", "sum"))
    there = mean.index.isin(pd.unique(series[here & np.isfinite(answers.value)]))
    told = mean[there & (mean["demand"] > 0)]
    return [str(name) for name in told.sort_values(["loss", "demand"], kind="stable").index]


def _short(name: str) -> str:
    return name if len(name) <= 34 else name[:33] + "…"


def _horizon(board: Scoreboard, answers: Mapping[str, Answers]) -> Figure:
    """Gate loss by step of everybody, and how much of the actual demand lay in the widest interval."""
    steps = board.rows["step"].to_numpy(dtype=np.int64)
    levels = board.policy.training.quantiles
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    name = board.policy.gate.metric
    left.set(title=f"{name} by step", xlabel="step", ylabel=name)
    for who, given in answers.items():
        loss = pd.Series(board.losses(given)).groupby(steps).mean()
        if loss.notna().any():
            left.plot(loss.index, np.sqrt(loss) if name == "rmsse" else loss, "o-", label=who, color=COLOUR.get(who))
    left.set_ylim(bottom=0)
    left.legend(frameon=False)
    table = answers["candidate"].quantiles
    inside = (board.actual >= table[:, 0]) & (board.actual <= table[:, -1])
    known = np.isfinite(table).all(axis=1) & np.isfinite(board.actual)
    share = pd.Series(inside[known].astype(float)).groupby(steps[known]).mean()
    right.set(title="coverage by step", xlabel="step", ylabel="share inside", ylim=(0, 1.02))
    right.axhline(levels[-1] - levels[0], color=GREY, label=f"said: {levels[-1] - levels[0]:.0%}")
    right.plot(share.index, share, "o-", color=BLUE, label="seen")
    right.legend(frameon=False, loc="lower right")
    return figure


def _reliability(board: Scoreboard, answers: Answers, named: Mapping[str, Any]) -> Figure:
    """What was said against what was seen, over all rows and in the largest segments of the first segment column."""
    known = np.isfinite(answers.value) & np.isfinite(board.actual)
    masks = {"all": known} | {
        word: known & (values == value)
        for column, values in list(named.items())[:1]
        for value in pd.Series(values[known]).value_counts().index[:SHOWN_SEGMENTS]
        for word in [f"{column} {value}"]
    }
    masks = {word: mask for word, mask in masks.items() if word == "all" or mask.sum() >= FEWEST_IN_SEGMENT}
    if board.policy.kind == "forecast":
        return _quantile_reliability(board, answers, masks)
    figure, axes = _axes(TITLES["reliability"], "mean probability", "observed share")
    reach = 0.05
    for word, mask in masks.items():
        said, seen = _tenths(board.actual[mask], answers.value[mask])
        reach = max(reach, 1.15 * float(max(said.max(), seen.max())))
        error = metrics.ece(board.actual[mask], answers.value[mask])
        style = {"color": BLUE, "linewidth": 2.2} if word == "all" else {"alpha": 0.6, "linewidth": 1}
        axes.plot(said, seen, "o-", markersize=3, label=f"{_short(word)} (ECE {error:.3f})", **style)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    axes.set(xlim=(0, min(reach, 1)), ylim=(0, min(reach, 1)))
    axes.legend(frameon=False, fontsize="small", loc="upper left")
    return figure


def _tenths(actual: Floats, probability: Floats) -> tuple[Floats, Floats]:
    """Mean probability and observed share in tenths of the rows by rising probability."""
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    return np.array([probability[p].mean() for p in parts]), np.array([actual[p].mean() for p in parts])


def _quantile_reliability(board: Scoreboard, answers: Answers, masks: Mapping[str, Mask]) -> Figure:
    """For each quantile level, the share of rows whose demand was not above it."""
    levels = board.policy.training.quantiles
    figure, axes = _axes(TITLES["reliability"], "level of the quantile", "share of demand not above it")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    for word, mask in masks.items():
        table, actual = answers.quantiles[mask], board.actual[mask]
        use = np.isfinite(table).all(axis=1)
        if use.any():
            seen = (actual[use, None] <= table[use]).mean(axis=0)
            style = {"color": BLUE, "linewidth": 2.2} if word == "all" else {"alpha": 0.6, "linewidth": 1}
            axes.plot(levels, seen, "o-", markersize=3, label=_short(word), **style)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, fontsize="small", loc="upper left")
    return figure
