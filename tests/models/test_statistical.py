"""Statistical models over a panel: gaps, guard rails, and the same numbers however the work is spread."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from contracts.errors import InputInvalid, UnknownName
from models.panel import Frequency, Panel
from models.statistical import MODELS, challengers, filled, statistical_forecast, statistical_means

QUICK = ("seasonal_naive", "window_average", "seasonal_window_average", "croston_sba", "imapa", "tsb", "ses")
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


def panel_of_rows(demand: np.ndarray, frequency: Frequency = "day") -> Panel:
    return Panel(tuple(f"s{i}" for i in range(len(demand))), frequency, 600, np.asarray(demand, dtype=np.float64))


@pytest.fixture(scope="module")
def panel() -> Panel:
    """70 series of 120 days with a weekly shape and gaps; the first six are unknown, hardly known, short or flat."""
    rng = np.random.default_rng(5)
    level = rng.uniform(0.2, 20.0, (70, 1)) * (1 + 0.5 * np.sin(np.arange(120) * 2 * np.pi / 7))
    demand = rng.poisson(level).astype(np.float64)
    demand[rng.random(demand.shape) < 0.05] = np.nan
    demand[0] = np.nan
    demand[1, :-1], demand[2, :-2], demand[3, :-9] = np.nan, np.nan, np.nan
    demand[4], demand[5] = 0.0, 4.0
    return panel_of_rows(demand)


def test_a_gap_takes_the_last_value_of_its_season_and_the_mean_where_there_is_none() -> None:
    """Leading unknown periods are cut off; a series with one known period is empty."""
    gap = np.nan
    series = filled(np.array([[gap, 2.0, gap, 6.0, gap, gap], [gap, gap, gap, 3.0, gap, gap]]), 2)
    assert series[0].tolist() == [2.0, 4.0, 6.0, 4.0, 6.0]
    assert len(series[1]) == 0


def test_forecasts_continue_the_season_of_the_panel() -> None:
    """A shape that repeats is repeated from its own weekday, also where the series began late and misses its end."""
    shape = np.tile(np.arange(7.0), 6)[:40]
    demand = np.vstack([shape, shape])
    demand[1, :3], demand[1, -2:] = np.nan, np.nan
    expected = np.arange(40, 54) % 7
    means = statistical_means(panel_of_rows(demand), 14, ["seasonal_naive", "seasonal_window_average"])
    for values in means.values():
        assert values == pytest.approx(np.vstack([expected, expected]))


def test_every_model_answers_or_says_nothing(panel: Panel) -> None:
    """Never negative, never infinite, a series all or nothing; fewer than two known periods is nothing."""
    means = statistical_means(panel.take(np.arange(12)), 5, list(MODELS))
    for name, values in means.items():
        finite = np.isfinite(values)
        assert (finite.all(axis=1) | ~finite.any(axis=1)).all(), name
        assert (values[finite] >= 0).all()
        assert not finite[:2].any()
        assert finite[3:, 0].sum() >= 8, name
        assert values[4].tolist() == [0.0] * 5


@pytest.mark.parametrize("name", [*QUICK, "dynamic_optimized_theta"])
def test_quantiles_rise_are_not_negative_and_go_with_the_mean(panel: Panel, name: str) -> None:
    """By the model's own interval or by its residuals; flat demand has no width."""
    some = panel.take(np.arange(16))
    found = statistical_forecast(some, 6, name, LEVELS)
    assert np.array_equal(found.mean, statistical_means(some, 6, [name])[name], equal_nan=True)
    answered = np.array([who == name for who in found.how])
    assert np.isfinite(found.quantiles[answered]).all()
    assert np.isnan(found.quantiles[~answered]).all()
    assert (np.diff(found.quantiles[answered], axis=2) >= 0).all()
    assert (found.quantiles[answered] >= 0).all()
    busy = found.quantiles[6:].mean(axis=(0, 1))
    assert busy[0] < busy[3] < busy[-1]


def test_one_process_two_processes_and_dask_give_the_same_bits(panel: Panel) -> None:
    """Each series is fitted alone by the same code, so that nothing depends on who does it."""
    names = ["window_average", "imapa", "dynamic_optimized_theta"]
    alone = statistical_means(panel, 7, names)
    ways: list[dict] = [{"workers": 2}]
    if importlib.util.find_spec("distributed") is not None:
        ways.append({"engine": "dask"})
    for way in ways:
        spread = statistical_means(panel, 7, names, **way)
        assert all(np.array_equal(alone[name], spread[name], equal_nan=True) for name in names), way


@pytest.mark.parametrize(
    ("engine", "package"),
    [pytest.param("ray", "ray", marks=pytest.mark.ray), pytest.param("spark", "pyspark", marks=pytest.mark.spark)],
)
def test_the_same_over_ray_and_spark(panel: Panel, engine: str, package: str) -> None:
    """Where the engine is installed."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"package {package} is not installed (pip install seatrial[{engine}])")
    alone = statistical_means(panel, 7, QUICK)
    spread = statistical_means(panel, 7, QUICK, engine=engine)  # type: ignore[arg-type]
    assert all(np.array_equal(alone[name], spread[name], equal_nan=True) for name in QUICK)


def test_challengers_follow_zeros_frequency_and_length() -> None:
    """Intermittent demand first; a weekly panel needs two years for a season."""
    busy = np.ones((2, 200))
    sparse = np.where(np.arange(200) % 3 == 0, 1.0, 0.0) * busy
    assert challengers(panel_of_rows(sparse)) == ("imapa", "window_average")
    assert challengers(panel_of_rows(busy)) == ("dynamic_optimized_theta", "mstl", "seasonal_window_average")
    assert challengers(panel_of_rows(busy, "week")) == ("mstl",)
    assert challengers(panel_of_rows(busy[:, :105], "week")) == ("seasonal_naive",)
    assert challengers(panel_of_rows(busy, "month")) == ("dynamic_optimized_theta", "imapa")
    for frequency in ("day", "week", "month"):
        assert set(challengers(panel_of_rows(busy, frequency))) <= set(MODELS)


def test_what_cannot_be_asked_is_refused(panel: Panel) -> None:
    """The nearest name is suggested; levels rise; a panel without series has a forecast without series."""
    with pytest.raises(UnknownName, match="croston_sba"):
        statistical_means(panel, 7, ["croston"])
    with pytest.raises(InputInvalid, match="horizon"):
        statistical_means(panel, 0, ["imapa"])
    with pytest.raises(InputInvalid, match="levels"):
        statistical_forecast(panel, 7, "imapa", (0.9, 0.1))
    nobody = panel.take(np.arange(0))
    assert statistical_means(nobody, 7, ["imapa"])["imapa"].shape == (0, 7)
