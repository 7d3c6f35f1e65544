"""Models in the making: `seatrial train`, `seatrial tune`, `seatrial backtest`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.commands.options import DryRun, Fresh, Json, Model, Seed

if TYPE_CHECKING:
    from lifecycle.pipeline import Trial

Params = Annotated[Path | None, typer.Option(help="JSON file of parameters, as `tune` writes it.")]


def train(
    model: Model,
    json_output: Json = False,
    dry_run: DryRun = False,
    params: Params = None,
    seed: Seed = None,
    start: Annotated[bool, typer.Option(help="Start the rollout when the gate passes and the policy allows.")] = True,
    fresh: Fresh = False,
) -> None:
    """Train a candidate on what is known now, log it to MLflow, register it and put it through the gate.

    A training that was killed goes on within a day: for the moment at which it was begun, with the fits that it had
    finished. Ends with exit code 1 when the gate does not pass.
    """
    from lifecycle.pipeline import population, train_candidate
    from lifecycle.posted import land_posted
    from lifecycle.rollouts import advance
    from lifecycle.terminal import emit, progress_bar
    from lifecycle.unfinished import begun
    from lifecycle.workspace import Workspace
    from models.training import seeded

    ws = Workspace()
    policy, chosen = ws.policy(model), _params(params)
    if dry_run:
        rows = population(ws, seeded(policy, seed), ws.clock.now())
        span = {"rows": len(rows), "from": rows["as_of"].min().isoformat(), "to": rows["as_of"].max().isoformat()}
        emit({"dry_run": True, "model": policy.model, **span}, json_output=json_output)
        return
    wish = {"params": chosen, "seed": seed}
    with (
        ws.closing(),
        progress_bar(json_output=json_output) as progress,
        begun(ws, policy, "train", wish, anew=fresh) as now,
    ):
        land_posted(ws)
        trial = train_candidate(ws, policy, now, progress, chosen, seed)
        action = advance(ws, policy, now, verdict=trial.verdict)[0] if start else None
    following = f"{action.move.value}: {action.reason}" if action else "waits"
    emit(_result(policy.model, trial, following), json_output=json_output, title=f"{policy.model} {trial.version}")
    raise typer.Exit(0 if trial.verdict.outcome.value == "pass" else 1)


def _params(path: Path | None) -> dict[str, Any] | None:
    """Parameters of a file as `tune` writes it."""
    from contracts.errors import InputInvalid, UnknownName

    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputInvalid(str(path), "a JSON object of parameters, as `seatrial tune` writes it", str(error)) from None
    if not isinstance(found, dict) or not all(isinstance(value, (int, float)) for value in found.values()):
        raise InputInvalid(str(path), "a JSON object of numbers", type(found).__name__)
    from models.boosters import TUNABLE

    for name in found:
        if name not in TUNABLE:
            raise UnknownName("parameter", name, TUNABLE)
    return found


def _result(model: str, trial: Trial, following: str) -> dict[str, Any]:
    info = trial.trained
    return {
        "model": model,
        "version": trial.version,
        "run_id": trial.run_id,
        "trained_for": info.trained_at.isoformat(),
        "rows": info.rows,
        "kept": list(trial.kept),
        "gate": trial.verdict.outcome.value,
        "why": trial.verdict.words,
        "next": following,
        "criteria": {c.name: f"{c.outcome.value}: {c.words}" for c in trial.verdict.criteria},
    }


def tune(
    model: Model,
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="Trials in all; finished ones count.")] = 20,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes of this machine.")] = 1,
    storage: Annotated[str, typer.Option(help="SQLAlchemy URL of the study; the workspace's optuna.db if none.")] = "",
    max_predict_ms: Annotated[
        float | None, typer.Option(min=0.0, help="Budget of one decision's prediction; the policy's p99_ms if none.")
    ] = None,
    seed: Seed = None,
    json_output: Json = False,
    dry_run: DryRun = False,
    fresh: Fresh = False,
) -> None:
    """Search parameters over the backtest with Optuna; a stopped search goes on where it was.

    Several machines join in one search with the same --storage, the same events and SEATRIAL_CLOCK at the same moment.
    """
    from lifecycle.pipeline import population, training_set
    from lifecycle.terminal import emit, progress_bar
    from lifecycle.unfinished import begun
    from lifecycle.workspace import Workspace
    from models.optuna_search import tune as search
    from models.training import seeded

    ws = Workspace()
    policy = seeded(ws.policy(model), seed)
    target = ws.settings.home / "tuned" / f"{policy.model}.json"
    if dry_run:
        rows = population(ws, policy, ws.clock.now())
        emit(
            {"dry_run": True, "model": policy.model, "rows": len(rows), "would_write": str(target)},
            json_output=json_output,
        )
        return
    here = f"sqlite:///{(ws.settings.home / 'optuna.db').absolute()}"
    with (
        progress_bar(json_output=json_output) as progress,
        ws.alone(f"tune-{policy.model}"),
        begun(ws, policy, "tune", {}, anew=fresh, lasting=True) as now,
    ):
        found = search(
            policy,
            training_set(ws, policy, now, progress),
            ws.declarations,
            trials=trials,
            storage=storage or here,
            now=now,
            progress=progress,
            workers=workers,
            max_predict_ms=max_predict_ms,
            alone=not storage,
        )
        _write_params(target, found.params)
    emit({"model": policy.model, **_found(found), "written": str(target)}, json_output=json_output)


def _write_params(target: Path, params: dict[str, Any]) -> None:
    from registry.durable import replace_file

    replace_file(target, (json.dumps(params, indent=2, sort_keys=True) + "\n").encode())


def _found(found: Any) -> dict[str, Any]:
    less = (found.shipped_loss - found.loss) / found.shipped_loss if found.shipped_loss else None
    return {
        "study": found.study,
        "trials": found.trials,
        "best": found.params,
        "loss": found.loss,
        "shipped_loss": found.shipped_loss,
        "less_loss": less,
        "predict_ms": found.predict_ms,
    }


def backtest(model: Model, json_output: Json = False, seed: Seed = None, fresh: Fresh = False) -> None:
    """Backtest against the incumbent, the champion and, for a forecast, statistical methods; registers nothing.

    One that was killed goes on within a day, like a training.
    """
    from lifecycle.backtests import backtest_table
    from lifecycle.terminal import emit, progress_bar
    from lifecycle.unfinished import begun
    from lifecycle.workspace import Workspace
    from models.training import seeded

    ws = Workspace()
    policy = seeded(ws.policy(model), seed)
    with (
        progress_bar(json_output=json_output) as progress,
        ws.alone(f"backtest-{policy.model}"),
        begun(ws, policy, "backtest", {}, anew=fresh) as now,
    ):
        scored, table = backtest_table(ws, policy, now, progress)
    emit({"model": policy.model, "seed": policy.training.seed, "rows": scored, "by": table}, json_output=json_output)
