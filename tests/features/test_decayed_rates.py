"""Outcome rates that fade: the same figures as a plain loop over the landed outcomes, at every tick that gave a row."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.declarations import Declarations, OutcomeRates, Service, view_columns
from features.build import build
from features.decayed_rates import WEIGHTS, decayed, memory
from features.gold import GoldStore
from features.landing import Landing
from tests.features.view_events import events

ORIGIN = pd.Timestamp("2024-01-01", tz="UTC")
VIEW = OutcomeRates(
    kind="outcome_rates",
    keys=("carrier", "origin"),
    tick=timedelta(hours=6),
    ttl=timedelta(days=10),
    windows=(7,),
    half_lives=(3, 20),
)


def landed(folder: Path, count: int = 400, corrected: int = 40) -> tuple[Landing, pd.DataFrame]:
    """Outcomes of a quarter, known hours to weeks after they happened, some of them corrected later."""
    rng = np.random.default_rng(4)
    happened = np.sort(rng.uniform(0, 90, count))
    known = happened + rng.gamma(1.0, 3.0, count)
    rows: list[dict[str, Any]] = []
    for number in range(count + corrected):
        place = number if number < count else int(rng.integers(count))
        rows.append(
            {
                "event_time": ORIGIN + timedelta(days=happened[place]),
                "known_at": ORIGIN + timedelta(days=known[place] + (0 if number < count else rng.uniform(0.1, 30))),
                "shipment_id": f"s{place}",
                "carrier": "AB"[place % 2],
                "origin": "xyz"[place % 3],
                "late": bool(rng.uniform() < 0.3),
            }
        )
    landing = Landing(folder / "landing")
    landing.append("outcome", events("outcome", rows), source="test")
    return landing, pd.DataFrame(rows).sort_values("known_at", kind="stable", ignore_index=True)


def fading(frame: pd.DataFrame, key: tuple[str, str], tick: datetime, half_life: int) -> tuple[float, float]:
    """Late share and number at a tick by what was known then, an outcome at a time."""
    eighth, epoch = timedelta(days=half_life) / 8, pd.Timestamp(0, tz="UTC")
    newest: dict[str, dict[Any, Any]] = {}
    for row in frame.to_dict("records"):
        if row["known_at"] <= tick and row["event_time"] < tick:
            newest[row["shipment_id"]] = row
    total = late = 0.0
    for row in newest.values():
        age = (tick - epoch) // eighth - (row["known_at"] - epoch) // eighth
        if (row["carrier"], row["origin"]) == key and age < 64:
            held = round(2 ** (20 - age / 8)) / 2**20
            total, late = total + held, late + held * row["late"]
    return (late / total if total else np.nan), total


@pytest.mark.parametrize("cuts", [(), (20, 21, 55)])
def test_fading_rates_are_a_plain_loop_over_what_was_known(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    """Every row's fading rate and number are those of the outcomes known at its tick, whatever was built in one go."""
    landing, frame = landed(tmp_path)
    gold = GoldStore(tmp_path / "gold", durable=False)
    declared = Declarations(views={"v": VIEW}, services={"s": Service(views=("v",))})
    for day in (*cuts, 130):
        build(declared, landing, gold, until=(ORIGIN + timedelta(days=day)).to_pydatetime())
    rows = gold.read("v").sample(120, random_state=1)
    for row in rows.to_dict("records"):
        for half_life in VIEW.half_lives:
            rate, number = fading(frame, (row["carrier"], row["origin"]), row["event_time"], half_life)
            assert row[f"decayed_n_{half_life}"] == number
            assert row[f"decayed_rate_{half_life}"] == pytest.approx(rate, nan_ok=True, abs=1e-15)


def test_an_outcome_not_yet_known_weighs_nothing() -> None:
    """Weight starts at the tick of becoming known, halves after one half-life, and ends after eight."""
    day = 86_400_000_000
    ticks = np.arange(0, 60) * day
    start, known = np.array([10]), np.array([10 * day])
    found = decayed(2, np.array([0]), start, np.array([10**9]), known, np.array([1.0]), ticks, (1, 60))[0]
    assert (found[:10, 1] == 0).all()
    assert np.isnan(found[:10, 0]).all()
    assert found[10, 1] == 1.0
    assert found[12, 1] == 0.5
    assert (found[10:26, 0] == 1.0).all()
    assert found[26, 1] == 0.0
    assert memory(2) == timedelta(days=16)


def test_columns_come_only_with_half_lives() -> None:
    """A declaration without half-lives has the columns that it always had."""
    plain = VIEW.model_copy(update={"half_lives": ()})
    assert view_columns(plain) == ("late_rate_7", "delay_mean_7", "n_7")
    assert view_columns(VIEW)[3:] == ("decayed_rate_3", "decayed_n_3", "decayed_rate_20", "decayed_n_20")
    assert WEIGHTS[0] == 2 * WEIGHTS[8]
