"""Scores of contenders on the same rows: pure functions of arrays, (origins, series, steps)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.forecast_rivals import LEVELS, NAIVE
from models import metrics
from models.panel import Floats, Panel
from models.statistical import WINDOW

WQL_LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
MANY_ZEROS = 0.3
CONTINUOUS_LEVEL = 10.0
LEAST_SERIES = 50


@dataclass(frozen=True)
class Answers:
    """One contender: mean (o, n, h), quantiles (o, n, h, levels), NaN where it said nothing; CPU seconds of all.

    `point`: what is measured by absolute error, (o, n, h); the mean unless a contender gives another.
    """

    mean: Floats
    quantiles: Floats
    cpu: float
    point: Floats


@dataclass(frozen=True)
class Facts:
    """What happened, and how large errors are measured: actual (o, n, h), unit (o, n), units a period."""

    actual: Floats
    unit: Floats


def facts(panel: Panel, origins: Sequence[int], horizon: int) -> Facts:
    """Actuals of each origin and the unit of RMSSE from each series' history before it.

    The unit is the root mean square of differences between one known period and the next, and at least a tenth of the
    series' level: the larger of the mean over the last window (56 days, 12 months) and a fifth of the long-run mean.
    """
    actual = np.stack([panel.demand[:, at : at + horizon] for at in origins])
    unit = np.stack([_unit(panel.demand[:, :at], WINDOW[panel.frequency]) for at in origins])
    return Facts(actual, unit)


def _unit(history: Floats, window: int) -> Floats:
    naive, level = np.full(len(history), np.nan), np.full(len(history), np.nan)
    for place, row in enumerate(history):
        known = row[np.isfinite(row)]
        if len(known) > 1:
            naive[place] = np.sqrt(np.mean(np.diff(known) ** 2))
            recent = row[-window:][np.isfinite(row[-window:])]
            level[place] = max(float(recent.mean()) if len(recent) else 0.0, 0.2 * float(known.mean()))
    return metrics.error_unit(naive, level)


def completed(found: Mapping[str, Answers]) -> tuple[dict[str, Answers], dict[str, float]]:
    """Everyone with an answer where the seasonal naive has one, and the share of forecasts it stood in for.

    A mean without quantiles gets the seasonal naive's spread around it.
    """
    naive = found[NAIVE]
    there = np.isfinite(naive.mean)
    spread = naive.quantiles - naive.mean[..., None]
    full, share = {}, {}
    for name, answers in found.items():
        silent = ~np.isfinite(answers.mean) & there
        mean = np.where(silent, naive.mean, answers.mean)
        bare = ~np.isfinite(answers.quantiles).all(axis=-1) & there
        quantiles = np.where(bare[..., None], np.maximum(mean[..., None] + spread, 0.0), answers.quantiles)
        share[name] = float((silent | bare).sum() / max(there.sum(), 1))
        full[name] = Answers(mean, quantiles, answers.cpu, np.where(silent, naive.mean, answers.point))
    return full, share


def scored_rows(given: Facts, found: Mapping[str, Answers]) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Rows (o, n, h) on which all are measured, and how many known rows were left out, by reason."""
    known = np.isfinite(given.actual)
    scale = np.broadcast_to((given.unit > 0)[..., None], known.shape)
    answered = np.logical_and.reduce([np.isfinite(answers.mean) for answers in found.values()])
    use = known & scale & answered
    left = {
        "fewer than two known periods before the origin": int((known & ~answered).sum()),
        "never sold before the origin (no unit of error)": int((known & answered & ~scale).sum()),
    }
    return use, left


def table_of(given: Facts, found: Mapping[str, Answers], use: NDArray[np.bool_]) -> dict[str, dict[str, Any]]:
    """Every contender's figures on the same rows."""
    series = given.actual.shape[0] * given.actual.shape[1]
    return {
        name: figures(given, answers, use) | {"series_per_cpu_s": series / max(answers.cpu, 1e-9), "cpu_s": answers.cpu}
        for name, answers in found.items()
    }


def figures(given: Facts, answers: Answers, use: NDArray[np.bool_]) -> dict[str, Any]:
    """RMSSE, WQL, WAPE, bias, and coverage of 80% and 90% by horizon third, on some rows."""
    actual, mean, quantiles = given.actual[use], answers.mean[use], answers.quantiles[use]
    unit = np.broadcast_to(given.unit[..., None], use.shape)[use]
    places = [LEVELS.index(level) for level in WQL_LEVELS]
    return {
        "rmsse": metrics.rmsse(actual, mean, unit),
        "rmsse_by_series": _by_series(given, answers.mean, use),
        "rmsse_point": _by_series(given, answers.point, use),
        "wql": metrics.wql(actual, quantiles[:, places], WQL_LEVELS),
        "wape": metrics.wape(actual, answers.point[use]),
        "bias": metrics.bias(actual, mean),
        "coverage_80": _covered(actual, quantiles, 0.1, 0.9),
        "coverage_80_thirds": _by_third(given, answers, use, 0.1, 0.9),
        "coverage_90_thirds": _by_third(given, answers, use, 0.05, 0.95),
    }


def _by_series(given: Facts, forecast: Floats, use: NDArray[np.bool_]) -> float:
    """M5's way: the RMSSE of each series and origin, then their mean; one wild row weighs less than pooled."""
    unit = np.where(given.unit > 0, given.unit, np.nan)[..., None]
    squared = np.where(use, ((forecast - given.actual) / unit) ** 2, 0.0).sum(axis=2)
    count = use.sum(axis=2)
    some = count > 0
    return float(np.sqrt(squared[some] / count[some]).mean()) if some.any() else float("nan")


def _covered(actual: Floats, quantiles: Floats, low: float, high: float) -> float:
    return metrics.coverage(actual, quantiles[:, LEVELS.index(low)], quantiles[:, LEVELS.index(high)])


def _by_third(given: Facts, answers: Answers, use: NDArray[np.bool_], low: float, high: float) -> list[float]:
    found = []
    for steps in np.array_split(np.arange(use.shape[2]), 3):
        rows = use[:, :, steps]
        found.append(_covered(given.actual[:, :, steps][rows], answers.quantiles[:, :, steps][rows], low, high))
    return found


@dataclass(frozen=True)
class Kinds:
    """Of each series, from its history before the first origin: volume class (A, B, C, or empty), and flags."""

    volume: NDArray[np.str_]
    intermittent: NDArray[np.bool_]
    continuous: NDArray[np.bool_]


def kinds(panel: Panel, first: int) -> Kinds:
    """A makes up 80% of the units before the first origin, B the next 15%. Intermittent: over 30% zeros.

    Continuous: at most 30% zeros and 10 units a period or more, so that a quantile is not one of a few numbers.
    """
    history = panel.demand[:, :first]
    known = np.isfinite(history)
    count = np.maximum(known.sum(axis=1), 1)
    total = np.where(known, history, 0.0).sum(axis=1)
    order = np.argsort(-total, kind="stable")
    before = np.empty(len(total))
    before[order] = (np.cumsum(total[order]) - total[order]) / max(total.sum(), 1e-9)
    volume = np.where(before < 0.8, "A", np.where(before < 0.95, "B", "C"))
    zeros = (known & (history == 0)).sum(axis=1) / count
    smooth = zeros <= MANY_ZEROS
    return Kinds(np.where(known.any(axis=1), volume, ""), ~smooth, smooth & (total / count >= CONTINUOUS_LEVEL))


def segments(
    given: Facts, found: Mapping[str, Answers], use: NDArray[np.bool_], of: Kinds, names: Sequence[str]
) -> list[dict[str, Any]]:
    """RMSSE of the named contenders in each volume class x intermittent or smooth with 50 scored series or more."""
    lines: list[dict[str, Any]] = []
    for volume in ("A", "B", "C"):
        for kind, flag in (("intermittent", of.intermittent), ("smooth", ~of.intermittent)):
            mine = (of.volume == volume) & flag
            rows = use & mine[None, :, None]
            count = int(rows.any(axis=(0, 2)).sum())
            if count >= LEAST_SERIES:
                values = {name: figures(given, found[name], rows) for name in names}
                lines.append(
                    {"volume": volume, "kind": kind, "series": count, "rows": int(rows.sum())}
                    | {"rmsse": {name: value["rmsse"] for name, value in values.items()}}
                )
    return lines
