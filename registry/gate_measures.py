"""Criteria of the gate that hold one measured figure, or one fact, against a bound. Pure.

What was not measured, is no number, or was measured otherwise than the policy asks is inconclusive, never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeGuard

import pandas as pd

from contracts.evaluation import Evaluation
from contracts.policy import Policy
from contracts.rollout import Criterion, Outcome
from contracts.times import write_duration

SAFE = "safe for automation"
_NAMED = 3


def leakage(evaluation: Evaluation) -> Criterion:
    """leakage_audit: nothing in the training set may differ from the landed events, and nothing be the label."""
    name, found = "leakage_audit", evaluation.dataset.get("leakage_audit")
    if not isinstance(found, dict):
        found = {}
    rows, cells, differing = (found.get(part) for part in ("rows", "cells", "differing"))
    if not (_count(rows) and _count(cells) and _count(differing)) or cells <= 0:
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


def _count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def same_rows(evaluation: Evaluation, *, has_champion: bool) -> Criterion:
    """same_rows: candidate, incumbent and, where there is one, champion were measured on the same rows and labels."""
    name, sides = "same_rows", ("candidate", "incumbent", *(("champion",) if has_champion else ()))
    noted = evaluation.dataset.get("hash_by_side")
    hashes = noted if isinstance(noted, dict) else {}
    for side in sides:
        if not isinstance(hashes.get(side), str) or not hashes[side]:
            words = f"on which rows the {side} was measured was not noted"
            return Criterion(name, Outcome.INCONCLUSIVE, None, None, words)
    for side in sides[1:]:
        if hashes[side] != hashes["candidate"]:
            words = f"the {side} was measured on other rows or labels than the candidate"
            return Criterion(name, Outcome.INCONCLUSIVE, None, None, words, {"hash_by_side": dict(hashes)})
    words = f"{', '.join(sides)} were measured on the same rows and labels"
    return Criterion(name, Outcome.PASS, None, None, words)


def sources(evaluation: Evaluation) -> Criterion:
    """sources: at the training each source that the features need was safe for automation."""
    name, noted = "sources", evaluation.dataset.get("sources")
    if not isinstance(noted, list) or not noted or not all(isinstance(one, dict) for one in noted):
        words = "the state of the sources was not noted at the training"
        return Criterion(name, Outcome.INCONCLUSIVE, None, None, words)
    # Of a source that is not needed any more there are no reasons why it is not safe.
    unsafe = [one for one in noted if one.get("state") != SAFE and one.get("reasons", "no reason noted") != ""]
    if not unsafe:
        words = f"{len(noted)} sources were {SAFE}"
        return Criterion(name, Outcome.PASS, 0.0, 0.0, words)
    said = [f"{_source(one)} was {one.get('state')}: {one.get('reasons', 'no reason noted')}" for one in unsafe]
    words = "; ".join(said[:_NAMED]) + (f"; and {len(said) - _NAMED} more" if len(said) > _NAMED else "")
    return Criterion(name, Outcome.INCONCLUSIVE, float(len(unsafe)), 0.0, words)


def _source(one: dict[str, Any]) -> str:
    return f"{one.get('kind')} from {one.get('source') or 'nobody'}"


def data_age(evaluation: Evaluation, policy: Policy, now: datetime) -> list[Criterion]:
    """data_age: the newest scored row is at most so old; nothing when the policy sets no age."""
    allowed = policy.gate.max_data_age
    if allowed is None:
        return []
    newest: pd.Timestamp = evaluation.losses["as_of"].max()
    age = now - newest.to_pydatetime()
    days, bound = age.total_seconds() / 86400, allowed.total_seconds() / 86400
    words = (
        f"the newest scored row is of {newest:%Y-%m-%d %H:%M}, {days:.1f} days old, allowed {write_duration(allowed)}"
    )
    outcome = Outcome.PASS if 0 <= days <= bound else Outcome.INCONCLUSIVE
    return [Criterion("data_age", outcome, days, bound, words)]


def calibration(evaluation: Evaluation, policy: Policy) -> list[Criterion]:
    """ece, coverage, bias: each that the policy gives a range for."""
    rule, found = policy.gate.calibration, []
    if (ece := rule.ece_max) is not None:
        found.append(_held("ece", evaluation.calibration, ece, lambda v: 0 <= v <= ece, f"at most {ece}"))
    if (span := rule.coverage) is not None:
        fits = _between(*span)
        found.append(_held("coverage", evaluation.calibration, span[0], fits, f"{span[0]} to {span[1]}"))
    if (bias := rule.bias_max) is not None:
        found.append(_held("bias", evaluation.calibration, bias, _between(-bias, bias), f"within {bias} of 0"))
    return found


def predict_cost(evaluation: Evaluation, policy: Policy) -> list[Criterion]:
    """predict_p99_ms, predict_memory_mb: what one prediction costs on the machine of the training, where bounded."""
    rule, found = policy.gate.predict, []
    for key, bound, unit in (("p99_ms", rule.p99_ms, "ms"), ("memory_mb", rule.memory_mb, "MB")):
        if bound is not None:
            fits = _between(0.0, bound)
            found.append(_held(f"predict_{key}", evaluation.predict, bound, fits, f"at most {bound:g} {unit}", key))
    return found


def stability(evaluation: Evaluation, policy: Policy) -> list[Criterion]:
    """stability: how far predictions move when inputs move a little, if the policy bounds it."""
    rule = policy.gate.stability
    if rule is None:
        return []
    measured_at = evaluation.stability.get("noise")
    if measured_at is not None and measured_at != rule.noise:
        words = f"stability was measured at a noise of {measured_at}, the gate asks for {rule.noise}"
        return [Criterion("stability", Outcome.INCONCLUSIVE, None, rule.max_change, words)]
    wanted = f"at most {rule.max_change:g} of the predictions' spread under a noise of {rule.noise:g}"
    return [_held("stability", evaluation.stability, rule.max_change, _between(0.0, rule.max_change), wanted, "change")]


def _between(low: float, high: float) -> Callable[[float], bool]:
    return lambda value: low <= value <= high


def _held(
    name: str, figures: dict[str, float], bound: float, fits: Callable[[float], bool], wanted: str, key: str = ""
) -> Criterion:
    value = figures.get(key or name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return Criterion(name, Outcome.INCONCLUSIVE, None, bound, f"{name} was not measured")
    outcome = Outcome.PASS if fits(value) else Outcome.FAIL
    return Criterion(name, outcome, float(value), bound, f"{name} {value:.3g}, wanted {wanted}")
