"""Rollouts simulated through the real state machine: few wrong verdicts under daily looks, and power to decide."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.simulated_rollouts import ALPHA, Case, draw, naive, policy, roll
from benchmarks.simulated_shifts import ends, true_psi
from benchmarks.verdicts import simulate, upper
from contracts.rollout import Move

WRONG = (Move.PROMOTE, Move.REJECT)


@pytest.mark.parametrize(
    ("case", "moves"),
    [
        (Case("equal"), WRONG),
        (Case("late labels", delays=True), WRONG),
        (Case("on the margin", worse=0.02, margin=0.02), (Move.PROMOTE,)),
    ],
)
def test_equal_challengers_are_seldom_judged_where_a_naive_test_is_fooled(case: Case, moves: tuple[Move, ...]) -> None:
    """60 rollouts looked at every day: wrong verdicts within what alpha a verdict explains, the t-test far outside."""
    found = simulate(60, case, seed=3)
    assert found.share(*moves) <= ALPHA * len(moves)
    assert found.rivals(*WRONG) > 2 * ALPHA
    assert found.share(Move.ROLL_BACK) == 0


def test_a_clearly_worse_challenger_is_rejected_and_a_better_one_promoted() -> None:
    """10% worse is rejected and 5% better promoted in each of 15 rollouts, within the 60 days."""
    assert simulate(15, Case("worse", worse=0.1, margin=0.02), seed=4).share(Move.REJECT) == 1
    assert simulate(15, Case("better", worse=-0.05, margin=0.02), seed=4).share(Move.PROMOTE) == 1


def test_a_challenger_that_errs_at_the_limit_is_seldom_rolled_back() -> None:
    """Errors of just 1% where 1% is allowed: at most alpha of 40 rollouts end by the guardrail."""
    assert simulate(40, Case("errors", errors=0.01), seed=5).share(Move.ROLL_BACK) <= ALPHA


def test_a_shift_below_the_limit_ends_no_rollout_and_one_far_above_does() -> None:
    """At a true PSI of 0.24, limit 0.25, the bound fails in none of 20 rollouts; the bare figure in nearly all."""
    rng, bare, bound, far = np.random.default_rng(2), 0, 0, 0
    assert 0.23 < true_psi(0.5) < 0.25
    for _ in range(20):
        first = rng.standard_normal(600)
        second = 0.7 * first + 0.7141 * rng.standard_normal(600)
        plain, _, low = ends(first, second + 0.5)
        bare, bound = bare + (plain is not None), bound + (low is not None)
        far += ends(first, second + 1.5)[2] is not None
    assert (bound, far) == (0, 20)
    assert bare >= 15


def test_the_same_seed_gives_the_same_rollouts() -> None:
    """The page can be made again."""
    one, two = (
        roll(case, draw(case, rng), policy(0.0), rng)
        for case, rng in ((Case("equal"), np.random.default_rng(9)) for _ in range(2))
    )
    assert one == two
    assert naive(Case("equal"), draw(Case("equal"), np.random.default_rng(9))) in Move


def test_the_bound_of_a_share_is_that_of_the_binomial() -> None:
    """None of 59 is at most 5% with 95% confidence; all of some is no bound."""
    assert upper(0, 59) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert upper(5, 5) == 1.0


@pytest.mark.long
def test_a_thousand_equal_rollouts(record_property: Callable[[str, object], None]) -> None:
    """Of 1,000 rollouts looked at every day, each wrong verdict is seen in at most alpha, bound included."""
    found = simulate(1000, Case("equal"))
    for move in WRONG:
        assert upper(sum(end.move is move for end in found.ends), 1000) <= ALPHA
    record_property("figure: equal rollouts with a wrong verdict, of 1,000", f"{found.share(*WRONG):.1%}")
    record_property("figure: the naive t-test on the same", f"{found.rivals(*WRONG):.1%}")
