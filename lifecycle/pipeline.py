"""From landed events to a gated candidate: population, point-in-time training set, training, trial, registry."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from contracts.errors import NotEnoughData
from contracts.evaluation import TrainedModel
from contracts.policy import Policy
from contracts.rollout import Verdict
from lifecycle.progress import Progress, quiet
from lifecycle.unfinished import kept_fits, training_key
from lifecycle.workspace import Workspace

if TYPE_CHECKING:
    from models.kept_fits import KeptFits

MIN_TRAINING_ROWS = 200
# No multiple of 7: with cutoffs on one weekday only, step and weekday are the same thing to a model, it learns that
# yesterday was always that weekday, and answers worse than the rule on the six others, which the backtest never sees.
DAYS_BETWEEN_CUTOFFS = 6


@dataclass(frozen=True)
class Trial:
    """A candidate that was registered and gated; `kept`: fits that an interrupted run before had done."""

    version: str
    run_id: str
    trained: TrainedModel
    verdict: Verdict
    rows_kept: bool
    kept: tuple[str, ...] = ()


def build_features(ws: Workspace, policy: Policy, until: datetime) -> dict[str, int]:
    """Extend the model's views to `until` and put what is new online.

    Returns:
        rows written online, by view.
    """
    from features.build import build
    from features.materialize import materialize

    views = ws.declarations.services[policy.features].views
    build(ws.declarations, ws.landing, ws.gold, until=until, views=views)
    counts = materialize(ws.declarations, ws.gold, ws.online, until, views=views)
    return {view: count.written for view, count in counts.items()}


def population(ws: Workspace, policy: Policy, now: datetime) -> pd.DataFrame:
    """The rows that a candidate is trained and tried on: every label in it was known at `now`.

    A forecast's rows are (series, cutoff every sixth day, step); a risk's are shipments. More rows than the policy's
    cap are thinned by a seeded random choice, the same for the same seed.

    Raises:
        NotEnoughData: fewer rows with a known label than an honest trial needs.
    """
    from features.population import demand_population, shipment_population

    # The earliest fold looks back as far from its own origin as the final fit does from now.
    since = now - policy.training.history - policy.training.origins * policy.training.every
    if policy.kind == "forecast":
        horizon = policy.horizon or 1
        newest = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=horizon)
        count = int((newest - since) / timedelta(days=DAYS_BETWEEN_CUTOFFS)) + 1
        cutoffs = [newest - timedelta(days=DAYS_BETWEEN_CUTOFFS * back) for back in range(max(count, 0))][::-1]
        rows = demand_population(ws.landing, cutoffs=cutoffs, horizon=horizon, known_by=now)
    else:
        rows = shipment_population(ws.landing, since=since, until=now, known_by=now)
    # What had ended, and was known to have, before it was decided on is no decision (late paperwork does that).
    rows = rows[rows["label"].notna() & (rows["label_known_at"] > rows["as_of"])]
    if len(rows) < MIN_TRAINING_ROWS:
        raise NotEnoughData(f"training rows of {policy.model} with a known label", MIN_TRAINING_ROWS, len(rows))
    if len(rows) > policy.training.row_cap:
        rows = rows.sample(policy.training.row_cap, random_state=policy.training.seed)
    return rows.sort_values(["as_of", "row_id"], kind="stable").reset_index(drop=True)


def training_set(ws: Workspace, policy: Policy, now: datetime, progress: Progress = quiet) -> pd.DataFrame:
    """The population with the features that were known at each row's as_of, through Feast; views are built to `now`.

    Raises:
        NotEnoughData, RowGuarantee.
    """
    return joined(ws, policy, now, progress)[0]


def joined(ws: Workspace, policy: Policy, now: datetime, progress: Progress) -> tuple[pd.DataFrame, bool]:
    """A training set, and whether its rows are those that were asked for, in their order."""
    from features.build import build

    # events may have landed since the last build: the features must know what the labels know
    build(ws.declarations, ws.landing, ws.gold, until=now, views=ws.declarations.services[policy.features].views)
    progress("population", 0.0)
    asked = population(ws, policy, now)
    progress("point-in-time join", 0.0)
    rows = ws.feast.training_set(policy.features, asked)
    return rows, rows["row_id"].tolist() == asked["row_id"].tolist()


def train_candidate(
    ws: Workspace,
    policy: Policy,
    now: datetime,
    progress: Progress = quiet,
    params: dict[str, Any] | None = None,
    seed: int | None = None,
) -> Trial:
    """Build what is new, train, audit for leaks, profile, log to MLflow, register and gate one candidate.

    One training of a model at a time: a second one waits. The candidate's files are sealed before they are registered.
    A run that dies leaves the fits that it had finished; the same training (see unfinished.training_key) reads them,
    takes the MLflow run if that was complete, and ends in the same files and the same version.

    Args:
        now: the moment of the training. params: overrides of booster parameters. seed: in place of the policy's.

    Returns:
        the registered version with the gate's verdict.
    """
    from lifecycle.audits import training_audit
    from models.training import seeded
    from registry.gate import gate

    with ws.alone(f"train-{policy.model}"):
        rows, guaranteed = joined(ws, seeded(policy, seed), now, progress)
        progress("leakage audit", 0.0)
        audited = training_audit(ws, policy, rows)
        key = training_key(ws, policy, rows, now, params, seed)
        fits = kept_fits(ws, policy, key, progress)
        with tempfile.TemporaryDirectory(prefix="seatrial-train-") as folder:
            out = Path(folder) / "model"
            trained = beside_champion(ws, policy, rows, now, out, progress, params, audited, seed=seed, fits=fits)
            version, run_id = _registered(ws, policy, rows, trained, key, progress)
        has_champion = ws.registrar.state(policy.model).champion is not None
        verdict = gate(trained.evaluation, policy, has_champion=has_champion, now=now)
        ws.registrar.record_gate(policy, version, verdict)
        fits.remove()
    progress("gated", 1.0)
    return Trial(version, run_id, trained, verdict, guaranteed, tuple(fits.kept))


def _registered(
    ws: Workspace, policy: Policy, rows: pd.DataFrame, trained: TrainedModel, key: str, progress: Progress
) -> tuple[str, str]:
    """Profile, log and register a candidate on disk: its version and its MLflow run."""
    from drift.profile import write_profile
    from models.load import load_model

    progress("profile", 0.9)
    write_profile(
        trained.folder,
        rows,
        _out_of_sample(trained.folder, rows),
        policy,
        ws.declarations,
        evaluation=trained.evaluation,
        importance=tuple(load_model(trained.folder).importance()),
    )
    progress("MLflow", 0.92)
    run_id = _logged(ws, policy, trained, key)
    progress("register", 0.97)
    ws.registrar.record_policy(policy, "the policy in force")
    features_hash = ws.features_hash(policy)
    version = ws.registrar.register(
        trained, policy, run_id=run_id, features_hash=features_hash, code_revision=ws.revision
    )
    return version, run_id


def beside_champion(
    ws: Workspace,
    policy: Policy,
    rows: pd.DataFrame,
    now: datetime,
    out: Path,
    progress: Progress,
    params: dict[str, Any] | None = None,
    leakage_audit: dict[str, Any] | None = None,
    *,
    seed: int | None = None,
    fits: KeptFits | None = None,
) -> TrainedModel:
    """Train, and backtest beside the present champion; files go into the folder `out`, nothing is registered.

    Without `fits`, those that an interrupted run of the same training finished are read, and dropped at the end.
    """
    from models.training import train

    champion, until = champion_of(ws, policy)
    keep = fits or kept_fits(ws, policy, training_key(ws, policy, rows, now, params, seed), progress)
    trained = train(
        policy,
        rows,
        ws.declarations,
        now=now,
        out=out,
        champion=champion,
        champion_trained_until=until,
        progress=progress,
        params=params,
        leakage_audit=leakage_audit,
        sources=source_facts(ws, policy, now),
        seed=seed,
        keep=keep,
    )
    if fits is None:
        keep.remove()
    return trained


def source_facts(ws: Workspace, policy: Policy, now: datetime) -> list[dict[str, Any]]:
    """What is known at a moment of the sources behind a model's features, as plain values."""
    views = ws.declarations.services[policy.features].views
    kinds = {ws.declarations.views[name].event for name in views}
    return [
        {
            "source": source.source,
            "kind": source.kind,
            "state": source.state.words.replace("_", " "),
            "rows": source.rows,
            "newest_event": source.newest_event.isoformat() if source.newest_event else None,
            "newest_known": source.newest_known.isoformat() if source.newest_known else None,
            "reasons": "; ".join(source.reasons) if source.needed else "",
        }
        for source in ws.sources.health(now, kinds)
    ]


def _logged(ws: Workspace, policy: Policy, trained: TrainedModel, key: str) -> str:
    from models.mlflow_run import log_training

    with ws.alone("mlflow"):  # two processes must not make the schema at once
        return log_training(
            ws.settings.tracking,
            policy,
            trained,
            features_hash=ws.features_hash(policy),
            policy_hash=policy.hash,
            code_revision=ws.revision,
            artifact_root=ws.settings.home / "mlartifacts",
            key=key,
        )


def _out_of_sample(folder: Path, rows: pd.DataFrame) -> np.ndarray:
    """The backtest's answers aligned with the training rows, NaN where a row was not scored."""
    from models.training import read_predictions

    scored, predictions = read_predictions(folder)
    known = pd.Series(predictions, index=scored["row_id"]).groupby(level=0).last()
    return known.reindex(rows["row_id"]).to_numpy(dtype=float)


def champion_of(ws: Workspace, policy: Policy) -> tuple[Any, datetime | None]:
    """The champion's loaded model and until when it was trained; (None, None) when there is none.

    Raises:
        ArtifactRefused: its files are not what the ledger recorded.
    """
    from models.load import load_model
    from registry.artifacts import verify
    from registry.snapshot import read_snapshot

    state = ws.registrar.state(policy.model)
    path = ws.settings.serving / f"{policy.model}.json"
    if state.champion is None or not path.exists():
        return None, None
    folder = ws.artifacts.path(policy.model, state.champion)
    verify(folder, state.manifests[state.champion])
    snapshot = read_snapshot(path)
    until = snapshot.champion.trained_until if snapshot.champion else None
    return load_model(folder), until
