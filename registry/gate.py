"""The offline gate: may a candidate leave the yard? Pure: an evaluation and a policy in, a verdict out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.evaluation import Evaluation
from contracts.policy import Policy
from contracts.rollout import Criterion, Outcome, Verdict
from contracts.times import utc
from registry.bootstrap import Improvement, block_bootstrap, block_length
from registry.diebold_mariano import DieboldMariano, diebold_mariano
from registry.gate_measures import calibration, data_age, leakage, predict_cost, same_rows, sources, stability
from registry.gate_segments import Paired, judge_segments, paired_rows

Mask = NDArray[np.bool_]
_NEEDED = ("row_id", "as_of", "candidate", "incumbent")


def gate(evaluation: Evaluation, policy: Policy, *, has_champion: bool, now: datetime) -> Verdict:
    """Judge a candidate's backtest by the policy's gate; docs/gates.md says each criterion in plain words.

    Criteria, in this order and by these names: rows, leakage_audit, same_rows, sources; then, when there are rows to
    judge: data_age (if the policy sets one), beat_incumbent, beat_champion (if there is one), segment_<column> for each
    column, ece, coverage, bias, predict_p99_ms, predict_memory_mb, stability (each that the policy bounds).
    Improvement is relative, 1 - candidate / rival of mean losses (of their square roots for rmsse); its lower bound by
    a bootstrap of days must exceed the policy's margin to pass, its upper bound falls short of it to fail. A figure
    that is missing, not a number, stale, of other rows, or computed on too few is inconclusive, never a pass.

    Args:
        evaluation: the backtest; see contracts.evaluation.
        policy: of the model.
        has_champion: whether somebody serves now; without a champion the incumbent is the only rival.
        now: the moment of the training, with a zone.

    Returns:
        the verdict with every criterion.
    """
    now = utc(now, "now")
    rows = _rows(evaluation, policy, now)
    criteria = [rows, leakage(evaluation), same_rows(evaluation, has_champion=has_champion), sources(evaluation)]
    if rows.outcome is not Outcome.PASS:
        return verdict_of(criteria)
    criteria += data_age(evaluation, policy, now)
    criteria.append(_beats(evaluation, policy, "incumbent", policy.gate.beat.incumbent))
    if has_champion:
        criteria.append(_beats(evaluation, policy, "champion", policy.gate.beat.champion))
    criteria += _segments(evaluation, policy, "champion" if has_champion else "incumbent")
    criteria += calibration(evaluation, policy) + predict_cost(evaluation, policy) + stability(evaluation, policy)
    return verdict_of(criteria)


def verdict_of(criteria: Iterable[Criterion]) -> Verdict:
    """All criteria as one verdict: fails if any fails, passes only if there are some and all pass."""
    found = tuple(criteria)
    outcomes = {criterion.outcome for criterion in found}
    if Outcome.FAIL in outcomes:
        return Verdict(Outcome.FAIL, found)
    return Verdict(Outcome.PASS if outcomes == {Outcome.PASS} else Outcome.INCONCLUSIVE, found)


def _rows(evaluation: Evaluation, policy: Policy, now: datetime) -> Criterion:
    """Whether there is anything to judge: enough rows, each once, of the past, all losses numbers, the right metric."""
    losses, needed = evaluation.losses, policy.gate.min_rows

    def hold(words: str) -> Criterion:
        return Criterion("rows", Outcome.INCONCLUSIVE, float(len(losses)), float(needed), words)

    if evaluation.loss != policy.gate.metric:
        return hold(f"the backtest measured {evaluation.loss}, the gate asks for {policy.gate.metric}")
    missing = [name for name in _NEEDED if name not in losses.columns]
    if missing:
        return hold(f"the backtest's losses have no column {missing[0]!r}")
    if len(losses) < needed:
        return hold(f"only {len(losses)} scored rows, the gate needs {needed}")
    if losses["row_id"].isna().any() or losses["row_id"].duplicated().any():
        return hold("a row was scored twice or has no id")
    if "rows" in evaluation.dataset and evaluation.dataset["rows"] != len(losses):
        return hold(f"the dataset says {evaluation.dataset['rows']} rows, the losses have {len(losses)}")
    if wrong := _wrong_times(losses["as_of"], now):
        return hold(wrong)
    for who in ("candidate", "incumbent"):
        if bad := int((~_usable(losses[who])).sum()):
            return hold(f"{bad} of {len(losses)} losses of the {who} are not numbers >= 0")
    return Criterion("rows", Outcome.PASS, float(len(losses)), float(needed), f"{len(losses)} rows were scored")


def _wrong_times(as_of: pd.Series[Any], now: datetime) -> str:
    if not isinstance(as_of.dtype, pd.DatetimeTZDtype):
        return "the scored rows' as_of are no times with a zone"
    if as_of.isna().any():
        return f"{int(as_of.isna().sum())} scored rows have no as_of"
    late = int((as_of > now).sum())
    return f"{late} scored rows are of a time after {now:%Y-%m-%d %H:%M}" if late else ""


def _usable(losses: pd.Series[Any]) -> Mask:
    values = pd.to_numeric(losses, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(np.isfinite(values) & (values >= 0))


def _comparable(evaluation: Evaluation, rival: str, needed: int) -> tuple[Mask, str]:
    """Rows on which the rival has a loss (a champion has none where it may have learnt), and why they do not do."""
    losses = evaluation.losses
    if rival not in losses.columns:
        return np.zeros(len(losses), dtype=bool), f"the backtest's losses have no column {rival!r}"
    mask, given = _usable(losses[rival]), losses[rival].notna().to_numpy()
    if bad := int((given & ~mask).sum()):
        return mask, f"{bad} of {len(losses)} losses of the {rival} are not numbers >= 0"
    count = int(mask.sum())
    return mask, "" if count >= needed else f"only {count} rows to compare with the {rival}, the gate needs {needed}"


def _beats(evaluation: Evaluation, policy: Policy, rival: str, margin: float) -> Criterion:
    name = f"beat_{rival}"
    mask, why = _comparable(evaluation, rival, policy.gate.min_rows)
    if why:
        return Criterion(name, Outcome.INCONCLUSIVE, None, margin, why)
    pairs = paired_rows(evaluation.losses, mask, rival, ())
    found = block_bootstrap(
        pairs.candidate,
        pairs.rival,
        pairs.days,
        confidence=policy.gate.confidence,
        root=policy.gate.metric == "rmsse",
        seed=policy.training.seed,
    )
    if not (math.isfinite(found.lower) and math.isfinite(found.upper)):
        words = f"no bound on the improvement over the {rival}: {found.blocks} days, or a rival without loss"
        return Criterion(name, Outcome.INCONCLUSIVE, None, margin, words)
    tested = _diebold_mariano(pairs, found.blocks)
    words = (
        f"{policy.gate.metric} {found.estimate:+.1%} better than the {rival} "
        f"({policy.gate.confidence:.0%} bounds {found.lower:+.1%} to {found.upper:+.1%} over {found.blocks} days), "
        f"wanted more than {margin:+.1%}{_beside(tested)}"
    )
    outcome = Outcome.INCONCLUSIVE
    if found.lower > margin:
        outcome = Outcome.PASS
    elif found.upper < margin:
        outcome = Outcome.FAIL
    return Criterion(name, outcome, found.lower, margin, words, _evidence(found, tested, int(mask.sum())))


def _diebold_mariano(pairs: Paired, days: int) -> DieboldMariano:
    """On the means of days, with as many lags as a block of the bootstrap has neighbours."""
    counts = np.bincount(pairs.days, minlength=days)
    differences = np.bincount(pairs.days, weights=pairs.rival - pairs.candidate, minlength=days) / counts
    return diebold_mariano(differences, lags=block_length(days) - 1)


def _beside(tested: DieboldMariano) -> str:
    if not math.isfinite(tested.statistic):
        return ""
    return f"; beside it, Diebold-Mariano {tested.statistic:+.2f} (p {tested.p_value:.2g})"


def _evidence(found: Improvement, tested: DieboldMariano, rows: int) -> dict[str, Any]:
    figures = {
        "less_loss": found.estimate,
        "lower": found.lower,
        "upper": found.upper,
        "diebold_mariano": tested.statistic,
        "diebold_mariano_p": tested.p_value,
    }
    plain: dict[str, Any] = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    return plain | {"rows": rows, "days": found.blocks, "block_days": found.block_days}


def _segments(evaluation: Evaluation, policy: Policy, rival: str) -> list[Criterion]:
    rule = policy.gate.segments
    mask, why = _comparable(evaluation, rival, 1)
    if why:
        return [Criterion(f"segment_{n}", Outcome.INCONCLUSIVE, None, -rule.max_regression, why) for n in rule.by]
    judged = judge_segments(
        paired_rows(evaluation.losses, mask, rival, rule.by),
        rule,
        confidence=policy.gate.confidence,
        root=policy.gate.metric == "rmsse",
        seed=policy.training.seed,
    )
    return list(judged)
