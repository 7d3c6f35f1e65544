"""`seatrial train`, `tune`, `backtest`, `compare` and `card`: what a kill leaves, what is recorded, what is printed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lifecycle.command_runs import Ended, Run, ran
from tests.lifecycle.conftest import POLICY, Yard, lay_out

ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "SEATRIAL_THREADS": "1"}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command of `seatrial` as the console script does, on a yard's workspace."""

    def command(yard: Yard, *arguments: object) -> Ended:
        return ran(monkeypatch, capsys, yard.environment() | ONE_THREAD, arguments)

    return command


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with its tables and nothing in them; making the tables takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


def landed(root: Path, schema: Path, run: Run, rounds: int) -> Yard:
    """A yard whose sales have landed, with fits of so many rounds."""
    root.mkdir(exist_ok=True)
    yard = lay_out(root)
    (root / "policies" / "demand.yaml").write_text(POLICY.replace("rounds: 30", f"rounds: {rounds}"))
    assert run(yard, "ingest", yard.mapping, yard.file).code == 0
    shutil.copy(schema, yard.settings.home / "mlflow.db")
    return yard


@pytest.fixture
def yard(tmp_path: Path, schema: Path, run: Run) -> Yard:
    """A yard whose sales have landed."""
    return landed(tmp_path / "yard", schema, run, 30)


def killed_when(yard: Yard, sign: str, *arguments: str, **environment: str) -> None:
    """Run a command in a process of its own until a file like `sign` is in its home; then SIGKILL."""
    words = [sys.executable, "-m", "lifecycle.cli", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SEATRIAL_")}
    process = subprocess.Popen(words, cwd=ROOT, env=clean | yard.environment() | ONE_THREAD | environment)
    while process.poll() is None:
        if sign and list(yard.settings.home.glob(sign)):
            process.kill()
        time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL


def files(yard: Yard, version: str = "v1") -> dict[str, bytes]:
    """The files of a registered version but its manifest, which names the MLflow run."""
    folder = yard.settings.artifacts / "demand" / version
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "manifest.json"}


def finished_runs(yard: Yard) -> list[str]:
    """The MLflow runs of a yard that came to their end."""
    from mlflow import MlflowClient

    client = MlflowClient(yard.settings.tracking)
    experiment = client.get_experiment_by_name("demand")
    assert experiment
    return [run.info.run_id for run in client.search_runs([experiment.experiment_id]) if run.info.status == "FINISHED"]


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_in_the_same_bytes(tmp_path: Path, schema: Path, run: Run) -> None:
    """SIGKILL after the first fold: the next run keeps that fold, and its files are those of an undisturbed run."""
    cut, whole = (landed(tmp_path / name, schema, run, 700) for name in ("cut", "whole"))
    killed_when(cut, "work/demand/*/fold-*/sums.json", "train", "demand")
    folds = sorted(path.name for path in (cut.settings.home / "work" / "demand").glob("*/fold-*"))
    ended, other = run(cut, "train", "demand", "--json"), run(whole, "train", "demand", "--json")
    assert (ended.code, other.code) == (0, 0), ended.err
    assert ended.json["kept"] == folds[: len(ended.json["kept"])] != []
    assert other.json["kept"] == []
    assert files(cut) == files(whole)
    assert not list((cut.settings.home / "work" / "demand").iterdir())


@pytest.mark.slow
def test_a_training_killed_before_it_registers_takes_its_finished_run(yard: Yard, run: Run) -> None:
    """SIGKILL between MLflow and registry: the next run fits nothing, logs nothing, and registers that very run."""
    killed_when(yard, "", "train", "demand", SEATRIAL_CRASH_AT="register.sealed")
    runs = finished_runs(yard)
    assert len(runs) == 1
    assert not (yard.settings.artifacts / "demand").exists()
    ended = run(yard, "train", "demand")
    assert ended.code == 0, ended.err
    kept = [line for line in ended.err.splitlines() if line.endswith(" kept")]
    assert (len(kept), kept[-1]) == (4, "final kept")
    assert finished_runs(yard) == runs
    manifest = json.loads((yard.settings.artifacts / "demand" / "v1" / "manifest.json").read_text())
    assert manifest["meta"]["run_id"] == runs[0]


def test_a_seed_changes_the_model_and_is_recorded(yard: Yard, run: Run) -> None:
    """--seed goes into model, MLflow and card; the policy stays the one that the file says."""
    first, second = run(yard, "train", "demand", "--json"), run(yard, "train", "demand", "--seed", 11, "--json")
    assert {first.json["version"], second.json["version"]} == {"v1", "v2"}
    old, new = files(yard), files(yard, "v2")
    assert old["mean.txt"] != new["mean.txt"]
    spec = [json.loads(found["spec.json"])["version_info"] for found in (old, new)]
    assert [info["seed"] for info in spec] == [7, 11]
    assert spec[0]["policy_hash"] == spec[1]["policy_hash"]
    assert json.loads(new["card.json"])["provenance"]["seed"] == "11"
    compared = run(yard, "compare", "demand", "v1", "v2", "--json").json
    assert compared["settings"] == {"seed": {"v1": 7, "v2": 11}}
    assert "that both backtests scored" in compared["rows"]


def test_two_versions_are_compared_on_the_same_rows(sailed: Any, run: Run) -> None:
    """Champion, newest other and incumbent: bounds of each pair, the metric by part, what differs in their making."""
    ended = run(sailed.yard, "compare", "demand", "--json")
    assert ended.code == 0, ended.err
    found = ended.json
    assert [(line["of"], line["against"]) for line in found["differences"]] == [
        ("v1", "v2"),
        ("v1", "incumbent"),
        ("v2", "incumbent"),
    ]
    for line in found["differences"]:
        assert (line["lower"] is None) == (line["days"] < 3) == (line["words"] == "too few days to say")
        assert line["lower"] is None or line["lower"] <= line["less_loss"] <= line["upper"]
    parts = {line["part"]: line for line in found["parts"]}
    assert parts["all rows"]["rows"] == sum(line["rows"] for part, line in parts.items() if part.startswith("step "))
    assert {"dataset_hash", "trained_until", "rows_until"} <= set(found["settings"])
    shown = run(sailed.yard, "compare", "demand", "v2", "v1")
    assert "v2 against incumbent" in shown.out
    assert run(sailed.yard, "compare", "demand", "v1", "v1").code == 2
    assert run(sailed.yard, "compare", "demand", "v1", "v99").code == 2


def test_one_version_cannot_be_compared(yard: Yard, run: Run) -> None:
    """Usage error that says what there is."""
    ended = run(yard, "compare", "demand")
    assert (ended.code, "two registered versions" in ended.err) == (2, True)


def test_a_card_is_found_printed_and_written(sailed: Any, run: Run, tmp_path: Path) -> None:
    """Where it lies, as JSON, and as one page; a version that was never registered is a usage error."""
    place = sailed.yard.settings.artifacts / "demand" / "v1" / "card.html"
    shown = run(sailed.yard, "card", "demand", "v1")
    assert shown.code == 0
    assert "planning <b>team</b>" in shown.out
    card = run(sailed.yard, "card", "demand", "v1", "--json").json
    assert {"owner", "hypothesis", "gates", "limits", "segments", "sources", "provenance"} <= set(card)
    assert card["sources"][0]["kind"] == "demand"
    assert run(sailed.yard, "card", "demand", "v1", "--out", tmp_path / "card.html").code == 0
    assert (tmp_path / "card.html").read_bytes() == place.read_bytes()
    ended = run(sailed.yard, "card", "demand", "v7")
    assert (ended.code, "version of demand" in ended.err) == (2, True)


def test_what_was_tuned_can_be_trained_with(yard: Yard, run: Run) -> None:
    """tune writes parameters that train takes; a dry run writes nothing; strange files are usage errors."""
    dry = run(yard, "tune", "demand", "--dry-run", "--json")
    assert dry.json["rows"] > 200
    assert not (yard.settings.home / "tuned").exists()
    found = run(yard, "tune", "demand", "--trials", 2, "--json")
    assert found.code == 0, found.err
    assert found.json["trials"]["complete"] == 2
    assert 0 < found.json["predict_ms"] < 1000
    file = yard.settings.home / "tuned" / "demand.json"
    assert json.loads(file.read_text()) == found.json["best"]
    assert run(yard, "train", "demand", "--params", file, "--json").json["version"] == "v1"
    assert json.loads(files(yard)["spec.json"])["version_info"]["params"] == found.json["best"]
    for text, word in (("[1]", "object"), ('{"num_leafs": 3}', "num_leaves"), ("{", "JSON")):
        file.write_text(text)
        ended = run(yard, "train", "demand", "--params", file)
        assert (ended.code, word in ended.err) == (2, True), ended.err


def test_a_backtest_registers_nothing(yard: Yard, run: Run) -> None:
    """Candidate, incumbent and statistical rivals, with the seed that was asked for; no version, no leftovers."""
    ended = run(yard, "backtest", "demand", "--seed", 3, "--json")
    assert ended.code == 0, ended.err
    assert {"candidate", "incumbent"} < set(ended.json["by"])
    assert ended.json["seed"] == 3
    assert not yard.settings.artifacts.exists()
    assert not list((yard.settings.home / "work" / "demand").iterdir())
