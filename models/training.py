"""One training: backtest, evaluation against incumbent and champion, final fit, and a folder of plain files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.canonical import canonical_json
from contracts.declarations import Declarations
from contracts.errors import InputInvalid, NotEnoughData
from contracts.evaluation import Evaluation, TrainedModel
from contracts.policy import Policy
from contracts.times import iso, utc
from models.backtest import ForecastBacktest, RiskBacktest, backtest_forecast, backtest_risk, fit_rows
from models.card import write_card
from models.design import FrameColumns
from models.evaluate import Answers, evaluate, incumbent_answers, scoreboard, segments
from models.folds import capped, matured, moment, utc_times
from models.forecaster import ForecastModel
from models.incumbent import check_incumbent
from models.plots import draw
from models.risk import RiskModel

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
) -> TrainedModel:
    """Train a candidate and say how good it is.

    Args:
        policy: what to train, on how much, judged by what.
        rows: a training set: row_id, as_of, label (NaN unknown), label_known_at, the service's columns; forecasts also
            step and target_date.
        declarations: views and services of the feature repository.
        now: nothing that became known later is used, not even labels that are in `rows`.
        out: an empty or new folder for the model's files.
        champion, champion_trained_until: the model in service and the `now` of its own training; it is compared only
            on decisions from then on, because it may have learnt from the others.
        progress: called with words and the share done in [0, 1].
        params: overrides of booster parameters, as found by tuning.
        leakage_audit: what an audit of `rows` found (plain values); goes into the evaluation's dataset for the gate.

    Returns:
        the candidate with its evaluation; the same inputs write the same bytes.

    Raises:
        NotEnoughData: too few matured rows for an honest backtest. InputInvalid: a column is missing, a time has no
        zone, or `out` holds files. UnknownName: incumbent, service or segment does not exist.
    """
    now = utc(now)
    check_incumbent(policy.incumbent, policy.kind)
    if out.exists() and any(out.iterdir()):
        raise InputInvalid(str(out), "an empty or new folder", "a folder with files", hint="name another one")
    known = rows[matured(rows, now)]
    tested, answers = _backtest(policy, rows, declarations, now, params, progress)
    answers["incumbent"] = incumbent_answers(policy, declarations, tested.rows)
    dataset = _dataset(known, tested) | ({} if leakage_audit is None else {"leakage_audit": leakage_audit})
    if champion is not None:
        answers["champion"] = _champion_answers(champion, champion_trained_until, tested.rows, dataset)
    named = segments(policy, declarations, known, tested.rows)
    origin = np.asarray(tested.origins, dtype=object)[tested.fold]
    evaluation = evaluate(scoreboard(policy, declarations, tested.rows), answers, origin, named, dataset)
    if progress:
        progress("final fit", 0.8)
    model, used = _final_fit(policy, known, declarations, now, tested, params)
    trained = _write(out, policy, now, model, used, evaluation, tested, answers["candidate"])
    if progress:
        progress("done", 1.0)
    return trained


def _write(
    out: Path,
    policy: Policy,
    now: datetime,
    model: Model,
    used: int,
    evaluation: Evaluation,
    tested: ForecastBacktest | RiskBacktest,
    answers: Answers,
) -> TrainedModel:
    """The folder of a candidate: model, evaluation, figures, card."""
    model.save(out)
    _write_evaluation(out, evaluation, tested, answers)
    trained = TrainedModel(
        model=policy.model,
        kind=policy.kind,
        folder=out,
        evaluation=evaluation,
        trained_at=now,
        train_until=now,
        rows=used,
        dataset_hash=evaluation.dataset["hash"],
        params=dict(model.version_info["params"]),
        figures=draw(out, policy, tested.rows, answers, model.importance()),
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
) -> tuple[ForecastBacktest | RiskBacktest, dict[str, Answers]]:
    if policy.kind == "forecast":
        forecast = backtest_forecast(policy, rows, declarations, now, params, progress)
        return forecast, {"candidate": Answers(forecast.mean, forecast.quantiles)}
    risk = backtest_risk(policy, rows, declarations, now, params, progress)
    return risk, {"candidate": Answers(risk.probability, np.empty((len(risk.probability), 0)))}


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
    return Answers(value, quantiles)


def _final_fit(
    policy: Policy,
    known: pd.DataFrame,
    declarations: Declarations,
    now: datetime,
    tested: ForecastBacktest | RiskBacktest,
    params: dict[str, Any] | None,
) -> tuple[Model, int]:
    plan = policy.training
    recent = np.flatnonzero(utc_times(known["as_of"]) >= moment(now - plan.history))
    chosen = capped(recent, plan.row_cap, plan.seed)
    model = fit_rows(policy, known.iloc[chosen], declarations, params)
    info = {
        "model": policy.model,
        "kind": policy.kind,
        "features": policy.features,
        "policy_hash": policy.hash,
        "trained_at": iso(now),
        "train_until": iso(now),
        "rows": len(chosen),
        "dataset_hash": dataset_hash(known),
        "params": dict(params or {}),
    }
    return _with_corrections(model, tested, info), len(chosen)


def _with_corrections(model: Model, tested: ForecastBacktest | RiskBacktest, info: dict[str, Any]) -> Model:
    if isinstance(model, ForecastModel) and isinstance(tested, ForecastBacktest):
        return model.with_info(info, tested.shift)
    if isinstance(model, RiskModel) and isinstance(tested, RiskBacktest):
        return model.with_info(info, tested.linear_share, tested.calibration)
    raise NotEnoughData("backtest of the model's own kind", 1, 0)


def _dataset(known: pd.DataFrame, tested: ForecastBacktest | RiskBacktest) -> dict[str, Any]:
    scored = tested.rows["as_of"]
    return {
        "hash": dataset_hash(known),
        "known_rows": len(known),
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


def _write_evaluation(out: Path, found: Evaluation, tested: ForecastBacktest | RiskBacktest, answers: Answers) -> None:
    """losses.parquet, predictions.parquet (what was answered out of sample) and evaluation.json."""
    found.losses.to_parquet(out / "losses.parquet", index=False)
    kept = [name for name in ("row_id", "as_of", "target_date", "step", "label") if name in tested.rows.columns]
    predictions = tested.rows[kept].reset_index(drop=True)
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
    }
    (out / "evaluation.json").write_text(canonical_json(plain), encoding="utf-8")


def read_predictions(folder: Path) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """The out-of-sample answers that `train` kept: row_id, as_of, label, prediction, ..., and predictions (n,).

    They are what a drift reference of predictions should be made of: in-sample answers look too sure.
    """
    frame = pd.read_parquet(folder / "predictions.parquet")
    return frame, frame["prediction"].to_numpy(dtype=np.float64)
