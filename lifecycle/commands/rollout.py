"""Rollouts: `seatrial rollout ...`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.commands.options import DryRun, Json, Model

if TYPE_CHECKING:
    from contracts.rollout import Action, RolloutState

rollout_app = typer.Typer(no_args_is_help=True, help="Shadow, canary, champion: where a model's versions stand.")
Reason = Annotated[str, typer.Option(help="Why, in a sentence; it goes into the ledger.")]


def _state(state: RolloutState) -> dict[str, Any]:
    return {
        "model": state.model,
        "revision": state.revision,
        "champion": state.champion or "none",
        "previous_champion": state.previous_champion or "none",
        "challenger": state.challenger or "none",
        "stage": state.stage.value,
        "share": state.share,
        "since": state.since.isoformat() if state.since else "",
    }


def _report(action: Action, state: RolloutState, *, json_output: bool, dry_run: bool) -> None:
    from lifecycle.terminal import emit

    said = {"move": action.move.value, "reason": action.reason, "waits_for_approval": action.needs_approval}
    emit({"dry_run": dry_run, **said, "state": _state(state)}, json_output=json_output)


@rollout_app.command("status")
def status(model: Model, json_output: Json = False) -> None:
    """Champion, challenger, stage and share, folded from the ledger."""
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    emit(_state(ws.registrar.state(ws.policy(model).model)), json_output=json_output)


@rollout_app.command("start")
def start(model: Model, json_output: Json = False, dry_run: DryRun = False) -> None:
    """Start the gated candidate's rollout: shadow beside a champion, champion when there is none."""
    from contracts.errors import UsageError
    from contracts.rollout import Stage
    from lifecycle.rollouts import advance
    from lifecycle.workspace import Workspace

    ws = Workspace()
    policy = ws.policy(model)
    state = ws.registrar.state(policy.model)
    if state.stage is not Stage.CANDIDATE:
        raise UsageError(f"{policy.model} has no candidate to start (stage {state.stage.value}); train one first")
    action, after = advance(ws, policy, ws.clock.now(), dry_run=dry_run)
    _report(action, after, json_output=json_output, dry_run=dry_run)


@rollout_app.command("advance")
def advance_once(model: Model, json_output: Json = False, dry_run: DryRun = False) -> None:
    """Look at the challenger's evidence and make the move that the policy allows, if any."""
    from contracts.rollout import Stage
    from lifecycle.posted import land_posted
    from lifecycle.rollouts import advance
    from lifecycle.workspace import Workspace

    ws = Workspace()
    policy, now = ws.policy(model), ws.clock.now()
    state = ws.registrar.state(policy.model)
    monitor = ws.monitor(policy.model)
    evidence = None
    if state.stage in (Stage.SHADOW, Stage.CANARY):
        ws.shadow.run_once()
        land_posted(ws)
        monitor.update(ws.landing, now)
        evidence = monitor.evidence(state, now)
    action, after = advance(ws, policy, now, evidence=evidence, dry_run=dry_run)
    _report(action, after, json_output=json_output, dry_run=dry_run)


@rollout_app.command("rollback")
def rollback(model: Model, reason: Reason, json_output: Json = False, dry_run: DryRun = False) -> None:
    """Put the previous champion back in office; its files are verified before the switch."""
    from contracts.errors import UsageError
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    policy = ws.policy(model)
    state = ws.registrar.state(policy.model)
    if dry_run:
        if state.previous_champion is None:
            raise UsageError(f"{policy.model} has no previous champion to go back to")
        emit({"dry_run": True, "would_serve": state.previous_champion, "state": _state(state)}, json_output=json_output)
        return
    emit(_state(ws.registrar.rollback(policy.model, policy, reason)), json_output=json_output)


@rollout_app.command("approve")
def approve(
    model: Model,
    approver: Annotated[str, typer.Option("--by", help="Who agrees; the policy may refuse the version's author.")],
    version: Annotated[str, typer.Option(help="The version that was looked at; refused when another one challenges.")],
    reason: Annotated[str, typer.Option(help="Why, in a sentence; it goes into the ledger.")] = "",
    role: Annotated[str, typer.Option(help="The approver's role, held against the policy's gate.approvals.by.")] = "",
    json_output: Json = False,
) -> None:
    """Record that a person agrees with the challenger's next move; `start` or `advance` then makes it."""
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    policy = ws.policy(model)
    state = ws.registrar.approve(policy.model, policy, approver=approver, reason=reason, role=role, version=version)
    agreed = list(state.approvals.get(version, ()))
    emit({"approvals": agreed, "state": _state(state)}, json_output=json_output)


@rollout_app.command("hold")
def hold(model: Model, reason: Reason, json_output: Json = False) -> None:
    """Stop the challenger where it stands; it answers nothing until `resume`."""
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    policy = ws.policy(model)
    emit(_state(ws.registrar.hold(policy.model, policy, reason)), json_output=json_output)


@rollout_app.command("resume")
def resume(model: Model, reason: Reason, json_output: Json = False) -> None:
    """Let a held challenger go on where it was held."""
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    policy = ws.policy(model)
    emit(_state(ws.registrar.resume(policy.model, policy, reason)), json_output=json_output)


@rollout_app.command("reject")
def reject(model: Model, reason: Reason, json_output: Json = False) -> None:
    """Send the challenger away for good; the champion stays."""
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    policy = ws.policy(model)
    emit(_state(ws.registrar.reject(policy.model, policy, reason)), json_output=json_output)
