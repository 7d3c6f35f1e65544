"""The judge: what a window showed, held against the reference and the policy. Pure: values in, a verdict out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from statistics import NormalDist

from contracts.monitoring import Finding, Health, WindowVerdict
from contracts.policy import Policy
from drift.psi import psi_noise

FALSE_ALARM = 0.01
CONFIDENCE = 0.95
FEW_ROWS = 30
INVALID_SHARE = 0.05


@dataclass(frozen=True)
class ColumnStats:
    """One column in the window and in the reference.

    `present`: the window has the column; shares are of rows in [0, 1]; `invalid_share`: values that are there but are
    not of the reference's type; `psi`: None when not computed; `natural_psi`: how far windows of the reference itself
    lay from the whole, None when unknown; `bins`: bins that hold rows; `judged`: among the most important ones;
    `optional`: its absence says nothing (a promotion plan holds rows only for what was announced); `compared`: rows of
    reference and window behind the PSI where they are fewer than all, as with answers.
    """

    name: str
    present: bool
    null_share: float = 0.0
    reference_null_share: float = 0.0
    invalid_share: float = 0.0
    psi: float | None = None
    natural_psi: float | None = None
    bins: int = 11
    judged: bool = True
    optional: bool = False
    compared: tuple[int, int] | None = None


@dataclass(frozen=True)
class LossStats:
    """Served answers of the version against the incumbent rule on the same matured decisions.

    `loss`, `incumbent`, `reference_loss`, `reference_incumbent`: headline figures (rmsse is a root), lower is better;
    `log_error`: standard error of log(loss / incumbent); `coverage`: of the widest interval; `ece` with `ece_noise`,
    what a perfectly calibrated model would show on as many rows at the 99th percentile.
    """

    rows: int
    loss: float | None = None
    incumbent: float | None = None
    reference_loss: float | None = None
    reference_incumbent: float | None = None
    log_error: float | None = None
    coverage: float | None = None
    ece: float | None = None
    ece_noise: float = 0.0


@dataclass(frozen=True)
class WindowStats:
    """What was measured of one window [start, end) of one version.

    `rows`: decisions routed to the version; `fallback_share`: of them answered by a lower rung; `stale`: view -> share
    of reads that were stale; `reference_end`: the newest as_of in the reference.
    """

    model: str
    version: str
    start: datetime
    end: datetime
    rows: int
    losses: LossStats
    columns: tuple[ColumnStats, ...] = ()
    reference_rows: int = 0
    reference_end: datetime | None = None
    prediction: ColumnStats | None = None
    fallback_share: float = 0.0
    stale: tuple[tuple[str, float], ...] = ()


def judge(stats: WindowStats, policy: Policy) -> WindowVerdict:
    """The verdict on one window.

    Order of weight: broken data; then performance (degraded); then drift of features or answers, or calibration out of
    range (drift); ok only when the features were compared **and** enough outcomes have matured. Anything less is
    not_enough_data, with a finding that says what is missing.

    Args:
        stats: what was measured.
        policy: minimum rows and limits.

    Returns:
        the verdict with every finding. A hard window for everybody is no violation: loss counts relative to the
        incumbent rule on the same decisions, against the same ratio at the gate.
    """
    broken = _broken(stats, policy)
    degraded = _performance(stats, policy)
    drifted = [*_drift(stats, policy), *_calibration(stats.losses, policy)]
    lacking = _lacking(stats, policy)
    if broken:
        health = Health.BROKEN
    elif degraded:
        health = Health.DEGRADED
    elif drifted:
        health = Health.DRIFT
    else:
        health = Health.NOT_ENOUGH if lacking else Health.OK
    return WindowVerdict(
        model=stats.model,
        version=stats.version,
        start=stats.start,
        end=stats.end,
        health=health,
        findings=(*broken, *degraded, *drifted, *lacking),
        rows=stats.rows,
        matured=stats.losses.rows,
        loss=stats.losses.loss,
        reference_loss=stats.losses.reference_loss,
    )


def _broken(stats: WindowStats, policy: Policy) -> list[Finding]:
    if stats.rows < min(policy.drift.min_rows, FEW_ROWS):
        return []
    limit = policy.drift.null_share
    found = [finding for column in stats.columns if (finding := _broken_column(column, stats.rows, limit))]
    for view, share in stats.stale:
        if share > limit:
            found.append(Finding("broken_data", view, share, limit, f"view {view}: {share:.0%} of reads are stale"))
    if stats.fallback_share > limit:
        words = f"{stats.fallback_share:.0%} of answers came from a lower rung"
        found.append(Finding("broken_data", "answers", stats.fallback_share, limit, words))
    return found


def _broken_column(column: ColumnStats, rows: int, limit: float) -> Finding | None:
    was = column.reference_null_share
    if not column.present:
        return Finding("broken_data", column.name, 1.0, 0.0, f"{column.name}: the column is missing")
    if column.invalid_share > INVALID_SHARE:
        words = f"{column.name}: {column.invalid_share:.0%} of values are not of the reference's type"
        return Finding("broken_data", column.name, column.invalid_share, INVALID_SHARE, words)
    if column.optional:
        return None
    # A column that is often missing is all null by chance in a small window; a thousandth is small enough.
    if column.null_share >= 1.0 and was**rows < 1e-3:
        words = f"{column.name}: all values are missing ({was:.0%} before)"
        return Finding("broken_data", column.name, 1.0, limit, words)
    bound = was + limit * (1.0 - was)
    if column.null_share > bound:
        words = f"{column.name}: {column.null_share:.0%} missing, {was:.0%} before"
        return Finding("broken_data", column.name, column.null_share, bound, words)
    return None


def _drift(stats: WindowStats, policy: Policy) -> list[Finding]:
    if not _comparable(stats, policy):
        return []
    found = []
    judged = [column for column in stats.columns if column.judged and column.psi is not None]
    for column in judged:
        found += _psi_finding("feature_drift", column, policy.drift.feature_psi, stats, len(judged))
    if stats.prediction is not None:
        found += _psi_finding("prediction_drift", stats.prediction, policy.drift.prediction_psi, stats, 1)
    return found


def _psi_finding(kind: str, column: ColumnStats, limit: float, stats: WindowStats, looks: int) -> list[Finding]:
    if column.psi is None or not math.isfinite(column.psi):
        return []
    before, after = column.compared or (stats.reference_rows, stats.rows)
    noise = psi_noise(column.bins, before, after, FALSE_ALARM / looks)
    bound = max(limit, noise, column.natural_psi or 0.0)
    if column.psi <= bound:
        return []
    return [Finding(kind, column.name, column.psi, bound, f"{column.name}: PSI {column.psi:.2f}, over {bound:.2f}")]


def _performance(stats: WindowStats, policy: Policy) -> list[Finding]:
    losses = stats.losses
    if losses.rows < policy.drift.min_rows or losses.loss is None or not losses.reference_loss:
        return []
    bound = policy.drift.performance
    if losses.incumbent and losses.reference_incumbent:
        value = (losses.loss / losses.incumbent) / (losses.reference_loss / losses.reference_incumbent)
        words = (
            f"loss {losses.loss:.4g} is {losses.loss / losses.incumbent:.2f} of the incumbent's, "
            f"{value:.2f} times the gate's ratio of {losses.reference_loss / losses.reference_incumbent:.2f}"
        )
    else:
        value = losses.loss / losses.reference_loss
        words = f"loss {losses.loss:.4g} is {value:.2f} times the gate's {losses.reference_loss:.4g}"
    if not math.isfinite(value) or value <= bound:
        return []
    # Over the bound and surely worse than the gate's figure at all: a noisy window is no violation.
    surely = math.log(value) - NormalDist().inv_cdf(CONFIDENCE) * (losses.log_error or 0.0) > 0
    return [Finding("performance", policy.gate.metric, value, bound, words)] if surely else []


def _calibration(losses: LossStats, policy: Policy) -> list[Finding]:
    if losses.rows < policy.drift.min_rows:
        return []
    rule, found = policy.gate.calibration, []
    if rule.ece_max is not None and losses.ece is not None and losses.ece > rule.ece_max + losses.ece_noise:
        bound = rule.ece_max + losses.ece_noise
        found.append(Finding("calibration", "ece", losses.ece, bound, f"ECE {losses.ece:.3f}, over {bound:.3f}"))
    if rule.coverage is not None and losses.coverage is not None:
        low, high = rule.coverage
        if not low <= losses.coverage <= high:
            bound = low if losses.coverage < low else high
            words = f"the widest interval covered {losses.coverage:.0%}, wanted {low:.0%} to {high:.0%}"
            found.append(Finding("calibration", "coverage", losses.coverage, bound, words))
    return found


def _comparable(stats: WindowStats, policy: Policy) -> bool:
    wanted = policy.drift.min_rows
    overlap = stats.reference_end is not None and stats.reference_end >= stats.start
    return stats.rows >= wanted and stats.reference_rows >= wanted and not overlap


def _lacking(stats: WindowStats, policy: Policy) -> list[Finding]:
    wanted = policy.drift.min_rows
    counted = (("decisions", stats.rows), ("reference", stats.reference_rows), ("outcomes", stats.losses.rows))
    found = [
        Finding("not_enough_data", what, rows, wanted, f"{rows} {what}, {wanted} are needed")
        for what, rows in counted
        if rows < wanted
    ]
    if stats.reference_end is not None and stats.reference_end >= stats.start:
        found.append(Finding("not_enough_data", "reference", 0.0, 0.0, "the reference overlaps the window"))
    if stats.losses.rows >= wanted and (stats.losses.loss is None or not stats.losses.reference_loss):
        found.append(Finding("not_enough_data", "loss", 0.0, 0.0, "no loss to hold against the gate's figure"))
    if stats.rows >= wanted and not any(column.psi is not None for column in stats.columns):
        found.append(Finding("not_enough_data", "features", 0.0, 1.0, "no feature could be compared"))
    return found
