"""A panel is checked where it is made: bad rows are named, what is unknown stays unknown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.errors import InputInvalid, NotEnoughData
from models.panel import Frequency, Panel, first_days, panel_of, period_numbers

DAYS = pd.date_range("2026-01-01", periods=5)


def rows(**columns: Any) -> pd.DataFrame:
    """Five days of one series, with columns replaced or added."""
    given: dict[str, Any] = {"sku": ["tea"] * 5, "period": DAYS, "quantity": [1.0, 2.0, 3.0, 4.0, 5.0]}
    return pd.DataFrame({**given, **columns})


def made(frame: pd.DataFrame, **options: Any) -> Panel:
    """A daily panel by sku."""
    return panel_of(frame, **{"frequency": "day", "keys": ["sku"], **options})


@pytest.mark.parametrize("frequency", ["day", "week", "month"])
def test_period_numbers_and_first_days_are_inverse(frequency: Frequency) -> None:
    """Every day lies in the period whose first day is on or before it, and the next one begins after it."""
    days = np.arange("1968-02-27", "2032-03-02", dtype="datetime64[D]")
    number = period_numbers(days, frequency)
    assert (first_days(number, frequency) <= days).all()
    assert (first_days(number + 1, frequency) > days).all()
    assert (period_numbers(first_days(number, frequency), frequency) == number).all()


def test_one_row_makes_a_panel_of_one_period() -> None:
    """A single row is a panel of one series and one period."""
    panel = made(rows().head(1))
    assert (panel.keys, panel.demand.tolist(), panel.periods) == (("tea",), [[1.0]], 1)


def test_no_row_and_no_quantity_are_too_little() -> None:
    """No row at all, or none with a quantity, or none before the end, is refused as not enough data."""
    for frame, options in (
        (rows().head(0), {}),
        (rows(quantity=[np.nan] * 5), {}),
        (rows(), {"until": "2026-01-01"}),
        (rows(), {"until": "2020-01-01"}),
    ):
        with pytest.raises(NotEnoughData, match="known quantity"):
            made(frame, **options)


def test_a_doubled_period_is_named() -> None:
    """Two rows of a series in one period are refused with series, period and what to do."""
    frame = pd.concat([rows(), rows().iloc[[2]].assign(quantity=9.0)])
    with pytest.raises(
        InputInvalid, match=r"series tea, day 2026-01-03: wanted one row, got 2 rows; add them up first"
    ):
        made(frame)
    with pytest.raises(InputInvalid, match=r"series tea, month 2026-01-01: wanted one row, got 5 rows"):
        made(rows(), frequency="month")


def test_a_gap_is_unknown_unless_every_sale_is_on_record() -> None:
    """A period without a row is NaN, or 0 from the first row on when that is what a missing row means."""
    frame = pd.concat([rows().iloc[[0, 1, 4]], rows(sku=["jam"] * 5).iloc[[3]]])
    unknown, zero = made(frame), made(frame, missing="zero")
    assert unknown.keys == ("jam", "tea")
    np.testing.assert_array_equal(unknown.demand, [[np.nan] * 3 + [4, np.nan], [1, 2, np.nan, np.nan, 5]])
    np.testing.assert_array_equal(zero.demand, [[np.nan] * 3 + [4, 0], [1, 2, 0, 0, 5]])


def test_a_reported_unknown_is_no_zero() -> None:
    """A row whose quantity is missing stays unknown where missing rows are zeros too, as it is before any sale."""
    panel = made(rows(quantity=[np.nan, 2, np.nan, 0, 5]), missing="zero")
    np.testing.assert_array_equal(panel.demand, [[np.nan, 2, np.nan, 0, 5]])


def test_a_stock_out_is_masked() -> None:
    """Demand of a period marked as out of stock is unknown, whatever was sold, also where missing rows are zeros."""
    frame = rows(quantity=[1.0, 0.0, 3.0, 4.0, 5.0], out=[None, True, False, None, True])
    for frame_ in (frame, frame.iloc[::-1]):
        panel = made(frame_, censored="out", missing="zero")
        np.testing.assert_array_equal(panel.demand, [[1, np.nan, 3, 4, np.nan]])
        assert panel.censored is not None
        assert panel.censored.tolist() == [[False, True, False, False, True]]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"quantity": [1, 2, -3, 4, 5]},
            r"series tea, day 2026-01-03: wanted a quantity of at least 0, got -3; net out",
        ),
        ({"quantity": [1, 2, 3, np.inf, 5]}, r"series tea, day 2026-01-04: wanted a finite quantity or none, got inf"),
        ({"quantity": ["1", "2", "many", "4", "5"]}, r"quantity: wanted numbers, got 'many'"),
        ({"period": [*DAYS[:4], pd.NaT]}, r"period: wanted a day in every row, got none in row 5"),
        ({"period": ["2026-01-01", "never", "2026-01-03", "2026-01-04", "2026-01-05"]}, r"period: wanted days, got"),
        ({"price": [1, 2, np.inf, 4, 5]}, r"covariate price: wanted finite numbers or none, got an infinite one"),
        ({"price": ["1", "2", "dear", "4", "5"]}, r"covariate price: wanted numbers, got 'dear'"),
    ],
)
def test_a_bad_cell_is_named(columns: dict[str, Any], said: str) -> None:
    """A negative, infinite, unreadable or missing cell is refused with its place; nothing is made up."""
    with pytest.raises(InputInvalid, match=said):
        made(rows(**columns), ahead=["price"] if "price" in columns else [])


def test_a_missing_column_is_named() -> None:
    """A column that is not there is named with what there is; so is a panel without a key."""
    with pytest.raises(InputInvalid, match="wanted a column price, got only sku, period, quantity"):
        made(rows(), ahead=["price"])
    with pytest.raises(InputInvalid, match="wanted at least one key column"):
        made(rows(), keys=[])


def test_keys_that_would_read_alike_are_refused() -> None:
    """Two different series never become one because their names are joined."""
    frame = pd.concat([rows(sku=["a|b"] * 5, shop="c").head(2), rows(sku=["a"] * 5, shop="b|c").tail(2)])
    with pytest.raises(InputInvalid, match=r"series a\|b\|c: wanted one sku, shop"):
        made(frame, keys=["sku", "shop"])


def test_a_missing_key_is_a_series_of_its_own() -> None:
    """Rows without a location are the series of the unknown location, not lost."""
    panel = made(rows(shop=["x", "x", None, None, "x"]), keys=["sku", "shop"])
    assert panel.keys == ("tea|unknown", "tea|x")
    assert np.isfinite(panel.demand).sum(axis=1).tolist() == [2, 3]


def test_an_unknown_covariate_stays_unknown() -> None:
    """A missing covariate is NaN, within the past and ahead of it, and rows ahead end no demand."""
    frame = pd.concat(
        [
            rows(price=[1, np.nan, 3, 4, 5]),
            pd.DataFrame({"sku": "tea", "period": pd.date_range("2026-01-06", periods=2), "price": [np.nan, 7.0]}),
        ]
    )
    panel = made(frame, ahead=["price"])
    assert panel.periods == 5
    np.testing.assert_array_equal(panel.ahead["price"], [[1, np.nan, 3, 4, 5, np.nan, 7]])


def test_a_static_attribute_is_the_newest_known_one() -> None:
    """The attribute of the latest period counts, whatever the rows' order; None where it was never known."""
    frame = pd.concat([rows(kind=["old", "old", "new", None, None]), rows(sku=["jam"] * 5, kind=[None] * 5)])
    for order in (frame, frame.iloc[::-1]):
        assert made(order, static=["kind"]).static["kind"].tolist() == [None, "new"]


def test_order_of_rows_and_index_do_not_matter() -> None:
    """Shuffled rows with a doubled index make the same panel."""
    frame = pd.concat([rows(price=range(5)), rows(sku=["jam"] * 5, price=range(5, 10))])
    shuffled = frame.sample(frac=1.0, random_state=3)
    one, other = made(frame, ahead=["price"]), made(shuffled, ahead=["price"])
    assert one.keys == other.keys
    np.testing.assert_array_equal(one.demand, other.demand)
    np.testing.assert_array_equal(one.ahead["price"], other.ahead["price"])


@pytest.mark.parametrize("bad", [-1.0, np.inf])
def test_a_panel_made_by_hand_is_checked_too(bad: float) -> None:
    """Negative or infinite demand in an array is refused with series and day; so are keys that do not fit it."""
    demand = np.ones((2, 3))
    with pytest.raises(InputInvalid, match="panel: wanted demand of 1 series"):
        Panel(("a",), "day", 0, demand)
    demand[1, 2] = bad
    with pytest.raises(InputInvalid, match="series b, day 1970-01-03: wanted a finite quantity of at least 0"):
        Panel(("a", "b"), "day", 0, demand)


def test_a_panel_as_it_stood_knows_nothing_later() -> None:
    """`until` cuts demand at the period and covariates at the horizon; `take` keeps the named series only."""
    frame = pd.concat([rows(price=range(5), out=False), rows(sku=["jam"] * 5, price=range(5), out=True)])
    panel = made(frame, ahead=["price"], static=["sku"], censored="out")
    past = panel.until(2, 1)
    assert (past.demand.shape, past.ahead["price"].shape) == ((2, 2), (2, 3))
    assert past.censored is not None
    assert past.censored.shape == (2, 2)
    tea = panel.take(np.array([1]))
    assert (tea.keys, tea.demand.tolist(), tea.static["sku"].tolist()) == (("tea",), [[1, 2, 3, 4, 5]], ["tea"])
