"""One training: backtest, evaluation against incumbent and champion, final fit, and a folder of plain files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.canonical import canonical_json
from contracts.declarations import Declarations
from contracts.errors import ArtifactRefused, InputInvalid, NotEnoughData
from contracts.evaluation import METRIC_COLUMNS, Evaluation, TrainedModel
from contracts.policy import Policy
from contracts.times import iso, utc
from models.backtest import ForecastBacktest, backtest_forecast, fit_rows
from models.card import write_card
from models.design import FrameColumns
from models.evaluate import Answers, Scoreboard, evaluate, incumbent_answers, rows_hash, scoreboard, segments
from models.folds import capped, matured, moment, utc_times
from models.forecaster import ForecastModel
from models.incumbent import check_incumbent
from models.kept_fits import Keep, fit_now
from models.noise import stability
from models.plots import draw
from models.predict_cost import predict_cost
from models.risk import RiskModel
from models.risk_backtest import RiskBacktest, backtest_risk

Model = ForecastModel | RiskModel
Progress = Callable[[str, float], None]


def train(
    policy: Policy,
    rows: pd.DataFrame,
    declarations: Declarations,
    *,
    now: datetime,
    out: Path,
    champion: Model | None = None,
    champion_trained_until: datetime | None = None,
    progress: Progress | None = None,
    params: dict[str, Any] | None = None,
    leakage_audit: dict[str, Any] | None = None,
    sources: Sequence[dict[str, Any]] = (),
    seed: int | None = None,
    keep: Keep = fit_now,
) -> TrainedModel:
    """Train a candidate and say how good it is.

    Args:
        policy: what to train, on how much, judged by what.
        rows: a training set: row_id, as_of, label (NaN unknown), label_known_at, the service's columns; forecasts also
            step and target_date.
        declarations: views and services of the feature repository.
        now: nothing that became known later is used, not even labels that are in `rows`.
        out: an empty or new folder for the model's files.
        champion, champion_trained_until: the model in service and the `now` of its training; it is compared only on
            decisions from then on: it may have learnt from the others.
        progress: called with words and the share done in [0, 1]. params: overrides of booster parameters.
        leakage_audit: what an audit of `rows` found (plain values); goes into the evaluation's dataset for the gate.
        sources: what was known of the rows' sources (plain values: source, kind, state, age, ...); goes there too.
        seed: in place of the policy's. keep: where fits are kept for a run that goes on, see kept_fits.

    Returns:
        the candidate with its evaluation; the same inputs write the same bytes.

    Raises:
        NotEnoughData: too few matured rows for an honest backtest. InputInvalid: a column is missing, a time has no
        zone, or `out` holds files. UnknownName: incumbent, service or segment does not exist.
    """
    now, tell, plan = utc(now), progress or _quiet, seeded(policy, seed)
    _check(policy, out)
    known = rows[matured(rows, now)]
    digest = dataset_hash(known)
    tested, answers = _backtest(plan, rows, declarations, now, params, progress, keep)
    audit = {} if leakage_audit is None else {"leakage_audit": leakage_audit}
    dataset = _dataset(known, digest, tested) | {"sources": list(sources)} | audit
    if champion is not None:
        answers["champion"] = _champion_answers(champion, champion_trained_until, tested.rows, dataset)
    named = segments(policy, declarations, known, tested.rows)
    board = scoreboard(policy, declarations, tested.rows)
    evaluation = evaluate(board, answers, np.asarray(tested.origins, dtype=object)[tested.fold], named, dataset)
    tell("final fit", 0.8)
    chosen = known.iloc[_recent(plan, known, now)]
    fitted = keep("final", lambda: fit_rows(plan, chosen, declarations, params))
    model = _with_corrections(fitted, tested, _info(policy, plan, now, chosen, digest, params))
    evaluation = _with_stability(evaluation, plan, model, tested.rows)
    tell("figures and card", 0.88)
    trained = _write(out, policy, now, model, evaluation, board, answers, named)
    tell("done", 1.0)
    return trained


def _check(policy: Policy, out: Path) -> None:
    check_incumbent(policy.incumbent, policy.kind)
    if out.exists() and any(out.iterdir()):
        raise InputInvalid(str(out), "an empty or new folder", "a folder with files", hint="name another one")


def _quiet(_words: str, _share: float) -> None:
    """Progress that nobody watches."""


def seeded(policy: Policy, seed: int | None) -> Policy:
    """The policy with another seed for whatever training draws at random; the same policy when `seed` is None."""
    if seed is None:
        return policy
    return policy.model_copy(update={"training": policy.training.model_copy(update={"seed": seed})})


def _write(
    out: Path,
    policy: Policy,
    now: datetime,
    model: Model,
    evaluation: Evaluation,
    board: Scoreboard,
    answers: dict[str, Answers],
    named: Mapping[str, Any],
) -> TrainedModel:
    """The folder of a candidate: model, evaluation, figures, card."""
    model.save(out)
    _write_evaluation(out, evaluation, board.rows, answers["candidate"])
    trained = TrainedModel(
        model=policy.model,
        kind=policy.kind,
        folder=out,
        evaluation=replace(evaluation, predict=predict_cost(policy, out, board.rows)),
        trained_at=now,
        train_until=now,
        rows=int(model.version_info["rows"]),
        dataset_hash=evaluation.dataset["hash"],
        params=dict(model.version_info["params"]),
        figures=draw(out, board, answers, named, model),
    )
    write_card(out, policy, trained, model)
    return trained


def _backtest(
    policy: Policy,
    rows: pd.DataFrame,
    declarations: Declarations,
    now: datetime,
    params: dict[str, Any] | None,
    progress: Progress | None,
    keep: Keep,
) -> tuple[ForecastBacktest | RiskBacktest, dict[str, Answers]]:
    """The backtest, with the answers of candidate and incumbent to its rows."""
    tested: ForecastBacktest | RiskBacktest
    if policy.kind == "forecast":
        tested = backtest_forecast(policy, rows, declarations, now, params, progress, keep)
        candidate = Answers(tested.mean, tested.quantiles, rows_hash(tested.rows))
    else:
        tested = backtest_risk(policy, rows, declarations, now, params, progress, keep)
        candidate = Answers(tested.probability, np.empty((len(tested.probability), 0)), rows_hash(tested.rows))
    return tested, {"candidate": candidate, "incumbent": incumbent_answers(policy, declarations, tested.rows)}


def _champion_answers(champion: Model, until: datetime | None, rows: pd.DataFrame, dataset: dict[str, Any]) -> Answers:
    """The champion's answers, NaN on decisions before `until`, and everywhere when it cannot answer (reason kept)."""
    since = until or datetime.fromisoformat(str(champion.version_info["train_until"]))
    fresh = utc_times(rows["as_of"]) >= moment(since)
    value = np.full(len(rows), np.nan)
    quantiles = np.full((len(rows), len(champion.levels)), np.nan)
    columns = FrameColumns(rows[fresh])
    try:
        if isinstance(champion, ForecastModel):
            if fresh.any():
                value[fresh], quantiles[fresh] = champion.predict(columns)
        elif fresh.any():
            value[fresh] = champion.predict(columns)
    except InputInvalid as error:
        dataset["champion_unusable"] = str(error)
    return Answers(value, quantiles, rows_hash(rows))


def _recent(policy: Policy, known: pd.DataFrame, now: datetime) -> NDArray[np.int64]:
    """Positions of the rows that the final fit learns from."""
    plan = policy.training
    recent = np.flatnonzero(utc_times(known["as_of"]) >= moment(now - plan.history))
    return capped(recent, plan.row_cap, plan.seed)


def _info(
    policy: Policy, plan: Policy, now: datetime, chosen: pd.DataFrame, digest: str, params: dict[str, Any] | None
) -> dict[str, Any]:
    """Who was made when from what; `plan` is the policy with the seed that was asked for."""
    return {
        "model": policy.model,
        "kind": policy.kind,
        "features": policy.features,
        "policy_hash": policy.hash,
        "seed": plan.training.seed,
        "trained_at": iso(now),
        "train_until": iso(now),
        "rows": len(chosen),
        "rows_from": iso(chosen["as_of"].min().to_pydatetime()),
        "rows_until": iso(chosen["as_of"].max().to_pydatetime()),
        "dataset_hash": digest,
        "params": dict(params or {}),
    }


def _with_corrections(model: Model, tested: ForecastBacktest | RiskBacktest, info: dict[str, Any]) -> Model:
    if isinstance(model, ForecastModel) and isinstance(tested, ForecastBacktest):
        return model.with_info(info, tested.corrections)
    if isinstance(model, RiskModel) and isinstance(tested, RiskBacktest):
        return model.with_info(info, tested.weights, tested.calibration)
    raise NotEnoughData("backtest of the model's own kind", 1, 0)


def _with_stability(found: Evaluation, policy: Policy, model: Model, rows: pd.DataFrame) -> Evaluation:
    """The evaluation with the model's stability, measured where the policy's gate asks for it."""
    asked = policy.gate.stability
    if asked is None:
        return found
    return replace(found, stability=stability(model, rows, noise=asked.noise, seed=policy.training.seed))


def _dataset(known: pd.DataFrame, digest: str, tested: ForecastBacktest | RiskBacktest) -> dict[str, Any]:
    scored = tested.rows["as_of"]
    return {
        "hash": digest,
        "known_rows": len(known),
        "known_from": iso(known["as_of"].min().to_pydatetime()),
        "known_until": iso(known["as_of"].max().to_pydatetime()),
        "as_of_from": iso(scored.min().to_pydatetime()),
        "as_of_until": iso(scored.max().to_pydatetime()),
        "origins": [iso(origin) for origin in tested.origins],
    }


def dataset_hash(rows: pd.DataFrame) -> str:
    """SHA-256 over names and values of all columns, in order: another value, row or order gives another hash."""
    digest = hashlib.sha256()
    for name in rows.columns:
        digest.update(f"{name}\x1e".encode())
        digest.update(_bytes(rows[name]))
    return digest.hexdigest()


def _bytes(column: pd.Series[Any]) -> bytes:
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return utc_times(column).tobytes()
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan).tobytes()
    return "\x1f".join(column.astype("string").fillna("\x00").tolist()).encode()


def _write_evaluation(out: Path, found: Evaluation, rows: pd.DataFrame, answers: Answers) -> None:
    """losses.parquet, predictions.parquet (what was answered out of sample) and evaluation.json."""
    found.losses.to_parquet(out / "losses.parquet", index=False)
    kept = [name for name in ("row_id", "as_of", "target_date", "step", "label") if name in rows.columns]
    predictions = rows[kept].reset_index(drop=True)
    predictions["prediction"] = answers.value
    for place in range(answers.quantiles.shape[1]):
        predictions[f"quantile_{place}"] = answers.quantiles[:, place]
    predictions.to_parquet(out / "predictions.parquet", index=False)
    plain = {
        "loss": found.loss,
        "reference_loss": found.reference_loss,
        "calibration": found.calibration,
        "dataset": found.dataset,
        "metrics": found.metrics.to_dict(orient="records"),
        "stability": found.stability,
    }
    (out / "evaluation.json").write_text(canonical_json(plain), encoding="utf-8")


def read_evaluation(folder: Path) -> Evaluation:
    """The evaluation that `train` wrote into a sealed artifact, also that of 0.1; the files were verified before.

    Artifacts of 0.1 noted no hash by side: there the losses of all sides stood in one table, so that every side that
    has losses gets the hash of the rows in predictions.parquet. What predicting cost is in no file: `predict` is empty.

    Raises:
        ArtifactRefused: a file is missing or is not what `train` writes.
    """
    try:
        plain = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        losses = pd.read_parquet(folder / "losses.parquet")
        dataset = dict(plain["dataset"])
        if "hash_by_side" not in dataset:
            scored, _ = read_predictions(folder)
            sides = ("candidate", "incumbent", "champion")
            dataset["hash_by_side"] = {who: rows_hash(scored) for who in sides if losses[who].notna().any()}
        return Evaluation(
            losses=losses,
            metrics=pd.DataFrame(plain["metrics"], columns=list(METRIC_COLUMNS)),
            loss=plain["loss"],
            dataset=dataset,
            calibration=plain["calibration"],
            reference_loss=float(plain["reference_loss"]),
            stability=plain.get("stability", {}),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactRefused(folder.name, f"no whole evaluation: {type(error).__name__}: {error}") from None


def read_predictions(folder: Path) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """The out-of-sample answers that `train` kept: row_id, as_of, label, prediction, ..., and predictions (n,).

    They are what a drift reference of predictions should be made of: in-sample answers look too sure.
    """
    frame = pd.read_parquet(folder / "predictions.parquet")
    return frame, frame["prediction"].to_numpy(dtype=np.float64)
