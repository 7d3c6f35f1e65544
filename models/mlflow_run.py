"""A training as an MLflow run: parameters, metrics, datasets, figures, card, and the booster as a model of MLflow's."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from contracts.canonical import canonical_json, sha256_hex
from contracts.errors import DependencyDown
from contracts.evaluation import Evaluation, TrainedModel
from contracts.policy import Policy
from models import boosters
from models.environment import environment_hash

NAME = re.compile(r"[^0-9A-Za-z_\-. :/]")
BOOSTER_FILE = {"forecast": "mean.txt", "risk": "trees.txt"}
LOGGED_FILES = ("card.html", "card.json", "evaluation.json", "losses.parquet", "spec.json", "calibration.json")
LONGEST_DIGEST = 36
MOST_METRICS = 1000
CONTEXT = "mlflow.data.context"
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
    key: str = "",
) -> str:
    """Record a training in MLflow's experiment of the model's name, made when it is not there.

    Args:
        tracking_uri: of the tracking store, like sqlite:///mlflow.db.
        policy: what was trained. trained: the candidate on disk.
        features_hash, policy_hash, code_revision: tags by which the run can be found.
        artifact_root: folder for the artifacts of a new experiment.
        key: names this training: a run that it finished before is returned, one that it left half done is ended.

    Returns:
        the run's id. The model is logged as `candidate` in LightGBM's own text: no pickle.

    Raises:
        DependencyDown: the tracking store does not answer.
    """
    os.environ.update(SWITCHES)
    import mlflow
    from mlflow import lightgbm as mlflow_lightgbm
    from mlflow.exceptions import MlflowException

    what, environment = environment_hash()
    tags = {
        "seatrial.kind": trained.kind,
        "seatrial.features": policy.features,
        "seatrial.features_hash": features_hash,
        "seatrial.policy_hash": policy_hash,
        "seatrial.code_revision": code_revision,
        "seatrial.dataset_hash": trained.dataset_hash,
        "seatrial.environment": f"{environment} of {what}",
        "seatrial.training": key,
    }
    try:
        mlflow.set_tracking_uri(tracking_uri)
        client = mlflow.MlflowClient(tracking_uri)
        experiment = _experiment(client, policy.model, artifact_root)
        known = _finished(client, experiment, key)
        if known:
            return known
        name = f"{policy.model} {trained.trained_at:%Y-%m-%d}"
        with mlflow.start_run(experiment_id=experiment, run_name=name, tags=tags) as run:
            run_id = str(run.info.run_id)
            # The model first: logging one reads every metric of its run again, one by one.
            text = (trained.folder / BOOSTER_FILE[trained.kind]).read_text(encoding="utf-8")
            mlflow_lightgbm.log_model(boosters.read(text), name="candidate", pip_requirements=["lightgbm"])
            _log_rest(client, run_id, policy, trained)
            return run_id
    except (MlflowException, OSError) as error:
        raise DependencyDown("MLflow", str(error).splitlines()[0]) from error


def _experiment(client: Any, name: str, artifact_root: Path) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    folder = artifact_root.absolute() / name
    return str(client.create_experiment(name, artifact_location=folder.as_uri()))


def _finished(client: Any, experiment: str, key: str) -> str | None:
    """The run that this very training finished before; runs of it that a kill left open are ended as killed."""
    if not key:
        return None
    same = client.search_runs([experiment], filter_string=f"tags.`seatrial.training` = '{key}'", max_results=50)
    for run in same:
        if run.info.status == "FINISHED":
            return str(run.info.run_id)
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, status="KILLED")
    return None


def _log_rest(client: Any, run_id: str, policy: Policy, trained: TrainedModel) -> None:
    """Metrics and parameters in one call, what went in, and the files."""
    from mlflow.entities import Metric, Param

    at = int(trained.trained_at.timestamp() * 1000)
    metrics = [Metric(name, value, at, 0) for name, value in run_metrics(trained.evaluation).items()]
    params = [Param(name, value) for name, value in _params(policy, trained).items()]
    client.log_batch(run_id, metrics=metrics[:MOST_METRICS], params=params)
    client.log_inputs(run_id, datasets=_inputs(policy, trained))
    for file in LOGGED_FILES:
        client.log_artifact(run_id, str(trained.folder / file), "training")
    for path in trained.figures.values():
        client.log_artifact(run_id, str(path), "figures")


def _params(policy: Policy, trained: TrainedModel) -> dict[str, str]:
    plan = policy.training.model_dump(mode="json")
    shown = {f"training.{name}": canonical_json(value) for name, value in plan.items()}
    shown |= {f"booster.{name}": str(value) for name, value in trained.params.items()}
    spec = json.loads((trained.folder / "spec.json").read_text(encoding="utf-8"))
    shown["training.seed"] = str(spec["version_info"]["seed"])
    return shown | {"incumbent": policy.incumbent, "rows": str(trained.rows)}


def run_metrics(found: Evaluation) -> dict[str, float]:
    """Metrics by name, the most general first, so that what is cut off at MLflow's limit are small segments.

    `who.metric` over all rows; by third of the horizon and by segment, as `who.metric/horizon:1-5` and
    `who.metric/origin:EWR`, every metric of the candidate and the gate's loss of everybody else.
    """
    shown = {"reference_loss": found.reference_loss}
    frame = found.metrics.assign(depth=(found.metrics["slice"] != "") + 2 * (found.metrics["segment"] != ""))
    for line in frame.sort_values("depth", kind="stable").to_dict(orient="records"):
        who, metric, cut, value = line["who"], line["metric"], line["segment"] or line["slice"], line["value"]
        if value != value or (cut and who != "candidate" and metric != found.loss):
            continue
        name = NAME.sub("_", f"{who}.{metric}" + (f"/{cut.replace('=', ':', 1)}" if cut else ""))
        while name in shown:  # two segments whose names differ only in what MLflow does not allow
            name += "_"
        shown[name] = float(value)
    return shown


def _inputs(policy: Policy, trained: TrainedModel) -> list[Any]:
    """What went in: the rows that were known, the rows that were scored, and every source with its state then."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.entities import Dataset, DatasetInput, InputTag

    found = trained.evaluation.dataset
    source = json.dumps(CodeDatasetSource(tags={"seatrial.dataset_hash": trained.dataset_hash}).to_dict())
    digest = trained.dataset_hash[:LONGEST_DIGEST]
    rows = {"hash": trained.dataset_hash, "features": policy.features}
    known = {"num_rows": found["known_rows"], "as_of_from": found["known_from"], "as_of_until": found["known_until"]}
    scored = {name: found[name] for name in ("as_of_from", "as_of_until", "origins")} | {"num_rows": found["rows"]}

    def given(name: str, digest: str, profile: dict[str, Any], context: str) -> Any:
        entry = Dataset(name, digest, "code", source, profile=json.dumps(profile))
        return DatasetInput(entry, [InputTag(CONTEXT, context)])

    inputs = [
        given(f"{trained.model} training set", digest, rows | known, "training"),
        given(f"{trained.model} backtest", digest, rows | scored, "evaluation"),
    ]
    for one in found.get("sources", []):
        name = f"{one['kind']} from {one['source'] or 'nobody'}"
        inputs.append(given(name, sha256_hex(canonical_json(one).encode())[:LONGEST_DIGEST], one, "source"))
    return inputs
