"""The offline gate: may a candidate leave the yard? Pure: an evaluation and a policy in, a verdict out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from contracts.evaluation import Evaluation
from contracts.policy import Policy
from contracts.rollout import Criterion, Outcome, Verdict
from registry.evidence import block_bootstrap, relative_improvement

Floats = NDArray[np.float64]
_NEEDED = ("row_id", "as_of", "candidate", "incumbent")


def gate(evaluation: Evaluation, policy: Policy, *, has_champion: bool) -> Verdict:
    """Judge a candidate's backtest by the policy's gate.

    Criteria: rows (enough, whole, of the policy's metric), leakage_audit (of the training set; without one, or when a
    feature predicts implausibly well, inconclusive), beat_incumbent, beat_champion when there is one, each segment
    column, each declared calibration range. Improvement is relative, 1 - candidate / rival of mean losses (of
    their square roots for rmsse); its lower bound by a bootstrap of days must exceed the policy's margin to pass, its
    upper bound falls short of it to fail. A figure that is missing, not a number, or computed on too few rows is
    inconclusive, never a pass.

    Args:
        evaluation: the backtest; see contracts.evaluation.
        policy: of the model.
        has_champion: whether somebody serves now; without a champion the incumbent is the only rival.

    Returns:
        the verdict with every criterion.
    """
    rows, audited = _rows(evaluation, policy), _leakage(evaluation)
    if rows.outcome is not Outcome.PASS:
        return verdict_of([rows, audited])
    criteria = [rows, audited, _beats(evaluation, policy, "incumbent", policy.gate.beat.incumbent)]
    if has_champion:
        criteria.append(_beats(evaluation, policy, "champion", policy.gate.beat.champion))
    criteria += [_segment(evaluation, policy, name, has_champion) for name in policy.gate.segments.by]
    criteria += _calibration(evaluation, policy)
    return verdict_of(criteria)


def verdict_of(criteria: Iterable[Criterion]) -> Verdict:
    """All criteria as one verdict: fails if any fails, passes only if there are some and all pass."""
    found = tuple(criteria)
    outcomes = {criterion.outcome for criterion in found}
    if Outcome.FAIL in outcomes:
        return Verdict(Outcome.FAIL, found)
    return Verdict(Outcome.PASS if outcomes == {Outcome.PASS} else Outcome.INCONCLUSIVE, found)


def _rows(evaluation: Evaluation, policy: Policy) -> Criterion:
    """Whether there is anything to judge: enough rows, each once, every loss a number, of the right metric."""
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
    if losses["row_id"].duplicated().any():
        return hold("a row was scored twice")
    if "rows" in evaluation.dataset and evaluation.dataset["rows"] != len(losses):
        return hold(f"the dataset says {evaluation.dataset['rows']} rows, the losses have {len(losses)}")
    for who in ("candidate", "incumbent"):
        values = _floats(evaluation, who)
        if bad := int((~np.isfinite(values) | (values < 0)).sum()):
            return hold(f"{bad} of {len(losses)} losses of the {who} are not numbers >= 0")
    return Criterion("rows", Outcome.PASS, float(len(losses)), float(needed), f"{len(losses)} rows were scored")


def _leakage(evaluation: Evaluation) -> Criterion:
    """What the audit of the training set found: nothing may differ from the landed events, nothing be the label."""
    name, found = "leakage_audit", evaluation.dataset.get("leakage_audit")
    if not isinstance(found, dict):
        found = {}
    rows, cells, differing = (found.get(part) for part in ("rows", "cells", "differing"))
    if not (isinstance(rows, int) and isinstance(cells, int) and isinstance(differing, int)) or cells <= 0:
        return Criterion(name, Outcome.INCONCLUSIVE, None, 0.0, "the training set was not audited for leaks")
    example = found.get("example", "")
    if differing or found.get("derived"):
        words = f"{differing} of {cells} audited values are not what was known"
        if found.get("derived"):
            words += f"; made from the label: {', '.join(found['derived'])}"
        return Criterion(name, Outcome.FAIL, float(differing), 0.0, f"{words}; {example}")
    if found.get("implausible"):
        words = f"predicts too well to be honest: {', '.join(found['implausible'])}; {example}"
        return Criterion(name, Outcome.INCONCLUSIVE, 0.0, 0.0, words)
    return Criterion(name, Outcome.PASS, 0.0, 0.0, f"{cells} values of {rows} rows are what was known then")


def _beats(evaluation: Evaluation, policy: Policy, rival: str, margin: float) -> Criterion:
    name = f"beat_{rival}"
    mask, why = _comparable(evaluation, policy.gate.min_rows, rival)
    if why:
        return Criterion(name, Outcome.INCONCLUSIVE, None, margin, why)
    found = block_bootstrap(
        _floats(evaluation, "candidate")[mask],
        _floats(evaluation, rival)[mask],
        _days(evaluation)[mask],
        confidence=policy.gate.confidence,
        root=policy.gate.metric == "rmsse",
        seed=policy.training.seed,
    )
    if not (math.isfinite(found.lower) and math.isfinite(found.upper)):
        words = f"no bound on the improvement over the {rival}: {found.blocks} days, or a rival without loss"
        return Criterion(name, Outcome.INCONCLUSIVE, None, margin, words)
    words = (
        f"{policy.gate.metric} {found.estimate:+.1%} better than the {rival} "
        f"({policy.gate.confidence:.0%} bounds {found.lower:+.1%} to {found.upper:+.1%}), "
        f"wanted more than {margin:+.1%}"
    )
    outcome = Outcome.INCONCLUSIVE
    if found.lower > margin:
        outcome = Outcome.PASS
    elif found.upper < margin:
        outcome = Outcome.FAIL
    return Criterion(name, outcome, found.lower, margin, words)


def _segment(evaluation: Evaluation, policy: Policy, by: str, has_champion: bool) -> Criterion:
    """The worst slice of one segment column with enough rows, against the champion where there is one."""
    rule, name, column = policy.gate.segments, f"segment_{by}", f"segment_{by}"
    rival = "champion" if has_champion else "incumbent"
    mask, why = _comparable(evaluation, 1, rival)
    if column not in evaluation.losses.columns or why:
        words = why or f"the backtest's losses have no column {column!r}"
        return Criterion(name, Outcome.INCONCLUSIVE, None, -rule.max_regression, words)
    mine, theirs = _floats(evaluation, "candidate"), _floats(evaluation, rival)
    labels = evaluation.losses[column].astype(str).to_numpy()
    worst: tuple[float, str] | None = None
    for label in sorted(set(labels[mask])):
        here = mask & (labels == label)
        if int(here.sum()) < rule.min_rows:
            continue
        means = float(mine[here].mean()), float(theirs[here].mean())
        change = relative_improvement(*means, root=policy.gate.metric == "rmsse")
        if math.isnan(change):
            words = f"{by} {label}: the {rival} has no loss to compare with"
            return Criterion(name, Outcome.INCONCLUSIVE, None, -rule.max_regression, words)
        worst = min(worst or (change, label), (change, label))
    if worst is None:
        words = f"no {by} has {rule.min_rows} rows to compare"
        return Criterion(name, Outcome.INCONCLUSIVE, None, -rule.max_regression, words)
    outcome = Outcome.PASS if worst[0] >= -rule.max_regression else Outcome.FAIL
    words = f"{by} {worst[1]} is the weakest: {worst[0]:+.1%} against the {rival}, allowed {-rule.max_regression:+.1%}"
    return Criterion(name, outcome, worst[0], -rule.max_regression, words)


def _calibration(evaluation: Evaluation, policy: Policy) -> list[Criterion]:
    rule, found = policy.gate.calibration, []

    def judge(name: str, bound: float, fits: Callable[[float], bool], wanted: str) -> None:
        value = evaluation.calibration.get(name, math.nan)
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            found.append(Criterion(name, Outcome.INCONCLUSIVE, None, bound, f"{name} was not measured"))
            return
        outcome = Outcome.PASS if fits(value) else Outcome.FAIL
        found.append(Criterion(name, outcome, float(value), bound, f"{name} {value:.3f}, wanted {wanted}"))

    if (ece := rule.ece_max) is not None:
        judge("ece", ece, lambda value: 0 <= value <= ece, f"at most {ece}")
    if (span := rule.coverage) is not None:
        judge("coverage", span[0], lambda value: span[0] <= value <= span[1], f"{span[0]} to {span[1]}")
    if (bias := rule.bias_max) is not None:
        judge("bias", bias, lambda value: abs(value) <= bias, f"within {bias} of 0")
    return found


def _comparable(evaluation: Evaluation, needed: int, rival: str) -> tuple[NDArray[np.bool_], str]:
    """Rows on which the rival has a usable loss, and why they do not do, "" when they do."""
    if rival not in evaluation.losses.columns:
        return np.zeros(len(evaluation.losses), dtype=bool), f"the backtest's losses have no column {rival!r}"
    values = _floats(evaluation, rival)
    mask = np.isfinite(values) & (values >= 0)
    count = int(mask.sum())
    return mask, "" if count >= needed else f"only {count} rows to compare with the {rival}, the gate needs {needed}"


def _floats(evaluation: Evaluation, column: str) -> Floats:
    return evaluation.losses[column].to_numpy(dtype=np.float64, na_value=np.nan)


def _days(evaluation: Evaluation) -> NDArray[np.int64]:
    times = evaluation.losses["as_of"].dt.tz_convert("UTC").dt.tz_localize(None)
    return np.asarray(times.to_numpy().astype("datetime64[D]").astype(np.int64), dtype=np.int64)
