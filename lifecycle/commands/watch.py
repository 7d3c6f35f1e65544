"""Watching: `seatrial monitor`."""

from __future__ import annotations

from typing import Annotated

import typer

from lifecycle.commands.options import Json, Model


def monitor(
    model: Model,
    report: Annotated[bool, typer.Option(help="Write the HTML report.")] = True,
    retrain: Annotated[bool, typer.Option(help="Train when the policy says retrain.")] = False,
    event: Annotated[
        list[str] | None, typer.Option(help="A business event since the last training, like new_lane; repeatable.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Judge the last window of decisions and say what the policy makes of it: nothing, alert or retrain.

    Ends with exit code 1 when the data is broken or too little to judge: that is never reported as "no drift".
    """
    from contracts.errors import UsageError
    from contracts.monitoring import Health, Response
    from contracts.times import iso
    from lifecycle.pipeline import train_candidate
    from lifecycle.posted import land_posted
    from lifecycle.rollouts import advance
    from lifecycle.terminal import emit, progress_bar
    from lifecycle.workspace import Workspace
    from registry.ledger import head

    ws = Workspace()
    policy, now = ws.policy(model), ws.clock.now()
    state = ws.registrar.state(policy.model)
    if state.champion is None:
        raise UsageError(f"{policy.model} has no champion to watch; train one: seatrial train {policy.model}")
    watcher = ws.monitor(policy.model)
    land_posted(ws)
    watcher.update(ws.landing, now)
    unsafe = ws.sources.unsafe(policy.features, now)
    window, response = watcher.run(state, now, events=tuple(event or ()), unsafe=unsafe)
    result = {
        "model": policy.model,
        "version": window.version,
        "window": f"{window.start.isoformat()} .. {window.end.isoformat()}",
        "rows": window.rows,
        "matured": window.matured,
        "health": window.health.value,
        "findings": [finding.words for finding in window.findings],
        "response": response.response.value,
        "reason": response.reason,
        "ledger_head": str(head(ws.ledger.rows(policy.model), policy.model)),
    }
    if report:
        path = ws.settings.reports / f"{policy.model}-drift.html"
        result["report"] = str(watcher.report(state, now, path) or "not enough rows for a report")
    if retrain and response.response is Response.RETRAIN:
        ws.registrar.request_retrain(policy, response.reason, iso(now))
        with progress_bar(json_output=json_output) as progress:
            trial = train_candidate(ws, policy, now, progress)
        action, _ = advance(ws, policy, now, verdict=trial.verdict)
        result["trained"] = f"{trial.version}: gate {trial.verdict.outcome.value}, then {action.move.value}"
    emit(result, json_output=json_output, title=f"{policy.model} {window.version}")
    raise typer.Exit(1 if window.health in (Health.BROKEN, Health.NOT_ENOUGH) else 0)
