"""What was seen of a challenger online, as the evidence that the rollout's next move is decided on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import numpy as np
import pandas as pd

from contracts.decisions import DecisionRecord, Rung, ShadowScore
from contracts.policy import Policy
from contracts.rollout import OnlineEvidence, RolloutState, Stage
from drift.frames import prediction
from drift.psi import DECILES, psi

ROWS_A_BIN = 25
# Failures of the features, not of the model that was asked (codes of serving.assemble and serving.shadow).
DATA_FAILURES = frozenset({"cold_start", "stale", "features_changed"})


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
        records: decisions of the model; those outside [state.since, now] are left out.
        shadow: unserved answers of either version; likewise.
        pairs: `MaturityTracker.pairs(challenger, champion)`: all since shadow began, because before that nobody asked
            the challenger. Corrected outcomes are corrected in place and keep their order.
        state: the rollout's state; its `since` is when the present stage or canary step began.
        policy: limits below which no PSI is computed.
        now: decisions after it are left out.

    Returns:
        None without a challenger. decisions, errors, fallbacks: counts in the present stage; errors are answers that
        the challenger itself failed to give, fallbacks those of its arm that a lower rung gave; an unknown key or a
        stale history, which fail every model alike, are neither. days: from the stage's begin to now. p99_ms, slow: of
        the canary arm, None in shadow (the shadow scorer works off the path). prediction_psi: of the challenger
        against the champion on the same decisions, None with fewer than guardrails.min_decisions of them.
    """
    if state.challenger is None or state.since is None:
        return None
    since, challenger = state.since, state.challenger
    inside = [r for r in records if r.model == state.model and since <= r.as_of <= now]
    scores = {(s.decision_id, s.version): s for s in shadow if s.model == state.model and since <= s.as_of <= now}
    said = _predictions(inside, scores, challenger)
    champion = _predictions(inside, scores, state.champion or "")
    both = sorted(said.keys() & champion.keys())
    fine = state.stage is Stage.CANARY
    own = [r for r in inside if r.route.arm == "canary" and r.route.version == challenger] if fine else []
    watched = [s for (_, version), s in scores.items() if version == challenger and not fine]
    latencies = [r.latency_ms for r in own]
    return OnlineEvidence(
        decisions=len(own) if fine else len(watched),
        days=(now - since).total_seconds() / 86400.0,
        pairs_challenger=tuple(float(x) for x in pairs["challenger"]),
        pairs_champion=tuple(float(x) for x in pairs["champion"]),
        pair_blocks=tuple(pairs["as_of"].dt.strftime("%Y-%m-%d")) if len(pairs) else (),
        errors=sum(bool(_failures(r)) for r in own) if fine else sum(not _data(s.error) for s in watched if s.error),
        fallbacks=sum(r.answer.rung is not Rung.CANARY and not any(map(_data, _causes(r))) for r in own),
        p99_ms=float(np.quantile(latencies, 0.99)) if latencies else None,
        slow=sum(ms > policy.rollout.guardrails.p99_ms for ms in latencies) if latencies else None,
        prediction_psi=_shift([champion[d] for d in both], [said[d] for d in both], policy),
    )


def _data(failure: str) -> bool:
    return failure.split(":", 1)[0] in DATA_FAILURES


def _causes(record: DecisionRecord) -> list[str]:
    """Why the canary's rung failed, "code: words"."""
    head = f"{Rung.CANARY.value}: "
    return [reason.removeprefix(head) for reason in record.answer.degraded if reason.startswith(head)]


def _failures(record: DecisionRecord) -> list[str]:
    return [cause for cause in _causes(record) if not _data(cause)]


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


def _shift(champion: Sequence[float], challenger: Sequence[float], policy: Policy) -> float | None:
    """PSI over quantile bins of the champion's answers; fewer bins with fewer rows, so that it is not mostly noise."""
    rows = len(champion)
    if rows < policy.rollout.guardrails.min_decisions:
        return None
    bins = min(DECILES, max(2, rows // ROWS_A_BIN))
    edges = np.unique(np.quantile(champion, np.arange(1, bins) / bins))
    before, after = (
        np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
        for values in (np.asarray(champion), np.asarray(challenger))
    )
    return psi(before, after)
