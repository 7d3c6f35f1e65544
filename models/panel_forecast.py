"""One recipe for a panel's demand: global boosters, statistical challengers where they earn a share, honest intervals.

Source: rolling-origin trials on eight real sets (daily, weekly, monthly); docs/forecast.md has what it does today.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from contracts.errors import InputInvalid, NotEnoughData
from models import metrics
from models.calibration import QuantileShift, learn_shift, tidy
from models.combine import Blend, choose_blend
from models.panel import Floats, Ints, Panel, PanelForecast
from models.panel_columns import PanelColumns
from models.panel_fallback import fallback_forecast, stand_in
from models.panel_training import Family, PanelFit, fit_family, grid
from models.segments import SegmentRule, segment_rule
from models.statistical import challengers, statistical_means

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
ORIGINS = 6
# Slow to fit: their share is chosen on a sample of series, and they are fitted in full only where they won one.
SLOW = frozenset({"dynamic_optimized_theta", "mstl", "auto_ets", "auto_theta"})
SAMPLE, SAMPLE_ORIGINS = 150, 3
BACKTEST_SHARE = 0.6
POINT_MEDIAN = 0.5
AT_ONCE = 4000
MOVES = (0.0, 0.5, 1.0)
WORTH = 0.002


@dataclass(frozen=True)
class Corrections:
    """What the panel's own past says about the boosters: shares of challengers, how quantiles move, and their shift."""

    rule: SegmentRule
    blend: Blend
    move: float = 0.0
    shift: QuantileShift | None = None


@dataclass(frozen=True)
class _Rows:
    """Answers of a family to rows of a panel, all (n,) or (n, q)."""

    series: Ints
    origin: Ints
    step: Ints
    mean: Floats
    quantiles: Floats
    segment: Any


def forecast_panel(
    panel: Panel,
    horizon: int,
    *,
    levels: Sequence[float] = LEVELS,
    seed: int = 7,
    country: str | None = None,
    workers: int = 1,
) -> PanelForecast:
    """Forecast every series of a panel.

    Args:
        panel: demand and what is known ahead, at least `horizon` periods of it. horizon: steps.
        levels: quantiles, rising, with the median among them. seed: of the sampling of rows and of the boosters.
        country: ISO 3166 code whose holidays count (daily panels). workers: processes for statistical fits.

    Returns:
        mean, point, quantiles; `how` says `model` or which fallback answered for a series; `about` what was decided.
        The same inputs give the same figures.

    Raises:
        InputInvalid: the horizon is below 1, levels are not rising within (0, 1) or lack the median.
        NotEnoughData: nothing is known of any series.
    """
    levels = tuple(levels)
    if horizon < 1:
        raise InputInvalid("horizon", "at least 1 step", str(horizon))
    if list(levels) != sorted(set(levels)) or 0.5 not in levels or not 0 < levels[0] <= levels[-1] < 1:
        raise InputInvalid("levels", "rising, strictly between 0 and 1, with 0.5 among them", str(levels))
    if not np.isfinite(panel.demand).any():
        raise NotEnoughData("periods with a known demand", 1, 0)
    columns = PanelColumns(panel, horizon, country)
    plan = PanelFit(levels=levels, seed=seed)
    try:
        family = fit_family(columns, horizon, panel.periods, plan)
    except NotEnoughData as error:
        return fallback_forecast(columns, horizon, levels, str(error))
    found = learn_corrections(columns, horizon, plan, workers)
    return _forecast(columns, horizon, family, found, workers)


def learn_corrections(columns: PanelColumns, horizon: int, plan: PanelFit, workers: int = 1) -> Corrections:
    """Shares, moves and shifts from forecasts of a family that was fitted before the newest matured origins.

    With too little past for that the boosters stand alone, uncorrected.
    """
    panel, history = columns.panel, columns.history
    series = np.arange(len(panel.keys))
    rule = segment_rule(history.mean(series, np.full(len(series), panel.periods), history.rhythm.scale))
    origins = _origins(panel, horizon)
    while origins:
        small = replace(plan, row_cap=int(plan.row_cap * BACKTEST_SHARE))
        try:
            family = fit_family(columns, horizon, min(origins), small)
            break
        except NotEnoughData:
            origins = origins[1:]
    if not origins:
        return Corrections(rule, Blend())
    rows = ask_rows(columns, family, rule, horizon, origins)
    blend = _learn_blend(columns, rows, horizon, workers)
    return _learn_quantiles(columns, rows, Corrections(rule, blend), horizon, plan.levels, workers)


def _origins(panel: Panel, horizon: int) -> list[int]:
    """Newest matured origins, oldest first: half a horizon apart, with at least as much past before them as after."""
    every = max(1, horizon // 2)
    newest = panel.periods - horizon
    return [o for o in (newest - every * back for back in reversed(range(ORIGINS))) if o > panel.periods // 2]


def ask_rows(columns: PanelColumns, family: Family, rule: SegmentRule, horizon: int, origins: Sequence[int]) -> _Rows:
    """The family's answers at these origins for all series and steps, a few thousand series at a time."""
    parts = []
    count = len(columns.panel.keys)
    for origin in origins:
        for begin in range(0, count, AT_ONCE):
            many = min(AT_ONCE, count - begin)
            series, at, step = grid(many, horizon, [origin])
            series = series + begin
            mean, table = family.ask(columns.rows(series, at, step))
            parts.append(_Rows(series, at, step, mean, table, segments_at(columns, rule, series, at)))
    return _Rows(*(np.concatenate([getattr(p, name) for p in parts]) for name in _Rows.__dataclass_fields__))


def segments_at(columns: PanelColumns, rule: SegmentRule, series: Ints, origin: Ints) -> Any:
    """Segment of each row's series as known at its origin."""
    history, window = columns.history, columns.history.rhythm.scale
    level, deviation = history.mean(series, origin, window), history.deviation(series, origin, window)
    return rule.name(level, deviation, history.zero_share(series, origin, window))


def _learn_blend(columns: PanelColumns, rows: _Rows, horizon: int, workers: int) -> Blend:
    panel, history = columns.panel, columns.history
    names = challengers(panel)
    actual = history.at(rows.series, rows.origin + rows.step - 1)
    use = np.isfinite(actual) & np.isfinite(rows.mean)
    if SLOW & set(names):
        some = np.unique(np.linspace(0, len(panel.keys) - 1, min(SAMPLE, len(panel.keys))).astype(np.int64))
        late = np.unique(rows.origin)[-SAMPLE_ORIGINS:]
        use &= np.isin(rows.series, some) & np.isin(rows.origin, late)
    picked = np.flatnonzero(use)
    if not len(picked):
        return Blend()
    members = member_rows(columns, names, rows, picked, horizon, workers)
    unit = metrics.error_unit(
        history.naive_rmse_at(rows.series[picked], rows.origin[picked]),
        history.scale(rows.series[picked], rows.origin[picked]),
    )
    return choose_blend(actual[picked], rows.mean[picked], members, unit, rows.segment[picked])


def member_rows(
    columns: PanelColumns, names: Sequence[str], rows: _Rows, picked: Ints, horizon: int, workers: int
) -> Mapping[str, Floats]:
    """What each challenger forecast for the picked rows, (len(picked),), NaN where it could not."""
    panel = columns.panel
    found = {name: np.full(len(picked), np.nan) for name in names}
    if not names:
        return found
    for origin in np.unique(rows.origin[picked]):
        here = rows.origin[picked] == origin
        wanted, place = np.unique(rows.series[picked][here], return_inverse=True)
        past = panel.take(wanted).until(int(origin), horizon)
        for name, table in statistical_means(past, horizon, names, workers=workers).items():
            found[name][here] = table[place, rows.step[picked][here] - 1]
    return found


def _learn_quantiles(
    columns: PanelColumns, rows: _Rows, found: Corrections, horizon: int, levels: tuple[float, ...], workers: int
) -> Corrections:
    """How far quantiles follow the blended mean, and the shift; each is taken only if it wins on later origins."""
    actual = columns.history.at(rows.series, rows.origin + rows.step - 1)
    picked = np.flatnonzero(np.isfinite(actual) & np.isfinite(rows.quantiles).all(axis=1))
    names = found.blend.members()
    if SLOW & set(names):
        some = np.unique(np.linspace(0, len(columns.panel.keys) - 1, min(SAMPLE, len(columns.panel.keys))).astype(int))
        late = np.unique(rows.origin)[-SAMPLE_ORIGINS:]
        moved = picked[np.isin(rows.series[picked], some) & np.isin(rows.origin[picked], late)]
    else:
        moved = picked
    if names and len(moved):
        members = member_rows(columns, names, rows, moved, horizon, workers)
        mean = found.blend.apply(rows.mean[moved], members, rows.segment[moved])
        by = mean - rows.mean[moved]
        losses = [metrics.wql(actual[moved], tidy(rows.quantiles[moved] + m * by[:, None]), levels) for m in MOVES]
        if min(losses) < losses[0] * (1 - WORTH):
            found = replace(found, move=MOVES[int(np.argmin(losses))])
    return replace(found, shift=_learn_shift(actual, rows, picked, horizon, levels))


def _learn_shift(
    actual: Floats, rows: _Rows, picked: Ints, horizon: int, levels: tuple[float, ...]
) -> QuantileShift | None:
    """A shift learnt on the older half of the origins and kept, learnt on all, if it lowers the newer half's loss."""
    origins = np.unique(rows.origin[picked])
    if len(origins) < 2:
        return None
    late = rows.origin[picked] >= origins[len(origins) // 2]

    def learnt(where: Ints) -> QuantileShift:
        return learn_shift(actual[where], rows.quantiles[where], rows.step[where], levels, horizon, rows.segment[where])

    before, after = picked[~late], picked[late]
    shift = learnt(before)
    tried = tidy(shift.apply(rows.quantiles[after], rows.step[after], rows.segment[after]))
    loss = metrics.wql(actual[after], rows.quantiles[after], levels)
    return learnt(picked) if metrics.wql(actual[after], tried, levels) <= loss * (1 + WORTH) else None


def _forecast(columns: PanelColumns, horizon: int, family: Family, found: Corrections, workers: int) -> PanelForecast:
    panel, levels = columns.panel, family.levels
    rows = ask_rows(columns, family, found.rule, horizon, [panel.periods])
    every = np.arange(len(rows.series))
    members = member_rows(columns, found.blend.members(), rows, every, horizon, workers)
    mean = np.maximum(found.blend.apply(rows.mean, members, rows.segment), 0.0)
    table = tidy(rows.quantiles + found.move * (mean - rows.mean)[:, None])
    if found.shift is not None:
        table = tidy(found.shift.apply(table, rows.step, rows.segment))
    shape = (len(panel.keys), horizon)
    point = (1 - POINT_MEDIAN) * mean + POINT_MEDIAN * table[:, levels.index(0.5)]
    made = PanelForecast(
        mean=mean.reshape(shape),
        quantiles=table.reshape((*shape, len(levels))),
        levels=levels,
        how=("model",) * len(panel.keys),
        point=point.reshape(shape),
        about=_about(found, family, levels),
    )
    return stand_in(columns, made)


def _about(found: Corrections, family: Family, levels: tuple[float, ...]) -> dict[str, Any]:
    return {
        "rows": family.rows,
        "columns": list(family.names),
        "blend": found.blend.model_dump(mode="json"),
        "quantiles_follow_blend": found.move,
        "shifted": found.shift is not None,
        "levels": list(levels),
    }
