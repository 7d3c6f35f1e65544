"""A training as MLflow itself reads it, and a store that does not answer."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contracts.declarations import Declarations
from contracts.errors import DependencyDown
from contracts.evaluation import TrainedModel
from contracts.policy import Policy
from models.mlflow_run import log_training
from models.training import train

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def candidate(
    tmp_path_factory: pytest.TempPathFactory, risk_policy: Policy, declarations: Declarations, risk: pd.DataFrame
) -> TrainedModel:
    """A trained risk model."""
    return train(risk_policy, risk, declarations, now=NOW, out=tmp_path_factory.mktemp("mlflow") / "model")


@pytest.mark.slow
def test_a_training_is_a_run_that_mlflow_can_read(candidate: TrainedModel, risk_policy: Policy, tmp_path: Path) -> None:
    """Metrics, parameters, dataset, figures, card, and a booster that MLflow loads and that predicts alike."""
    import mlflow
    from mlflow.tracking import MlflowClient

    from models import boosters

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    hashes = {"features_hash": "f" * 64, "policy_hash": risk_policy.hash, "code_revision": "abc"}
    run_id = log_training(uri, risk_policy, candidate, **hashes, artifact_root=tmp_path / "artifacts")
    client = MlflowClient(uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["candidate.brier"] < run.data.metrics["incumbent.brier"]
    assert run.data.tags["seatrial.dataset_hash"] == candidate.dataset_hash
    assert run.data.params["incumbent"] == "rolling_late_rate"
    files = {item.path for part in ("training", "figures") for item in client.list_artifacts(run_id, part)}
    assert {"training/card.html", "figures/figure_reliability.png"} <= files
    model = client.search_logged_models([run.info.experiment_id])[0]
    booster = mlflow.lightgbm.load_model(f"models:/{model.model_id}")
    mine = boosters.read((candidate.folder / "trees.txt").read_text())
    rows = np.random.default_rng(1).normal(size=(5, mine.num_feature()))
    assert (booster.predict(rows) == mine.predict(rows)).all()
    assert not [p for p in (tmp_path / "artifacts").rglob("*") if p.suffix in (".pkl", ".pickle", ".joblib")]


def test_a_store_that_does_not_answer_is_said(candidate: TrainedModel, risk_policy: Policy, tmp_path: Path) -> None:
    """Not a traceback of somebody else's library."""
    hashes = {"features_hash": "f", "policy_hash": "p", "code_revision": "c"}
    uri = f"sqlite:///{tmp_path / 'no' / 'such' / 'folder' / 'mlflow.db'}"
    (tmp_path / "no").write_text("a file where a folder should be")
    with pytest.raises(DependencyDown, match="MLflow"):
        log_training(uri, risk_policy, candidate, **hashes, artifact_root=tmp_path)
