"""What was seen of a challenger online, as the evidence that the rollout's next move is decided on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import numpy as np
import pandas as pd

from contracts.decisions import DecisionRecord, Rung, ShadowScore
from contracts.policy import Policy
from contracts.rollout import Burst, OnlineEvidence, RolloutState, Stage
from drift.frames import prediction
from drift.paired_shift import PairedShift, paired_shift

# Failures of the features, not of the model that was asked (codes of serving.assemble and serving.shadow).
DATA_FAILURES = frozenset({"cold_start", "stale", "features_changed"})
# Answers that were made and are none (code of serving.answers).
INVALID = "not_finite"


def online_evidence(
    records: Iterable[DecisionRecord],
    shadow: Iterable[ShadowScore],
    pairs: pd.DataFrame,
    state: RolloutState,
    policy: Policy,
    now: datetime,
) -> OnlineEvidence | None:
    """Evidence on the state's challenger.

    In shadow the champion answers and the challenger's answers come from the shadow stream. In canary the challenger's
    own arm counts; the champion's answer to the same decisions comes from the shadow stream where it exists: the
    shadow scorer scores whichever of champion and challenger did not answer.

    Args:
        records, shadow: decisions, and unserved answers of either version; only from state.since to now.
        pairs: `MaturityTracker.pairs(challenger, champion)`: all since shadow began; corrections keep their order.
        state: the rollout's state; its `since` is when the present stage or canary step began.
        policy, now: limits below which no PSI is computed; the moment.

    Returns:
        None without a challenger. decisions, errors, invalid, fallbacks: counts in the present stage. errors: answers
        that the challenger itself failed to give; invalid: those that it gave and that are none (not finite, a
        probability outside [0, 1], a negative quantity); fallbacks: those of its arm that a lower rung gave; an unknown
        key or a stale history, which fail every model alike, are neither. exposed: of its arm in all canary steps.
        days: from the stage's begin to now. p99_ms, slow: of the canary arm, None in shadow (the shadow scorer works
        off the path). prediction_psi, prediction_psi_low: of the challenger against the champion on the same decisions
        (drift.paired_shift), None with fewer than guardrails.min_decisions of them. bursts: the counts by window.
    """
    if state.challenger is None or state.since is None:
        return None
    since, challenger = state.since, state.challenger
    fine, exposed_since = state.stage is Stage.CANARY, state.canary_since or since
    past = [r for r in records if r.model == state.model and min(since, exposed_since) <= r.as_of <= now]
    inside = [r for r in past if since <= r.as_of]
    scores = {(s.decision_id, s.version): s for s in shadow if s.model == state.model and since <= s.as_of <= now}
    said = _predictions(inside, scores, challenger)
    champion = _predictions(inside, scores, state.champion or "")
    both = sorted(said.keys() & champion.keys())
    arm = [r for r in past if r.route.arm == "canary" and r.route.version == challenger and r.as_of >= exposed_since]
    own = [r for r in arm if r.as_of >= since] if fine else []
    watched = [s for (_, version), s in scores.items() if version == challenger and not fine]
    (errors, invalid), latencies = _failed(own, watched), [r.latency_ms for r in own]
    shift = _shift([champion[d] for d in both], [said[d] for d in both], policy)
    return OnlineEvidence(
        decisions=len(own) + len(watched),
        days=(now - since).total_seconds() / 86400.0,
        pairs_challenger=tuple(float(x) for x in pairs["challenger"]),
        pairs_champion=tuple(float(x) for x in pairs["champion"]),
        pair_blocks=tuple(pairs["as_of"].dt.strftime("%Y-%m-%d")) if len(pairs) else (),
        errors=errors,
        invalid=invalid,
        fallbacks=_fell_back(own),
        p99_ms=float(np.quantile(latencies, 0.99)) if latencies else None,
        slow=sum(ms > policy.rollout.guardrails.p99_ms for ms in latencies) if latencies else None,
        prediction_psi=shift.psi if shift else None,
        prediction_psi_low=shift.low if shift else None,
        exposed=len(arm) if fine else 0,
        bursts=_bursts(own, watched, since, policy),
    )


def _bursts(
    own: Sequence[DecisionRecord], watched: Sequence[ShadowScore], since: datetime, policy: Policy
) -> tuple[Burst, ...]:
    """The counts window by window, of those windows in which something was bad."""
    rule = policy.rollout.guardrails
    windows: dict[int, tuple[list[DecisionRecord], list[ShadowScore]]] = {}
    for record in own:
        windows.setdefault((record.as_of - since) // rule.window, ([], []))[0].append(record)
    for score in watched:
        windows.setdefault((score.as_of - since) // rule.window, ([], []))[1].append(score)
    found = []
    for number, (answered, scored) in sorted(windows.items()):
        errors, invalid = _failed(answered, scored)
        slow = sum(record.latency_ms > rule.p99_ms for record in answered)
        begin = since + number * rule.window
        burst = Burst(begin, len(answered) + len(scored), errors, invalid, _fell_back(answered), slow)
        if burst.errors or burst.invalid or burst.fallbacks or burst.slow:
            found.append(burst)
    return tuple(found)


def _fell_back(own: Sequence[DecisionRecord]) -> int:
    """How many answers of the challenger's arm a lower rung gave, for no fault of the features."""
    return sum(r.answer.rung is not Rung.CANARY and not any(map(_data, _causes(r))) for r in own)


def _code(failure: str) -> str:
    return failure.split(":", 1)[0]


def _data(failure: str) -> bool:
    return _code(failure) in DATA_FAILURES


def _causes(record: DecisionRecord) -> list[str]:
    """Why the canary's rung failed, "code: words"."""
    head = f"{Rung.CANARY.value}: "
    return [reason.removeprefix(head) for reason in record.answer.degraded if reason.startswith(head)]


def _failed(own: Sequence[DecisionRecord], watched: Sequence[ShadowScore]) -> tuple[int, int]:
    """How many answers the challenger failed to give, and how many it gave that are none."""
    answers: list[DecisionRecord | ShadowScore] = [*own, *watched]
    failures = [_worst(_causes(r)) for r in own] + [s.error for s in watched]
    errors = sum(_code(failure) not in DATA_FAILURES | {INVALID, ""} for failure in failures)
    wrong = [not failure and _out_of_range(answer) for failure, answer in zip(failures, answers, strict=True)]
    return errors, sum(wrong) + sum(_code(failure) == INVALID for failure in failures)


def _worst(causes: Sequence[str]) -> str:
    """The cause that is the model's own, if any; the first one otherwise, empty without causes."""
    return next((cause for cause in causes if not _data(cause)), next(iter(causes), ""))


def _out_of_range(answer: DecisionRecord | ShadowScore) -> bool:
    """True for a number that no probability or quantity can be."""
    given = answer.answer if isinstance(answer, DecisionRecord) else answer
    if given.probability is not None:
        return not 0.0 <= given.probability <= 1.0
    quantities = (value for step in given.steps for value in (step.mean, *step.quantiles.values()))
    return not all(0.0 <= value < float("inf") for value in quantities)


def _predictions(
    records: Sequence[DecisionRecord], scores: Mapping[tuple[str, str], ShadowScore], version: str
) -> dict[str, float]:
    found = {
        key[0]: prediction(score.steps, score.probability)
        for key, score in scores.items()
        if key[1] == version and not score.error
    }
    for record in records:
        if record.answer.version == version:
            found[record.decision_id] = prediction(record.answer.steps, record.answer.probability)
    return {decision: value for decision, value in found.items() if np.isfinite(value)}


def _shift(champion: Sequence[float], challenger: Sequence[float], policy: Policy) -> PairedShift | None:
    if len(champion) < policy.rollout.guardrails.min_decisions:
        return None
    return paired_shift(champion, challenger, policy.rollout.verdict.alpha)
