"""The watcher end to end in memory: A/A windows, planted shifts, broken feeds, a hard week, verdicts on disk."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.declarations import Declarations
from contracts.errors import InputInvalid
from contracts.evaluation import Evaluation
from contracts.monitoring import Health, Response
from contracts.policy import Policy
from drift.frames import feature_frame
from drift.maturity import matured
from drift.profile import Profile, read_profile, write_profile
from drift.watcher import Watcher

DAY = timedelta(days=1)
START = datetime(2026, 3, 1, tzinfo=UTC)
Make = Callable[..., Any]


def gate_figures(model: float, rule: float) -> Evaluation:
    """A backtest with these mean losses."""
    losses = pd.DataFrame({"candidate": [model] * 10, "incumbent": [rule] * 10})
    return Evaluation(losses, pd.DataFrame(), "brier", {}, {}, model)


@pytest.fixture(scope="module")
def profile(risk_policy: Policy, declarations: Declarations, risk_records: Make, tmp_path_factory: Any) -> Profile:
    """Reference of 2,000 decisions over twelve weeks before START, as a training would write it."""
    records = risk_records(2000, seed=99, start=START - 84 * DAY, days=83)
    rows = feature_frame(records, declarations, risk_policy.features)
    folder = tmp_path_factory.mktemp("reference")
    write_profile(folder, rows, rows["prediction"], risk_policy, declarations, evaluation=gate_figures(0.15, 0.16))
    return read_profile(folder)


@pytest.fixture
def watch(risk_policy: Policy, declarations: Declarations, outcomes: Make, profile: Profile, tmp_path: Path) -> Make:
    """Run one window of the records, whose outcomes follow the given probabilities."""

    def run(records: Any, late: Any, **more: Any) -> Any:
        labels = outcomes(records, late, timedelta(hours=1))
        done = matured(records, labels, risk_policy, declarations, START + 15 * DAY)
        asked = {"champion_since": START - DAY, "now": START + 14 * DAY, "profile": profile, **more}
        watcher = Watcher(risk_policy, declarations, tmp_path / "monitor")
        return watcher.run(version="v1", records=records, matured=done, **asked)

    return run


def chances(records: Any) -> Any:
    return np.array([record.answer.probability for record in records])


def test_windows_without_drift_are_rarely_anything_but_ok(watch: Make, risk_records: Make) -> None:
    """Twelve A/A windows, outcomes drawn from the answers: at most one finding among them."""
    health = []
    for seed in range(12):
        records = risk_records(450, seed=seed)
        health.append(watch(records, np.random.default_rng(seed).random(450) < chances(records)).verdict.health)
    assert health.count(Health.OK) >= 11
    assert Health.DEGRADED not in health
    assert Health.BROKEN not in health


def test_planted_shift_is_found(watch: Make, risk_records: Make) -> None:
    """Late rates 20 points higher everywhere: features and answers drift, each by name; alert, no retraining."""
    records = risk_records(450, shift=0.2)
    look = watch(records, np.random.default_rng(1).random(450) < chances(records))
    kinds = {finding.kind for finding in look.verdict.findings}
    assert look.verdict.health is Health.DRIFT
    assert {"feature_drift", "prediction_drift"} <= kinds
    assert any(finding.subject == "carrier_rates__late_rate_30" for finding in look.verdict.findings)
    assert look.decision.response is Response.ALERT


def test_a_dropped_view_and_an_all_null_view_are_broken(watch: Make, risk_records: Make) -> None:
    """A view that nobody reads any more, and one that finds no row, are broken data, not drift."""
    late = np.zeros(450)
    dropped = watch(risk_records(450, drop=["lane_rates"]), late).verdict
    assert dropped.health is Health.BROKEN
    assert any("lane_rates__n_30: the column is missing" in finding.words for finding in dropped.findings)
    blind = [
        record.model_copy(update={"views": tuple(
            view.model_copy(update={"values": {}, "status": "missing"}) if view.view == "origin_weather" else view
            for view in record.views
        )})
        for record in risk_records(450)
    ]  # fmt: skip
    nulls = watch(blind, late).verdict
    assert nulls.health is Health.BROKEN
    assert any("origin_weather__visibility: all values" in finding.words for finding in nulls.findings)


def test_a_concept_that_broke_is_degradation_and_a_hard_week_is_not(watch: Make, risk_records: Make) -> None:
    """Answers that lost their order against outcomes: degraded; outcomes as unlikely for everybody: not."""
    draw = np.random.default_rng(4)
    truth = draw.beta(1, 3, 450)
    late = draw.random(450) < truth
    wrong = watch(risk_records(450, probability=1 - truth), late).verdict
    assert wrong.health is Health.DEGRADED
    assert wrong.violation
    records = risk_records(450)
    hard = watch(records, draw.random(450) < 0.6).verdict
    assert hard.loss is not None
    assert hard.loss > 1.1 * 0.15
    assert not hard.violation


def test_too_few_rows_no_profile_and_a_new_champion_are_not_enough(watch: Make, risk_records: Make) -> None:
    """Five rows, no reference, or a champion since an hour: not enough data, never ok."""
    few, many = risk_records(5), risk_records(450)
    late = np.random.default_rng(1).random(450) < chances(many)
    cases = [
        watch(few, np.zeros(5)),
        watch(many, late, profile=None),
        watch(many, late, champion_since=START + 14 * DAY - timedelta(hours=1)),
        watch([], np.zeros(0)),
    ]
    assert {look.verdict.health for look in cases} == {Health.NOT_ENOUGH}
    assert all("not enough data" in look.decision.reason for look in cases)


def test_verdicts_survive_on_disk_and_a_second_run_writes_nothing(
    watch: Make, risk_records: Make, risk_policy: Policy, declarations: Declarations, tmp_path: Path
) -> None:
    """The same look twice is one line; a torn last line is skipped; windows come back equal."""
    records = risk_records(450, shift=0.2)
    first = watch(records, np.zeros(450))
    path = tmp_path / "monitor" / "late_delivery.jsonl"
    written = path.read_bytes()
    watch(records, np.zeros(450))
    assert path.read_bytes() == written
    path.write_bytes(written + b'{"format": 1, "mod')
    watcher = Watcher(risk_policy, declarations, tmp_path / "monitor")
    assert watcher.log.verdicts("v1") == [first.verdict]
    assert not watcher.due("v1", START + 20 * DAY)
    assert watcher.due("v1", START + 21 * DAY)
    later = watch(records, np.zeros(450), now=START + 15 * DAY)
    assert Watcher(risk_policy, declarations, tmp_path / "monitor").log.verdicts() == [first.verdict, later.verdict]


def test_report_is_written(
    watch: Make, risk_records: Make, profile: Profile, risk_policy: Policy, declarations: Declarations, tmp_path: Path
) -> None:
    """A look renders as HTML with the answers' own drift in it."""
    look = watch(risk_records(450), np.zeros(450))
    names = Watcher(risk_policy, declarations, tmp_path).report(look, profile, tmp_path / "r.html")
    assert "prediction" in names
    assert len(names) == risk_policy.drift.max_features + 1
    assert "carrier_rates__late_rate_30" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_profile_reads_back_and_refuses_what_it_does_not_know(
    profile: Profile, risk_policy: Policy, declarations: Declarations, risk_records: Make, tmp_path: Path
) -> None:
    """Names, order of importance and figures survive; another format or no file is refused."""
    rows = feature_frame(risk_records(50), declarations, risk_policy.features)
    written = write_profile(
        tmp_path, rows, rows["prediction"], risk_policy, declarations, importance=["nope", "distance_km"], max_rows=20
    )
    found = read_profile(tmp_path)
    assert found.columns == written.columns
    assert found.columns[0].name == "distance_km"
    assert len(found.sample) == 20
    assert np.isnan(found.loss)
    assert (profile.loss, profile.incumbent_loss) == (pytest.approx(0.15), pytest.approx(0.16))
    (tmp_path / "reference.json").write_text('{"format": 99}')
    with pytest.raises(InputInvalid, match="format"):
        read_profile(tmp_path)
    with pytest.raises(InputInvalid, match="no such file"):
        read_profile(tmp_path / "none")
    with pytest.raises(InputInvalid, match="prediction"):
        write_profile(tmp_path, rows, [0.5], risk_policy, declarations)


def test_answers_are_compared_where_the_reference_has_some(
    watch: Make, risk_records: Make, risk_policy: Policy, declarations: Declarations, tmp_path: Path
) -> None:
    """A reference with answers out of sample for its last tenth only still tells shifted answers from steady ones."""
    records = risk_records(4000, seed=99, start=START - 84 * DAY, days=83)
    rows = feature_frame(records, declarations, risk_policy.features)
    answers = rows["prediction"].where(rows.index >= 3600)
    write_profile(tmp_path, rows, answers, risk_policy, declarations, evaluation=gate_figures(0.15, 0.16))
    profile = read_profile(tmp_path)
    assert (len(profile.sample), int(profile.sample["prediction"].notna().sum())) == (2000, 400)
    steady, moved = risk_records(450), risk_records(450, probability=np.linspace(0.5, 0.9, 450))
    kinds = []
    for records in (steady, moved):
        late = np.random.default_rng(1).random(450) < chances(records)
        kinds.append({finding.kind for finding in watch(records, late, profile=profile).verdict.findings})
    assert not kinds[0]
    assert "prediction_drift" in kinds[1]
    assert "feature_drift" not in kinds[1]
