"""What of a training is in its MLflow run: datasets, sources, hashes, metrics by segment and horizon; once each."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from contracts.declarations import Declarations
from contracts.evaluation import METRIC_COLUMNS, Evaluation, TrainedModel
from contracts.policy import Policy
from models.environment import LOCK, environment_hash
from models.mlflow_run import log_training, run_metrics
from models.training import train

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SOURCE = {
    "source": "till $1 'north'",
    "kind": "demand",
    "state": "validated",
    "rows": 812,
    "newest_event": "2026-05-30T00:00:00+00:00",
    "newest_known": "2026-05-31T00:00:00+00:00",
    "reasons": "the newest event is 2 days old, wanted 1",
}
HASHES = {"features_hash": "f" * 64, "policy_hash": "p" * 64, "code_revision": "abc"}


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, demand_policy: Policy, declarations: Declarations, demand: pd.DataFrame
) -> TrainedModel:
    """A forecast whose source was not at its best, trained with another seed than the policy's."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    return train(demand_policy, demand, declarations, now=NOW, out=folder, sources=[SOURCE], seed=23)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for one MLflow store."""
    return tmp_path_factory.mktemp("store")


def logged(store: Path, policy: Policy, trained: TrainedModel, key: str) -> Any:
    """The run of a training, read through MLflow's own client."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{store / 'mlflow.db'}"
    run_id = log_training(uri, policy, trained, **HASHES, artifact_root=store / "artifacts", key=key)
    return MlflowClient(uri).get_run(run_id)


@pytest.mark.slow
def test_a_run_says_what_went_in(store: Path, demand_policy: Policy, trained: TrainedModel) -> None:
    """Training set and backtest with hash, rows and span, each source with its state, hashes of everything else."""
    run = logged(store, demand_policy, trained, "first")
    given = {one.tags[0].value: one.dataset for one in run.inputs.dataset_inputs}
    assert set(given) == {"training", "evaluation", "source"}
    known, scored = (json.loads(given[name].profile) for name in ("training", "evaluation"))
    found = trained.evaluation.dataset
    assert trained.dataset_hash == known["hash"] == found["hash"]
    assert trained.dataset_hash.startswith(given["training"].digest)
    assert (known["num_rows"], scored["num_rows"]) == (found["known_rows"], found["rows"])
    assert known["as_of_from"] < scored["as_of_from"] < scored["as_of_until"]
    assert json.loads(given["source"].profile) == SOURCE
    tags = {name.removeprefix("seatrial."): value for name, value in run.data.tags.items()}
    assert {name: tags[name] for name in HASHES} == HASHES
    assert tags["environment"] == f"{hashlib.sha256(LOCK.read_bytes()).hexdigest()} of requirements.lock"
    assert run.data.params["training.seed"] == "23"


@pytest.mark.slow
def test_the_same_training_is_one_run(store: Path, demand_policy: Policy, trained: TrainedModel) -> None:
    """A run that was finished is taken again; one that a kill left open is ended as killed and made anew."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    first = logged(store, demand_policy, trained, "same")
    assert logged(store, demand_policy, trained, "same").info.run_id == first.info.run_id
    tags = {"seatrial.training": "left open"}
    left = client.create_run(first.info.experiment_id, tags=tags)
    again = logged(store, demand_policy, trained, "left open")
    assert again.info.run_id != left.info.run_id
    assert (client.get_run(left.info.run_id).info.status, again.info.status) == ("KILLED", "FINISHED")
    assert logged(store, demand_policy, trained, "").info.run_id not in (first.info.run_id, again.info.run_id)


@pytest.mark.slow
def test_metrics_are_by_horizon_and_segment(store: Path, demand_policy: Policy, trained: TrainedModel) -> None:
    """Each metric of the candidate in each third of the horizon and each segment, under MLflow's own names."""
    shown = logged(store, demand_policy, trained, "first").data.metrics
    assert shown == pytest.approx(run_metrics(trained.evaluation))
    for name in ("rmsse", "wql", "bias", "coverage"):
        assert {f"candidate.{name}/horizon:{third}" for third in ("1-5", "6-10", "11-14")} <= set(shown)
        assert f"candidate.{name}/volume:A" in shown
    assert "incumbent.rmsse/volume:A" in shown


def test_segments_that_look_alike_to_mlflow_are_kept_apart() -> None:
    """Characters that it refuses are replaced, and no metric takes another's place; what is general comes first."""
    lines = [
        ("candidate", "brier", f"lane={lane}", "", value, 9)
        for lane, value in (("A\u2192B", 0.1), ("A+B", 0.2), ("A B", 0.3))
    ]
    lines += [("candidate", "brier", "", "", 0.4, 27), ("candidate", "auc", "", "", float("nan"), 27)]
    frame = pd.DataFrame(lines, columns=list(METRIC_COLUMNS))
    shown = run_metrics(Evaluation(pd.DataFrame(), frame, "brier", {}, {}, 0.4))
    assert list(shown) == [
        "reference_loss",
        "candidate.brier",
        "candidate.brier/lane:A_B",
        "candidate.brier/lane:A_B_",
        "candidate.brier/lane:A B",
    ]
    assert sorted(shown.values()) == [0.1, 0.2, 0.3, 0.4, 0.4]


def test_a_set_up_without_a_lock_is_known_by_what_is_installed(tmp_path: Path) -> None:
    """Names and versions of all distributions; a lock's hash where there is one."""
    assert environment_hash()[0] == "requirements.lock"
    what, found = environment_hash(tmp_path / "requirements.lock")
    assert (what, len(found)) == ("installed distributions", 64)
    assert found != environment_hash()[1]
