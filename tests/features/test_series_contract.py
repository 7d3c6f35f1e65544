"""The time-series contract: planted faults in real series are found, and nothing in series without any."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contracts.errors import InputInvalid, TimeInvalid
from features.series_contract import RULES, SeriesTerms, check_series

ROOT = Path(__file__).parents[2]


def series(values: list[float], sku: str = "tea", period: str = "day", first: str = "2026-01-05") -> pd.DataFrame:
    step = {"day": "D", "week": "7D", "month": "MS"}[period]
    times = pd.date_range("2026-01-01" if period == "month" else first, periods=len(values), freq=step, tz="UTC")
    return pd.DataFrame({"sku": sku, "location": "north", "event_time": times, "quantity": values, "period": period})


def steady(rows: int = 40, level: float = 50.0, seed: int = 1, **given: str) -> pd.DataFrame:
    return series((np.random.default_rng(seed).poisson(level, rows) + 1.0).tolist(), **given)


def rules(found: pd.DataFrame) -> dict[str, int]:
    return dict(zip(found["rule"], found["count"].tolist(), strict=True))


@pytest.mark.parametrize("period", ["day", "week", "month"])
def test_a_whole_series_has_no_finding(period: str) -> None:
    """Values without gaps, in any order of rows, break nothing; nor does no series at all."""
    frame = steady(period=period).sample(frac=1, random_state=2)
    assert check_series(frame).empty
    assert list(check_series(frame.iloc[:0]).columns) == list(check_series(frame).columns)


@pytest.mark.parametrize(
    ("period", "first", "last"),
    [("day", "2026-01-08", "2026-01-10"), ("week", "2026-01-26", "2026-02-09"), ("month", "2026-04-01", "2026-06-01")],
)
def test_gaps_are_counted_in_periods(period: str, first: str, last: str) -> None:
    """Three missing periods in a row are one finding of three, from the first missing one to the last."""
    found = check_series(steady(period=period).drop(index=[3, 4, 5]))
    assert rules(found) == {"gap": 3}
    assert found.loc[0, ["first", "last"]].tolist() == [pd.Timestamp(first, tz="UTC"), pd.Timestamp(last, tz="UTC")]
    assert found.loc[0, "examples"] == f"{first} to {last}"


def test_each_rule_has_its_count_and_examples() -> None:
    """Duplicates, negative, missing, constant and short series are told by series with three examples at most."""
    twice = pd.concat([steady(), steady().iloc[[4, 9]]])
    negative = steady(sku="rice")
    negative.loc[[3, 5, 7, 9], "quantity"] = [-1.0, -2.0, -3.0, -4.0]
    missing = steady(sku="salt")
    missing.loc[6, "quantity"] = np.nan
    frame = pd.concat([twice, negative, missing, series([7.0] * 12, "bulb"), steady(5, sku="new")])
    found = check_series(frame).set_index(["sku", "rule"])
    assert found["count"].to_dict() == {
        ("bulb", "constant"): 12,
        ("new", "short"): 5,
        ("rice", "negative"): 4,
        ("salt", "missing"): 1,
        ("tea", "duplicate"): 2,
    }
    assert found.loc[("rice", "negative"), "examples"] == "-1; -2; -3"
    assert found.loc[("rice", "negative"), "last"] == pd.Timestamp("2026-01-14", tz="UTC")


@pytest.mark.parametrize("factor", [10.0, 1000.0, 0.1, 0.001])
def test_a_level_in_another_unit_is_found_where_it_begins(factor: float) -> None:
    """From the twentieth value on ten or a thousand times more or less: one jump, at that moment."""
    frame = steady(level=100.0)
    frame.loc[20:, "quantity"] *= factor
    found = check_series(frame)
    assert rules(found) == {"unit_level": 1}
    assert found.loc[0, "first"] == frame.loc[20, "event_time"]
    before, after = (float(word) for word in found.loc[0, "examples"].split(" (")[0].split(" then "))
    assert after / before == pytest.approx(factor, rel=0.5)


@pytest.mark.parametrize("factor", [10.0, 1000.0, 0.1, 0.001])
def test_a_single_value_in_another_unit_is_found(factor: float) -> None:
    """One value that is off by ten or a thousand is a jump of a value, and no jump of the level."""
    frame = steady(level=100.0)
    frame.loc[20, "quantity"] *= factor
    found = check_series(frame)
    assert rules(found) == {"unit_value": 1}
    assert found.loc[0, "first"] == frame.loc[20, "event_time"]


def test_a_double_level_is_a_good_week() -> None:
    """Twice or three times as much is demand, not a unit; the terms say what counts."""
    frame = steady(level=100.0)
    frame.loc[20:, "quantity"] *= 2.5
    assert check_series(frame).empty
    assert rules(check_series(frame, terms=SeriesTerms(jumps=(2.5,)))) == {"unit_level": 1}
    assert rules(check_series(steady(12), terms=SeriesTerms(short=13))) == {"short": 12}


def test_series_do_not_run_into_each_other() -> None:
    """Two steady series, one a thousand times the other, are no jump and no gap."""
    small, large = steady(level=20.0, sku="a"), steady(level=20000.0, sku="b", first="2026-06-01")
    assert check_series(pd.concat([small, large])).empty


def test_times_without_a_zone_and_unknown_columns_are_refused() -> None:
    """What cannot be judged is refused by name."""
    with pytest.raises(TimeInvalid, match="event_time"):
        check_series(steady().assign(event_time=pd.Timestamp("2026-01-01")))
    with pytest.raises(InputInvalid, match="a column 'quantity'"):
        check_series(steady().drop(columns="quantity"))
    with pytest.raises(InputInvalid, match="a period out of day, week, month, got 'fortnight'"):
        check_series(steady().assign(period="fortnight"))


def shared(name: str) -> Path:
    path = Path(os.environ.get("SEATRIAL_DATA", ROOT.parent / "shared" / "data")) / name
    if not path.exists():
        pytest.skip(f"no {path}: set SEATRIAL_DATA to the folder with the real data")
    return path


def rossmann() -> tuple[pd.DataFrame, dict[str, object]]:
    frame = pd.read_parquet(shared("rossmann/rossmann.parquet"), columns=["Store", "Date", "Sales"])
    frame = frame[frame["Store"] <= 20].rename(columns={"Store": "key", "Date": "time", "Sales": "value"})
    return frame, {"period": "day"}


def carparts() -> tuple[pd.DataFrame, dict[str, object]]:
    frame = pd.read_parquet(shared("carparts/carparts_long.parquet"))
    parts = frame.groupby("part_id")["qty"].sum().nlargest(40).index
    frame = frame[frame["part_id"].isin(parts)].rename(columns={"part_id": "key", "month": "time", "qty": "value"})
    return frame, {"period": "month"}


def usaid() -> tuple[pd.DataFrame, dict[str, object]]:
    raw = pd.read_csv(shared("usaid_contraceptive_lmis/contraceptive_logistics_data.csv"))
    raw = raw.assign(key=raw["site_code"] + raw["product_code"], value=raw["stock_distributed"].astype(float))
    raw["time"] = pd.to_datetime(raw[["year", "month"]].assign(day=1))
    most = raw.groupby("key")["value"].sum().nlargest(60).index
    return raw.loc[raw["key"].isin(most), ["key", "time", "value"]], {"period": "month"}


def online_retail() -> tuple[pd.DataFrame, dict[str, object]]:
    file = shared("online_retail/online_retail.parquet")
    raw = pd.read_parquet(file, columns=["StockCode", "InvoiceDate", "Quantity", "Country"])
    raw = raw[raw["Country"] == "United Kingdom"]
    raw = raw[raw["StockCode"].isin(raw["StockCode"].value_counts().index[:30])]
    days = raw.assign(time=raw["InvoiceDate"].dt.floor("D"), key=raw["StockCode"].astype(str), value=raw["Quantity"])
    return days.groupby(["key", "time"], as_index=False)["value"].sum(), {"period": "day"}


@pytest.mark.parametrize("source", [rossmann, carparts, usaid, online_retail])
def test_faults_planted_in_real_series_are_found(source) -> None:
    """In real series, each planted fault adds exactly what was planted to what was found before."""
    frame, given = source()
    frame = frame.assign(time=frame["time"].dt.tz_localize("UTC"), value=frame["value"].astype(float))
    terms = {"keys": ("key",), "time": "time", "value": "value", **given}
    before = check_series(frame, **terms)
    assert set(before["rule"]) <= set(RULES)
    clean = frame.groupby("key")["value"].agg(lambda held: bool((held > 0).sum() > 20))
    broken = before.loc[before["rule"].isin(["gap", "negative", "duplicate", "constant"]), "key"]
    names = [name for name in clean[clean].index if name not in set(broken) or source in (rossmann, online_retail)]
    holed, doubled, under = names[:3]
    rows = {name: frame.index[frame["key"] == name].tolist() for name in (holed, doubled, under)}
    planted = frame.drop(index=rows[holed][10:12])
    planted = pd.concat([planted, planted.loc[rows[doubled][5:8]]], ignore_index=False)
    planted.loc[rows[under][4], "value"] = -3.0
    after = check_series(planted, **terms)

    def count(found: pd.DataFrame, key: object, rule: str) -> int:
        return int(found.loc[(found["key"] == key) & (found["rule"] == rule), "count"].sum())

    assert count(after, holed, "gap") >= count(before, holed, "gap") + 2
    assert count(after, doubled, "duplicate") == count(before, doubled, "duplicate") + 3
    assert count(after, under, "negative") >= 1
    kept = ~before["key"].isin([holed, doubled, under])
    same = after[~after["key"].isin([holed, doubled, under])]
    pd.testing.assert_frame_equal(before[kept].reset_index(drop=True), same.reset_index(drop=True))


def test_a_thousandfold_level_in_real_turnover_is_found() -> None:
    """Turnover in cents instead of euros from some day on is found in every one of twenty real shops."""
    frame, _ = rossmann()
    frame = frame.assign(time=frame["time"].dt.tz_localize("UTC"), value=frame["value"].astype(float))
    frame.loc[frame["time"] >= "2014-06-02", "value"] *= 1000
    found = check_series(frame, keys=("key",), time="time", value="value", period="day")
    levels = found[found["rule"] == "unit_level"]
    whole = frame.groupby("key")["time"].agg(["min", "max"])
    open_then = [
        key
        for key in whole.index
        if len(frame[(frame["key"] == key) & (frame["time"].between("2014-05-20", "2014-06-15"))]) > 15
    ]
    assert set(open_then) <= set(levels["key"])
    assert (levels.set_index("key").loc[open_then, "first"].between("2014-06-02", "2014-06-04")).all()
