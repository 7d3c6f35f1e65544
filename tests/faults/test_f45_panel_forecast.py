"""FAULTS 45 and bad input: the panel forecaster answers every series, says who answered, or names what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from contracts.errors import InputInvalid, NotEnoughData, SeatrialError
from models.panel import Floats, Frequency, Panel, PanelForecast
from models.panel_forecast import forecast_panel

LEVELS = (0.1, 0.5, 0.9)
H = 7
SERIES, ENOUGH = 8, 100


def panel(demand: Floats, *, frequency: Frequency = "day", **more: Any) -> Panel:
    """A panel from the 1st of January 2024 on, its series named by number."""
    first = {"day": 19723, "week": 2817, "month": 648}[frequency]
    return Panel(tuple(f"s{i:02d}" for i in range(len(demand))), frequency, first, np.asarray(demand, float), **more)


def weekly(series: int = SERIES, days: int = ENOUGH, seed: int = 4) -> Floats:
    """Daily units with a weekly shape."""
    rng = np.random.default_rng(seed)
    shape = np.array([0.5, 0.7, 0.9, 1.0, 1.3, 1.8, 0.8])[np.arange(days) % 7]
    return rng.poisson(rng.uniform(4, 20, series)[:, None] * shape).astype(float)


def asked(given: Panel, horizon: int = H) -> PanelForecast:
    """A forecast that is whole: finite, not negative, rising quantiles, one answerer a series."""
    made = forecast_panel(given, horizon, levels=LEVELS)
    shape = (len(given.keys), horizon)
    assert made.mean.shape == shape
    assert made.quantiles.shape == (*shape, len(LEVELS))
    for table in (made.mean, made.quantiles):
        assert np.isfinite(table).all()
        assert (table >= 0).all()
    assert (np.diff(made.quantiles, axis=2) >= 0).all()
    assert len(made.how) == len(given.keys)
    assert all(made.how)
    return made


@pytest.fixture(scope="module")
def plain() -> PanelForecast:
    """The forecast of a panel with nothing odd."""
    return asked(panel(weekly()))


def test_a_sound_panel_is_answered_by_the_model(plain: PanelForecast) -> None:
    """Eight series of 100 days are the model's, every one."""
    assert set(plain.how) == {"model"}


def test_the_same_panel_gives_the_same_bits(plain: PanelForecast) -> None:
    """A second run gives the same figures."""
    again = asked(panel(weekly()))
    assert (again.mean == plain.mean).all()
    assert (again.quantiles == plain.quantiles).all()


@pytest.mark.parametrize(("series", "days"), [(1, 1), (1, 2), (1, 9), (2, 20), (1, 60)])
def test_too_few_series_or_days_are_answered_by_a_named_fallback_or_refused(series: int, days: int) -> None:
    """A panel too small for the model is answered whole by a fallback that is named, or refused as not enough data."""
    try:
        made = asked(panel(weekly(series, days)))
    except NotEnoughData:
        return
    if days < 20:
        assert "model" not in made.how


def test_nothing_known_is_refused() -> None:
    """A panel without one known period is not forecast."""
    with pytest.raises(NotEnoughData):
        forecast_panel(panel(np.full((3, 50), np.nan)), H, levels=LEVELS)


def test_a_panel_of_zeros_forecasts_zero() -> None:
    """Demand that was always zero stays at zero, the interval too, and it is not called the model's."""
    made = asked(panel(np.zeros((8, ENOUGH))))
    assert made.mean.max() < 0.05
    assert made.quantiles.max() < 0.05
    assert "model" not in made.how


def test_one_series_of_zeros_among_others_is_named() -> None:
    """A series that never sold, among others that do, is forecast near zero and said to be one."""
    demand = weekly()
    demand[3] = 0
    made = asked(panel(demand))
    assert made.how[3] != "model"
    assert made.mean[3].max() < 0.5


def test_a_constant_series_is_forecast_as_constant() -> None:
    """Series of a constant 6 among others, and a panel of nothing else, stay within 10% of it."""
    demand = weekly()
    demand[5] = 6.0
    assert asked(panel(demand)).mean[5] == pytest.approx(np.full(H, 6.0), rel=0.25)
    assert asked(panel(np.full((6, ENOUGH), 6.0))).mean == pytest.approx(np.full((6, H), 6.0), rel=0.1)


def test_a_series_nobody_has_seen_gets_its_groups_level_by_name() -> None:
    """A series without any history is answered by the level of its group, which `how` names."""
    demand = weekly()
    demand[:4] *= 10
    demand[0] = demand[7] = np.nan
    kinds = np.array(["big"] * 4 + ["small"] * 4, dtype=object)
    made = asked(panel(demand, static={"kind": kinds}))
    assert made.how[0] != "model"
    assert made.how[7] != "model"
    assert made.mean[0].mean() > 3 * made.mean[7].mean()


@pytest.mark.parametrize("category", ["never seen", None])
def test_a_new_category_is_answered(category: str | None) -> None:
    """A new series of a category that no other series has, or of none, is answered from the whole panel, by name."""
    demand = weekly()
    demand[7] = np.nan
    kinds = np.array(["a", "b"] * 4, dtype=object)
    kinds[7] = category
    made = asked(panel(demand, static={"kind": kinds}))
    assert made.how[7] != "model"
    assert made.mean[7].mean() == pytest.approx(np.nanmean(demand), rel=0.8)


def test_gaps_and_stock_outs_are_not_zeros() -> None:
    """Half the days unknown leave the level where it is; the same days as zeros lower it."""
    demand, rng = weekly(), np.random.default_rng(1)
    gone = rng.random(demand.shape) < 0.5
    unknown = asked(panel(np.where(gone, np.nan, demand), censored=gone))
    zeros = asked(panel(np.where(gone, 0.0, demand)))
    assert unknown.mean.mean() == pytest.approx(demand.mean(), rel=0.2)
    assert zeros.mean.mean() < 0.75 * demand.mean()


def test_a_series_whose_last_weeks_are_unknown_is_answered() -> None:
    """A series closed for its last 40 days, and one that began three days ago, are answered like the others."""
    demand = weekly()
    demand[2, -40:] = np.nan
    demand[4, :-3] = np.nan
    made = asked(panel(demand))
    assert made.mean[2].mean() == pytest.approx(np.nanmean(demand[2]), rel=0.5)
    assert made.mean[4].mean() == pytest.approx(np.nanmean(demand[4]), rel=1.0)


def with_price(price: Floats) -> Mapping[str, Floats]:
    """A covariate known in advance."""
    return {"price": price}


def test_an_unknown_covariate_ahead_is_answered() -> None:
    """A promotion that is unknown in the past, ahead, or altogether does not bring the forecast down."""
    demand, rng = weekly(), np.random.default_rng(6)
    promotion = (rng.random((SERIES, ENOUGH + H)) < 0.2).astype(float)
    demand = demand * (1 + promotion[:, :ENOUGH])
    for hidden in (slice(0, 60), slice(ENOUGH, None), slice(None)):
        holes = promotion.copy()
        holes[:, hidden] = np.nan
        asked(panel(demand, ahead=with_price(holes)))


def test_a_covariate_that_ends_before_the_horizon_is_refused_or_unknown() -> None:
    """Covariates for fewer steps than are asked for: the covariate is named, or what is not there counts as unknown."""
    short = panel(weekly(), ahead=with_price(np.ones((SERIES, ENOUGH + 2))))
    try:
        asked(short)
    except SeatrialError as error:
        assert "price" in str(error)  # noqa: PT017


def test_a_horizon_beyond_the_past_is_answered_by_a_fallback_or_refused() -> None:
    """More steps than there are periods: answered whole by a named fallback, or refused; never by the model."""
    try:
        made = asked(panel(weekly(6, 30)), horizon=90)
    except (NotEnoughData, InputInvalid):
        return
    assert "model" not in made.how


@pytest.mark.parametrize(("horizon", "levels"), [(0, LEVELS), (-1, LEVELS), (H, (0.9, 0.5)), (H, (0.0, 0.5)), (H, ())])
def test_a_bad_question_is_refused(horizon: int, levels: tuple[float, ...]) -> None:
    """A horizon below one, or levels that do not rise within 0 and 1, are refused by name."""
    with pytest.raises(InputInvalid, match=r"horizon|levels"):
        forecast_panel(panel(weekly()), horizon, levels=levels)


@pytest.mark.parametrize("bad", [-1.0, np.inf])
def test_demand_that_cannot_be_is_refused(bad: float) -> None:
    """Negative or infinite demand in a panel made by hand is refused, naming the series."""
    demand = weekly()
    demand[3, 50] = bad
    with pytest.raises(InputInvalid, match="series s03"):
        forecast_panel(panel(demand), H, levels=LEVELS)


def test_one_huge_day_leaves_the_others_alone(plain: PanelForecast) -> None:
    """A day of a million in one series moves the other series' forecasts by less than a quarter."""
    demand = weekly()
    demand[6, 60] = 1e6
    others = np.arange(SERIES) != 6
    made = asked(panel(demand))
    assert np.abs(made.mean - plain.mean)[others].sum() < 0.25 * plain.mean[others].sum()


@pytest.mark.parametrize(("frequency", "periods"), [("week", 30), ("month", 8)])
def test_other_frequencies_with_short_pasts_are_answered(frequency: Frequency, periods: int) -> None:
    """Thirty weeks, or eight months, are answered whole, whoever answers."""
    asked(panel(weekly(6, periods), frequency=frequency), horizon=4)
