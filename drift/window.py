"""From records, matured outcomes and a reference to the figures that the judge looks at."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from contracts.decisions import DecisionRecord, Rung
from contracts.declarations import Declarations, PromotionPlan
from contracts.policy import Policy
from drift.frames import feature_frame, stale_shares
from drift.judge import ColumnStats, LossStats, WindowStats
from drift.profile import PREDICTION, ColumnProfile, Profile
from drift.psi import count, make_bins
from models.metrics import ece, headline

Measure = Callable[[pd.DataFrame, pd.DataFrame, Sequence[str]], dict[str, float]]
ECE_DRAWS = 200
MIN_ANSWERS = 100
ECE_QUANTILE = 0.99


def window_records(
    records: Sequence[DecisionRecord], version: str, start: datetime, end: datetime
) -> list[DecisionRecord]:
    """Decisions in [start, end) that were routed to the version, or that nobody could be asked for."""
    return [r for r in records if start <= r.as_of < end and r.route.version in (version, None)]


def measure_window(
    records: Sequence[DecisionRecord],
    matured: pd.DataFrame,
    profile: Profile | None,
    policy: Policy,
    declarations: Declarations,
    version: str,
    start: datetime,
    end: datetime,
    measure: Measure,
) -> tuple[WindowStats, pd.DataFrame]:
    """Measure one window of one version.

    Args:
        records: decisions of the model, any superset of the window's.
        matured: see `MaturityTracker.frame`; outcomes count in the window in which they became known.
        profile: the version's reference, None when it has none: then nothing can be compared.
        policy, declarations, version: whose window.
        start, end: the window [start, end); start not before the version took office.
        measure: gives the PSI of columns: of `evidently_report` or of `psi`.

    Returns:
        figures for the judge, and the window's feature frame.
    """
    chosen = window_records(records, version, start, end)
    frame = feature_frame(chosen, declarations, policy.features)
    frame[PREDICTION] = frame[PREDICTION].where(frame["answered"] == version)
    lower = [record.answer.rung not in (Rung.CHAMPION, Rung.CANARY) for record in chosen]
    columns: tuple[ColumnStats, ...] = ()
    answers: ColumnStats | None = None
    if profile is not None:
        columns, answers = _column_stats(frame, profile, policy, declarations, measure)
    stats = WindowStats(
        model=policy.model,
        version=version,
        start=start,
        end=end,
        rows=len(chosen),
        losses=loss_stats(matured, profile, policy, version, start, end),
        columns=columns,
        reference_rows=0 if profile is None else len(profile.sample),
        reference_end=None if profile is None else profile.end,
        prediction=answers,
        fallback_share=float(np.mean(lower)) if lower else 0.0,
        stale=tuple((view, share) for view, share in stale_shares(chosen) if view not in _optional(declarations)),
    )
    return stats, frame


def judged_names(profile: Profile, policy: Policy) -> list[str]:
    """The most important columns of the reference that vary at all, as many as the policy wants judged."""
    varying = [c.name for c in profile.columns if c.null_share < 1.0 and profile.sample[c.name].nunique() > 0]
    return varying[: policy.drift.max_features]


def _optional(declarations: Declarations) -> set[str]:
    return {name for name, view in declarations.views.items() if isinstance(view, PromotionPlan)}


def _column_stats(
    frame: pd.DataFrame, profile: Profile, policy: Policy, declarations: Declarations, measure: Measure
) -> tuple[tuple[ColumnStats, ...], ColumnStats]:
    judged = judged_names(profile, policy)
    enough = min(len(frame), len(profile.sample)) >= policy.drift.min_rows
    distances = measure(profile.sample, frame, judged) if enough else {}
    optional = _optional(declarations)
    columns = tuple(
        _one_column(column, frame, profile, distances, column.name in judged, column.name.split("__")[0] in optional)
        for column in profile.columns
    )
    return columns, _answer_stats(frame, profile, policy, measure)


def _answer_stats(frame: pd.DataFrame, profile: Profile, policy: Policy, measure: Measure) -> ColumnStats:
    """Answers of the version against its answers out of sample; rows without one say nothing and are left out."""
    before, after = profile.sample[[PREDICTION]].dropna(), frame[[PREDICTION]].dropna()
    distances: dict[str, float] = {}
    if len(before) >= MIN_ANSWERS and len(after) >= policy.drift.min_rows:
        distances = measure(before, after, [PREDICTION])
    cut = make_bins(before[PREDICTION])
    held = count(cut, before[PREDICTION]) + count(cut, after[PREDICTION]) > 0
    return ColumnStats(
        name=PREDICTION,
        present=True,
        psi=distances.get(PREDICTION),
        natural_psi=profile.prediction.natural_psi,
        bins=int(held.sum()),
        optional=True,
        compared=(len(before), len(after)),
    )


def _one_column(
    column: ColumnProfile,
    frame: pd.DataFrame,
    profile: Profile,
    distances: dict[str, float],
    judged: bool,
    optional: bool,
) -> ColumnStats:
    present = column.name in frame.columns or column.null_share >= 1.0
    values = frame[column.name] if column.name in frame.columns else pd.Series(dtype=np.float64)
    bins = 1
    if column.name in distances:
        cut = make_bins(profile.sample[column.name])
        bins = int(((count(cut, profile.sample[column.name]) + count(cut, values)) > 0).sum())
    return ColumnStats(
        name=column.name,
        present=present,
        null_share=float(values.isna().mean()) if len(values) else 0.0,
        reference_null_share=column.null_share,
        invalid_share=_invalid_share(values, column.kind),
        psi=distances.get(column.name),
        natural_psi=column.natural_psi,
        bins=bins,
        judged=judged,
        optional=optional,
    )


def _invalid_share(values: pd.Series, kind: str) -> float:
    """Share of values that are there but not of the reference's type."""
    if not len(values):
        return 0.0
    if kind == "number":
        if pd.api.types.is_numeric_dtype(values):
            return float(np.isinf(values.to_numpy(dtype=np.float64)).mean())
        wrong = [not isinstance(v, (int, float)) or isinstance(v, bool) for v in values.dropna()]
    else:
        wrong = [not isinstance(v, str) for v in values.dropna()]
    return sum(wrong) / len(values)


def loss_stats(
    matured: pd.DataFrame, profile: Profile | None, policy: Policy, version: str, start: datetime, end: datetime
) -> LossStats:
    """The version's own answers whose outcomes became known in [start, end), against the incumbent on the same ones."""
    inside = (matured["matured_at"] >= start) & (matured["matured_at"] < end) & (matured["version"] == version)
    rows = matured[inside & np.isfinite(matured["loss"].astype(np.float64))]
    if not len(rows):
        return LossStats(rows=0)
    metric = policy.gate.metric
    pair = rows[["loss", "incumbent_loss"]].to_numpy(dtype=np.float64)
    both = np.isfinite(pair).all(axis=1)
    # Where the rule knew nothing there is nothing to hold the model against; few such rows do not spoil the pair.
    paired = bool(both.mean() >= 0.5)
    kept: Any = both if paired else np.ones(len(rows), dtype=bool)
    used = pair[kept]
    wide = _figures(rows, policy)
    return LossStats(
        rows=len(used),
        loss=headline(metric, used[:, 0]),
        incumbent=headline(metric, used[:, 1]) if paired else None,
        reference_loss=_known(profile.loss if profile else None),
        reference_incumbent=_known(profile.incumbent_loss if profile else None),
        log_error=log_ratio_error(used, rows["as_of"].loc[kept], root=metric == "rmsse"),
        **wide,
    )


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) and value > 0 else None


def _figures(rows: pd.DataFrame, policy: Policy) -> dict[str, Any]:
    if policy.kind == "forecast":
        covered = rows[["covered", "steps"]].dropna()
        return {"coverage": float(np.average(covered["covered"], weights=covered["steps"])) if len(covered) else None}
    actual, said = rows["actual"].to_numpy(dtype=np.float64), rows["prediction"].to_numpy(dtype=np.float64)
    return {"ece": ece(actual, said), "ece_noise": ece_noise(said)}


def ece_noise(probability: Any, seed: int = 7) -> float:
    """The ECE that a perfectly calibrated model stays under 99 times in 100 on these probabilities, by simulation."""
    draws = np.random.default_rng(seed).random((ECE_DRAWS, len(probability))) < probability
    return float(np.quantile([ece(draw.astype(np.float64), probability) for draw in draws], ECE_QUANTILE))


def log_ratio_error(pair: Any, days: pd.Series, *, root: bool) -> float | None:
    """Standard error of log(mean loss / mean incumbent loss), days as clusters.

    Args:
        pair: (n, 2) losses. An incumbent column of NaN means: of log(mean loss) alone.
        days: time of each row; rows of one UTC day share weather and promotions and count as one draw, unless there are
            fewer than 3 days: then each row counts.
        root: True when the headline is the root of the mean: halves the error.

    Returns:
        >= 0; None with fewer than 3 rows: then the noise is not known.

    Source: ratio estimator, first-order (delta) variance with clusters (Cochran 1977, 6.13).
    """
    day = pd.factorize(days.dt.floor("D"))[0]
    if len(pair) < 3:
        return None
    if day.max() < 2:
        day = np.arange(len(pair))
    model, rule = pair[:, 0], pair[:, 1]
    part = model / model.mean() - (rule / rule.mean() if np.isfinite(rule).all() and rule.mean() > 0 else 1.0)
    sums = np.bincount(day, weights=part)
    groups = len(sums)
    error = math.sqrt(float((sums**2).sum()) * groups / (groups - 1)) / len(pair)
    return error / 2 if root else error
