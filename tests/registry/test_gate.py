"""The gate: three outcomes, each for its reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from contracts.rollout import Outcome
from registry.gate import gate
from tests.registry.rig import START, evaluation, policy

NOW = START + timedelta(days=21)
SIDES = ("candidate", "champion")


def test_a_clearly_better_candidate_passes() -> None:
    """25% less loss than champion and incumbent, in every segment and calibrated, passes with all criteria named."""
    found = gate(evaluation(), policy(), has_champion=True, now=NOW)
    assert found.outcome is Outcome.PASS
    named = [
        "rows",
        "leakage_audit",
        "same_rows",
        "sources",
        "beat_incumbent",
        "beat_champion",
        "segment_origin",
        "ece",
    ]
    assert [c.name for c in found.criteria] == named


def test_a_worse_candidate_fails_by_name() -> None:
    """A candidate worse than the incumbent fails, and the words say against whom."""
    found = gate(evaluation(candidate=0.3), policy(), has_champion=True, now=NOW)
    assert found.outcome is Outcome.FAIL
    assert "incumbent" in found.words


def test_a_candidate_as_good_as_the_champion_is_open() -> None:
    """No difference is neither a pass nor a failure."""
    close = evaluation(champion=0.15)
    found = {c.name: c.outcome for c in gate(close, policy(), has_champion=True, now=NOW).criteria}
    assert found["beat_champion"] is not Outcome.PASS
    noisy = close.losses.assign(champion=close.losses["candidate"] + np.random.default_rng(0).normal(0, 0.02, 400))
    assert gate(replace(close, losses=noisy), policy(), has_champion=True, now=NOW).outcome is Outcome.INCONCLUSIVE


def test_without_a_champion_only_the_incumbent_counts() -> None:
    """Bootstrap: champion losses are all NaN and are not asked for."""
    bare = evaluation()
    bare = replace(bare, losses=bare.losses.assign(champion=np.nan))
    assert gate(bare, policy(), has_champion=False, now=NOW).outcome is Outcome.PASS
    assert gate(bare, policy(), has_champion=True, now=NOW).outcome is Outcome.INCONCLUSIVE


def test_one_bad_segment_fails_a_good_average() -> None:
    """A slice with enough rows that loses more than allowed fails, and is named."""
    base = evaluation()
    worse = base.losses["candidate"].where(base.losses["segment_origin"] == "JFK", 0.22)
    losses = base.losses.assign(candidate=worse - 0.05 * (base.losses["segment_origin"] == "JFK"))
    found = gate(replace(base, losses=losses), policy(), has_champion=True, now=NOW)
    segment = next(c for c in found.criteria if c.name == "segment_origin")
    assert segment.outcome is Outcome.FAIL
    assert "LGA" in segment.words


@pytest.mark.parametrize(("ece", "wanted"), [(0.2, Outcome.FAIL), (float("nan"), Outcome.INCONCLUSIVE)])
def test_calibration_out_of_range_fails_and_unmeasured_is_open(ece: float, wanted: Outcome) -> None:
    """A measured figure out of range fails; one that was not measured is inconclusive."""
    assert gate(replace(evaluation(), calibration={"ece": ece}), policy(), has_champion=True, now=NOW).outcome is wanted


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"differing": 1, "example": "lag_1 of r7"}, Outcome.FAIL),
        ({"derived": ["lag_1"]}, Outcome.FAIL),
        ({"implausible": ["lag_1"]}, Outcome.INCONCLUSIVE),
        ({"cells": 0}, Outcome.INCONCLUSIVE),
        ({"differing": float("nan")}, Outcome.INCONCLUSIVE),
        ({"rows": None}, Outcome.INCONCLUSIVE),
    ],
)
def test_a_training_set_that_failed_its_audit_never_passes(change: dict[str, object], wanted: Outcome) -> None:
    """A value that differs or a column made from the label fails; an audit of nothing leaves the gate open."""
    base = evaluation()
    audited = base.dataset["leakage_audit"] | change
    found = gate(replace(base, dataset=base.dataset | {"leakage_audit": audited}), policy(), has_champion=True, now=NOW)
    assert found.outcome is wanted
    criterion = next(c for c in found.criteria if c.name == "leakage_audit")
    assert criterion.outcome is wanted
    assert "lag_1" in criterion.words or "not audited" in criterion.words


def test_a_leak_fails_even_when_there_is_too_little_to_judge() -> None:
    """A candidate with too few scored rows and a leak is refused, not held; without an audit it is held."""
    few = evaluation(rows=20)
    assert gate(few, policy(), has_champion=True, now=NOW).outcome is Outcome.INCONCLUSIVE
    leaking = few.dataset["leakage_audit"] | {"differing": 3}
    found = gate(replace(few, dataset=few.dataset | {"leakage_audit": leaking}), policy(), has_champion=True, now=NOW)
    assert found.outcome is Outcome.FAIL
    bare = evaluation()
    without = {name: value for name, value in bare.dataset.items() if name != "leakage_audit"}
    assert gate(replace(bare, dataset=without), policy(), has_champion=True, now=NOW).outcome is Outcome.INCONCLUSIVE


def test_the_evidence_holds_what_does_not_decide() -> None:
    """Bounds, days, and Diebold-Mariano beside them, in figures and in words."""
    found = next(
        c for c in gate(evaluation(), policy(), has_champion=True, now=NOW).criteria if c.name == "beat_champion"
    )
    assert found.value == found.evidence["lower"] < found.evidence["less_loss"] < found.evidence["upper"]
    assert found.evidence["days"] == 20
    assert found.evidence["diebold_mariano"] > 10
    assert found.evidence["diebold_mariano_p"] < 0.001
    assert "Diebold-Mariano +" in found.words


def test_equal_models_seldom_pass_or_fail_the_whole_gate() -> None:
    """A hundred backtests of two models of one quality over 20 days: each wrong verdict in at most one of twenty."""
    outcomes = []
    for seed in range(100):
        base, rng = evaluation(rows=200, champion=0.15, seed=seed), np.random.default_rng(1000 + seed)
        shared, day = rng.normal(0, 0.02, 20), np.arange(200) // 10
        equal = {who: rng.normal(0.15, 0.03, 200).clip(0) + shared[day] + rng.normal(0, 0.01, 20)[day] for who in SIDES}
        losses = base.losses.assign(**{who: values.clip(0) for who, values in equal.items()})
        found = gate(replace(base, losses=losses), policy(), has_champion=True, now=NOW)
        outcomes.append(next(c.outcome for c in found.criteria if c.name == "beat_champion"))
    assert outcomes.count(Outcome.PASS) <= 5
    assert outcomes.count(Outcome.FAIL) <= 5


def test_a_backtest_of_two_days_gives_no_bound() -> None:
    """With fewer than three days there is no honest interval."""
    base = evaluation()
    losses = base.losses.assign(as_of=base.losses["as_of"].min())
    assert gate(replace(base, losses=losses), policy(), has_champion=True, now=NOW).outcome is Outcome.INCONCLUSIVE
