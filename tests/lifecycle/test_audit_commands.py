"""`seatrial features audit` and `seatrial features skew` on the small voyage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.rollout import Outcome
from lifecycle.pipeline import training_set
from lifecycle.workspace import Workspace
from tests.lifecycle.command_runs import Ended, Run, ran

LAST = "2026-05-01T00:00:00Z"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sailed: Any) -> Run:
    """Runs `seatrial features ...` as the console script does, on the sailed workspace."""

    def command(*arguments: object) -> Ended:
        return ran(monkeypatch, capsys, sailed.yard.environment(), ("features", *arguments))

    return command


def test_a_models_training_set_is_clean(run: Run) -> None:
    """The model by its name: brute force, label leaks and the deleted future find nothing, exit code 0."""
    ended = run("audit", "demand", "--sample", 10, "--edges", 10, "--moments", 1, "--json")
    assert ended.code == 0
    found = ended.json
    assert (found["clean"], found["differing"], found["suspects"], found["service"]) == (True, 0, [], "demand_v1")
    assert found["audited_rows"] >= 10
    assert found["cells"] > 200
    assert found["future_deleted"]["cells"] > 100
    assert found["future_deleted"]["changed"] == 0
    assert found["edges"]["demand_history"]["at_cut"] > found["edge_rows_left_out"]["demand_history"] > 0


def test_a_planted_leak_in_a_file_is_reported(run: Run, workspace: Workspace, tmp_path: Path) -> None:
    """A training set as a file with one cell from tomorrow: exit code 1, and people read cell, values and event."""
    rows = training_set(workspace, workspace.policy("demand"), workspace.clock.now())
    file = tmp_path / "rows.parquet"
    some = rows.tail(30).reset_index(drop=True)
    some.to_parquet(file)
    clean = run("audit", file, "--service", "demand_v1", "--sample", 30, "--edges", 5, "--moments", 1, "--json")
    assert (clean.code, clean.json["training_rows"]) == (0, 30)
    some.loc[29, "demand_history__lag_1"] += 777.0
    some.to_parquet(file)
    ended = run("audit", file, "--service", "demand_v1", "--sample", 30, "--edges", 5, "--moments", 1, "--json")
    assert ended.code == 1
    (one,) = ended.json["differences"]
    assert (one["row_id"], one["column"]) == (some["row_id"][29], "demand_history__lag_1")
    assert one["given"] == one["wanted"] + 777.0
    assert one["events"][0]["event_id"]
    shown = run("audit", file, "--service", "demand_v1", "--sample", 30, "--edges", 5, "--moments", 0)
    assert shown.code == 1
    assert "brute force: demand_history" in shown.err
    assert "demand_history__lag_1" in shown.out


def test_until_bounds_the_rows(run: Run, workspace: Workspace, tmp_path: Path) -> None:
    """Rows decided after --until are left out; none left is said."""
    rows = training_set(workspace, workspace.policy("demand"), workspace.clock.now())
    file = tmp_path / "rows.parquet"
    rows.to_parquet(file)
    middle = rows["as_of"].sort_values().iloc[len(rows) // 2]
    options = ("--service", "demand_v1", "--sample", 3, "--edges", 3, "--moments", 0, "--json")
    ended = run("audit", file, *options, "--until", middle.isoformat())
    assert ended.json["training_rows"] == int((rows["as_of"] <= middle).sum())
    ended = run("audit", file, *options, "--until", "2001-01-01")
    assert (ended.code, "rows of the training set" in ended.err) == (1, True)


def test_what_cannot_be_audited_is_said(run: Run, tmp_path: Path) -> None:
    """No service for a file, a file that is none, a model or service that is not known: exit code 2, no traceback."""
    text = tmp_path / "rows.parquet"
    text.write_text("not parquet")
    for arguments, words in (
        (("audit", text), "--service"),
        (("audit", text, "--service", "demand_v1"), "a readable Parquet file"),
        (("audit", tmp_path / "none.parquet", "--service", "demand_v1"), "none.parquet"),
        (("audit", "demnad"), "did you mean 'demand'?"),
        (("audit", "demand", "--service", "other_v1"), "--service is for a file"),
        (("skew", "demnad"), "did you mean 'demand'?"),
    ):
        ended = run(*arguments)
        assert (ended.code, words in ended.err.replace("\n", " ")) == (2, True), (arguments, ended.err)
        assert "Traceback" not in ended.err


def test_the_voyage_has_no_skew(run: Run) -> None:
    """Every decision of the voyage against the offline join: nothing differs, exit code 0."""
    ended = run("skew", "demand", "--json")
    assert ended.code == 0
    found = ended.json
    assert found["decisions"] == 8 * 24
    assert (found["differing_features"], found["over"]) == (0, [])
    assert found["by_feature"]["weekday"]["pure"]
    assert found["by_feature"]["weekday"]["rows"] == 8 * 24 * 7
    assert run("skew", "demand", "--sample", 10).code == 0


def test_every_training_of_the_voyage_was_audited(sailed: Any, workspace: Workspace) -> None:
    """The gate of each trial names the audit, and the sealed evaluation holds what it compared."""
    assert len(sailed.story.trials) >= 2
    for _, trial in sailed.story.trials:
        criterion = next(one for one in trial.verdict.criteria if one.name == "leakage_audit")
        assert criterion.outcome is Outcome.PASS, criterion.words
        sealed = json.loads((workspace.artifacts.path("demand", trial.version) / "evaluation.json").read_text())
        assert sealed["dataset"]["leakage_audit"] == trial.trained.evaluation.dataset["leakage_audit"]
        assert sealed["dataset"]["leakage_audit"]["cells"] > 50
