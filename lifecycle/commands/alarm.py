"""Alarms of the judge, and a person's word against them: `seatrial alarm ...`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lifecycle.commands.options import DryRun, Json, Model

alarm_app = typer.Typer(no_args_is_help=True, help="Judged windows that raised an alarm, and overriding one on record.")


@alarm_app.command("list")
def list_alarms(model: Model, json_output: Json = False) -> None:
    """Judged windows of the model that were not well, oldest first, and which of them a person overrode."""
    from contracts.monitoring import Health
    from contracts.times import iso
    from drift.verdict_log import VerdictLog
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    name = ws.policy(model).model
    overridden = ws.registrar.state(name).overridden
    found: list[dict[str, Any]] = [
        {
            "window_end": iso(window.end),
            "version": window.version,
            "health": window.health.value,
            "overridden": window.end in overridden,
            "findings": [finding.words for finding in window.findings],
        }
        for window in VerdictLog(ws.settings.home / "monitor", name).verdicts()
        if window.health not in (Health.OK, Health.NOT_ENOUGH)
    ]
    if json_output:
        emit({"model": name, "alarms": found}, json_output=True)
        return
    lines = {
        one["window_end"]: f"{one['version']} {one['health']}{' (overridden)' if one['overridden'] else ''}: "
        + "; ".join(one["findings"])
        for one in found
    }
    emit(lines or {"alarms": "none"}, json_output=False, title=name)


@alarm_app.command("override")
def override(
    model: Model,
    window: Annotated[str, typer.Option("--window", help="End of the judged window, as `alarm list` prints it.")],
    reason: Annotated[str, typer.Option(help="Why the alarm does not count; it goes into the ledger.")],
    json_output: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Put on record that a window's alarm does not count: it neither retrains nor vetoes any more."""
    from contracts.errors import UnknownName
    from contracts.times import iso, parse_time
    from drift.verdict_log import VerdictLog
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    policy = ws.policy(model)
    end = parse_time(window, "--window")
    judged = [one.end for one in VerdictLog(ws.settings.home / "monitor", policy.model).verdicts()]
    if end not in judged:
        raise UnknownName("judged window", iso(end), [iso(one) for one in judged])
    already = end in ws.registrar.state(policy.model).overridden
    if not dry_run:
        ws.registrar.override_alarm(policy, end, reason)
        ws.registrar.record_policy(policy, "the policy in force")  # what was written for serving follows it
    emit(
        {"dry_run": dry_run, "model": policy.model, "window_end": iso(end), "already": already}, json_output=json_output
    )
