"""Rules about whole deliveries, and the business rules that flag."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contracts.errors import InputInvalid, UnknownName
from contracts.events import event_contract
from contracts.mapping import load_mapping
from features.checks import check
from features.importer import check_feeds, stage
from features.landing import Landing
from features.odcs_checks import Feed, breaches, flags, relations

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
LEGS = """
source_system: port
inputs: {legs: {}}
events:
  - kind: shipment
    columns:
      event_id: {from: id}
      event_time: {from: booked}
      known_at: {from: booked}
      shipment_id: {from: id}
      carrier: {from: carrier}
      origin: {value: Hamburg}
      destination: {value: Oslo}
      promised_at: {from: promised}
"""


def at(day: int) -> datetime:
    return FIRST + timedelta(days=day)


def demand(first: int, rows: int = 200, **changed: object) -> pd.DataFrame:
    """`rows` events of ten skus from day `first` on, quantity about 20, canonical."""
    number = np.arange(rows)
    rng = np.random.default_rng(first)
    frame = pd.DataFrame(
        {
            "event_id": [f"e{first}-{row}" for row in number],
            "event_time": [at(first + row // 10) for row in number.tolist()],
            "known_at": [at(first + row // 10 + 1) for row in number.tolist()],
            "sku": [f"sku{row % 10}" for row in number],
            "location": "north",
            "period": "day",
            "quantity": rng.poisson(20, rows) + 1.0,
            "price": 2.5,
            "discount": np.where(number % 10 < 3, 0.1, np.nan),
            "source_system": "till",
        }
    )
    checked = check("demand", frame.assign(**changed))
    assert checked.bad.empty
    return checked.good


def broken(feed: pd.DataFrame, history: pd.DataFrame, rows: int | None = None, **rules: int) -> list[str]:
    named = {name.replace("__", "."): count for name, count in rules.items()}
    return [one.rule for one in breaches(Feed("demand", feed, rows or len(feed), named), history)]


def test_a_delivery_like_the_others_breaks_nothing() -> None:
    """The next days of the same series pass, as does the first delivery of all."""
    assert broken(demand(30), demand(1)) == []
    assert broken(demand(1), demand(1).iloc[:0]) == []


@pytest.mark.parametrize("factor", [10.0, 1000.0, 0.1, 0.001])
def test_another_unit_is_a_breach(factor: float) -> None:
    """Ten or a thousand times as much or as little in all series breaks the unit rule of that field alone."""
    feed = demand(30)
    assert broken(feed.assign(quantity=feed["quantity"] * factor), demand(1)) == ["quantity.unit_jump"]


def test_half_the_series_in_another_mix_is_no_other_unit() -> None:
    """A delivery of the big series only is compared series by series, so the mix does not matter."""
    history, feed = demand(1, 400), demand(60, 400)
    for frame in (history, feed):
        frame["quantity"] *= np.where(frame["sku"].isin(["sku8", "sku9"]), 500.0, 1.0)
    assert broken(feed[feed["sku"].isin(["sku2", "sku8", "sku9"])].reset_index(drop=True), history) == []


def test_where_deliveries_vary_by_nature_more_is_allowed() -> None:
    """A history whose stretches were eight times up and down does not stop a delivery that is eight times up."""
    history, feed = demand(1, 800), demand(100)
    feed["quantity"] *= 8
    assert broken(feed, history) == ["quantity.unit_jump"]
    history["quantity"] *= np.repeat([8.0, 1.0, 1.0, 1.0], 200)
    assert broken(feed, history) == []


def test_a_column_that_goes_empty_is_a_breach() -> None:
    """An optional field that was full and is empty breaks its rule; one that was mostly empty may stay so."""
    feed = demand(30)
    assert broken(feed.assign(price=np.nan), demand(1)) == ["price.null_rise"]
    assert broken(feed.assign(discount=np.nan), demand(1)) == ["discount.null_rise"]
    assert broken(feed.assign(discount=np.nan), demand(1).assign(discount=np.nan)) == []
    assert broken(feed, demand(1).assign(price=np.nan)) == []


def test_ids_of_another_kind_are_a_breach() -> None:
    """Skus that nobody knows on nearly all rows are ids of another kind; a few new ones are not."""
    feed = demand(30)
    assert broken(feed.assign(sku="00" + feed["sku"]), demand(1)) == ["sku.new_share"]
    assert broken(feed.assign(sku=feed["sku"].replace({"sku0": "sku10", "sku1": "sku11"})), demand(1)) == []


def test_a_rule_that_half_the_rows_break_is_a_breach() -> None:
    """From half the rows on a broken row rule stops the delivery; small files and fewer rows do not."""
    feed = demand(30, 100)
    assert broken(feed, feed.iloc[:0], rows=200, quantity__logicalType=100) == ["quantity.invalid_share"]
    assert broken(feed, feed.iloc[:0], rows=200, quantity__logicalType=99) == []
    assert broken(feed.iloc[:9], feed.iloc[:0], rows=99, quantity__logicalType=90) == []


def test_rows_that_stand_above_already_are_a_breach() -> None:
    """A file that was put together twice is not stopped (its rows are set apart), one with a single id is."""
    feed = demand(30)
    assert broken(pd.concat([feed, feed], ignore_index=True), feed.iloc[:0]) == []
    assert broken(feed.assign(event_id="7"), feed.iloc[:0]) == ["event_id.duplicate_share"]


def test_a_file_that_repeats_the_past_is_judged_by_what_is_new() -> None:
    """Two hundred new rows in another unit below two thousand old ones are found all the same."""
    history, new = demand(1, 2000), demand(300)
    new["quantity"] *= 1000
    whole = pd.concat([history, new], ignore_index=True)
    assert broken(whole, history) == ["quantity.unit_jump"]
    assert broken(history, history) == []


def test_outcomes_of_nothing_are_a_breach() -> None:
    """Outcomes whose shipments nobody announced stop; where no shipment ever landed there is nothing to compare."""
    assert relations("outcome") == ("shipment.shipment_id",)
    number = np.arange(120)
    frame = {
        "event_id": [f"o{row}" for row in number],
        "event_time": at(5),
        "known_at": at(6),
        "shipment_id": [f"s{row}" for row in number],
        "late": False,
        "source_system": "port",
    }
    good = check("outcome", pd.DataFrame(frame)).good
    feed = Feed("outcome", good, 120, {})
    for known, rules in (
        ((), []),
        ((f"S{row}" for row in number), ["shipment_id.orphan_share"]),
        (good["shipment_id"], []),
    ):
        found = breaches(feed, good.iloc[:0], {"shipment.shipment_id": set(known)})
        assert [one.rule for one in found] == rules


def test_new_values_zero_prices_and_far_dates_are_flagged() -> None:
    """Business rules give event, field, rule and words, and leave the rows where they are."""
    rows = pd.concat([demand(1, 400), demand(60, 20)], ignore_index=True)
    rows.loc[405, "location"] = "the moon"
    rows.loc[410, "price"] = 0.0
    rows.loc[415, "event_time"] = pd.Timestamp("1970-01-01", tz="UTC")
    rows.loc[3, "location"] = "south"
    found = flags("demand", rows).set_index("event_id")
    assert found["field"].to_dict() == {"e60-5": "location", "e60-10": "price", "e60-15": "event_time"}
    assert found["rule"].tolist() == ["far", "new_value", "zero"]
    assert found.loc["e60-5", "flag"] == "location: 'the moon' is new after 405 rows"
    assert found.loc["e60-10", "flag"] == "price: is 0"
    assert found.loc["e60-15", "flag"].startswith("event_time: 1970-01-01 is over 20 years from ")


def test_a_breach_is_named_with_kind_field_and_rule_and_can_be_accepted(tmp_path: Path) -> None:
    """The error says which rule to accept; an unknown rule is refused with the nearest."""
    (tmp_path / "legs.yaml").write_text(LEGS)
    lines = [f"s{row},2026-01-01T08:00:00Z,Blue,2026-13-01\n" for row in range(120)]
    (tmp_path / "legs.csv").write_text("id,booked,carrier,promised\n" + "".join(lines))
    staged = stage(load_mapping(tmp_path / "legs.yaml"), tmp_path / "legs.csv")
    landing = Landing(tmp_path / "lake")
    wanted = r"port: shipment\.promised_at\.invalid_share: wanted under 50% of rows that break its rule logicalType"
    with pytest.raises(InputInvalid, match=wanted + r", got 100% \(120 of 120\); nothing landed and the file stays"):
        check_feeds(staged, landing)
    check_feeds(staged, landing, accept=["shipment.promised_at.invalid_share"])
    with pytest.raises(UnknownName, match=r"did you mean 'shipment\.promised_at\.invalid_share'"):
        check_feeds(staged, landing, accept=["shipment.promised_at.invalid_shar"])


def test_thresholds_are_the_contracts() -> None:
    """A rule's numbers come from its contract file."""
    rule = next(rule for rule in event_contract("demand").rules_of("unitJump", "quantity"))
    assert (rule.named(), rule.options["times"], rule.level) == ("quantity.unit_jump", 5, "technical")
    share = next(iter(event_contract("demand").rules_of("invalidValues")))
    assert (share.named("price"), share.options["mustBeLessThan"]) == ("price.invalid_share", 50)
