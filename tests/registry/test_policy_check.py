"""What a check of a policy finds: each finding provoked once, and nothing in a sound policy."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.policy import Policy, load_policies
from registry.policy_check import policy_check
from registry.policy_findings import Severity, Surroundings
from tests.registry.rig import policy

ROOT = Path(__file__).resolve().parents[2]
AROUND = Surroundings(
    services=("late_delivery_v1",),
    incumbents=("rolling_late_rate",),
    fields=("shipment_id", "carrier", "origin", "destination", "mode"),
    composites={"lane": ("origin", "destination"), "sku_location": ("sku", "location")},
    segments=("origin", "carrier", "mode"),
    titles=("approver", "model-owner"),
    decisions_per_day=100.0,
    label_delay=timedelta(days=2),
    scored_rows=2000,
    segment_rows={"origin": {"JFK": 900, "LGA": 800, "EWR": 20}},
)
SOUND = {
    "gate.beat": {"champion": 0.0, "incumbent": 0.02},
    "gate.approvals": {"required": 1, "by": ["model-owner"]},
    "gate.segments": {"by": ["origin"], "min_rows": 20, "max_regression": 0.05},
    "business.costs": {"loss": 1.0},
    "owner.notify": ["mailto:owner@example.org"],
    "automate.promote_to_champion": "approval",
    "retrain": {"cooldown": "7d", "budget": {"runs": 3, "per": "30d"}},
    "rollout.guardrails": {"min_decisions": 10},
    "drift.min_rows": 300,
}


def changed(changes: dict[str, Any], start: Policy | None = None) -> Policy:
    """A policy with dotted keys set otherwise."""
    tree = (start or policy()).model_dump(mode="json")
    for key, value in changes.items():
        *path, last = key.split(".")
        place = tree
        for part in path:
            place = place[part]
        place[last] = value
    return Policy.model_validate(tree)


@pytest.fixture(scope="module")
def sound() -> Policy:
    """A policy against which nothing speaks."""
    return changed(SOUND)


def test_nothing_speaks_against_a_sound_policy(sound: Policy) -> None:
    """No finding at all, so that each one below comes from what was changed."""
    assert policy_check(sound, AROUND) == ()


CASES: list[tuple[str, str, dict[str, Any], str]] = [
    ("unknown-service", "error", {"features": "late_delivery_v2"}, "did you mean 'late_delivery_v1'?"),
    ("unknown-incumbent", "error", {"incumbent": "seasonal_naive"}, "there is no risk rule"),
    ("unknown-canary-key", "error", {"rollout.canary.key": "lan"}, "did you mean 'lane'?"),
    ("canary-key-of-another-kind", "error", {"rollout.canary.key": "sku_location"}, "needs sku"),
    ("unknown-canary-segment", "error", {"rollout.canary.segments": {"moed": ["Truck"]}}, "did you mean 'mode'?"),
    ("empty-canary-segment", "error", {"rollout.canary.segments": {"mode": []}}, "kept out of every decision"),
    ("unknown-gate-segment", "error", {"gate.segments.by": ["orgin"]}, "did you mean 'origin'?"),
    ("unheld-role", "warning", {"gate.approvals.by": ["owner-of-models"]}, "never comes"),
    ("calibration-of-another-kind", "error", {"gate.calibration.coverage": [0.7, 0.9]}, "not measured of a risk"),
    ("shadow-outlasts-deadline", "error", {"rollout.shadow.min_days": 30}, "before it may leave shadow"),
    ("deadline-shorter-than-baking", "warning", {"rollout.canary.bake": "20d"}, "no time left for the verdict"),
    ("expires-before-trial-ends", "error", {"rollout.expires": "5d"}, "its whole trial takes 6.0 days"),
    ("approval-expires-unseen", "warning", {"gate.approvals.expires": "2h"}, "holds for 2h"),
    ("history-shorter-than-backtest", "warning", {"training.history": "20d"}, "backtest origins span 42d"),
    ("cooldown-longer-than-age", "warning", {"retrain.when.max_age": "3d"}, "longer than max_age"),
    ("budget-never-binds", "note", {"retrain.budget.runs": 9}, "only the cooldown does"),
    ("violations-after-age", "warning", {"retrain.when": {"violations": 3, "max_age": "14d"}}, "by age before"),
    ("decisions-never-judged", "warning", {"drift.every": "10d"}, "between two windows"),
    ("frozen-most-of-the-time", "warning", {"rollout.freeze": [{"reason": "r", "quarter_end": 50}]}, "less than half"),
    ("shadow-never-full", "error", {"rollout.shadow.min_decisions": 4000}, "100.0 a day make 3000"),
    ("canary-never-judged", "error", {"rollout.guardrails.min_decisions": 301}, "about 10.0 decisions a day"),
    ("bake-shorter-than-evidence", "note", {"rollout.guardrails.min_decisions": 40}, "lasts about 4.0 days"),
    ("window-never-judged", "error", {"drift.min_rows": 701}, "holds about 700 decisions"),
    ("cap-below-evidence", "error", {"rollout.canary.max_decisions": 9}, "before its guardrails can pass"),
    ("cap-below-baking", "warning", {"rollout.canary.max_decisions": 30}, "about 60 decisions while they bake"),
    ("pairs-never-mature", "error", {"rollout.verdict.min_pairs": 9000}, "about 3100 mature"),
    ("gate-never-judges", "error", {"gate.min_rows": 2001}, "scored 2000"),
    ("segments-never-judged", "error", {"gate.segments.min_rows": 901}, "the largest has 900"),
    ("segments-unjudged", "note", {"gate.segments.min_rows": 21}, "1 of 3 values of origin"),
    ("worse-than-the-rule", "error", {"gate.beat.incumbent": -0.01}, "worse than the incumbent rule"),
    ("margin-lets-worse-in", "warning", {"gate.beat.champion": -0.06}, "6% worse than the champion"),
    ("gate-looser-than-verdict", "warning", {"gate.beat.champion": -0.03}, "rejects from 2% worse"),
    ("confidence-too-low", "warning", {"gate.confidence": 0.8}, "20% of candidates"),
    ("calibration-unjudged", "warning", {"gate.calibration.ece_max": None}, "no range of calibration"),
    ("verdict-of-another-metric", "error", {"rollout.verdict.metric": "log_loss"}, "measured in the gate's brier"),
    ("alpha-too-high", "warning", {"rollout.verdict.alpha": 0.2}, "one wrong verdict in 5"),
    ("margin-too-wide", "warning", {"rollout.verdict.margin": 0.2}, "20% worse than the champion"),
    ("margin-over-regression", "warning", {"rollout.verdict.margin": 0.06}, "a segment 5%"),
    ("first-step-too-large", "warning", {"rollout.canary.steps": [60, 100]}, "begins with 60%"),
    ("no-shadow", "warning", {"rollout.shadow.min_decisions": 0}, "before it was watched"),
    ("guardrail-never-binds", "warning", {"rollout.guardrails.error_rate": 0.5}, "tolerates 0.5"),
    ("ladder-without-champion", "error", {"serve.ladder": ["incumbent", "refuse"]}, "never served"),
    ("champion-not-first", "warning", {"serve.ladder": ["incumbent", "champion", "refuse"]}, "begins with incumbent"),
    ("ladder-without-incumbent", "warning", {"serve.ladder": ["champion", "refuse"]}, "gets a refusal"),
    ("anybody-approves", "warning", {"gate.approvals.by": []}, "whoever may approve"),
    ("author-approves", "warning", {"gate.approvals.not_author": False}, "a second pair of eyes"),
    ("nobody-is-told", "warning", {"owner.notify": []}, "not told"),
    ("notice-goes-nowhere", "warning", {"owner.notify": ["owner"]}, "no mailto: or https:"),
    ("no-veto", "warning", {"retrain.veto": "none"}, "fault of its source"),
    ("no-costs", "note", {"business.costs.loss": 0.0}, "no sum"),
]


@pytest.mark.parametrize(("name", "severity", "changes", "words"), CASES, ids=[case[0] for case in CASES])
def test_each_finding_names_key_reason_and_remedy(
    sound: Policy, name: str, severity: str, changes: dict[str, Any], words: str
) -> None:
    """The change that is wrong gives the finding, on a key that was changed or holds it, with what to do about it."""
    found = [finding for finding in policy_check(changed(changes, sound), AROUND) if finding.name == name]
    assert [finding.severity for finding in found] == [Severity(severity)]
    assert words in f"{found[0].what} {found[0].why} {found[0].do}"
    assert found[0].what
    assert found[0].why
    assert found[0].do
    section = next(iter(changes)).split(".")[0]
    assert found[0].key.split(".")[0] in (section, "drift", "retrain", "gate", "rollout")


def test_people_who_are_never_asked_are_noted(sound: Policy) -> None:
    """Roles on a policy in which nothing waits for anybody, and a life in which nobody is asked, are both said."""
    alone = changed({"gate.approvals.required": 0, "automate.promote_to_champion": "auto"}, sound)
    names = [finding.name for finding in policy_check(alone, AROUND)]
    assert names == ["approvers-never-asked", "nobody-is-asked"]


def test_a_forecast_is_held_to_its_own_settings() -> None:
    """A forecast with a risk's calibration, signs, or a coverage that its quantiles cannot have."""
    known = load_policies(ROOT / "policies")["demand"]
    around = Surroundings(services=("demand_v1",), incumbents=("seasonal_naive",), fields=("sku", "location"),
                          composites=AROUND.composites, segments=("volume",))  # fmt: skip
    wrong = {"gate.calibration.ece_max": 0.1, "gate.calibration.coverage": [0.9, 0.95], "training.monotone": {"x": 1}}
    names = {finding.name for finding in policy_check(changed(wrong, known), around)}
    assert {"calibration-of-another-kind", "signs-of-another-kind", "coverage-against-quantiles"} <= names
    assert "unknown-canary-key" not in names


def test_figures_that_are_not_known_are_not_held_against_it(sound: Policy) -> None:
    """Without traffic, outcomes or a backtest only what the policy says itself can be judged."""
    starved = changed({"rollout.shadow.min_decisions": 10**6, "gate.min_rows": 10**6}, sound)
    unknown = Surroundings(AROUND.services, AROUND.incumbents, AROUND.fields, AROUND.composites, AROUND.segments)
    assert policy_check(starved, unknown) == ()
    assert {finding.name for finding in policy_check(starved, AROUND)} == {"shadow-never-full", "gate-never-judges"}


def test_errors_come_first(sound: Policy) -> None:
    """Findings are in order of severity, however they were found."""
    wrong = {"features": "nothing", "gate.beat.champion": -0.3, "business.costs.loss": 0.0, "serve.ladder": ["refuse"]}
    order = [list(Severity).index(finding.severity) for finding in policy_check(changed(wrong, sound), AROUND)]
    assert order == sorted(order)
    assert set(order) == {0, 1, 2}


durations = st.integers(1, 400).map(lambda days: f"{days}d")


@settings(deadline=None, max_examples=60)
@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "gate.beat": st.fixed_dictionaries({"champion": st.floats(-1, 1), "incumbent": st.floats(-1, 1)}),
            "gate.confidence": st.floats(0.51, 0.999),
            "gate.min_rows": st.integers(1, 10**6),
            "gate.calibration.ece_max": st.none() | st.floats(0, 1),
            "gate.segments.by": st.lists(st.text(max_size=8), max_size=3),
            "gate.approvals.by": st.lists(st.text(max_size=8), max_size=2),
            "rollout.canary.steps": st.lists(st.integers(1, 100), min_size=1, unique=True).map(sorted),
            "rollout.canary.bake": durations,
            "rollout.canary.key": st.text(max_size=8),
            "rollout.canary.max_decisions": st.none() | st.integers(1, 10**6),
            "rollout.verdict.deadline": durations,
            "rollout.expires": durations,
            "rollout.shadow.min_decisions": st.integers(0, 10**6),
            "drift.min_rows": st.integers(1, 10**6),
            "drift.every": durations,
            "retrain.cooldown": durations | st.just("0s"),
            "retrain.when.max_age": st.none() | durations,
            "owner.notify": st.lists(st.text(max_size=8), max_size=2),
        },
    ),
    per_day=st.none() | st.floats(0, 10**6),
    delay=st.none() | st.integers(0, 400).map(lambda days: timedelta(days=days)),
)
def test_no_policy_breaks_the_check(changes: dict[str, Any], per_day: float | None, delay: timedelta | None) -> None:
    """Whatever a valid policy says, the check ends with findings that can be read."""
    around = Surroundings(decisions_per_day=per_day, label_delay=delay, scored_rows=100, titles=())
    for finding in policy_check(changed(changes), around):
        assert finding.what
        assert finding.why
        assert finding.do
