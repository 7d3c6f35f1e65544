"""The leakage audit: clean sets pass, whatever differs is found and explained from the landed events."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.declarations import DemandHistory, OutcomeRates, PriceHistory, SignalLatest
from contracts.errors import TimeInvalid, UnknownName
from features.audit import Audit, Difference, audit
from features.audit_events import LandedEvents, edges
from features.audit_values import Cut, read_view
from features.landing import Landing
from tests.features.audit_rig import DECLARED, landed, risk_rows, sales_rows, some_events, training_set
from tests.features.view_events import (
    DAY,
    HOUR,
    ORIGIN,
    at,
    demand_values,
    events,
    outcome_values,
    price_values,
    signal_values,
)

DAYS = [ORIGIN + number * DAY for number in range(3, 18)]
HOURS = [at(number * 7.25) for number in range(4, 60)]
VIEWS = DECLARED.views


def plain(kind: str, seed: int) -> list[dict[str, object]]:
    """Events as the audit has them: an id, and None for whatever is missing."""
    contract = events(kind, [])
    return [
        dict.fromkeys(contract.columns) | {"event_id": f"e{n}"} | row for n, row in enumerate(some_events(seed)[kind])
    ]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), hour=st.integers(24, 24 * 20))
def test_the_reference_equals_another_brute_force(seed: int, hour: int) -> None:
    """Every kind of view: the audit's own calculation is that of the tests' independent one."""
    moment = at(hour)
    demand, outcome, signal = (plain(kind, seed) for kind in ("demand", "outcome", "external_signal"))
    history, prices, rates, weather = (VIEWS[name] for name in ("demand", "prices", "carriers", "weather"))
    assert isinstance(history, DemandHistory)
    assert isinstance(prices, PriceHistory)
    assert isinstance(rates, OutcomeRates)
    assert isinstance(weather, SignalLatest)
    calculations: list[tuple[DemandHistory | PriceHistory, Callable[..., list[float] | None]]] = [
        (history, demand_values),
        (prices, price_values),
    ]
    for view, calculate in calculations:
        ticks = [ORIGIN + n * DAY for n in range(21) if timedelta(0) <= moment - (ORIGIN + n * DAY) <= view.ttl]
        wanted = next((v for tick in ticks[::-1] if (v := calculate(view, demand, ("a", "x"), tick))), None)
        found = read_view(view, demand, ("a", "x"), moment)
        assert (found is None) == (wanted is None)
        if found is not None:
            np.testing.assert_allclose(found.values, wanted, rtol=1e-9, atol=1e-9)
    tick = ORIGIN + (moment - ORIGIN) // rates.tick * rates.tick
    found = read_view(rates, outcome, ("A",), moment)
    if found is not None:
        # delays count in whole milliseconds
        np.testing.assert_allclose(found.values, outcome_values(rates, outcome, ("A",), tick), rtol=1e-9, atol=2e-5)
    stored = signal_values(weather, signal, "o", moment)
    found = read_view(weather, signal, ("o",), moment)
    fresh = stored is not None and moment - stored[0] <= weather.ttl
    assert (found is not None) == fresh
    if found is not None and stored is not None:
        np.testing.assert_array_equal(found.values, stored[1])


@pytest.mark.parametrize("seed", [1, 2])
def test_a_training_set_of_the_production_path_is_clean(seed: int, tmp_path: Path) -> None:
    """Late events, corrections, gaps and unseen keys: every cell of every row is what brute force gives."""
    landing = landed(tmp_path, some_events(seed))
    for service, rows in (("sales", sales_rows(DAYS)), ("risk", risk_rows(HOURS))):
        made = training_set(tmp_path, landing, service, rows)
        found = audit(DECLARED, service, landing, made, sample=len(made))
        assert found.differences == ()
        assert found.clean
        assert found.rows == len(made)
        assert found.cells > 20 * len(made) / 2
        assert sum(kinds.get("unseen", 0) for kinds in found.edges.values()) > 0


def test_any_one_changed_cell_is_found(tmp_path: Path) -> None:
    """Each value column and fact in turn: changed or lost, it is reported by row, column and both values."""
    landing = landed(tmp_path, some_events(3))
    made = training_set(tmp_path, landing, "risk", risk_rows(HOURS[:8]))
    columns = [name for name in made.columns if "__" in name or name.startswith(("schedule_", "planned", "lead"))]
    assert len(columns) == 6 + 3 + 2 + 2 + 5
    for column in columns:
        row = int(np.flatnonzero(made[column].notna())[-1])
        for value in (made[column].iat[row] + 0.5, math.nan):
            spoilt = made.copy()
            spoilt.loc[spoilt.index[row], column] = value
            (one,) = audit(DECLARED, "risk", landing, spoilt, sample=len(made), most_edges=0).differences
            assert (one.row_id, one.column) == (made["row_id"].iat[row], column)
            np.testing.assert_equal(one.given, value)
            assert one.wanted == pytest.approx(made[column].iat[row], rel=1e-9)


def sold(day: int, units: float, known: float = 24.0) -> dict[str, object]:
    begun = ORIGIN + day * DAY
    fixed = {"sku": "a", "location": "x", "period": "day", "event_time": begun, "known_at": begun + known * HOUR}
    return fixed | {"quantity": units}


def differing(folder: Path, truth: list[dict[str, object]], wrong: list[dict[str, object]]) -> list[Difference]:
    """What the audit says of a training set made from other events than those that landed."""
    rows = sales_rows([ORIGIN + 8 * DAY])[:1]
    made = training_set(folder / "wrong", landed(folder / "wrong", {"demand": wrong}), "sales", rows)
    found = audit(DECLARED, "sales", landed(folder / "truth", {"demand": truth}), made, sample=5)
    return [one for one in found.differences if one.column == "demand__lag_1"]


WEEK = [sold(day, 10.0 + day) for day in range(7)]


def test_an_event_known_too_late_is_named(tmp_path: Path) -> None:
    """A value that counts an event with a later known_at is explained by that event, with its times."""
    truth = [*WEEK, sold(7, 99.0, known=72)]
    (one,) = differing(tmp_path, truth, [*WEEK, sold(7, 99.0)])
    assert (one.given, math.isnan(one.wanted)) == (99.0, True)
    assert one.why.startswith("equals the value when event e7, known_at 2024-01-11")
    assert [(e.event_id, e.event_time, e.known_at) for e in one.events] == [("e7", at(168), at(240))]


def test_a_restated_value_used_too_early_is_named(tmp_path: Path) -> None:
    """The backfill: a correction that became known after the moment stands where the first value was known."""
    truth = [*WEEK, sold(7, 5.0), sold(7, 50.0, known=240)]
    (one,) = differing(tmp_path, truth, [*WEEK, sold(7, 50.0)])
    assert (one.given, one.wanted) == (50.0, 5.0)
    assert "event e8, known_at" in one.why
    assert [event.event_id for event in one.events] == ["e8"]


def test_a_row_built_before_an_event_landed_is_named(tmp_path: Path) -> None:
    """A value that does not count an event which had been known: the row was made before the event landed."""
    truth = [*WEEK, sold(7, 5.0), sold(7, 6.0, known=24)]
    (one,) = differing(tmp_path, truth, [*WEEK, sold(7, 5.0)])
    assert (one.given, one.wanted) == (5.0, 6.0)
    assert one.why.startswith("equals the value without event e8")


def test_a_value_of_no_known_origin_says_so(tmp_path: Path) -> None:
    """A value that no cut gives is still reported, with the events that the right one comes from."""
    (one,) = differing(tmp_path, [*WEEK, sold(7, 5.0)], [*WEEK, sold(7, 1234.5)])
    assert one.why == "no cut of the landed events that was tried gives this value"
    assert one.events[0].event_id == "e7"


def test_features_that_were_not_built_are_told_from_leaks(tmp_path: Path) -> None:
    """Gold that ends before the rows do gives older rows: the audit says which tick they are of."""
    landing = landed(tmp_path, {"demand": [*WEEK, sold(7, 5.0)]})
    rows = sales_rows([ORIGIN + 8 * DAY])[:1]
    made = training_set(tmp_path, landing, "sales", rows)
    older = training_set(tmp_path / "again", landing, "sales", rows.assign(as_of=rows["as_of"] - pd.Timedelta(days=1)))
    features = [name for name in made.columns if name.startswith("demand__")]
    found = audit(DECLARED, "sales", landing, made.assign(**{n: older[n].to_numpy() for n in features}), sample=1)
    assert found.differences
    assert any("the earlier tick 2024-01-08" in one.why for one in found.differences)


def test_edges_are_what_a_microsecond_changes(tmp_path: Path) -> None:
    """At the cut, after it, late, at a window's or ttl's end, unseen: each row is flagged for its reason, no other."""
    seen = {"shipment_id": "s", "carrier": "A", "origin": "o", "destination": "d", "late": True, "delay_minutes": 9.0}
    late = seen | {"shipment_id": "t", "carrier": "B", "event_time": at(30), "known_at": at(60)}
    landing = landed(tmp_path, {"outcome": [seen | {"event_time": at(5), "known_at": at(6)}, late]})
    moments = [at(7), at(6 + 24) + HOUR, at(2), at(55), at(100)]
    carriers = ["A", "A", "A", "B", "Z"]
    rows = pd.DataFrame({"as_of": pd.DatetimeIndex(moments).as_unit("us"), "carrier": carriers})
    found = edges(VIEWS["carriers"], rows, LandedEvents(landing, "outcome"))
    flags = {kind: np.flatnonzero(value).tolist() for kind, value in found.items()}
    assert flags == {
        "ttl": [],
        "at_cut": [0],
        "late": [3],
        "next_tick": [2, 3],
        "window": [1],
        "unseen": [2, 3, 4],
        "first": [2],
        "last": [4],
    }


def test_edges_beyond_the_cap_are_counted(tmp_path: Path) -> None:
    """When more rows sit on an edge than may be recomputed, the report says how many were left out."""
    landing = landed(tmp_path, {"demand": WEEK})
    made = training_set(tmp_path, landing, "sales", sales_rows(DAYS))
    found = audit(DECLARED, "sales", landing, made, sample=1, most_edges=5)
    assert found.clean
    on_edge = sum(found.edges["plan"].values())
    assert found.edges_left_out["plan"] == len(made) - 5 <= on_edge
    assert audit(DECLARED, "sales", landing, made, sample=1, most_edges=0).edges == {}


def test_what_is_no_training_set_is_refused(tmp_path: Path) -> None:
    """A missing column, a service that is not declared and times without a zone are named."""
    landing = Landing(tmp_path)
    rows = sales_rows(DAYS[:1])
    with pytest.raises(UnknownName, match="demand__lag_1"):
        audit(DECLARED, "sales", landing, rows)
    with pytest.raises(UnknownName, match="feature service 'sale'"):
        audit(DECLARED, "sale", landing, rows)
    made = training_set(tmp_path, landed(tmp_path, {"demand": WEEK}), "sales", rows)
    with pytest.raises(TimeInvalid, match="as_of"):
        audit(DECLARED, "sales", landing, made.assign(as_of=made["as_of"].dt.tz_localize(None)))


def test_nothing_compared_is_not_clean() -> None:
    """An audit that compared no cell does not count as passed."""
    assert not Audit(0, 0).clean


def test_a_cut_counts_what_it_says() -> None:
    """The honest cut counts what had happened and was known; others show which mistake was made."""
    event = {"event_id": "e", "event_time": at(5), "known_at": at(9)}
    assert Cut().counts(event, at(9), before=True)
    assert not Cut().counts(event, at(8), before=True)
    assert Cut(known=False).counts(event, at(8), before=True)
    assert not Cut(known=False).counts(event, at(5), before=True)
    assert Cut(begun=False, known=False).counts(event, at(1), before=True)
    assert Cut(plus=frozenset("e")).counts(event, at(1), before=True)
    assert not Cut(minus=frozenset("e")).counts(event, at(9), before=True)
