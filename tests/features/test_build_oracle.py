"""Every view's rows equal brute force over the landed events, however the events come and the build is cut up."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.declarations import (
    Declarations,
    DemandHistory,
    OutcomeRates,
    PriceHistory,
    PromotionPlan,
    SignalLatest,
    View,
    join_keys,
    view_columns,
)
from contracts.errors import UnknownName
from features.build import build
from features.gold import GoldStore
from features.landing import Landing
from tests.features.view_events import (
    DAY,
    HOUR,
    ORIGIN,
    at,
    demand_values,
    events,
    known_versions,
    outcome_values,
    price_values,
    signal_values,
)

Rows = list[dict[str, Any]]
DEMAND = DemandHistory(kind="demand_history", ttl="3d", lags=7, windows=(3, 7), season_cycles=2)
BY_SKU = DemandHistory(kind="demand_history", ttl="3d", keys=("sku",), lags=7, windows=(5,), season_cycles=1)
SMOOTH = DemandHistory(
    kind="demand_history", ttl="3d", lags=7, windows=(3,), season_cycles=1, smoothing=(10, 30), last_year=3
)
PRICE = PriceHistory(kind="price_history", ttl="7d", window=5)
RATES = OutcomeRates(kind="outcome_rates", keys=("carrier",), ttl="36h", windows=(1, 3))
FADING = OutcomeRates(kind="outcome_rates", keys=("carrier",), ttl="36h", windows=(1,), half_lives=(1, 2))
LANES = OutcomeRates(kind="outcome_rates", keys=("origin", "destination"), ttl="24h", windows=(2,))
SIGNALS = SignalLatest(kind="signal_latest", ttl="12h", names=("wind", "rain"))
PLAN = PromotionPlan(kind="promotion_plan", ttl="60d", fields=("display", "mailer"))
STEPS = settings(max_examples=40, deadline=None)

maybe_flag = st.sampled_from([None, None, None, False, True])
demand_rows = st.lists(
    st.fixed_dictionaries(
        {
            "sku": st.sampled_from(["a", "b"]),
            "location": st.sampled_from(["x", "y"]),
            "event_time": st.integers(0, 16).map(lambda day: ORIGIN + day * DAY),
            "period": st.just("day"),
            "quantity": st.sampled_from([0.0, 0.1, 0.2, 3.0, 7.5]),
            "price": st.sampled_from([None, 0.0, 1.1, 2.3]),
            "discount": st.sampled_from([None, 0.0, 0.3]),
            "closed": maybe_flag,
            "stocked_out": maybe_flag,
            "late_hours": st.sampled_from([0, 0, 0, 0, -20, 5, 30, 24 * 9]),
        }
    ),
    max_size=40,
)
outcome_rows = st.lists(
    st.fixed_dictionaries(
        {
            "shipment_id": st.sampled_from([f"s{n}" for n in range(12)]),
            "carrier": st.sampled_from(["A", "B", None]),
            "origin": st.sampled_from(["o", "p"]),
            "destination": st.sampled_from(["d", None]),
            "event_time": st.integers(0, 24 * 8).map(at),
            "delay_minutes": st.sampled_from([None, -3.5, 0.0, 12.25, 400.0]),
            "late": st.booleans(),
            "late_hours": st.sampled_from([0, 0, 1, -7, 50]),
        }
    ),
    max_size=30,
)
signal_rows = st.lists(
    st.fixed_dictionaries(
        {
            "site": st.sampled_from(["J", "K"]),
            "name": st.sampled_from(["wind", "rain", "other"]),
            "event_time": st.integers(0, 60).map(at),
            "value": st.sampled_from([1.0, 2.5, -4.0]),
            "late_hours": st.sampled_from([0, 0, 1, -5, 20]),
        }
    ),
    max_size=30,
)
promotion_rows = st.lists(
    st.fixed_dictionaries(
        {
            "sku": st.sampled_from(["a", "b"]),
            "location": st.just("x"),
            "target_date": st.sampled_from(["2024-01-09", "2024-01-10"]),
            "event_time": st.integers(0, 60).map(at),
            "display": st.sampled_from([None, 0.0, 0.5]),
            "late_hours": st.sampled_from([0, 0, 3]),
        }
    ),
    max_size=15,
)


def dated(rows: Rows, base_hours: float) -> Rows:
    """known_at from each row's own delay; the rows in order of known_at, as they would land."""
    found = [{**row, "known_at": row["event_time"] + timedelta(hours=base_hours + row["late_hours"])} for row in rows]
    return sorted(found, key=lambda row: row["known_at"])


def declared(view: View) -> Declarations:
    return Declarations(views={"v": view}, services={})


def built(view: View, rows: Rows, until: datetime, cuts: Sequence[datetime] = (), fresh: bool = False) -> pd.DataFrame:
    """The view's gold rows; at each cut what was known by then lands and a build runs."""
    with tempfile.TemporaryDirectory() as folder:
        landing, gold = Landing(Path(folder)), GoldStore(Path(folder) / "gold", durable=False, merge_at=3)
        landed = 0
        for moment in (*sorted(cuts), until):
            now = sum(row["known_at"] <= moment for row in rows) if moment != until else len(rows)
            if now > landed:
                receipt = landing.append(view.event, events(view.event, rows[landed:now], landed), source="test")
                assert receipt.quarantined == 0, receipt.reasons
                landed = now
            if fresh:
                landing, gold = Landing(Path(folder)), GoldStore(Path(folder) / "gold", durable=False, merge_at=3)
            build(declared(view), landing, gold, moment)
        frame = gold.read("v")
    return (
        frame
        if len(frame)
        else frame.reindex(columns=[*join_keys(view), "event_time", "known_at", *view_columns(view)])
    )


def by_key(frame: pd.DataFrame, view: View) -> dict[tuple[Any, ...], list[float]]:
    keys = [*join_keys(view), "event_time", "known_at"]
    assert not frame.duplicated(keys).any()
    values = frame[list(view_columns(view))].to_numpy(dtype=float)
    return {tuple(row): value for row, value in zip(frame[keys].itertuples(index=False), values, strict=True)}


def same(got: dict[tuple[Any, ...], Any], wanted: dict[tuple[Any, ...], Any], exact: bool = False) -> None:
    assert set(got) == set(wanted)
    for key, value in wanted.items():
        np.testing.assert_allclose(
            got[key], value, rtol=0 if exact else 1e-9, atol=0 if exact else 1e-9, err_msg=str(key)
        )


def ticks(view: Any, until: datetime) -> list[datetime]:
    count = int((until - ORIGIN) / view.tick) + 8
    return [moment for n in range(-8, count) if (moment := ORIGIN + n * view.tick) <= until]


def brute_demand(view: Any, rows: Rows, until: datetime, values: Callable[..., Any]) -> dict[tuple[Any, ...], Any]:
    keys = {tuple(row[part] for part in view.keys) for row in rows}
    found = {(*key, tick, tick): values(view, rows, key, tick) for key in keys for tick in ticks(view, until)}
    return {key: value for key, value in found.items() if value is not None}


@STEPS
@given(rows=demand_rows, view=st.sampled_from([DEMAND, BY_SKU, SMOOTH]))
def test_demand_history_is_brute_force(rows: Rows, view: DemandHistory) -> None:
    """Late rows, corrections, gaps, closed and stocked-out days: each tick's row is what was known by that tick."""
    rows, until = dated(rows, 24), ORIGIN + 20 * DAY
    same(by_key(built(view, rows, until), view), brute_demand(view, rows, until, demand_values))


def test_last_year_is_the_same_weekday_a_year_ago() -> None:
    """Over 440 days with holes, the values 364 days back and the level of then are those of the plain computation."""
    days = [day for day in range(440) if day % 11]
    rows: Rows = [
        {"sku": "a", "location": "x", "event_time": at(24 * day), "known_at": at(24 * (day + 1))}
        | {"period": "day", "quantity": day % 7 + day / 9}
        for day in days
    ]
    until = at(24 * 440)
    wanted = {("a", "x", tick, tick): demand_values(SMOOTH, rows, ("a", "x"), tick) for tick in (at(24 * 430), until)}
    found = by_key(built(SMOOTH, rows, until), SMOOTH)
    same({key: found[key] for key in wanted}, wanted)


@STEPS
@given(rows=demand_rows)
def test_price_history_is_brute_force(rows: Rows) -> None:
    """Prices and discounts of the window as they were known at each tick."""
    rows, until = dated(rows, 24), ORIGIN + 20 * DAY
    same(by_key(built(PRICE, rows, until), PRICE), brute_demand(PRICE, rows, until, price_values))


@STEPS
@given(rows=outcome_rows, view=st.sampled_from([RATES, LANES, FADING]))
def test_outcome_rates_are_brute_force(rows: Rows, view: OutcomeRates) -> None:
    """A row is given when something changed or half the ttl has passed, and says what brute force says."""
    rows, until = dated(rows, 0), ORIGIN + 14 * DAY
    wanted: dict[tuple[Any, ...], Any] = {}
    for key in {tuple(row[part] for part in view.keys) for row in rows}:
        last: tuple[datetime, list[float]] | None = None
        for tick in ticks(view, until) if None not in key else ():
            # a replaced version was history of its key all the same
            seen = [row for row in rows if row["event_time"] < tick and row["known_at"] <= tick]
            if not any(tuple(row[part] for part in view.keys) == key for row in seen):
                continue
            values = outcome_values(view, rows, key, tick)
            if last is None or not np.array_equal(values, last[1], equal_nan=True) or tick - last[0] >= view.ttl / 2:
                last = (tick, values)
                wanted[(*key, tick, tick)] = values
    same(by_key(built(view, rows, until), view), wanted)


@STEPS
@given(rows=signal_rows)
def test_signals_read_as_of_are_brute_force(rows: Rows) -> None:
    """Whenever one looks, the row that an as-of join finds has the newest known reading of each name."""
    rows, until = dated(rows, 1), at(100)
    frame = built(SIGNALS, rows, until)
    for site in ("J", "K"):
        for hour in range(0, 90, 3):
            usable = frame[
                (frame["origin"] == site) & (frame["known_at"] <= at(hour)) & (frame["event_time"] <= at(hour))
            ]
            wanted = signal_values(SIGNALS, rows, site, at(hour))
            assert (wanted is None) == usable.empty
            if wanted is not None:
                found = usable.sort_values(["event_time", "known_at"]).iloc[-1]
                assert found["event_time"] == wanted[0]
                np.testing.assert_array_equal(found[["wind", "rain"]].to_numpy(dtype=float), wanted[1])


@STEPS
@given(rows=promotion_rows, cuts=st.lists(st.integers(0, 70).map(at), max_size=3))
def test_promotion_plan_has_every_announced_version(rows: Rows, cuts: list[datetime]) -> None:
    """Each announcement is one row, dated as announced and as learned, whichever build wrote it."""
    rows = dated(rows, 0)
    frame = built(PLAN, rows, at(80), cuts)
    wanted = [(r["sku"], r["target_date"], r["event_time"], r["known_at"], r["display"]) for r in rows]
    columns = ["sku", "target_date", "event_time", "known_at", "display"]
    got = [tuple(None if part != part else part for part in row) for row in frame[columns].itertuples(index=False)]
    assert sorted(map(str, got)) == sorted(str((*w[:2], *map(pd.Timestamp, w[2:4]), w[4])) for w in wanted)
    assert frame["mailer"].isna().all()


CASES = st.one_of(
    st.tuples(st.sampled_from([DEMAND, BY_SKU, PRICE]), demand_rows.map(lambda rows: dated(rows, 24))),
    st.tuples(st.sampled_from([RATES, LANES, FADING]), outcome_rows.map(lambda rows: dated(rows, 0))),
    st.tuples(st.just(SIGNALS), signal_rows.map(lambda rows: dated(rows, 1))),
)


@settings(max_examples=60, deadline=None)
@given(case=CASES, cuts=st.lists(st.integers(0, 24 * 19).map(at), max_size=5), fresh=st.booleans())
def test_building_step_by_step_is_building_at_once(case: tuple[View, Rows], cuts: list[datetime], fresh: bool) -> None:
    """Incremental builds, in one process or in a new one each time, give the bits of one build."""
    view, rows = case
    until = ORIGIN + 20 * DAY
    same(by_key(built(view, rows, until, cuts, fresh), view), by_key(built(view, rows, until), view), exact=True)


@settings(max_examples=60, deadline=None)
@given(case=CASES, hour=st.integers(0, 24 * 19))
def test_the_future_does_not_change_the_past(case: tuple[View, Rows], hour: int) -> None:
    """Rows known by a moment stay the same to the last bit when everything known later is deleted."""
    view, rows = case
    moment = at(hour)
    whole = built(view, rows, ORIGIN + 20 * DAY)
    past = built(view, [row for row in rows if row["known_at"] <= moment], moment)
    same(by_key(whole[whole["known_at"] <= moment], view), by_key(past, view), exact=True)


@settings(max_examples=40, deadline=None)
@given(case=CASES, held_back=st.sets(st.integers(0, 39), max_size=5), fresh=st.booleans())
def test_events_that_land_behind_the_build_are_built_in(
    case: tuple[View, Rows], held_back: set[int], fresh: bool
) -> None:
    """An event that was known before but landed after a build changes the rows from there on, and only those stay."""
    view, rows = case
    until = ORIGIN + 20 * DAY
    held_back = {n % max(1, len(rows)) for n in held_back}
    late = [row for n, row in enumerate(rows) if n in held_back]
    rows = [row for n, row in enumerate(rows) if n not in held_back]
    with tempfile.TemporaryDirectory() as folder:
        landing, gold = Landing(Path(folder)), GoldStore(Path(folder) / "gold", durable=False)
        landing.append(view.event, events(view.event, rows), source="test")
        build(declared(view), landing, gold, ORIGIN + 9 * DAY)
        landing.append(view.event, events(view.event, late, 1000), source="test")
        if fresh:
            landing, gold = Landing(Path(folder)), GoldStore(Path(folder) / "gold", durable=False)
        build(declared(view), landing, gold, until)
        once = GoldStore(Path(folder) / "once", durable=False)
        build(declared(view), Landing(Path(folder)), once, until)
        if len(once.read("v")):
            same(by_key(gold.read("v"), view), by_key(once.read("v"), view), exact=True)


def outcome(name: str, hour: float, known: float, delay: float) -> dict[str, Any]:
    fixed = {"carrier": "A", "origin": "o", "destination": "d", "late": delay > 15}
    return {"shipment_id": name, "event_time": at(hour), "known_at": at(known), "delay_minutes": delay, **fixed}


@pytest.mark.parametrize("fresh", [False, True])
def test_a_correction_in_a_later_batch_replaces_what_was_built(fresh: bool) -> None:
    """From the tick at which it is known the corrected outcome counts alone, dated by the correction."""
    rows = [outcome("s", 1, 1, 30.0), outcome("t", 2, 2, 10.0), outcome("s", 1, 20, 0.0)]
    frame = built(RATES, rows, at(30), [at(12)], fresh).set_index("known_at")
    assert frame.loc[at(6), ["late_rate_1", "delay_mean_1", "n_1"]].tolist() == [0.5, 20.0, 2.0]
    assert frame.loc[at(24), ["late_rate_1", "delay_mean_1", "n_1"]].tolist() == [0.0, 5.0, 2.0]
    assert frame.loc[at(30), ["late_rate_1", "delay_mean_1", "n_1"]].tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("fresh", [False, True])
def test_an_outcome_landed_behind_the_build_changes_its_rows(fresh: bool, tmp_path: Path) -> None:
    """What was known at hour 7 but landed after the build of hour 24 is in the rows from hour 12 on."""
    landing, gold = Landing(tmp_path), GoldStore(tmp_path / "gold")
    landing.append("outcome", events("outcome", [outcome("s", 1, 1, 30.0)]), source="test")
    build(declared(RATES), landing, gold, at(24))
    landing.append("outcome", events("outcome", [outcome("t", 7, 7, 10.0)], 1), source="test")
    if fresh:
        landing, gold = Landing(tmp_path), GoldStore(tmp_path / "gold")
    build(declared(RATES), landing, gold, at(24))
    frame = gold.read("v").set_index("known_at")
    assert frame.loc[at(6), "n_1"] == 1.0
    assert frame.loc[at(12), "n_1"] == 2.0


def test_a_changed_declaration_is_built_from_the_beginning(tmp_path: Path) -> None:
    """Rows of another window length do not stay in gold; a view that is not declared is an error."""
    landing, gold = Landing(tmp_path), GoldStore(tmp_path / "gold")
    landing.append("outcome", events("outcome", [outcome("s", 1, 1, 30.0)]), source="test")
    build(declared(RATES), landing, gold, at(24))
    build(declared(RATES.model_copy(update={"windows": (2,)})), landing, gold, at(24))
    assert gold.read("v")[["late_rate_2", "delay_mean_2", "n_2"]].notna().all(axis=None)
    assert "n_1" not in gold.read("v").columns
    with pytest.raises(UnknownName, match="rates"):
        build(declared(RATES), landing, gold, at(24), ["rates"])


def test_the_oracle_takes_the_newest_version() -> None:
    """The plain-Python oracle replaces a version by the one known later, and not before that is known."""
    rows = [
        {"k": 1, "event_time": at(0), "known_at": at(1), "v": "old"},
        {"k": 1, "event_time": at(0), "known_at": at(5), "v": "new"},
    ]
    assert [row["v"] for row in known_versions(rows, ["k"], at(4))] == ["old"]
    assert [row["v"] for row in known_versions(rows, ["k"], at(4) + HOUR)] == ["new"]


@pytest.mark.parametrize("view", [SIGNALS, PLAN, RATES, DEMAND], ids=lambda view: view.kind)
def test_a_build_to_an_earlier_moment_changes_nothing(tmp_path: Path, view: View) -> None:
    """Building to day 10, then to day 5, then to day 10 leaves what the first build left: no row comes twice."""
    kinds: dict[str, Rows] = {
        "external_signal": [
            {"site": "J", "name": "wind", "event_time": at(24 * day), "value": 1.0} for day in range(9)
        ],
        "outcome": [
            {"shipment_id": f"s{day}", "carrier": "A", "event_time": at(24 * day), "late": day % 2 == 0}
            for day in range(9)
        ],
        "price_promotion": [
            {"sku": "a", "location": "x", "target_date": "2024-02-01", "event_time": at(24 * day), "display": day / 9}
            for day in range(9)
        ],
        "demand": [
            {"sku": "a", "location": "x", "event_time": at(24 * day), "period": "day", "quantity": float(day)}
            for day in range(9)
        ],
    }
    rows = [{**row, "known_at": row["event_time"] + HOUR} for row in kinds[view.event]]
    landing, gold = Landing(tmp_path), GoldStore(tmp_path / "gold", durable=False)
    landing.append(view.event, events(view.event, rows), source="test")
    left = []
    for day in (10, 5, 10):
        build(declared(view), landing, gold, at(24 * day))
        left.append(gold.read("v"))
    assert len(left[0])
    for frame in left[1:]:
        pd.testing.assert_frame_equal(frame, left[0])
