"""What a panel's own past says about its boosters: how many trees, which challengers, how far off, how wide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from contracts.errors import NotEnoughData
from models import metrics
from models.calibration import QuantileShift, QuantileStretch, learn_shift, learn_stretch, tidy
from models.combine import Blend, choose_blend
from models.panel import Floats, Ints
from models.panel_columns import PanelColumns
from models.panel_training import MOST_ROUNDS, TRIED, Family, PanelFit, Rounds, fit_family, grid
from models.segments import SegmentRule, segment_rule
from models.statistical import challengers, statistical_means

ORIGINS = 6
# The family that answers past origins is fitted on this share of the rows: it costs as much as it decides.
BACKTEST_SHARE = 0.6
# Slow to fit: their share is chosen on a sample of series, and they are fitted in full only where they won one.
SLOW = frozenset({"dynamic_optimized_theta", "mstl", "auto_ets", "auto_theta"})
SAMPLE, SAMPLE_ORIGINS = 50, 2
STAGE_ROWS = 20_000
# Past rows that corrections are learnt from, of series evenly spread over the panel.
MOST_ROWS = 80_000
AT_ONCE = 4000
MOVES = (0.0, 0.5, 1.0)
# Fewer trees are taken when more win by less than this; a correction has to win by as much.
WORTH = 0.002
MOST_LEVEL = 0.15
# What a wider interval may cost in loss on past origins, and how far below its nominal share an interval may cover.
DEAREST = 0.02
COVERS_ENOUGH = 0.01

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class PanelCorrections:
    """Learnt on past origins of the panel.

    Attributes:
        rule: how series are put into segments. rounds: trees of each kind of booster.
        blend: shares of challengers in the mean. level: what the mean is multiplied by.
        move: how far quantiles follow the mean away from the booster's.
        shift, stretch: of the quantiles; at most one, the one that won on later origins.
    """

    rule: SegmentRule
    rounds: Rounds
    blend: Blend = field(default_factory=Blend)
    level: float = 1.0
    move: float = 0.0
    shift: QuantileShift | None = None
    stretch: QuantileStretch | None = None


@dataclass(frozen=True)
class Answered:
    """Answers of a family to rows of a panel, all (n,) or (n, q)."""

    series: Ints
    origin: Ints
    step: Ints
    mean: Floats
    quantiles: Floats
    segment: Any

    def some(self, rows: Ints) -> Answered:
        """These rows only."""
        return Answered(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def learn_corrections(columns: PanelColumns, horizon: int, plan: PanelFit, workers: int = 1) -> PanelCorrections:
    """Corrections from forecasts of a family that was fitted before the newest matured origins.

    With too little past for that the boosters stand alone, of default size.
    """
    panel, history = columns.panel, columns.history
    series = np.arange(len(panel.keys))
    rule = segment_rule(history.mean(series, np.full(len(series), panel.periods), history.rhythm.scale))
    origins = past_origins(panel.periods, horizon)
    family: Family | None = None
    while origins and family is None:
        small = replace(plan, row_cap=int(plan.row_cap * BACKTEST_SHARE), rounds=MOST_ROUNDS)
        try:
            family = fit_family(columns, horizon, min(origins), small)
        except NotEnoughData:
            origins = origins[1:]
    if family is None:
        return PanelCorrections(rule, plan.rounds)
    family = family.cut(_learn_rounds(columns, family, horizon, origins, plan.seed))
    every = -(-len(series) * horizon * len(origins) // MOST_ROWS)
    rows = ask_rows(columns, family, rule, horizon, origins, series[::every])
    actual = history.at(rows.series, rows.origin + rows.step - 1)
    known = np.flatnonzero(np.isfinite(actual) & np.isfinite(rows.mean))
    found = PanelCorrections(rule, family.rounds)
    if not len(known):
        return found
    rows, actual = rows.some(known), actual[known]
    found = _learn_mean(columns, rows, actual, found, horizon, plan.levels, workers)
    return _learn_spread(rows, actual, found, horizon, plan.levels)


def past_origins(periods: int, horizon: int) -> list[int]:
    """Newest matured origins, oldest first: half a horizon apart, with at least as much past before them as after."""
    every = max(1, horizon // 2)
    newest = periods - horizon
    return [o for o in (newest - every * back for back in reversed(range(ORIGINS))) if o > periods // 2]


def ask_rows(
    columns: PanelColumns, family: Family, rule: SegmentRule, horizon: int, origins: Sequence[int], chosen: Ints
) -> Answered:
    """The family's answers at these origins for the chosen series and all steps, a few thousand series at a time."""
    parts = []
    for origin in origins:
        for begin in range(0, len(chosen), AT_ONCE):
            some = chosen[begin : begin + AT_ONCE]
            place, at, step = grid(len(some), horizon, [origin])
            series = some[place]
            mean, table = family.ask(columns.rows(series, at, step))
            parts.append(Answered(series, at, step, mean, table, segments_at(columns, rule, series, at)))
    return Answered(*(np.concatenate([getattr(p, name) for p in parts]) for name in Answered.__dataclass_fields__))


def segments_at(columns: PanelColumns, rule: SegmentRule, series: Ints, origin: Ints) -> Any:
    """Segment of each row's series as known at its origin."""
    history, window = columns.history, columns.history.rhythm.scale
    level, deviation = history.mean(series, origin, window), history.deviation(series, origin, window)
    return rule.name(level, deviation, history.zero_share(series, origin, window))


def _learn_rounds(columns: PanelColumns, family: Family, horizon: int, origins: Sequence[int], seed: int) -> Rounds:
    """The fewest trees whose loss on past origins is within 0.2% of the best number tried."""
    series, origin, step = grid(len(columns.panel.keys), horizon, origins)
    actual = columns.history.at(series, origin + step - 1)
    known = np.flatnonzero(np.isfinite(actual))
    if not len(known):
        return Rounds(100, 100, 60)
    if len(known) > STAGE_ROWS:
        known = np.sort(np.random.default_rng(seed).choice(known, STAGE_ROWS, replace=False))
    series, origin, step, actual = series[known], origin[known], step[known], actual[known]
    made = columns.rows(series, origin, step)
    unit = error_units(columns, series, origin)
    others = [level for level in family.levels if level != 0.5]

    def loss(which: str, rounds: int) -> float:
        answer = family.stages(made, which, rounds)
        if which == "mean":
            cut = np.minimum(((answer - actual) / unit) ** 2, metrics.LOSS_BOUND["rmsse"])
            return float(np.nanmean(cut))
        levels = [0.5] if which == "median" else others
        return float(sum(metrics.pinball(actual, answer[:, i], level).sum() for i, level in enumerate(levels)))

    chosen = {}
    for which, tried in TRIED.items():
        losses = [loss(which, rounds) for rounds in tried]
        chosen[which] = next(r for r, value in zip(tried, losses, strict=True) if value <= min(losses) * (1 + WORTH))
    return Rounds(**chosen)


def error_units(columns: PanelColumns, series: Ints, origin: Ints) -> Floats:
    """What a row's error is divided by: the unit of RMSSE as known at its origin, > 0."""
    history = columns.history
    return metrics.error_unit(history.naive_rmse_at(series, origin), history.scale(series, origin))


def _sample(rows: Answered, names: Sequence[str]) -> Ints:
    """Rows on which challengers are tried: all, or those of a few series and origins where a fit is slow."""
    if not SLOW & set(names):
        return np.arange(len(rows.series))
    there = np.unique(rows.series)
    some = there[np.unique(np.linspace(0, len(there) - 1, min(SAMPLE, len(there))).astype(np.int64))]
    late = np.unique(rows.origin)[-SAMPLE_ORIGINS:]
    return np.flatnonzero(np.isin(rows.series, some) & np.isin(rows.origin, late))


def _learn_mean(
    columns: PanelColumns,
    rows: Answered,
    actual: Floats,
    found: PanelCorrections,
    horizon: int,
    levels: Sequence[float],
    workers: int,
) -> PanelCorrections:
    """Shares of challengers, how far quantiles follow, and the level of what comes out."""
    names = challengers(columns.panel)
    picked = _sample(rows, names)
    few = rows.some(picked)
    blended, whole = few.mean, rows.mean
    if len(picked) and names:
        members = member_rows(columns, names, few, horizon, workers)
        unit = error_units(columns, few.series, few.origin)
        blend = choose_blend(actual[picked], few.mean, members, unit, few.segment)
        blended = np.maximum(blend.apply(few.mean, members, few.segment), 0.0)
        by = (blended - few.mean)[:, None]
        losses = [metrics.wql(actual[picked], tidy(few.quantiles + m * by), levels) for m in MOVES]
        move = MOVES[int(np.argmin(losses))] if min(losses) < losses[0] * (1 - WORTH) else 0.0
        found = replace(found, blend=blend, move=move)
        if len(picked) == len(rows.series):
            whole = blended
    return replace(found, level=_learn_level(actual, whole, rows.origin, horizon))


def _learn_level(actual: Floats, mean: Floats, origin: Ints, horizon: int) -> float:
    """What brings past totals to what happened, drawn to 1 as far as it differs between origins.

    Origins whose horizons overlap count for as many as would not.

    Source: shrinkage by signal to noise (James and Stein 1961) of the log ratio of totals by origin.
    """
    ratios = []
    for at in np.unique(origin):
        here = origin == at
        said, seen = float(mean[here].sum()), float(actual[here].sum())
        if said > 0 and seen > 0:
            ratios.append(np.log(seen / said))
    if len(ratios) < 2:
        return 1.0
    span = int(origin.max() - origin.min()) + horizon
    apart = max(min(len(ratios), span / horizon), 1.0)
    centre, noise = float(np.mean(ratios)), float(np.var(ratios, ddof=1)) / apart
    drawn = centre * centre**2 / (centre**2 + noise) if centre else 0.0
    return float(np.exp(np.clip(drawn, -MOST_LEVEL, MOST_LEVEL)))


def member_rows(
    columns: PanelColumns, names: Sequence[str], rows: Answered, horizon: int, workers: int
) -> Mapping[str, Floats]:
    """What each challenger forecast for the rows, (n,), NaN where it could not."""
    found = {name: np.full(len(rows.series), np.nan) for name in names}
    if not names:
        return found
    for origin in np.unique(rows.origin):
        here = rows.origin == origin
        wanted, place = np.unique(rows.series[here], return_inverse=True)
        past = columns.panel.take(wanted).until(int(origin), horizon)
        for name, table in statistical_means(past, horizon, names, workers=workers).items():
            found[name][here] = table[place, rows.step[here] - 1]
    return found


def spread(found: PanelCorrections, table: Floats, rows: Answered, levels: Sequence[float]) -> Floats:
    """Quantiles with the shift or stretch that was learnt, rising and >= 0."""
    if found.shift is not None:
        return tidy(found.shift.apply(table, rows.step, rows.segment))
    if found.stretch is not None:
        return tidy(found.stretch.apply(table, rows.step, rows.segment, list(levels).index(0.5)))
    return table


def _learn_spread(
    rows: Answered, actual: Floats, found: PanelCorrections, horizon: int, levels: tuple[float, ...]
) -> PanelCorrections:
    """The shift or the stretch, learnt on the older half of the origins and judged on the newer, or neither.

    The least loss wins; where the boosters' own intervals cover too little, a correction that covers more may cost up
    to 2% of it, because what covers too little yesterday covers too little tomorrow.
    """
    origins = np.unique(rows.origin)
    if len(origins) < 2:
        return found
    late = rows.origin >= origins[len(origins) // 2]
    before, after = rows.some(np.flatnonzero(~late)), rows.some(np.flatnonzero(late))

    def learnt(which: str, some: Answered, seen: Floats) -> PanelCorrections:
        given = (seen, some.quantiles, some.step, levels, horizon, some.segment)
        if which == "shift":
            return replace(found, shift=learn_shift(*given))
        return replace(found, stretch=learn_stretch(*given)) if which == "stretch" else found

    loss, covered = {}, {}
    for which in ("none", "stretch", "shift"):
        table = spread(learnt(which, before, actual[~late]), after.quantiles, after, levels)
        loss[which] = metrics.wql(actual[late], table, levels)
        covered[which] = metrics.coverage(actual[late], table[:, 0], table[:, -1])
    best = min(loss, key=lambda which: loss[which])
    if best == "none" and covered["none"] < levels[-1] - levels[0] - COVERS_ENOUGH:
        wider = [w for w in loss if covered[w] > covered["none"] and loss[w] <= loss["none"] * (1 + DEAREST)]
        best = min(wider, key=lambda which: loss[which], default="none")
    return learnt(best, rows, actual)
