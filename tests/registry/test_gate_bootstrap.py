"""Bounds on an improvement: seeded, as wide as the days allow, true to their level where days depend on each other."""

from __future__ import annotations

import numpy as np
import pytest

from registry.bootstrap import block_bootstrap, block_length, day_bootstrap, relative_improvement


def test_the_bootstrap_is_seeded_and_brackets_the_estimate() -> None:
    """The same input gives the same bounds, around the plain ratio."""
    rng = np.random.default_rng(1)
    rival = rng.gamma(2, 1, 600)
    candidate, days = rival * 0.9 + rng.normal(0, 0.05, 600).clip(-0.1, 0.1), np.arange(600) // 20
    first, second = (block_bootstrap(candidate, rival, days, confidence=0.95, root=False, seed=7) for _ in range(2))
    assert first == second
    assert first.lower < first.estimate < first.upper
    assert first.estimate == pytest.approx(1 - candidate.sum() / rival.sum())


def test_rows_that_share_a_day_do_not_narrow_the_bounds() -> None:
    """Copying every row ten times within its day leaves the bounds where they were."""
    rng = np.random.default_rng(6)
    candidate, rival, days = rng.gamma(2, 1, 40), rng.gamma(2, 1.2, 40), np.arange(40)
    once = block_bootstrap(candidate, rival, days, confidence=0.95, root=True, seed=7)
    mine, theirs = np.repeat(candidate, 10), np.repeat(rival, 10)
    ten = block_bootstrap(mine, theirs, np.repeat(days, 10), confidence=0.95, root=True, seed=7)
    assert (once.lower, once.upper) == pytest.approx((ten.lower, ten.upper))


def test_improvement_is_nan_where_it_has_no_meaning() -> None:
    """A rival without loss, or losses that are no numbers, give NaN."""
    assert np.isnan(relative_improvement(0.1, 0.0, root=False))
    assert np.isnan(relative_improvement(float("nan"), 1.0, root=True))
    assert relative_improvement(0.81, 1.0, root=True) == pytest.approx(0.1)


@pytest.mark.parametrize("days", [0, 1, 3])
def test_under_four_days_there_is_no_bound(days: int) -> None:
    """However many rows they hold."""
    rng = np.random.default_rng(2)
    place = np.arange(300 if days else 0) % max(days, 1)
    losses = rng.gamma(2, 1, len(place))
    found = block_bootstrap(losses * 0.5, losses, place, confidence=0.95, root=False, seed=7)
    assert np.isnan(found.lower)
    assert np.isnan(found.upper)
    assert np.isnan(found.chance_if(0.0))
    assert found.blocks == days


def test_a_side_whose_loss_is_all_on_one_day_gives_no_bound() -> None:
    """Most draws miss that day, so nothing is known of its size; for a candidate the same."""
    rival = np.zeros(20)
    rival[4] = 1.0
    for mine, theirs in ((np.full(20, 0.01), rival), (rival, np.full(20, 0.01))):
        found = block_bootstrap(mine, theirs, np.arange(20), confidence=0.95, root=False, seed=7)
        assert np.isfinite(found.estimate)
        assert np.isnan(found.lower)
        assert np.isnan(found.upper)


def test_better_and_worse_are_mirror_images() -> None:
    """Exchanging the two sides exchanges the bounds, as ratios."""
    rng = np.random.default_rng(8)
    first, second, days = rng.gamma(2, 1, 30), rng.gamma(2, 1.2, 30), np.arange(30)
    one = block_bootstrap(first, second, days, confidence=0.95, root=False, seed=7)
    other = block_bootstrap(second, first, days, confidence=0.95, root=False, seed=7)
    assert (1 - one.lower) * (1 - other.upper) == pytest.approx(1.0)
    assert (1 - one.upper) * (1 - other.lower) == pytest.approx(1.0)


@pytest.mark.parametrize("days", [4, 7, 20, 60, 400])
def test_a_chance_says_the_same_as_a_bound(days: int) -> None:
    """If the truth were a bound, an improvement as low would have the chance that the confidence leaves."""
    rng = np.random.default_rng(days)
    rival = rng.gamma(2, 1, (days, 1))
    found = day_bootstrap(rival * rng.uniform(0.7, 1.1, (days, 1)), rival, confidence=0.9, root=False, seed=1)[0]
    assert found.chance_if(found.upper) == pytest.approx(0.1)
    assert found.chance_if(found.lower) == pytest.approx(0.9)
    assert found.chance_if(found.estimate) == pytest.approx(0.5)


def test_groups_are_judged_as_each_alone() -> None:
    """Several groups in one call share their draws and change nothing about each other."""
    rng = np.random.default_rng(5)
    rival = rng.gamma(2, 1, (30, 4))
    candidate = rival * rng.uniform(0.8, 1.2, (30, 4))
    together = day_bootstrap(candidate, rival, confidence=0.95, root=True, seed=3)
    for group, found in enumerate(together):
        part = slice(group, group + 1)
        alone = day_bootstrap(candidate[:, part], rival[:, part], confidence=0.95, root=True, seed=3)[0]
        assert (alone.lower, alone.upper) == pytest.approx((found.lower, found.upper))


def test_blocks_grow_with_the_days_and_leave_more_than_three() -> None:
    """So that there is something to draw from."""
    lengths = [block_length(days) for days in range(4, 1000)]
    assert lengths == sorted(lengths)
    assert all(days / length >= 3.5 for days, length in zip(range(4, 1000), lengths, strict=True))


@pytest.mark.parametrize(("days", "dependence"), [(5, 0.3), (7, 0.3), (14, 0.4), (30, 0.5)])
def test_equal_models_seldom_win_or_lose(days: int, dependence: float) -> None:
    """A/A over days whose drift depends on the day before: wrong verdicts at most at the stated 5%."""
    rng, runs = np.random.default_rng(days), 1000
    sums = []
    for _ in range(2):
        drift = np.zeros((days, runs))
        for day in range(days):
            before = drift[day - 1] if day else rng.standard_normal(runs)
            drift[day] = dependence * before + np.sqrt(1 - dependence**2) * rng.standard_normal(runs)
        sums.append(np.exp(0.3 * drift) * rng.gamma(20, 1, (days, runs)))
    shock = np.exp(0.5 * rng.standard_normal((days, runs)))
    found = day_bootstrap(sums[0] * shock, sums[1] * shock, confidence=0.95, root=False, seed=7)
    assert np.mean([one.lower > 0 for one in found]) <= 0.05
    assert np.mean([one.upper < 0 for one in found]) <= 0.05
