"""Rollouts: `seatrial rollout ...`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.commands.options import DryRun, Json, Model

if TYPE_CHECKING:
    from contracts.policy import Policy
    from contracts.rollout import Action, RolloutState
    from registry.promotion import Registrar

rollout_app = typer.Typer(no_args_is_help=True, help="Shadow, canary, champion: where a model's versions stand.")
Reason = Annotated[str, typer.Option(help="Why, in a sentence; it goes into the ledger.")]
About = Annotated[
    str | None,
    typer.Option("--version", help="Whom it is about: given again, it never hits the next one; else whoever is there."),
]


def _report(action: Action, state: RolloutState, *, json_output: bool, dry_run: bool) -> None:
    from lifecycle.rollout_status import plain
    from lifecycle.terminal import emit

    said = {"move": action.move.value, "reason": action.reason, "waits_for_approval": action.needs_approval}
    emit({"dry_run": dry_run, **said, "state": plain(state)}, json_output=json_output)


def _intervene(
    model: str,
    act: Callable[[Registrar, Policy], RolloutState],
    *,
    json_output: bool,
    dry_run: bool,
    more: Callable[[RolloutState], dict[str, Any]] | None = None,
) -> None:
    """Do what a person asks for, or try it on a copy, and say where the rollout stands after it."""
    from lifecycle.rehearsed import registrar_of
    from lifecycle.rollout_status import plain
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    policy = ws.policy(model)
    with registrar_of(ws, policy.model, dry_run=dry_run) as registrar:
        before = registrar.state(policy.model).revision
        state = act(registrar, policy)
        registrar.record_policy(policy, "the policy in force")  # what was written for serving follows it
    said: dict[str, Any] = {"dry_run": True} if dry_run else {}
    if state.revision == before:
        said["nothing_changed"] = "it stood like this already; no row is written"
    emit({**said, **(more(state) if more else {}), **plain(state)}, json_output=json_output)


@rollout_app.command("status")
def status(model: Model, json_output: Json = False) -> None:
    """Who serves, since when and on what evidence; who challenges and what it waits for; what was done lately."""
    from lifecycle.rollout_status import told
    from lifecycle.rollouts import advance, seen
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    policy, now = ws.policy(model), ws.clock.now()
    rows, state = ws.ledger.rows(policy.model), ws.registrar.state(policy.model)
    evidence = None
    if state.challenger is not None and state.trial_since is not None:
        monitor = ws.monitor(policy.model)
        monitor.update(ws.landing, now)
        evidence = seen(monitor, state, now)
    following, _ = advance(ws, policy, now, evidence=evidence, dry_run=True)
    emit(told(state, rows, policy, following, now), json_output=json_output, title=f"{policy.model}, {now:%Y-%m-%d}")


@rollout_app.command("start")
def start(model: Model, json_output: Json = False, dry_run: DryRun = False) -> None:
    """Start the gated candidate's rollout: shadow beside a champion, champion when there is none."""
    from contracts.errors import CheckFailed
    from contracts.rollout import Stage
    from lifecycle.rollouts import advance
    from lifecycle.workspace import Workspace

    ws = Workspace()
    policy = ws.policy(model)
    state = ws.registrar.state(policy.model)
    if state.stage is not Stage.CANDIDATE:
        raise CheckFailed(f"{policy.model} has no candidate to start (stage {state.stage.value}); train one first")
    action, after = advance(ws, policy, ws.clock.now(), dry_run=dry_run)
    _report(action, after, json_output=json_output, dry_run=dry_run)


@rollout_app.command("advance")
def advance_once(model: Model, json_output: Json = False, dry_run: DryRun = False) -> None:
    """Look at the challenger's evidence and make the move that the policy allows, if any."""
    from contracts.rollout import Stage
    from lifecycle.posted import land_posted
    from lifecycle.rollouts import advance, seen
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
        evidence = seen(monitor, state, now)
    action, after = advance(ws, policy, now, evidence=evidence, dry_run=dry_run)
    _report(action, after, json_output=json_output, dry_run=dry_run)


@rollout_app.command("rollback")
def rollback(
    model: Model, reason: Reason, version: About = None, json_output: Json = False, dry_run: DryRun = False
) -> None:
    """Put the previous champion back in office; its files are verified before the switch."""

    def act(registrar: Registrar, policy: Policy) -> RolloutState:
        return registrar.rollback(policy.model, policy, reason, version=version)

    _intervene(model, act, json_output=json_output, dry_run=dry_run)


@rollout_app.command("approve")
def approve(
    model: Model,
    approver: Annotated[str, typer.Option("--by", help="Who agrees; the policy may refuse the version's author.")],
    version: Annotated[str, typer.Option(help="The version that was looked at; refused when another one challenges.")],
    reason: Annotated[str, typer.Option(help="Why, in a sentence; it goes into the ledger.")] = "",
    role: Annotated[str, typer.Option(help="The approver's role, held against the policy's gate.approvals.by.")] = "",
    json_output: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Record that a person agrees with the challenger's next move; `start` or `advance` then makes it."""

    def act(registrar: Registrar, policy: Policy) -> RolloutState:
        return registrar.approve(policy.model, policy, approver=approver, reason=reason, role=role, version=version)

    def agreed(state: RolloutState) -> dict[str, Any]:
        return {"approvals": [given.who for given in state.approvals.get(version, ())]}

    _intervene(model, act, json_output=json_output, dry_run=dry_run, more=agreed)


@rollout_app.command("hold")
def hold(
    model: Model, reason: Reason, version: About = None, json_output: Json = False, dry_run: DryRun = False
) -> None:
    """Stop the challenger where it stands; it answers nothing until `resume`."""

    def act(registrar: Registrar, policy: Policy) -> RolloutState:
        return registrar.hold(policy.model, policy, reason, version=version)

    _intervene(model, act, json_output=json_output, dry_run=dry_run)


@rollout_app.command("resume")
def resume(
    model: Model, reason: Reason, version: About = None, json_output: Json = False, dry_run: DryRun = False
) -> None:
    """Let a held challenger go on where it was held; not into a canary in a freeze or while stopped."""

    def act(registrar: Registrar, policy: Policy) -> RolloutState:
        return registrar.resume(policy.model, policy, reason, version=version)

    _intervene(model, act, json_output=json_output, dry_run=dry_run)


@rollout_app.command("reject")
def reject(
    model: Model, reason: Reason, version: About = None, json_output: Json = False, dry_run: DryRun = False
) -> None:
    """Send the challenger away for good; the champion stays."""

    def act(registrar: Registrar, policy: Policy) -> RolloutState:
        return registrar.reject(policy.model, policy, reason, version=version)

    _intervene(model, act, json_output=json_output, dry_run=dry_run)


@rollout_app.command("stop")
def stop(model: Model, reason: Reason, json_output: Json = False, dry_run: DryRun = False) -> None:
    """Kill switch: no version of the model answers until `release`; the rungs below do, and say why."""

    def act(registrar: Registrar, policy: Policy) -> RolloutState:
        return registrar.stop(policy.model, policy, reason)

    _intervene(model, act, json_output=json_output, dry_run=dry_run)


@rollout_app.command("release")
def release(model: Model, reason: Reason, json_output: Json = False, dry_run: DryRun = False) -> None:
    """Let a stopped model answer again; its challenger's stage begins its clock anew."""

    def act(registrar: Registrar, policy: Policy) -> RolloutState:
        return registrar.release(policy.model, policy, reason)

    _intervene(model, act, json_output=json_output, dry_run=dry_run)
