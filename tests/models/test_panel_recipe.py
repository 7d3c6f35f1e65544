"""The panel's recipe: better than the naive where there is something to learn, repeatable, open about who answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.combine import Blend, choose_blend
from models.panel import Panel, period_numbers
from models.panel_corrections import past_origins
from models.panel_forecast import forecast_panel
from models.segments import segment_rule

LEVELS = (0.1, 0.5, 0.9)
HORIZON = 7


@pytest.fixture(scope="module")
def promoted() -> Panel:
    """Thirty shops over 300 days: a week, a promotion known ahead that doubles demand, and two shops without a past."""
    random = np.random.default_rng(3)
    days = np.arange(300 + HORIZON)
    promotion = (random.random((30, len(days))) < 0.25).astype(float)
    level = random.gamma(3.0, 30.0, (30, 1)) * (1 + 0.4 * np.sin(2 * np.pi * days / 7)) * (1 + promotion)
    demand = random.poisson(level).astype(float)
    demand[28:, :300] = np.nan
    return Panel(
        keys=tuple(f"shop{i}" for i in range(30)),
        frequency="day",
        first=int(period_numbers(np.datetime64("2021-01-04"), "day")),
        demand=demand,
        ahead={"promotion": promotion},
        static={"region": np.array(["north", "south"] * 15, dtype=object)},
    )


def test_the_recipe_learns_what_the_naive_cannot(promoted: Panel) -> None:
    """With a promotion known ahead the mean errs less than half as much as last week's value, covered as it says."""
    made = forecast_panel(promoted.until(300, HORIZON), HORIZON, levels=LEVELS)
    actual, naive = promoted.demand[:28, 300:307], promoted.demand[:28, 293:300]
    error = np.abs(made.mean[:28] - actual).sum()
    assert error < 0.5 * np.abs(naive - actual).sum()
    assert (np.diff(made.quantiles, axis=2) >= 0).all()
    assert (made.quantiles >= 0).all()
    inside = (actual >= made.quantiles[:28, :, 0]) & (actual <= made.quantiles[:28, :, 2])
    assert 0.6 < inside.mean() < 0.97
    assert made.how[:28] == ("model",) * 28
    assert made.how[28:] == ("level of region",) * 2
    assert np.isfinite(made.mean[28:]).all()


def test_the_same_inputs_give_the_same_figures(promoted: Panel) -> None:
    """Twice the same call answers to the last bit alike."""
    once, again = (forecast_panel(promoted.until(300, HORIZON), HORIZON, levels=LEVELS) for _ in range(2))
    np.testing.assert_array_equal(once.mean, again.mean)
    np.testing.assert_array_equal(once.quantiles, again.quantiles)


def test_a_censored_period_is_not_a_sale_of_nothing(promoted: Panel) -> None:
    """Stock-outs masked as unknown leave the level where it was; taken as zero they would drag it down."""
    demand = promoted.demand[:, :300].copy()
    out = np.zeros(demand.shape, dtype=bool)
    out[:5, 290:300] = True
    masked = replace(promoted.until(300, HORIZON), demand=np.where(out, np.nan, demand))
    zeroed = replace(promoted.until(300, HORIZON), demand=np.where(out, 0.0, demand))
    means = [forecast_panel(p, HORIZON, levels=LEVELS).mean[:5].sum() for p in (masked, zeroed)]
    actual = promoted.demand[:5, 300:307].sum()
    assert abs(means[0] / actual - 1) < 0.15
    assert means[1] < 0.9 * means[0]


def test_a_few_rows_cannot_pick_a_fluke() -> None:
    """A member that is right on a segment of twenty rows only, and wrong elsewhere, gets no share there."""
    random = np.random.default_rng(0)
    actual = random.gamma(2.0, 5.0, 4020)
    booster = actual + random.normal(0, 2.0, 4020)
    member = actual + random.normal(0, 8.0, 4020)
    member[4000:] = actual[4000:]
    segment = np.array(["many"] * 4000 + ["few"] * 20, dtype=object)
    blend = choose_blend(actual, booster, {"lucky": member}, np.full(4020, 5.0), segment)
    assert blend.shares.get("few", {}).get("lucky", 0.0) == 0.0


def test_a_better_member_earns_its_share() -> None:
    """A member with independent errors of the same size lowers the loss, and is taken, never with more than .45."""
    random = np.random.default_rng(0)
    actual = random.gamma(2.0, 5.0, 4000)
    booster, member = actual + random.normal(0, 3.0, 4000), actual + random.normal(0, 3.0, 4000)
    segment = np.full(4000, "all", dtype=object)
    blend = choose_blend(actual, booster, {"other": member}, np.full(4000, 5.0), segment)
    assert blend.shares["all"]["other"] == pytest.approx(0.45)
    missing = np.where(np.arange(4000) % 2 == 0, np.nan, member)
    mixed = blend.apply(booster, {"other": missing}, segment)
    np.testing.assert_array_equal(mixed[::2], booster[::2])


def test_an_empty_blend_changes_nothing() -> None:
    """Without shares the booster's mean comes back as it is."""
    booster = np.array([1.0, 2.0])
    np.testing.assert_array_equal(Blend().apply(booster, {}, np.array(["x", "y"], dtype=object)), booster)


def test_volume_classes_make_up_their_shares() -> None:
    """A series are those that make up 80% of the volume, with B 95%."""
    level = np.array([80.0, 10.0, 6.0, 4.0])
    named = segment_rule(level).name(level, level * 0.1, np.zeros(4))
    assert [name[0] for name in named] == ["A", "B", "B", "C"]
    assert segment_rule(level).name(np.array([np.nan]), np.array([1.0]), np.array([0.0]))[0] == "new"


def test_past_origins_have_matured() -> None:
    """Every origin whose forecasts are judged lies at least a horizon before the end, in the panel's second half."""
    origins = past_origins(100, 10)
    assert origins[-1] == 90
    assert all(50 < origin <= 90 for origin in origins)
    assert past_origins(12, 10) == []
