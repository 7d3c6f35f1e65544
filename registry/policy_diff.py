"""What changes between two policies, key by key, and in words what each change means. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import BaseModel

from contracts.policy import Policy
from contracts.times import write_duration

_NONE_IS_MOST = float("inf")
_NONE_IS_LEAST = float("-inf")


class Way(StrEnum):
    """What a change does to a trial: stricter lets less through by itself, looser lets more; sideways is neither."""

    STRICTER = "stricter"
    LOOSER = "looser"
    SIDEWAYS = "sideways"


@dataclass(frozen=True)
class Change:
    """One key that is different; `old` and `new` as a file would say them, `means` what follows, in words."""

    key: str
    old: Any
    new: Any
    way: Way
    means: str


class _Measure(NamedTuple):
    """A key that can be more or less: what more of it does, what it is, and what leaving it out stands for."""

    more: Way
    what: str
    none: float = _NONE_IS_MOST


def _stricter(what: str, none: float = _NONE_IS_MOST) -> _Measure:
    return _Measure(Way.STRICTER, what, none)


def _looser(what: str, none: float = _NONE_IS_MOST) -> _Measure:
    return _Measure(Way.LOOSER, what, none)


_MEASURES: dict[str, _Measure] = {
    "gate.beat.champion": _stricter("the lead over the champion that a candidate has to prove"),
    "gate.beat.incumbent": _stricter("the lead over the incumbent rule that a candidate has to prove"),
    "gate.confidence": _stricter("how sure the gate has to be"),
    "gate.min_rows": _stricter("the backtest rows without which the gate does not judge"),
    "gate.segments.min_rows": _looser("the rows from which a segment is judged by itself"),
    "gate.segments.max_regression": _looser("how much a segment may lose"),
    "gate.calibration.ece_max": _looser("the calibration error that passes"),
    "gate.calibration.bias_max": _looser("the bias that passes"),
    "gate.predict.p99_ms": _looser("how long one prediction may take"),
    "gate.predict.memory_mb": _looser("the memory that a loaded model may take"),
    "gate.stability.noise": _stricter("the noise under which predictions must hold still", _NONE_IS_LEAST),
    "gate.stability.max_change": _looser("how much predictions may move under noise"),
    "gate.max_data_age": _looser("how old the newest scored row may be at the gate"),
    "gate.approvals.required": _stricter("how many people have to agree to a promotion"),
    "gate.approvals.expires": _looser("how long an approval holds"),
    "rollout.shadow.min_decisions": _stricter("the decisions that a challenger only watches"),
    "rollout.shadow.min_days": _stricter("the days that a challenger only watches"),
    "rollout.canary.bake": _stricter("how long each canary step lasts at least"),
    "rollout.canary.max_decisions": _looser("the decisions that a canary may answer before its verdict"),
    "rollout.guardrails.error_rate": _looser("the share of failed answers that is tolerated"),
    "rollout.guardrails.invalid_rate": _looser("the share of answers that are no number or out of range"),
    "rollout.guardrails.fallback_rate": _looser("the share of answers from a lower rung that is tolerated"),
    "rollout.guardrails.p99_ms": _looser("the latency that is tolerated"),
    "rollout.guardrails.prediction_shift_psi": _looser("how far answers may lie from the champion's"),
    "rollout.guardrails.min_decisions": _stricter("the decisions without which guardrails do not pass"),
    "rollout.guardrails.failure_limit": _looser("the looks without evidence before a challenger is held"),
    "rollout.verdict.alpha": _looser("the chance of a wrong verdict"),
    "rollout.verdict.min_pairs": _stricter("the matured pairs without which accuracy is not judged"),
    "rollout.verdict.margin": _looser("how much worse than the champion still passes"),
    "rollout.verdict.deadline": _looser("how long an open verdict may take before a person is asked"),
    "rollout.expires": _looser("how old a challenger may become"),
    "serve.max_feature_age": _looser("how old a feature may be before an answer says so"),
    "serve.max_snapshot_age": _looser("how old a snapshot may be that is served from"),
    "drift.feature_psi": _looser("how far a feature may drift before an alert"),
    "drift.prediction_psi": _looser("how far answers may drift before an alert"),
    "drift.performance": _looser("how much skill may be lost before a window counts as degraded"),
    "drift.null_share": _looser("the share of missing values before data counts as broken"),
    "drift.max_features": _stricter("how many features are judged for drift"),
    "drift.min_rows": _looser("the rows without which a window is not judged"),
    "drift.every": _looser("the time between two looks of the judge"),
    "retrain.when.violations": _stricter("the degraded windows that ask for a retraining"),
    "retrain.when.of_last": _looser("the windows among which degraded ones are counted"),
    "retrain.when.max_age": _stricter("the age at which a model is trained again"),
    "retrain.cooldown": _stricter("the time between two retrainings"),
    "retrain.budget.runs": _looser("the retrainings that the budget allows"),
    "retrain.budget.per": _stricter("the span that the budget has to last"),
}
_MORE_OF: dict[str, _Measure] = {
    "gate.segments.by": _stricter("the segments that must not lose"),
    "gate.approvals.by": _looser("the roles that may approve"),
    "rollout.freeze": _stricter("the spans in which nothing goes forward"),
    "retrain.when.or_event": _looser("the business events that ask for a retraining"),
    "serve.ladder": _looser("the rungs that may answer"),
}


def policy_diff(old: Policy, new: Policy) -> tuple[Change, ...]:
    """Every key that the two policies do not agree on, in the order of a policy file.

    Stricter and looser speak of what happens without a person: a stricter gate lets fewer candidates through, a
    stricter retraining rule trains less often. A change of who, what or how is sideways.

    Returns:
        the changes; empty for policies that decide the same.
    """
    return tuple(_change(key, one, other) for key, one, other in _leaves(old, new, "") if one != other)


def _leaves(old: Any, new: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) of everything that is no section; a section left out gives None below it."""
    kind = type(new if isinstance(new, BaseModel) else old)
    if not issubclass(kind, BaseModel):
        yield key, old, new
        return
    for name in kind.model_fields:
        yield from _leaves(getattr(old, name, None), getattr(new, name, None), f"{key}.{name}" if key else name)


def _change(key: str, old: Any, new: Any) -> Change:
    way, means = _meaning(key, old, new)
    return Change(key, _shown(old), _shown(new), way, means)


def _meaning(key: str, old: Any, new: Any) -> tuple[Way, str]:
    if measure := _MEASURES.get(key):
        return _more_or_less(measure, _number(new, measure.none) > _number(old, measure.none))
    if measure := _MORE_OF.get(key):
        return _members(measure, old, new)
    if key.startswith("automate."):
        what = key.removeprefix("automate.").replace("_", " ")
        stricter = new == "approval"
        return _way(stricter), f"{what} {'now waits for a person' if stricter else 'now runs by itself'}"
    if special := _SPECIAL.get(key):
        return special(old, new)
    return Way.SIDEWAYS, f"{key.rpartition('.')[2].replace('_', ' ')} is another one"


def _more_or_less(measure: _Measure, more: bool) -> tuple[Way, str]:
    other = Way.LOOSER if measure.more is Way.STRICTER else Way.STRICTER
    return (measure.more if more else other), f"{'more' if more else 'less'}: {measure.what}"


def _members(measure: _Measure, old: tuple[Any, ...], new: tuple[Any, ...]) -> tuple[Way, str]:
    gone = [value for value in old if value not in new]
    come = [value for value in new if value not in old]
    if bool(gone) == bool(come):
        return Way.SIDEWAYS, f"others, or in another order: {measure.what}"
    empties_a_limit = measure.what == _MORE_OF["gate.approvals.by"].what and (not old or not new)
    way, words = _more_or_less(measure, bool(come) != empties_a_limit)
    return way, f"{words} (an empty list lets every role approve)" if empties_a_limit else words


def _coverage(old: Any, new: Any) -> tuple[Way, str]:
    (low, high), (lower, higher) = old or (0.0, 1.0), new or (0.0, 1.0)
    if low <= lower and higher <= high:
        return Way.STRICTER, "a narrower range of coverage passes"
    if lower <= low and high <= higher:
        return Way.LOOSER, "a wider range of coverage passes"
    return Way.SIDEWAYS, "another range of coverage passes"


def _steps(old: tuple[int, ...], new: tuple[int, ...]) -> tuple[Way, str]:
    words = f"the canary begins at {new[0]}% in place of {old[0]}% and takes {len(new)} step(s) in place of {len(old)}"
    milder, shorter = new[0] <= old[0], len(new) <= len(old)
    if new[0] == old[0] and len(new) == len(old):
        return Way.SIDEWAYS, words
    if milder and len(new) >= len(old):
        return Way.STRICTER, words
    return (Way.LOOSER if shorter and new[0] >= old[0] else Way.SIDEWAYS), words


def _not_author(_old: bool, new: bool) -> tuple[Way, str]:
    return _way(new), f"the author of a version {'may no longer' if new else 'may'} approve it"


def _veto(_old: str, new: str) -> tuple[Way, str]:
    stricter = new == "data_broken"
    return _way(stricter), f"a retraining {'no longer runs' if stricter else 'runs even'} on broken data"


_SPECIAL: dict[str, Callable[[Any, Any], tuple[Way, str]]] = {
    "gate.calibration.coverage": _coverage,
    "rollout.canary.steps": _steps,
    "gate.approvals.not_author": _not_author,
    "retrain.veto": _veto,
}


def _way(stricter: bool) -> Way:
    return Way.STRICTER if stricter else Way.LOOSER


def _number(value: Any, none: float) -> float:
    if value is None:
        return none
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def _shown(value: Any) -> Any:
    """As a policy file would say it."""
    if isinstance(value, timedelta):
        return write_duration(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, tuple):
        return [_shown(item) for item in value]
    if isinstance(value, dict):
        return {name: _shown(item) for name, item in value.items()}
    return value
