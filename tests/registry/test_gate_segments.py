"""Segments at the gate: judged together, and a bad one passes neither by luck nor for lack of rows."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.policy import SegmentRule
from contracts.rollout import Criterion, Outcome
from registry.gate_segments import Paired, holm, judge_segments

DAYS = 40


def paired(counts: dict[str, int], worse: dict[str, float], *, noise: float = 0.3, seed: int = 1) -> Paired:
    """Losses of 40 days: `counts` rows a day in each segment, of which some are `worse` (0.1: 10% more loss)."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(list(counts), list(counts.values()))
    days = np.repeat(np.arange(DAYS), len(labels))
    labels = np.tile(labels, DAYS)
    rival = rng.gamma(8, 0.02, len(labels))
    factor = np.array([1 + worse.get(str(label), 0.0) for label in labels])
    candidate = rival * factor * rng.uniform(1 - noise, 1 + noise, len(labels))
    return Paired(candidate, rival, days, {"lane": labels.astype(str)}, "champion")


def judged(given: Paired, *, min_rows: int = 1, by: tuple[str, ...] = ("lane",)) -> Criterion:
    rule = SegmentRule(by=by, min_rows=min_rows, max_regression=0.05)
    return judge_segments(given, rule, confidence=0.95, root=False, seed=7)[0]


def test_equal_segments_pass_and_the_weakest_is_named() -> None:
    """With enough rows in each."""
    found = judged(paired({"A": 40, "B": 40, "C": 40}, {}))
    assert found.outcome is Outcome.PASS
    assert "weakest of 3" in found.words
    assert found.evidence["judged"] == 3


def test_a_bad_segment_fails_by_name() -> None:
    """Among good ones, with the figures of all beside it, weakest first."""
    found = judged(paired({"A": 40, "B": 40, "C": 40}, {"B": 0.3}))
    assert found.outcome is Outcome.FAIL
    assert "lane B" in found.words
    assert found.evidence["weakest"][0]["segment"] == "B"
    assert found.value == pytest.approx(-0.3, abs=0.05)


def test_a_clearly_worse_segment_with_few_rows_does_not_pass() -> None:
    """One row a day: too little to call it worse for sure among thirty, far too much doubt to pass it."""
    counts = {f"s{number}": 40 for number in range(29)} | {"few": 1}
    outcomes = [judged(paired(counts, {"few": 0.12}, noise=0.9, seed=seed)).outcome for seed in range(40)]
    assert outcomes.count(Outcome.PASS) <= 2
    assert outcomes.count(Outcome.FAIL) <= 2


def test_a_segment_of_doubt_is_held_and_says_for_lack_of_what() -> None:
    """As good as the others, but so few rows that clearly worse is not ruled out."""
    found = judged(paired({"A": 40, "few": 1}, {"few": -0.02}, noise=0.9, seed=5))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "few" in found.words
    assert "rule out -10.0%" in found.words


def test_segments_under_the_minimum_are_listed_as_not_judged() -> None:
    """They neither pass nor fail anything."""
    found = judged(paired({"A": 40, "few": 1}, {"few": 5.0}), min_rows=200)
    assert found.outcome is Outcome.PASS
    assert "not judged, under 200 rows: few (40)" in found.words
    assert found.evidence["not_judged"] == {"few": 40}


def test_a_column_without_any_segment_to_judge_is_open() -> None:
    """Nothing judged is not the same as nothing wrong; a missing column neither."""
    assert judged(paired({"A": 2}, {}), min_rows=1000).outcome is Outcome.INCONCLUSIVE
    assert judged(paired({"A": 40}, {}), by=("carrier",)).outcome is Outcome.INCONCLUSIVE


def test_two_columns_share_one_correction() -> None:
    """The same doubtful segment counts for less beside a second column of thirty."""
    one = paired({"A": 20, "B": 20}, {"B": 0.12}, noise=0.9, seed=2)
    other = np.array([f"c{number % 30}" for number in range(len(one.days))])
    both = Paired(one.candidate, one.rival, one.days, one.labels | {"carrier": other}, one.who)
    alone = judged(one).evidence["weakest"][0]["chance_if_allowed"]
    beside = judged(both, by=("lane", "carrier")).evidence["weakest"][0]["chance_if_allowed"]
    assert alone < beside


def test_a_rival_without_loss_in_a_segment_leaves_it_open() -> None:
    """There is no relative difference to nothing."""
    given = paired({"A": 40, "B": 40}, {})
    given.rival[given.labels["lane"] == "B"] = 0.0
    found = judged(given)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "lane B" in found.words


@given(st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.05, 1.0])), max_size=7))
@settings(max_examples=100, deadline=None)
def test_holm_is_closed_testing_by_bonferroni(p_values: list[float]) -> None:
    """By definition: the worst, over every set of hypotheses with it in, of set size times smallest p-value."""
    places = range(len(p_values))
    sets = [chosen for size in range(1, len(p_values) + 1) for chosen in combinations(places, size)]
    for place, corrected in enumerate(holm(p_values)):
        wanted = max(min(1.0, len(one) * min(p_values[i] for i in one)) for one in sets if place in one)
        assert corrected == pytest.approx(wanted)


def test_holm_counts_what_could_not_be_tested() -> None:
    """NaN stays NaN and takes no multiplicity away."""
    first, second, third = holm([0.01, float("nan"), 0.04])
    assert (first, third) == (pytest.approx(0.03), pytest.approx(0.08))
    assert np.isnan(second)
