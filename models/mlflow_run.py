"""A training as an MLflow run: parameters, metrics, dataset, figures, card, and the booster as a model of MLflow's."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from contracts.canonical import canonical_json
from contracts.errors import DependencyDown
from contracts.evaluation import Evaluation, TrainedModel
from contracts.policy import Policy
from models import boosters

NAME = re.compile(r"[^0-9A-Za-z_\-. :/]")
BOOSTER_FILE = {"forecast": "mean.txt", "risk": "trees.txt"}
LOGGED_FILES = ("card.html", "card.json", "evaluation.json", "losses.parquet", "spec.json", "calibration.json")
LONGEST_DIGEST = 36
# Neither of these is wanted: loading pickles, and a server that runs jobs.
SWITCHES = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def log_training(
    tracking_uri: str,
    policy: Policy,
    trained: TrainedModel,
    *,
    features_hash: str,
    policy_hash: str,
    code_revision: str,
    artifact_root: Path,
) -> str:
    """Record a training in MLflow's experiment of the model's name, made when it is not there.

    Args:
        tracking_uri: of the tracking store, like sqlite:///mlflow.db.
        policy: what was trained. trained: the candidate on disk.
        features_hash, policy_hash, code_revision: tags by which the run can be found.
        artifact_root: folder for the artifacts of a new experiment.

    Returns:
        the run's id. The model is logged as `candidate` in LightGBM's own text: no pickle.

    Raises:
        DependencyDown: the tracking store does not answer.
    """
    os.environ.update(SWITCHES)
    import mlflow
    from mlflow import lightgbm as mlflow_lightgbm
    from mlflow.exceptions import MlflowException

    tags = {
        "seatrial.kind": trained.kind,
        "seatrial.features": policy.features,
        "seatrial.features_hash": features_hash,
        "seatrial.policy_hash": policy_hash,
        "seatrial.code_revision": code_revision,
        "seatrial.dataset_hash": trained.dataset_hash,
    }
    try:
        mlflow.set_tracking_uri(tracking_uri)
        experiment = _experiment(mlflow, policy.model, artifact_root)
        with mlflow.start_run(
            experiment_id=experiment, run_name=f"{policy.model} {trained.trained_at:%Y-%m-%d}"
        ) as run:
            mlflow.set_tags(tags)
            mlflow.log_params(_params(policy, trained))
            mlflow.log_metrics(run_metrics(trained.evaluation))
            _log_dataset(mlflow, trained)
            for name in LOGGED_FILES:
                mlflow.log_artifact(str(trained.folder / name), "training")
            for path in trained.figures.values():
                mlflow.log_artifact(str(path), "figures")
            text = (trained.folder / BOOSTER_FILE[trained.kind]).read_text(encoding="utf-8")
            mlflow_lightgbm.log_model(boosters.read(text), name="candidate", pip_requirements=["lightgbm"])
            return str(run.info.run_id)
    except (MlflowException, OSError) as error:
        raise DependencyDown("MLflow", str(error).splitlines()[0]) from error


def _experiment(mlflow: Any, name: str, artifact_root: Path) -> str:
    found = mlflow.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    folder = artifact_root.absolute() / name
    return str(mlflow.create_experiment(name, artifact_location=folder.as_uri()))


def _params(policy: Policy, trained: TrainedModel) -> dict[str, str]:
    plan = policy.training.model_dump(mode="json")
    shown = {f"training.{name}": canonical_json(value) for name, value in plan.items()}
    shown |= {f"booster.{name}": str(value) for name, value in trained.params.items()}
    return shown | {"incumbent": policy.incumbent, "rows": str(trained.rows)}


def run_metrics(found: Evaluation) -> dict[str, float]:
    """Every metric over all rows as `who.metric`, and the candidate's gate loss by segment and slice."""
    shown = {"reference_loss": found.reference_loss}
    for line in found.metrics.to_dict(orient="records"):
        who, metric, segment, piece, value = (line[name] for name in ("who", "metric", "segment", "slice", "value"))
        if value != value:
            continue
        if not segment and not piece:
            shown[f"{who}.{metric}"] = float(value)
        elif who == "candidate" and metric == found.loss:
            shown[NAME.sub("_", f"{who}.{metric}/{segment or piece}")] = float(value)
    return shown


def _log_dataset(mlflow: Any, trained: TrainedModel) -> None:
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    source = CodeDatasetSource(tags={"seatrial.dataset_hash": trained.dataset_hash})
    digest = trained.dataset_hash[:LONGEST_DIGEST]
    mlflow.log_input(MetaDataset(source, name=f"{trained.model} training set", digest=digest), context="training")
