"""The monitor on a workspace's own log and landing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.declarations import Declarations
from contracts.errors import InputInvalid
from contracts.events import event_contract
from contracts.monitoring import Health
from contracts.policy import Policy
from contracts.rollout import RolloutState, Stage
from contracts.settings import Settings
from drift import psi
from drift.frames import feature_frame
from drift.monitor import Monitor
from drift.profile import write_profile
from features.landing import Landing
from serving.decision_log import DecisionLog
from serving.segments import SegmentLog
from serving.shadow import shadow_json

DAY = timedelta(days=1)
START = datetime(2026, 3, 1, tzinfo=UTC)
NOW = START + 14 * DAY
STATE = RolloutState(
    "late_delivery", 3, champion="v1", challenger="v2", stage=Stage.SHADOW, since=START, champion_since=START - DAY
)
Make = Callable[..., Any]


def events(kind: str, **columns: Any) -> pd.DataFrame:
    """Canonical events of a kind with these columns, the rest missing."""
    rows = len(next(iter(columns.values())))
    base = {name: columns.get(name, [None] * rows) for name in event_contract(kind).names}
    frame = pd.DataFrame({**base, "source_system": ["test"] * rows})
    for field in event_contract(kind).fields:
        if field.type == "time":
            frame[field.name] = pd.DatetimeIndex(frame[field.name], tz="UTC").as_unit("us")
        elif field.type == "boolean":
            frame[field.name] = frame[field.name].astype("boolean")
        elif field.type == "number":
            frame[field.name] = frame[field.name].astype("float64")
    return frame


@pytest.fixture
def settings(tmp_path: Path, risk_policy: Policy, declarations: Declarations, risk_records: Make) -> Settings:
    """A workspace with a reference for v1 and nothing else."""
    made = Settings(home=tmp_path)
    rows = feature_frame(risk_records(800, seed=9, start=START - 60 * DAY, days=58), declarations, risk_policy.features)
    write_profile(made.artifacts / "late_delivery" / "v1", rows, rows["prediction"], risk_policy, declarations)
    return made


@pytest.fixture
def filled(settings: Settings, risk_records: Make, shadow_of: Make) -> tuple[Settings, Landing, list[Any]]:
    """Decisions and shadow scores in the log, outcomes in the landing a day after each decision."""
    records = risk_records(400)
    log, scores = DecisionLog(settings.decisions), SegmentLog(settings.decisions, "shadow")
    for record in records:
        log.append(record)
    for score in shadow_of(records, "v2", 0.25):
        scores.append_json("k", shadow_json(score))
    late = np.random.default_rng(2).random(400) < np.array([r.answer.probability for r in records])
    landing = Landing(settings.lake / "landing")
    ids = [r.subject["shipment_id"] for r in records]
    known = [r.as_of + DAY for r in records]
    frame = events("outcome", event_id=ids, event_time=known, known_at=known, shipment_id=ids, late=late)
    assert landing.append("outcome", frame, source="test").quarantined == 0
    return settings, landing, records


def test_log_and_memory_give_the_same(
    filled: tuple[Settings, Landing, list[Any]], risk_policy: Policy, declarations: Declarations, tmp_path: Path
) -> None:
    """A monitor that reads the log and one that is handed the records say the same, by Evidently and by our own PSI."""
    settings, landing, records = filled
    logged = Monitor(settings, risk_policy, declarations)
    done = logged.update(landing, NOW)
    assert (done.matured, done.waiting) == (372, 28)
    other = Settings(home=tmp_path / "other")
    shutil.copytree(settings.artifacts, other.artifacts)
    handed = Monitor(other, risk_policy, declarations, psi.measure)
    handed.update(landing, NOW, records, [])
    one, two = logged.look(STATE, NOW), handed.look(STATE, NOW)
    assert (one.verdict.rows, one.verdict.matured) == (400, done.matured)
    assert (one.verdict.health, one.verdict.loss) == (two.verdict.health, two.verdict.loss)
    for mine, theirs in zip(one.stats.columns, two.stats.columns, strict=True):
        assert mine.psi == pytest.approx(theirs.psi)


def test_a_second_update_reads_only_what_is_new(
    filled: tuple[Settings, Landing, list[Any]], risk_policy: Policy, declarations: Declarations
) -> None:
    """Nothing new gives nothing; outcomes that were known later mature later without being read again."""
    settings, landing, _ = filled
    monitor = Monitor(settings, risk_policy, declarations)
    first = monitor.update(landing, NOW)
    assert monitor.update(landing, NOW).matured == 0
    later = monitor.update(landing, NOW + DAY)
    assert (first.matured, later.matured, later.waiting) == (372, 28, 0)
    assert len(monitor.records) == len(monitor.tracker.frame()) == 400
    assert monitor.tracker.book.counts.repeated == 0


def test_evidence_pairs_come_from_the_shadow_stream(
    filled: tuple[Settings, Landing, list[Any]], risk_policy: Policy, declarations: Declarations
) -> None:
    """Each matured decision has the champion's and the challenger's loss; without a challenger there is no evidence."""
    settings, landing, _ = filled
    monitor = Monitor(settings, risk_policy, declarations)
    done = monitor.update(landing, NOW)
    found = monitor.evidence(STATE, NOW)
    assert found is not None
    assert (found.decisions, len(found.pairs_challenger)) == (400, done.matured)
    assert set(np.round(found.pairs_challenger, 4)) == {0.0625, 0.5625}
    assert monitor.evidence(RolloutState("late_delivery", champion="v1"), NOW) is None


def test_report_and_missing_references(
    filled: tuple[Settings, Landing, list[Any]], risk_policy: Policy, declarations: Declarations, tmp_path: Path
) -> None:
    """HTML is written; a version without reference is not judged ok; without a champion there is nothing to judge."""
    settings, landing, _ = filled
    monitor = Monitor(settings, risk_policy, declarations)
    monitor.update(landing, NOW)
    assert monitor.report(STATE, NOW, tmp_path / "r.html") == tmp_path / "r.html"
    blind = RolloutState("late_delivery", champion="v7", champion_since=START)
    assert monitor.run(blind, NOW)[0].health is Health.NOT_ENOUGH
    assert monitor.report(blind, NOW, tmp_path / "none.html") is None
    with pytest.raises(InputInvalid, match="champion"):
        monitor.run(RolloutState("late_delivery"), NOW)


def test_demand_labels_come_from_daily_events(
    tmp_path: Path, demand_policy: Policy, declarations: Declarations, forecast_record: Make
) -> None:
    """Closed and stocked-out days are dropped from the loss, weekly events are no daily label."""
    landing, record = Landing(tmp_path / "landing"), forecast_record(mean=12.0, steps=3)
    days = [START, START + DAY, START + 2 * DAY, START]
    frame = events(
        "demand", event_id=list("abcd"), event_time=days, known_at=[day + DAY for day in days], sku=["milk"] * 4,
        location=["L1"] * 4, quantity=[10.0, 0.0, 99.0, 500.0], period=["day", "day", "day", "week"],
        closed=[False, True, None, None], stocked_out=[None, None, True, None],
    )  # fmt: skip
    assert landing.append("demand", frame, source="test").landed == 4
    monitor = Monitor(Settings(home=tmp_path), demand_policy, declarations)
    assert monitor.update(landing, NOW, [record], []).matured == 1
    assert monitor.tracker.frame()[["steps", "loss"]].to_numpy().tolist() == [[1.0, 1.0]]
