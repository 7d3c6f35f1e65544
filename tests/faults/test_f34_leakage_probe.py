"""Fault 34: a leak planted in a training set is found, explained, and refused by the gate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from contracts.rollout import Outcome
from contracts.times import SetClock
from features.audit import Difference, audit
from features.importer import land_slice
from features.leaks import suspects
from lifecycle.pipeline import build_features, train_candidate
from lifecycle.workspace import Workspace
from tests.features.audit_rig import DECLARED, Rows, landed, sales_rows, some_events, training_set
from tests.features.view_events import DAY, HOUR, ORIGIN
from tests.lifecycle.conftest import LEARN_UNTIL, lay_out

CUTOFFS = [ORIGIN + day * DAY for day in range(4, 18, 3)]


def found_in(folder: Path, truth: Rows, believed: Rows) -> Sequence[Difference]:
    """What the audit, which sees the landed events, says of a training set that was made from others."""
    rows = sales_rows(CUTOFFS)
    made = training_set(folder / "leaky", landed(folder / "leaky", {"demand": believed}), "sales", rows)
    landing = landed(folder / "truth", {"demand": truth})
    clean = training_set(folder / "truth", landing, "sales", rows)
    assert audit(DECLARED, "sales", landing, clean, sample=len(rows)).clean
    return audit(DECLARED, "sales", landing, made, sample=len(rows)).differences


def test_a_value_from_a_future_event_is_caught(tmp_path: Path) -> None:
    """Sales that are dated a day too early put the day that is to be forecast into its own lags."""
    truth = some_events(7)["demand"]
    early = [row | {"event_time": row["event_time"] - DAY, "known_at": row["known_at"] - DAY} for row in truth]
    found = found_in(tmp_path, truth, early)
    assert {one.column for one in found} > {"demand__lag_1", "demand__mean_3", "demand__history_days"}
    assert any("the row of the later tick" in one.why for one in found)


def test_a_row_created_after_the_decision_is_caught(tmp_path: Path) -> None:
    """Rows whose creation time was lost count from the moment they describe: the audit names each too early event."""
    truth = some_events(8)["demand"]
    late = [row for row in truth if row["known_at"] - row["event_time"] > 24 * HOUR]
    backfilled = sorted(
        (row | {"known_at": row["event_time"] + 24 * HOUR} for row in truth), key=lambda row: row["known_at"]
    )
    assert len(late) > 10
    found = found_in(tmp_path, truth, backfilled)
    blamed = [one for one in found if "later than" in one.why and one.events[0].event_time < one.as_of]
    assert len(blamed) > 10
    assert all(one.events[0].known_at > one.as_of for one in blamed)


def test_a_backfill_of_corrections_is_caught(tmp_path: Path) -> None:
    """History rewritten with the values as they were finally corrected shows in decisions before the correction."""
    first = [row for row in some_events(9)["demand"] if not row["closed"]]
    first = list({(row["sku"], row["location"], row["event_time"]): row for row in first}.values())
    corrections = [row | {"quantity": row["quantity"] + 40.0, "known_at": row["known_at"] + 9 * DAY} for row in first]
    rewritten = [row | {"quantity": row["quantity"] + 40.0} for row in first]
    truth = sorted([*first, *corrections], key=lambda row: row["known_at"])
    found = found_in(tmp_path, truth, rewritten)
    assert {one.column for one in found} >= {"demand__lag_1", "demand__mean_7", "demand__scale"}
    assert all(one.why for one in found)


def test_a_copied_label_is_caught(tmp_path: Path) -> None:
    """A feature that is the label is called so, as a column and cell by cell."""
    landing = landed(tmp_path, some_events(10))
    made = training_set(tmp_path, landing, "sales", sales_rows(CUTOFFS))
    made = pd.concat([made] * 12, ignore_index=True).assign(row_id=[f"r{n}" for n in range(12 * len(made))])
    made["label"] = np.random.default_rng(0).gamma(2.0, 5.0, len(made))
    made["demand__lag_7"] = made["label"]
    (one,) = suspects({"demand__lag_7": made["demand__lag_7"].to_numpy()}, made["label"].to_numpy())
    assert (one.kind, one.words) == ("label_derived", "is the label")
    found = audit(DECLARED, "sales", landing, made, sample=12, most_edges=0).differences
    assert {one.why for one in found} == {"equals the row's own label"}


def peek(folder: Path) -> Any:
    """Trains on gold in which every lag_1 is the sale of the very day; returns the trial."""
    yard = lay_out(folder)
    ws = Workspace(yard.settings, SetClock(LEARN_UNTIL))
    policy = ws.policy("demand")
    land_slice(yard.staged(), ws.landing, None, LEARN_UNTIL)
    build_features(ws, policy, LEARN_UNTIL)
    gold, note = ws.gold.read("demand_history"), ws.gold.built("demand_history")
    ahead = gold.sort_values("event_time", kind="stable").groupby(["sku", "location"])["lag_1"].shift(-1)
    ws.gold.cut("demand_history", None)
    ws.gold.append("demand_history", gold.assign(lag_1=ahead.fillna(gold["lag_1"])), note=note)
    with ws.closing():
        return train_candidate(ws, policy, LEARN_UNTIL)


def test_a_leaking_candidate_fails_the_gate(tmp_path: Path) -> None:
    """A candidate that saw the future looks better than the rule, and is refused with the cell and its origin."""
    trial = peek(tmp_path)
    assert trial.verdict.outcome is Outcome.FAIL
    outcomes = {one.name: one for one in trial.verdict.criteria}
    assert outcomes["leakage_audit"].outcome is Outcome.FAIL
    assert "demand_history__lag_1" in outcomes["leakage_audit"].words
    assert "later tick" in outcomes["leakage_audit"].words
    assert trial.trained.evaluation.dataset["leakage_audit"]["differing"] > 0
