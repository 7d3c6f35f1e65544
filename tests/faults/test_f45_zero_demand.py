"""FAULTS 45: zero demand, stock-outs, constant series: measures are defined, stock-outs masked, nobody is paged."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from drift.psi import count, make_bins, psi
from models import metrics
from models.demand_paths import StepDemand
from models.lead_time import fixed_lead_time
from models.order_terms import Terms
from models.panel import panel_of
from models.stockout import Stock, advise

NAN = float("nan")
NONE, ZEROS, ONES = np.array([]), np.zeros(4), np.ones(4)
LEVELS = (0.1, 0.5, 0.9)

# What each measure gives: nothing at all, demand of zero met exactly, demand of zero over-forecast by one a row.
GOLDEN: list[tuple[str, Callable[[np.ndarray, np.ndarray], float], float, float, float]] = [
    ("wape", metrics.wape, NAN, NAN, NAN),
    ("bias", metrics.bias, NAN, NAN, NAN),
    ("rmsse, no naive error", lambda y, f: metrics.rmsse(y, f, np.zeros(len(y))), NAN, 0.0, 1e6),
    ("rmsse", lambda y, f: metrics.rmsse(y, f, np.full(len(y), 2.0)), NAN, 0.0, 0.5),
    ("pinball", lambda y, f: float(metrics.pinball(y, f, 0.9).sum()), 0.0, 0.0, 0.4),
    ("wql", lambda y, f: metrics.wql(y, np.stack([f] * 3, axis=1), LEVELS), NAN, NAN, NAN),
    ("coverage", lambda y, f: metrics.coverage(y, f, f + 1), NAN, 1.0, 0.0),
    ("brier", metrics.brier, NAN, 0.0, 1.0),
    ("log_loss", metrics.log_loss, NAN, 1.0000005e-06, 13.815510557964274),
    ("auc", metrics.auc, NAN, NAN, NAN),
    ("ece", metrics.ece, NAN, 0.0, 1.0),
    ("row losses, rmsse", lambda y, f: losses("rmsse", y, f), NAN, 0.0, 1e6),
    ("row losses, wql", lambda y, f: losses("wql", y, f), NAN, 0.0, 1e6),
    ("row losses, brier", lambda y, f: metrics.headline("brier", metrics.risk_losses("brier", y, f)), NAN, 0.0, 1.0),
]


def losses(name: str, actual: np.ndarray, forecast: np.ndarray) -> float:
    """The headline of row losses where neither level nor naive error is above zero."""
    nothing, table = np.zeros(len(actual)), np.stack([forecast] * 3, axis=1)
    rows = metrics.forecast_losses(name, actual, forecast, table, LEVELS, nothing, nothing)  # type: ignore[arg-type]
    return metrics.headline(name, rows)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "measure", "nothing", "exact", "over"), GOLDEN, ids=[case[0] for case in GOLDEN])
def test_every_measure_is_defined_on_zero_demand(
    name: str, measure: Callable[[np.ndarray, np.ndarray], float], nothing: float, exact: float, over: float
) -> None:
    """The golden table: a value, or NaN where a ratio to demand has no meaning; never a warning, never an exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [measure(NONE, NONE), measure(ZEROS, ZEROS), measure(ZEROS, ONES)]
    assert found == pytest.approx([nothing, exact, over], nan_ok=True, rel=1e-6), name


def test_unknown_actuals_give_nan_not_zero() -> None:
    """A NaN among the actuals or forecasts makes a measure NaN; it is never counted as a hit."""
    actual, forecast = np.array([1.0, NAN]), np.array([1.0, 1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for one, other in ((actual, forecast), (forecast, actual)):
            for found in (
                metrics.wape(one, other),
                metrics.bias(one, other),
                metrics.rmsse(one, other, np.ones(2)),
                metrics.wql(one, other[:, None], (0.5,)),
                metrics.brier(one, other),
            ):
                assert np.isnan(found)


def test_a_stock_out_is_masked_where_no_sale_is_a_zero() -> None:
    """Three days out of stock are unknown demand, the day without a sale between them is a zero."""
    sold = [4.0, 5.0, 0.0, 0.0, 0.0, 0.0, 6.0]
    frame = pd.DataFrame({"sku": "a", "period": pd.date_range("2026-03-01", periods=7), "quantity": sold})
    frame["out"] = [False, False, True, True, False, True, False]
    panel = panel_of(frame, frequency="day", keys=["sku"], censored="out", missing="zero")
    np.testing.assert_array_equal(panel.demand, [[4, 5, NAN, NAN, 0, NAN, 6]])


def test_a_constant_or_empty_column_is_no_drift() -> None:
    """A column that is constant, all zero or all missing before and after has a PSI of exactly zero."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (0.0, 7.5, NAN):
            before, after = pd.Series([value] * 900), pd.Series([value] * 400)
            bins = make_bins(before)
            assert psi(count(bins, before), count(bins, after)) == 0


def test_the_stock_out_rule_has_an_answer_for_what_never_sells() -> None:
    """All-zero and constant forecasts give whole figures: nothing to order, or exactly the demand of the interval."""
    table = np.stack([np.zeros((5, 3)), np.full((5, 3), 2.0)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = advise(
            StepDemand(table, LEVELS, table[..., 0]), Stock(np.zeros(2)), fixed_lead_time(3), Terms(service_level=0.95)
        )
    assert found.order.tolist() == [0, 8]
    assert found.probability.tolist() == [0, 1]
