"""The shipped examples on the real data they were written for: land, learn, gate, serve, replay."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from contracts.errors import UnknownName
from contracts.mapping import load_mapping
from contracts.rollout import Move, Outcome, RowKind
from contracts.settings import Settings
from contracts.times import SetClock, parse_time
from features.importer import ingest, stage
from lifecycle.demo_data import series_asks, shipment_asks
from lifecycle.pipeline import Trial, build_features, train_candidate
from lifecycle.rollouts import advance
from lifecycle.workspace import Workspace
from registry.ledger import verify
from serving.wiring import replay_in

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCMS = "scms_delivery_history/SCMS_Delivery_History_Dataset.csv"
Find = Callable[[str], Path]
pytestmark = pytest.mark.slow


def workspace(home: Path, example: str, now: str) -> Workspace:
    """A workspace on an example's policies and features, its clock in the data's time."""
    folder = EXAMPLES / example
    settings = Settings(home=home, features=folder / "features", policies=folder / "policies", actor="trainer")
    return Workspace(settings, SetClock(parse_time(now)))


def learn(ws: Workspace, model: str, mapping: str, file: Path) -> Trial:
    """Land what was known by now, build features, train and gate a candidate."""
    policy, now = ws.policy(model), ws.clock.now()
    receipts = ingest(load_mapping(EXAMPLES / mapping), file, ws.landing, until=now)
    assert sum(one.rows_in for one in receipts) == sum(one.landed + one.quarantined for one in receipts) > 0
    build_features(ws, policy, now)
    return train_candidate(ws, policy, now)


def take_office(ws: Workspace, model: str, trial: Trial) -> None:
    """The gate passed: the examples' policies then want one person's agreement, and not the trainer's own."""
    policy, now = ws.policy(model), ws.clock.now()
    action, state = advance(ws, policy, now, verdict=trial.verdict)
    assert (action.move, action.needs_approval, state.champion) == (Move.PROMOTE, True, None)
    ws.registrar.approve(model, policy, approver="a planner", version=trial.version)
    action, state = advance(ws, policy, now, verdict=trial.verdict)
    assert (action.move, action.needs_approval, state.champion) == (Move.PROMOTE, False, trial.version)


def check_ledger(ws: Workspace, model: str, trial: Trial) -> None:
    """The chain holds, the gate's verdict is in it, and there is a champion exactly when it passed."""
    rows = ws.ledger.rows(model)
    verify(rows)
    gated = [row.payload["outcome"] for row in rows if row.kind is RowKind.GATED and row.version == trial.version]
    assert gated == [trial.verdict.outcome.value]
    passed = trial.verdict.outcome is Outcome.PASS
    assert (ws.registrar.state(model).champion is not None) == passed


def check_replays(ws: Workspace, records: list[Any], version: str) -> None:
    """Every decision came from the champion and, read back from the log, comes out the same to the last bit."""
    assert {record.answer.version for record in records} == {version}
    results = [replay_in(ws.settings, ws.handler.decision(record.decision_id)) for record in records]
    assert [result.words for result in results if not result.same] == []


def test_scms_deliveries_of_2015_are_scored_by_a_model_that_passed(tmp_path: Path, shared_data: Find) -> None:
    """On what was known at the start of 2015 the gate passes; real shipments are scored and replay to the bit."""
    ws = workspace(tmp_path, "scms", "2015-01-01")
    file = shared_data(SCMS)
    trial = learn(ws, "late_delivery", "scms/deliveries.yaml", file)
    with ws.closing():
        assert trial.rows_kept
        assert trial.verdict.outcome is Outcome.PASS, trial.verdict.words
        take_office(ws, "late_delivery", trial)
        check_ledger(ws, "late_delivery", trial)
        shipments = stage(load_mapping(EXAMPLES / "scms" / "deliveries.yaml"), file).events["shipment"]
        asks = shipment_asks(shipments, 1)(ws.clock.now(), parse_time("2015-02-15"))
        records = []
        for ask in asks:
            ws.clock.set(ask.at)  # type: ignore[attr-defined]
            build_features(ws, ws.policy("late_delivery"), ask.at)
            records += ws.handler.score("late_delivery", ask.request)
        assert len(records) >= 20
        assert all(0 < record.answer.probability < 1 for record in records)
        check_replays(ws, records, trial.version)


def test_scms_deliveries_of_2013_are_left_to_the_rule(tmp_path: Path, shared_data: Find) -> None:
    """A year whose past says little about its future: the gate does not pass, and the rule answers, saying why."""
    ws = workspace(tmp_path, "scms", "2013-01-01")
    trial = learn(ws, "late_delivery", "scms/deliveries.yaml", shared_data(SCMS))
    with ws.closing():
        assert trial.rows_kept
        assert trial.verdict.outcome is Outcome.INCONCLUSIVE, trial.verdict.words
        action, _ = advance(ws, ws.policy("late_delivery"), ws.clock.now(), verdict=trial.verdict)
        assert action.move is Move.HOLD
        check_ledger(ws, "late_delivery", trial)
        rows = ws.landing.read("shipment").tail(1)
        request = shipment_asks(rows, 1)(rows["event_time"].iloc[0], ws.clock.now())[0].request
        answered = ws.handler.score("late_delivery", request)
        assert [record.answer.rung.value for record in answered] == ["incumbent"]
        assert (answered[0].answer.version, answered[0].route.arm) == (None, "none")
        assert "no_version: there is no champion" in " ".join(answered[0].answer.degraded)
        assert replay_in(ws.settings, answered[0]).same


def test_a_model_that_was_never_trained_is_a_clear_error(tmp_path: Path) -> None:
    """Before the first training nothing is in service, and asking names the model."""
    ws = workspace(tmp_path, "scms", "2013-01-01")
    item = {
        "shipment_id": "1",
        "carrier": "a",
        "origin": "b",
        "destination": "c",
        "promised_at": "2013-03-01T00:00:00Z",
    }
    with ws.closing(), pytest.raises(UnknownName, match="unknown model 'late_delivery'"):
        ws.handler.score("late_delivery", {"items": [item]})


def some_stores(source: Path, target: Path, every: int) -> Path:
    table = pq.read_table(source).to_pandas()
    table[table["Store"].astype(int) % every == 0].to_parquet(target, index=False)
    return target


def test_rossmann_turnover_is_forecast_by_a_model_that_passed(tmp_path: Path, shared_data: Find) -> None:
    """27 stores: the candidate beats last week's turnover, serves two weeks ahead, and replays to the bit."""
    file = some_stores(shared_data("rossmann/rossmann.parquet"), tmp_path / "some.parquet", 40)
    ws = workspace(tmp_path / "home", "rossmann", "2015-05-01")
    trial = learn(ws, "demand", "rossmann/sales.yaml", file)
    with ws.closing():
        assert trial.rows_kept
        assert trial.verdict.outcome is Outcome.PASS, trial.verdict.words
        take_office(ws, "demand", trial)
        check_ledger(ws, "demand", trial)
        demand = ws.landing.read("demand")
        records = []
        for ask in series_asks(demand, 1)(ws.clock.now(), ws.clock.now()):
            records += ws.handler.forecast("demand", ask.request)
        assert len(records) == 27
        assert {len(record.answer.steps) for record in records} == {14}
        assert error_against_actuals(records, file, ws.clock.now()) < 0.15
        check_replays(ws, records, trial.version)


def error_against_actuals(records: list[Any], file: Path, now: datetime) -> float:
    """WAPE of what was served against the turnover that came to pass, which the workspace had not seen."""
    sold = pd.read_parquet(file)
    sold = sold[sold["Date"] >= pd.Timestamp(now.replace(tzinfo=None))]
    actual = {(str(int(s)), f"{d:%Y-%m-%d}"): float(v) for s, d, v in sold[["Store", "Date", "Sales"]].to_numpy()}
    pairs = [
        (actual[key], step.mean)
        for record in records
        for step in record.answer.steps
        if (key := (record.subject["location"], step.target_date)) in actual
    ]
    assert len(pairs) > 200
    return sum(abs(real - said) for real, said in pairs) / sum(real for real, _ in pairs)


def test_every_source_row_is_landed_or_quarantined(tmp_path: Path, shared_data: Find) -> None:
    """USAID: 38,842 reports in as positions and as demand; two positions are refused, with the reason."""
    ws = workspace(tmp_path, "scms", "2020-06-01")
    file = shared_data("usaid_contraceptive_lmis/contraceptive_logistics_data.csv")
    receipts = ingest(load_mapping(EXAMPLES / "usaid" / "stock.yaml"), file, ws.landing)
    for kind, refused in (("inventory_position", 2), ("demand", 0)):
        mine = [one for one in receipts if one.kind == kind]
        assert sum(one.rows_in for one in mine) == 38842
        assert sum(one.landed for one in mine) == len(ws.landing.read(kind)) == 38842 - refused
        assert sum(one.quarantined for one in mine) == len(ws.landing.quarantined(kind)) == refused
    reasons = ws.landing.quarantined("inventory_position")["reason"]
    assert sorted(reasons) == [
        "stockout_days: wanted at most 31, got 300.0 [maximum]; line 4937",
        "stockout_days: wanted at most 31, got 50.0 [maximum]; line 6832",
    ]
