"""Evidence for the rollout: what counts in shadow and what in canary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from contracts.decisions import Answer, Rung
from contracts.policy import Policy
from contracts.rollout import RolloutState, Stage
from drift.online_evidence import online_evidence

START = datetime(2026, 3, 1, tzinfo=UTC)
NOW = START + timedelta(days=14)
NONE = pd.DataFrame({"challenger": [], "champion": []})
SHADOW = RolloutState("late_delivery", 3, champion="v1", challenger="v2", stage=Stage.SHADOW, since=START)
CANARY = replace(SHADOW, stage=Stage.CANARY, step=0, share=0.1)
Make = Callable[..., Any]


def test_in_shadow_the_challengers_scores_count(risk_policy: Policy, risk_records: Make, shadow_of: Make) -> None:
    """Scores since the stage began, their own errors without unknown keys, PSI against the served answers."""
    records = risk_records(300)
    said = np.array([r.answer.probability for r in records])
    scores = shadow_of(records[:280], "v2", said[:280]) + shadow_of(records[280:290], "v2", 0, "model_failed: x")
    scores += shadow_of(records[290:], "v2", 0, "cold_start: lane_rates knows nothing of this key")
    days = pd.to_datetime(["2026-03-01T10:00Z", "2026-03-02T10:00Z"], utc=True)
    pairs = pd.DataFrame({"as_of": days, "challenger": [0.1, 0.2], "champion": [0.3, 0.4]})
    found = online_evidence(records, scores, pairs, SHADOW, risk_policy, NOW)
    assert found is not None
    assert (found.decisions, found.errors, found.fallbacks, found.days) == (300, 10, 0, 14.0)
    assert (found.p99_ms, found.slow) == (None, None)
    assert found.prediction_psi == 0.0
    assert (found.pairs_challenger, found.pairs_champion) == ((0.1, 0.2), (0.3, 0.4))
    assert found.pair_blocks == ("2026-03-01", "2026-03-02")
    later = replace(SHADOW, since=START + timedelta(days=7))
    half = online_evidence(records, scores, NONE, later, risk_policy, NOW)
    assert half is not None
    assert half.decisions == 150


def test_in_canary_only_its_own_arm_counts(risk_policy: Policy, risk_records: Make, shadow_of: Make) -> None:
    """Decisions, fallbacks, errors and latency are the arm's; the champion's answers come from the shadow stream."""
    champion, canary = risk_records(200), risk_records(40, seed=2, version="v2", arm="canary")
    failed = Answer(rung=Rung.CHAMPION, version="v1", probability=0.2, degraded=("canary: not_finite: none",))
    old = "stale: lane_rates is old"
    unknown = Answer(rung=Rung.REFUSE, degraded=(f"canary: {old}", f"champion: {old}"))
    fell = risk_records(2, seed=3, version="v2", arm="canary", answer=failed)
    fell += risk_records(3, seed=4, version="v2", arm="canary", answer=unknown)
    scores = shadow_of(canary, "v1", [r.answer.probability for r in canary])
    found = online_evidence(champion + canary + fell, scores, NONE, CANARY, risk_policy, NOW)
    assert found is not None
    assert (found.decisions, found.errors, found.invalid, found.fallbacks, found.exposed) == (45, 0, 2, 2, 45)
    assert (found.p99_ms, found.slow) == (2.0, 0)
    assert found.prediction_psi == 0.0


def test_answers_out_of_range_are_invalid_wherever_they_were_given(
    risk_policy: Policy, risk_records: Make, shadow_of: Make
) -> None:
    """A probability over 1 from the canary or the shadow, and a shadow that gave no number: invalid, and no error."""
    odd = risk_records(3, seed=5, version="v2", arm="canary", probability=[1.2, 0.2, -0.1])
    canary = online_evidence(odd, [], NONE, CANARY, risk_policy, NOW)
    records = risk_records(4)
    scores = shadow_of(records[:3], "v2", [0.1, 1.01, 0.3]) + shadow_of(records[3:], "v2", 0, "not_finite: none")
    shadow = online_evidence(records, scores, NONE, SHADOW, risk_policy, NOW)
    assert canary is not None
    assert shadow is not None
    assert (canary.decisions, canary.errors, canary.invalid) == (3, 0, 2)
    assert (shadow.decisions, shadow.errors, shadow.invalid) == (4, 0, 2)


def test_exposure_counts_all_canary_steps_and_the_rest_only_the_present_one(
    risk_policy: Policy, risk_records: Make
) -> None:
    """Of 28 answers over 14 days 14 came in the second step; all 28 were exposed."""
    state = replace(CANARY, step=1, canary_since=START, since=START + timedelta(days=7))
    found = online_evidence(risk_records(28, version="v2", arm="canary"), [], NONE, state, risk_policy, NOW)
    assert found is not None
    assert (found.decisions, found.exposed) == (14, 28)


def test_shifted_answers_show_few_are_not_compared(risk_policy: Policy, risk_records: Make, shadow_of: Make) -> None:
    """A challenger that answers twice as high has a large PSI; under min_decisions there is none."""
    records = risk_records(300)
    said = np.array([r.answer.probability for r in records])
    moved = online_evidence(records, shadow_of(records, "v2", np.clip(2 * said, 0, 1)), NONE, SHADOW, risk_policy, NOW)
    few = online_evidence(records, shadow_of(records[:29], "v2", said[:29]), NONE, SHADOW, risk_policy, NOW)
    assert moved is not None
    assert few is not None
    assert (moved.prediction_psi or 0) > 1.0
    assert few.prediction_psi is None


def test_no_challenger_no_evidence(risk_policy: Policy) -> None:
    """Without a challenger there is nothing to say."""
    assert online_evidence([], [], NONE, RolloutState("late_delivery"), risk_policy, NOW) is None


def test_failures_are_counted_by_window_too(risk_policy: Policy, risk_records: Make) -> None:
    """Windows begin with the stage; one in which nothing was bad is left out, the counts of the others add up."""
    good = risk_records(200, seed=2, version="v2", arm="canary")
    failed = Answer(rung=Rung.CHAMPION, version="v1", probability=0.2, degraded=("canary: model_failed: none",))
    fell = risk_records(2, seed=3, version="v2", arm="canary", answer=failed)
    found = online_evidence(good + fell, [], NONE, CANARY, risk_policy, NOW)
    assert found is not None
    assert sum(burst.errors for burst in found.bursts) == found.errors == 2
    assert sum(burst.fallbacks for burst in found.bursts) == found.fallbacks == 2
    width = risk_policy.rollout.guardrails.window
    assert all((burst.since - START) % width == timedelta(0) for burst in found.bursts)
    assert {(r.as_of - START) // width for r in fell} == {(burst.since - START) // width for burst in found.bursts}
