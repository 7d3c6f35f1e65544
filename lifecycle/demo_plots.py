"""Pictures of the demo's report, as data URIs: the page needs nothing from outside."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from contracts.decisions import Rung

if TYPE_CHECKING:
    from lifecycle.demo_results import Voyaged
    from lifecycle.loop import Story

COLOURS = ("#1b6ca8", "#e07b39", "#3a9d5d", "#8e5ea2", "#c23b4e", "#7f8c8d", "#b5a33c", "#2c3e50")


def _picture(title: str, draw: Callable[[Any], None], *, height: float = 3.4) -> dict[str, str]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, height), dpi=90)
    axes = figure.add_subplot()
    draw(axes)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return {"title": title, "src": "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()}


def forecast_against_actual(voyage: Voyaged) -> dict[str, str]:
    """The busiest series: what was forecast a day at a time, its widest interval, and what was sold."""
    frame = voyage.rows.frame.assign(
        low=voyage.rows.served[:, 0], high=voyage.rows.served[:, -1], day=pd.to_datetime(voyage.rows.frame.target_date)
    )
    key = frame.groupby("key")["actual"].sum().idxmax()
    # A day is forecast by several decisions; the newest one before it is what planners acted on.
    one = frame[frame["key"] == key].sort_values("as_of").drop_duplicates("day", keep="last").sort_values("day")

    def draw(axes: Any) -> None:
        axes.fill_between(one["day"], one["low"], one["high"], color=COLOURS[0], alpha=0.2, label="80% interval")
        axes.plot(one["day"], one["actual"], color="#222", linewidth=1, label="actual")
        axes.plot(one["day"], one["champion"], color=COLOURS[0], linewidth=1.4, label="served forecast")
        axes.plot(one["day"], one["incumbent"], color=COLOURS[1], linewidth=0.8, alpha=0.7, label="seasonal naive")
        axes.set_ylabel("units a day")
        axes.legend(ncol=4, fontsize=8, frameon=False, loc="upper left")

    return _picture(f"Forecast against actual: {key}", draw)


def late_rate_calibration(voyage: Voyaged) -> dict[str, str]:
    """Said probability against observed late rate, in ten groups of equal size, for the model and the rule."""
    frame = voyage.rows.frame

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color="#bbb", linewidth=1)
        for name, colour, label in (("champion", COLOURS[0], "served"), ("incumbent", COLOURS[1], "rule")):
            known = frame[np.isfinite(frame[name])]
            groups = pd.qcut(known[name].rank(method="first"), 10, labels=False)
            means = known.groupby(groups)[[name, "actual"]].mean()
            axes.plot(means[name], means["actual"], "o-", color=colour, label=label)
        limit = float(max(0.5, frame["champion"].quantile(0.99) + 0.05))
        axes.set_xlim(0, limit)
        axes.set_ylim(0, limit)
        axes.set_xlabel("said probability")
        axes.set_ylabel("share that came late")
        axes.legend(frameon=False)

    return _picture("Calibration of the late rate, ten groups of equal size", draw, height=4.2)


def traffic_by_version(story: Story) -> dict[str, str]:
    """Share of each day's decisions by who answered."""
    rows = [
        {
            "day": record.as_of.date(),
            "who": record.answer.version or str(record.answer.rung),
            "canary": record.answer.rung is Rung.CANARY,
        }
        for record in story.records
    ]
    counts = pd.DataFrame(rows).groupby(["day", "who"]).size().unstack(fill_value=0).sort_index()
    shares = counts.div(counts.sum(axis=1), axis=0).rolling(7, min_periods=1).mean()
    order = sorted(shares.columns, key=lambda who: (not who.startswith("v"), len(who), who))

    def draw(axes: Any) -> None:
        colours = [COLOURS[place % len(COLOURS)] for place in range(len(order))]
        axes.stackplot(pd.to_datetime(shares.index), *[shares[who] for who in order], labels=order, colors=colours)
        axes.set_ylim(0, 1)
        axes.set_ylabel("share of decisions, 7-day mean")
        axes.legend(ncol=6, fontsize=8, frameon=False, loc="lower left")

    return _picture("Who answered: traffic share by version", draw)


def drift_over_time(story: Story) -> dict[str, str]:
    """Loss of each judged window against the gate's own figure, and how many features had moved."""
    windows = [window for window in story.windows if window.loss is not None and window.reference_loss]

    def draw(axes: Any) -> None:
        days = [window.end for window in windows]
        axes.plot(
            days, [(w.loss or 0) / (w.reference_loss or 1) for w in windows], "o-", color=COLOURS[0], markersize=4
        )
        axes.axhline(1.0, color="#bbb", linewidth=1)
        for window in windows:
            if window.violation:
                axes.axvline(window.end, color=COLOURS[4], alpha=0.3)
        axes.set_ylabel("loss / gate's figure")
        other = axes.twinx()
        moved = [sum(f.kind == "feature_drift" for f in w.findings) for w in windows]
        other.bar(days, moved, width=3, color=COLOURS[5], alpha=0.35)
        other.set_ylabel("features that moved")

    return _picture("Drift over time (red: a window with less skill against the rule than the gate promised)", draw)
