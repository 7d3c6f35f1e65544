"""Whether all agree: `seatrial doctor`, `seatrial reconcile`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.commands.options import DryRun, Json

if TYPE_CHECKING:
    from contracts.policy import Policy
    from lifecycle.workspace import Workspace

Adopt = Annotated[
    bool, typer.Option("--adopt", help="Take up a champion alias set by hand where the rules allow it, then restore.")
]
Problems = Annotated[bool, typer.Option("--problems", help="Only what is not well.")]


def doctor(problems: Problems = False, json_output: Json = False) -> None:
    """Look at policies, features, disk, ledger, artifacts, serving snapshots, MLflow and outbox; change nothing.

    Ends with exit code 1 when something is wrong, 3 when a store or server does not answer; warnings end with 0.
    """
    import json
    import sys

    from lifecycle.doctor import examine
    from lifecycle.terminal import progress_bar
    from lifecycle.workspace import Workspace

    found = []
    with Workspace().closing() as ws, progress_bar(json_output=json_output) as progress:
        for one in examine(ws):
            progress(one.subject, 0.0)
            found.append(one)
    levels = {one.level for one in found}
    shown = [one for one in found if not problems or one.level != "ok"]
    if json_output:
        rows = [{"subject": o.subject, "level": o.level, "words": o.words, "remedy": o.remedy} for o in shown]
        healthy = not levels & {"wrong", "down"}
        sys.stdout.write(json.dumps({"healthy": healthy, "findings": rows}, indent=2) + "\n")
    else:
        _table(shown)
    raise typer.Exit(3 if "down" in levels else 1 if "wrong" in levels else 0)


def _table(found: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "warning": "yellow", "wrong": "red", "down": "red"}
    table = Table("")
    for name in ("what", "how it is", "what to do"):
        table.add_column(name, overflow="fold")
    for one in found:
        table.add_row(Text(one.level, colours[one.level]), Text(one.subject), Text(one.words), Text(one.remedy))
    Console().print(table)


def reconcile(adopt: Adopt = False, json_output: Json = False, dry_run: DryRun = False) -> None:
    """Bring serving snapshots and MLflow back to what the ledger says; reports what was different.

    A hand-edited alias is never served. It is put back, or with --adopt taken up when it names the previous champion.
    """
    from lifecycle.adopt import adopt as take_up
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace
    from registry.mlflow_store import MlflowProjection

    ws = Workspace()
    found: dict[str, Any] = {}
    for model in ws.ledger.models():
        if model not in ws.policies:
            continue
        policy, said = ws.policies[model], []
        if adopt and (words := take_up(ws, policy, dry_run=dry_run)):
            said.append(words)
        said += _policy_differs(ws, policy)
        if dry_run:
            said += _snapshot_differs(ws, model)
            said += MlflowProjection(ws.settings.tracking).differences(ws.registrar.state(model))
        else:
            ws.registrar.record_policy(policy, "the policy in force")
            said += ws.registrar.reconcile(model, policy)
        found[model] = said or "as the ledger says"
    if not dry_run and (said := list(ws.keys.project())):
        found["access"] = said
    emit({"dry_run": dry_run, "differences": found or "the ledger has no model"}, json_output=json_output)


def _policy_differs(ws: Workspace, policy: Policy) -> list[str]:
    """In words, that the policy file is not the policy on record: `reconcile` records it, since serving follows it."""
    from contracts.rollout import RowKind

    past = [row for row in ws.ledger.rows(policy.model) if row.kind is RowKind.POLICY_CHANGED]
    recorded = str(past[-1].payload.get("policy_hash")) if past else "none"
    if recorded == policy.hash:
        return []
    return [f"the policy on record is {recorded[:12]}, the file's is {policy.hash[:12]} (seatrial policy diff)"]


def _snapshot_differs(ws: Workspace, model: str) -> list[str]:
    found = ws.registrar.projection.snapshot(model)
    if found is None:
        return [f"the serving snapshot of {model} is missing or unreadable"]
    revision = ws.registrar.state(model).revision
    if found.revision != revision:
        return [f"the serving snapshot of {model} is of revision {found.revision}, the ledger has {revision}"]
    if not ws.registrar.projection.agrees(found):
        return [f"the serving snapshot of {model} says otherwise than the ledger of the same revision"]
    return []
