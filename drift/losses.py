"""Losses of answers against what came true, in the gate's own metric: one figure a decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.decisions import DecisionRecord, Step, ViewRead
from contracts.declarations import Declarations, DemandHistory
from contracts.policy import LossName, Policy
from models.incumbent import history_view, rate_views, rolling_late_rate, seasonal_naive
from models.metrics import forecast_losses, risk_losses

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """What came true. `actual`: (steps,), NaN for a step that is not scored, one value for a risk; `known_us`: when the
    last of it became known, microseconds since 1970."""

    actual: Floats
    known_us: int


@dataclass(frozen=True)
class Answers:
    """One answer as numbers: a risk's probability as `mean` (1,); a forecast's mean (steps,), quantiles (steps, q)."""

    mean: Floats
    quantiles: Floats
    levels: tuple[float, ...]

    def covered(self, truth: Truth) -> float:
        """Share of scored steps inside the widest interval, ends included; NaN without quantiles or another length."""
        scored = np.isfinite(truth.actual)
        if not self.levels or len(self.mean) != len(truth.actual) or not scored.any():
            return float("nan")
        inside = (truth.actual >= self.quantiles[:, 0]) & (truth.actual <= self.quantiles[:, -1])
        return float(inside[scored].mean())


def served_answers(steps: Sequence[Step], probability: float | None) -> Answers:
    """An answer of a record or a shadow score as numbers; empty for a refusal."""
    if probability is not None:
        return Answers(np.array([probability], dtype=np.float64), np.empty((1, 0)), ())
    names = sorted(steps[0].quantiles, key=float) if steps else []
    mean = np.array([step.mean for step in steps], dtype=np.float64)
    table = np.array([[step.quantiles.get(name, np.nan) for name in names] for step in steps], dtype=np.float64)
    return Answers(mean, table.reshape(len(steps), len(names)), tuple(float(name) for name in names))


def losses(
    metric: LossName, truths: Sequence[Truth], answers: Sequence[Answers], records: Sequence[DecisionRecord]
) -> list[float]:
    """Loss of each answer.

    Args:
        metric: the gate's. truths, answers, records: aligned, one a decision.

    Returns:
        mean loss over the scored steps of each decision, >= 0; NaN where there is no answer, or one of another length.
    """
    found = [float("nan")] * len(truths)
    groups: dict[tuple[float, ...], list[int]] = {}
    for place, (truth, answer) in enumerate(zip(truths, answers, strict=True)):
        if len(answer.mean) and len(answer.mean) == len(truth.actual):
            groups.setdefault(answer.levels, []).append(place)
    for levels, places in groups.items():
        counts = np.array([len(truths[place].actual) for place in places])
        actual = np.concatenate([truths[place].actual for place in places])
        mean = np.concatenate([answers[place].mean for place in places])
        if metric == "brier" or metric == "log_loss":
            rows = risk_losses(metric, actual, mean)
        else:
            quantiles = np.concatenate([answers[place].quantiles for place in places])
            scales = np.array([_scales(records[place]) for place in places])
            naive, scale = np.repeat(scales, counts, axis=0).T
            rows = forecast_losses(metric, actual, mean, quantiles, levels, naive, scale)
        owners = np.repeat(np.arange(len(places)), counts)
        finite = np.isfinite(rows)
        total = np.bincount(owners[finite], weights=rows[finite], minlength=len(places))
        scored = np.bincount(owners[finite], minlength=len(places))
        for place, value, number in zip(places, total, scored, strict=True):
            found[place] = float(value / number) if number else float("nan")
    return found


def _scales(record: DecisionRecord) -> tuple[float, float]:
    """naive_rmse and scale as they were served."""
    for read in record.views:
        naive, scale = read.values.get("naive_rmse"), read.values.get("scale")
        if naive is not None and scale is not None:
            return naive, scale
    return float("nan"), float("nan")


def incumbent_answers(records: Sequence[DecisionRecord], policy: Policy, declarations: Declarations) -> list[Answers]:
    """What the incumbent rule would have answered, from the features as recorded; NaN where it knew nothing."""
    if not records:
        return []
    if policy.kind == "risk":
        views = rate_views(declarations, policy.features)
        columns = {
            f"{name}__{column}_{max(view.windows)}": _values(records, name, f"{column}_{max(view.windows)}")
            for name, view in views.items()
            for column in ("late_rate", "n")
        }
        rates = rolling_late_rate(columns, views)
        return [Answers(rates[place : place + 1], np.empty((1, 0)), ()) for place in range(len(records))]
    return _naive_forecasts(records, policy, declarations)


def _naive_forecasts(records: Sequence[DecisionRecord], policy: Policy, declarations: Declarations) -> list[Answers]:
    name = history_view(declarations, policy.features)
    view = declarations.views[name]
    lags = view.lags if isinstance(view, DemandHistory) else 7
    counts = np.array([len(record.answer.steps) for record in records])
    columns: dict[str, Any] = {
        f"{name}__{column}": np.repeat(_values(records, name, column), counts)
        for column in (*(f"lag_{lag}" for lag in range(1, lags + 1)), "naive_rmse")
    }
    steps = [_first_step(record, name) + np.arange(len(record.answer.steps)) for record in records]
    columns["step"] = np.concatenate(steps)
    levels = policy.training.quantiles
    mean, quantiles = seasonal_naive(columns, name, levels)
    ends = np.cumsum(counts)
    return [
        Answers(mean[end - size : end], quantiles[end - size : end], levels)
        for end, size in zip(ends, counts, strict=True)
    ]


def _read(record: DecisionRecord, view: str) -> ViewRead | None:
    return next((read for read in record.views if read.view == view), None)


def _values(records: Sequence[DecisionRecord], view: str, column: str) -> Floats:
    reads = [_read(record, view) for record in records]
    found = [None if read is None else read.values.get(column) for read in reads]
    return np.array([np.nan if value is None else value for value in found], dtype=np.float64)


def _first_step(record: DecisionRecord, view: str) -> int:
    """Lags are counted from the history's own tick, which may be older than the decision's day (serving.assemble)."""
    read = _read(record, view)
    if read is None or read.event_time is None:
        return 1
    return 1 + (record.as_of.date() - read.event_time.date()).days
