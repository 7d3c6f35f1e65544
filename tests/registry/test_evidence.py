"""Statistics of verdicts: the promised error rates hold under constant looking, and there is power to decide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from contracts.rollout import Outcome
from registry.evidence import block_means, rate_evidence, sequential_test

Floats = NDArray[np.float64]
ALPHA = 0.05


def _pairs(rng: np.random.Generator, size: int, worse: float) -> tuple[Floats, Floats]:
    """Brier-like losses, correlated; the challenger's mean is `worse` times higher."""
    level = rng.beta(1.2, 6, size)
    champion = np.clip(level * rng.uniform(0.6, 1.4, size), 0, 1)
    challenger = np.clip(level * rng.uniform(0.6, 1.4, size) * (1 + worse), 0, 1)
    return challenger, champion


def _share(runs: int, pairs: int, worse: float, margin: float, wanted: Outcome, seed: int) -> float:
    """Share of runs in which someone who looks after every 20th pair ever sees `wanted`."""
    rng, seen = np.random.default_rng(seed), 0
    for _ in range(runs):
        mine, theirs = _pairs(rng, pairs, worse)
        for size in range(20, pairs + 1, 20):
            found = sequential_test(mine[:size], theirs[:size], bound=1.0, alpha=ALPHA, margin=margin)
            if found.outcome is wanted:
                seen += 1
                break
    return seen / runs


@pytest.mark.parametrize("wanted", [Outcome.PASS, Outcome.FAIL])
def test_equal_models_are_seldom_judged_while_looking_all_the_time(wanted: Outcome) -> None:
    """A/A with no margin: looking after every 20 pairs of 400 finds a false verdict in at most alpha of the runs."""
    assert _share(200, 400, 0.0, 0.0, wanted, seed=11) <= ALPHA


def test_a_model_just_as_bad_as_the_margin_is_seldom_passed() -> None:
    """At the edge of the margin a pass is an error, and at most alpha of the runs ever see one."""
    assert _share(200, 400, 0.10, 0.10, Outcome.PASS, seed=12) <= ALPHA


@pytest.mark.parametrize(
    ("worse", "margin", "wanted"),
    [(0.0, 0.0, Outcome.PASS), (0.0, 0.0, Outcome.FAIL), (0.0, 0.02, Outcome.FAIL), (0.1, 0.1, Outcome.PASS)],
)
@pytest.mark.long
def test_error_rates_over_many_long_rollouts(worse: float, margin: float, wanted: Outcome) -> None:
    """1,000 rollouts of 2,000 pairs each: the share of false verdicts stays within alpha."""
    share = _share(1000, 2000, worse, margin, wanted, seed=13)
    print(f"A/A worse={worse} margin={margin} {wanted}: {share:.3f}")
    assert share <= ALPHA


@pytest.mark.parametrize(("worse", "wanted"), [(-0.15, Outcome.PASS), (0.25, Outcome.FAIL)])
def test_a_clear_difference_is_decided(worse: float, wanted: Outcome) -> None:
    """15% better passes and 25% worse fails in at least nine of ten runs of 1,000 pairs."""
    rng = np.random.default_rng(5)
    outcomes = [
        sequential_test(*_pairs(rng, 1000, worse), bound=1.0, alpha=ALPHA, margin=0.02).outcome for _ in range(50)
    ]
    assert outcomes.count(wanted) >= 45


def test_heavy_tails_beyond_the_bound_do_not_decide() -> None:
    """One absurd loss counts as the bound and cannot fail a challenger that is otherwise the same."""
    champion = np.random.default_rng(2).gamma(1.0, 1.0, 300)
    challenger = champion.copy()
    challenger[150] = 1e12
    found = sequential_test(challenger, champion, bound=9.0, alpha=ALPHA, margin=0.02)
    assert found.outcome is not Outcome.FAIL


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_numbers_give_finite_evidence(pairs: list[tuple[float, float]]) -> None:
    """NaN, infinities and absurd losses never break the test, and never make evidence out of nothing."""
    found = sequential_test([a for a, _ in pairs], [b for _, b in pairs], bound=1.0, alpha=ALPHA, margin=0.02)
    assert np.isfinite([found.e_better, found.e_worse]).all()
    assert found.n == sum(bool(np.isfinite(b)) for _, b in pairs)
    if found.n:
        assert found.lower <= found.upper
    else:
        assert found.outcome is Outcome.INCONCLUSIVE


def test_a_challenger_that_answers_nan_never_passes() -> None:
    """A loss that is no number counts as the worst there is."""
    champion = np.random.default_rng(3).beta(2, 8, 500)
    found = sequential_test([float("nan")] * 500, champion, bound=1.0, alpha=ALPHA, margin=0.02)
    assert found.outcome is Outcome.FAIL


def test_the_confidence_sequence_covers_the_true_difference() -> None:
    """The interval at the last pair holds the true mean difference in at least 95% of 200 runs."""
    rng, covered = np.random.default_rng(8), 0
    for _ in range(200):
        challenger, champion = rng.beta(2, 6, 300), rng.beta(2, 8, 300)
        found = sequential_test(challenger, champion, bound=1.0, alpha=ALPHA, margin=0.0)
        covered += found.lower <= 2 / 8 - 2 / 10 <= found.upper
    assert covered >= 190


def test_rates_within_the_limit_are_seldom_called_too_high() -> None:
    """Looking after every decision of 300 at a true rate equal to the limit errs in at most alpha of 100 runs."""
    rng, wrong = np.random.default_rng(4), 0
    for _ in range(100):
        bad = np.cumsum(rng.random(300) < 0.05)
        wrong += any(rate_evidence(int(b), n, 0.05) >= 1 / ALPHA for n, b in enumerate(bad, start=1))
    assert wrong <= 100 * ALPHA


def test_a_rate_far_over_the_limit_is_seen_within_a_few_decisions() -> None:
    """30% errors where 1% is allowed are certain within 30 decisions; none at all are no evidence."""
    assert rate_evidence(9, 30, 0.01) > 1e6
    assert rate_evidence(0, 100, 0.01) < 1
    assert rate_evidence(0, 0, 0.01) == 1
    assert rate_evidence(2, 2, 0.0) > 1 / ALPHA


def test_pairs_that_share_a_shock_are_averaged_by_day_to_keep_the_error_rate() -> None:
    """With a shock common to a day's pairs, 40 a day, day means keep alpha where single pairs would break it."""
    rng, wrong, naive = np.random.default_rng(2), 0, 0
    day = np.repeat(np.arange(25), 40)
    for _ in range(100):
        champion = rng.beta(3, 9, len(day))
        noise = np.repeat(rng.normal(0, 0.03, 25), 40) + rng.normal(0, 0.05, len(day))
        challenger = np.clip(champion + noise, 0, 1)
        singles = sequential_test(challenger, champion, bound=1.0, alpha=ALPHA, margin=0.0)
        means = block_means(list(challenger), list(champion), list(day))
        averaged = sequential_test(*means, bound=1.0, alpha=ALPHA, margin=0.0)
        naive += singles.outcome is Outcome.FAIL
        wrong += averaged.outcome is Outcome.FAIL
    assert wrong <= 100 * ALPHA < naive


def test_adaptive_looks_at_equal_models_seldom_err() -> None:
    """Day means of equal models, looked at each day for 40 days: wrong verdicts stay within alpha."""
    rng = np.random.default_rng(11)
    wrong = 0
    for _ in range(100):
        shock = rng.normal(0.15, 0.03, 40)
        first, second = (shock + rng.normal(0, 0.005, 40) for _ in range(2))
        looks = [
            sequential_test(first[:n], second[:n], bound=1.0, alpha=0.05, margin=0.0, adaptive=True).outcome
            for n in range(10, 41, 2)
        ]
        wrong += any(outcome is not Outcome.INCONCLUSIVE for outcome in looks)
    assert wrong <= 12  # two verdicts at 5% each; 10 expected at most, far fewer seen


def test_adaptive_verdicts_come_within_weeks() -> None:
    """A challenger worse by a tenth fails, and an equal one passes a margin of a tenth, within 40 day means."""
    rng = np.random.default_rng(12)
    champion = rng.normal(0.15, 0.03, 40)
    equal = champion + rng.normal(0, 0.005, 40)
    arguments = {"bound": 1.0, "alpha": 0.05, "adaptive": True}
    assert sequential_test(equal * 1.1, champion, margin=0.0, **arguments).outcome is Outcome.FAIL
    found = sequential_test(equal, champion, margin=0.1, **arguments)
    assert found.outcome is Outcome.PASS
    assert found.lower < found.mean_difference < found.upper
