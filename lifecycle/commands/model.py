"""Models: `seatrial train`, `seatrial tune`, `seatrial backtest`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lifecycle.commands.options import DryRun, Json, Model


def train(
    model: Model,
    json_output: Json = False,
    dry_run: DryRun = False,
    params: Annotated[Path | None, typer.Option(help="JSON file of parameters, as `tune` writes it.")] = None,
    start: Annotated[bool, typer.Option(help="Start the rollout when the gate passes and the policy allows.")] = True,
) -> None:
    """Train a candidate on what is known now, log it to MLflow, register it and put it through the gate.

    Ends with exit code 1 when the gate does not pass.
    """
    from lifecycle.pipeline import population, train_candidate
    from lifecycle.posted import land_posted
    from lifecycle.rollouts import advance
    from lifecycle.terminal import emit, progress_bar
    from lifecycle.workspace import Workspace

    ws = Workspace()
    policy, now = ws.policy(model), ws.clock.now()
    if dry_run:
        rows = population(ws, policy, now)
        span = {"rows": len(rows), "from": rows["as_of"].min().isoformat(), "to": rows["as_of"].max().isoformat()}
        emit({"dry_run": True, "model": policy.model, **span}, json_output=json_output)
        return
    land_posted(ws)
    chosen: dict[str, Any] | None = json.loads(params.read_text()) if params else None
    with ws.closing(), progress_bar(json_output=json_output) as progress:
        trial = train_candidate(ws, policy, now, progress, chosen)
        action = advance(ws, policy, now, verdict=trial.verdict)[0] if start else None
    result = {
        "model": policy.model,
        "version": trial.version,
        "run_id": trial.run_id,
        "rows": trial.trained.rows,
        "gate": trial.verdict.outcome.value,
        "why": trial.verdict.words,
        "next": f"{action.move.value}: {action.reason}" if action else "waits",
        "criteria": {c.name: f"{c.outcome.value}: {c.words}" for c in trial.verdict.criteria},
    }
    emit(result, json_output=json_output, title=f"{policy.model} {trial.version}")
    raise typer.Exit(0 if trial.verdict.outcome.value == "pass" else 1)


def tune(
    model: Model,
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="Trials in all; finished ones count.")] = 20,
    json_output: Json = False,
) -> None:
    """Search parameters over the backtest with Optuna; a stopped search goes on where it was."""
    from lifecycle.pipeline import training_set
    from lifecycle.terminal import emit, progress_bar
    from lifecycle.workspace import Workspace
    from models.optuna_search import tune as search

    ws = Workspace()
    policy, now = ws.policy(model), ws.clock.now()
    storage = f"sqlite:///{(ws.settings.home / 'optuna.db').absolute()}"
    with progress_bar(json_output=json_output) as progress:
        rows = training_set(ws, policy, now, progress)
        best = search(policy, rows, ws.declarations, trials=trials, storage=storage, now=now, progress=progress)
    target = ws.settings.home / "tuned" / f"{policy.model}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(best, indent=2, sort_keys=True))
    emit({"model": policy.model, "best": best, "written": str(target)}, json_output=json_output)


def backtest(model: Model, json_output: Json = False) -> None:
    """Backtest against the incumbent, the champion and, for a forecast, statistical methods; registers nothing."""
    from lifecycle.backtests import backtest_table
    from lifecycle.terminal import emit, progress_bar
    from lifecycle.workspace import Workspace

    ws = Workspace()
    policy, now = ws.policy(model), ws.clock.now()
    with progress_bar(json_output=json_output) as progress:
        scored, table = backtest_table(ws, policy, now, progress)
    emit({"model": policy.model, "rows": scored, "by": table}, json_output=json_output)
