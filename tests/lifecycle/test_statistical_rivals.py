"""The statistical rivals of a backtest: each cutoff's own past, measured on the backtest's own rows."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from contracts.errors import NotEnoughData, UnknownName
from lifecycle.backtests import RIVALS, rival_forecasts, rival_metrics

NOW = datetime(2026, 6, 1, tzinfo=UTC)
CUTOFF = pd.Timestamp(NOW - timedelta(days=14))


@pytest.fixture(scope="module")
def labels() -> pd.DataFrame:
    """Three series of 80 days with a weekly shape."""
    shape = np.array([0.6, 0.7, 0.8, 1.0, 1.3, 1.8, 0.8])[np.arange(80) % 7]
    units = np.random.default_rng(4).poisson(np.array([[6.0], [15.0], [30.0]]) * shape).astype(float)
    dates = [(NOW - timedelta(days=80 - d)).date().isoformat() for d in range(80)]
    rows = [(f"s{i}", "shop", date, row[d]) for i, row in enumerate(units) for d, date in enumerate(dates)]
    return pd.DataFrame(rows, columns=["sku", "location", "target_date", "quantity"])


def test_rivals_forecast_from_the_past_of_each_cutoff_only(labels: pd.DataFrame) -> None:
    """Changing demand from the cutoff on changes no forecast; step 1 is the cutoff's own day."""
    known = rival_forecasts(labels, [CUTOFF], 14)
    later = labels["target_date"] >= CUTOFF.date().isoformat()
    assert rival_forecasts(labels.assign(quantity=labels["quantity"].where(~later, 999.0)), [CUTOFF], 14).equals(known)
    assert len(known) == 3 * 14
    assert known[known["step"] == 1]["target_date"].unique().tolist() == [CUTOFF.date().isoformat()]
    last = labels[~later].groupby("sku", sort=True)["quantity"].apply(lambda units: units.iloc[-7])
    assert known[known["step"] == 1]["seasonal_naive"].tolist() == last.tolist()


def test_unknown_rivals_and_cutoffs_without_a_past_are_refused(labels: pd.DataFrame) -> None:
    """The nearest name is suggested."""
    with pytest.raises(UnknownName, match="croston_sba"):
        rival_forecasts(labels, [CUTOFF], 14, ["croston"])
    with pytest.raises(NotEnoughData):
        rival_forecasts(labels, [CUTOFF - timedelta(days=900)], 14)


def test_rivals_are_measured_like_candidates(labels: pd.DataFrame) -> None:
    """An average of four weeks beats last week's value on a noisy weekly shape."""
    forecasts = rival_forecasts(labels, [CUTOFF], 14)
    scored = forecasts.merge(labels.rename(columns={"quantity": "label"}), on=["sku", "location", "target_date"])
    unit = np.full(len(scored), 3.0)
    table = rival_metrics(scored, forecasts, unit, unit)
    value = table[table["metric"] == "rmsse"].set_index("who")["value"]
    assert set(value.index) == set(RIVALS)
    assert value["seasonal_window_average"] < value["seasonal_naive"]
    assert (table["rows"] == 42).all()
