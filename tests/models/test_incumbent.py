"""The rules that models must beat."""

import numpy as np
import pandas as pd
import pytest
from statsforecast import StatsForecast
from statsforecast.models import SeasonalNaive

from contracts.declarations import Declarations
from contracts.errors import InputInvalid, UnknownName
from models.incumbent import check_incumbent, history_view, pooled_rate, rate_views, rolling_late_rate, seasonal_naive

LEVELS = (0.1, 0.5, 0.9)


def columns_of(past: np.ndarray, horizon: int) -> dict[str, np.ndarray]:
    columns = {f"h__lag_{i}": np.full(horizon, past[-i]) for i in range(1, 15)}
    return columns | {"h__naive_rmse": np.full(horizon, 2.0), "step": np.arange(1, horizon + 1)}


def test_seasonal_naive_equals_statsforecast(weekly_units: np.ndarray) -> None:
    """Sixteen days ahead of five series, day by day."""
    units, days = weekly_units, pd.date_range("2026-01-01", periods=weekly_units.shape[1])
    frame = pd.concat([pd.DataFrame({"unique_id": str(i), "ds": days, "y": row}) for i, row in enumerate(units)])
    want = StatsForecast([SeasonalNaive(7)], freq="D").forecast(df=frame, h=16)
    for number, row in enumerate(units):
        mean, _ = seasonal_naive(columns_of(row, 16), "h", LEVELS)
        expected = want[want["unique_id"] == str(number)]["SeasonalNaive"].to_numpy()
        assert mean == pytest.approx(expected)


def test_seasonal_naive_takes_the_week_before_when_last_week_is_missing() -> None:
    """A closed day is no reason to have no answer; two closed weeks are."""
    columns = columns_of(np.arange(1.0, 31.0), 7)
    columns["h__lag_7"] = np.full(7, np.nan)
    assert seasonal_naive(columns, "h", LEVELS)[0][0] == 17.0
    columns["h__lag_14"] = np.full(7, np.nan)
    assert np.isnan(seasonal_naive(columns, "h", LEVELS)[0][0])


def test_seasonal_naive_quantiles_rise_and_widen_and_are_never_negative() -> None:
    """The median is the mean; the second week is wider than the first."""
    mean, table = seasonal_naive(columns_of(np.full(30, 3.0), 14), "h", LEVELS)
    assert (np.diff(table, axis=1) >= 0).all()
    assert (table >= 0).all()
    assert table[:, 1] == pytest.approx(mean)
    assert table[13, 2] > table[0, 2]


def test_the_rate_of_a_fine_key_with_many_outcomes_counts_most() -> None:
    """With few outcomes it stays near the coarser key's rate, with many it is its own."""
    columns = {"c__r": np.full(2, 0.4), "c__n": np.full(2, 1e6), "f__r": np.full(2, 0.1), "f__n": np.array([1.0, 1e6])}
    few, many = pooled_rate(columns, (("c__r", "c__n"), ("f__r", "f__n")))
    assert few == pytest.approx((0.1 + 20 * 0.4) / 21, abs=1e-4)
    assert many == pytest.approx(0.1, abs=1e-4)


def test_no_outcome_anywhere_gives_no_rate(declarations: Declarations, risk: pd.DataFrame) -> None:
    """The ladder then refuses, instead of serving the prior as if it were knowledge."""
    views = rate_views(declarations, "late_delivery_v1")
    rows = risk.head(3).copy()
    for name in views:
        rows.loc[rows.index[0], [c for c in rows.columns if c.startswith(f"{name}__n_")]] = 0.0
    rate = rolling_late_rate({str(c): rows[c].to_numpy() for c in rows.columns}, views)
    assert np.isnan(rate).tolist() == [True, False, False]


def test_views_are_found_by_their_kind(declarations: Declarations) -> None:
    """Coarse keys come first; a service without history is refused."""
    assert list(rate_views(declarations, "late_delivery_v1"))[-1] == "carrier_lane_rates"
    assert history_view(declarations, "demand_v1") == "demand_history"
    with pytest.raises(InputInvalid, match="demand_history"):
        history_view(declarations, "late_delivery_v1")


def test_an_unknown_rule_is_refused_with_the_nearest() -> None:
    """And so is a rule of the other kind."""
    with pytest.raises(UnknownName, match="seasonal_naive"):
        check_incumbent("seasonal_nave", "forecast")
    with pytest.raises(UnknownName):
        check_incumbent("rolling_late_rate", "forecast")
