"""Fault 36: what was served is what the offline join gives; a planted difference is found with its cause."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts.times import SetClock
from features.build import build
from features.importer import land_slice
from lifecycle.demo_data import series_asks
from lifecycle.loop import Loop
from lifecycle.skew import Skew, skew_of
from lifecycle.workspace import Workspace
from tests.lifecycle.conftest import LEARN_UNTIL, TICK, lay_out

DAYS = 6
SERVED_UNTIL = LEARN_UNTIL + timedelta(days=DAYS)


class Served:
    """A yard that has served a few days, one request a day for all eight series."""

    def __init__(self, root: Path) -> None:
        yard = lay_out(root)
        self.clock = SetClock(LEARN_UNTIL)
        self.ws = Workspace(yard.settings, self.clock)
        self.policy = self.ws.policy("demand")
        self.staged = yard.staged()
        self.asks = series_asks(self.staged.events["demand"], 1)
        loop = Loop(self.ws, self.policy, self.staged, self.clock, tick=TICK)
        loop.learn(LEARN_UNTIL)
        loop.run(SERVED_UNTIL, self.asks)

    def skew(self) -> Skew:
        return skew_of(self.ws, self.policy, sample=1000)

    def build(self) -> None:
        build(self.ws.declarations, self.ws.landing, self.ws.gold, until=SERVED_UNTIL + TICK)


@pytest.fixture
def served(tmp_path: Path) -> Any:
    """A yard after six days of service."""
    made = Served(tmp_path)
    with made.ws.closing():
        yield made


def test_served_rows_recomputed_offline_are_the_same(served: Served) -> None:
    """48 decisions, 7 steps each: 0 values differ, of stored features and of calendar facts."""
    found = served.skew()
    assert found.decisions == 8 * DAYS
    assert {one.feature: one.differing for one in found.features if one.differing} == {}
    assert {one.rows for one in found.features if one.pure} == {8 * DAYS * 7}
    assert {one.rows for one in found.features if not one.pure} == {8 * DAYS}
    assert found.over(0.0) == ()


def test_a_late_landed_correction_is_found_and_named(served: Served) -> None:
    """A correction that bears an early known_at but landed after the decisions is the cause, by its id."""
    demand = served.ws.landing.read("demand")
    at = LEARN_UNTIL + timedelta(days=1)
    one = demand[(demand["sku"] == "sku-3") & (demand["event_time"] == at - TICK)]
    late = one.assign(event_id="correction", quantity=one["quantity"] + 500.0)
    served.ws.landing.append("demand", late, source="tiny")
    served.build()
    found = {f.feature: f for f in served.skew().features if f.differing}
    lag = found["demand_history__lag_1"]
    assert (lag.differing, lag.largest, lag.cause) == (1, 500.0, "late-landed row")
    assert "correction" in lag.examples[0].cause
    assert lag.examples[0].as_of == at
    assert found["demand_history__lag_2"].differing == 1
    assert not any(f.pure for f in found.values())


def test_decisions_before_materialisation_lag(served: Served) -> None:
    """A day that was built but not brought online was served yesterday's row: lag, not leak."""
    served.clock.set(SERVED_UNTIL)
    land_slice(served.staged, served.ws.landing, SERVED_UNTIL - TICK, SERVED_UNTIL)
    served.build()
    for ask in served.asks(SERVED_UNTIL, SERVED_UNTIL + TICK):
        served.ws.handler.forecast("demand", ask.request)
    found = served.skew()
    history = next(one for one in found.features if one.feature == "demand_history__history_days")
    assert (history.differing, history.rows, history.largest) == (8, 8 * DAYS + 8, 1.0)
    assert history.cause == "materialisation lag"
    assert found.over(0.5) == ()
    assert history in found.over(0.1)


def test_gold_that_was_changed_behind_served_rows_is_found(served: Served) -> None:
    """Another value in the very row that was read: gold was rebuilt since."""
    gold, note = served.ws.gold.read("demand_history"), served.ws.gold.built("demand_history")
    served.ws.gold.cut("demand_history", None)
    served.ws.gold.append("demand_history", gold.assign(mean_7=gold["mean_7"] + 1.0), note=note)
    found = [one for one in served.skew().features if one.differing]
    assert [(one.feature, one.share, one.cause) for one in found] == [
        ("demand_history__mean_7", 1.0, "rebuilt gold row")
    ]
    assert found[0].largest == pytest.approx(1.0)
