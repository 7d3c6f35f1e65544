"""Environments: `seatrial environment ...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.commands.options import DryRun, Json, Model

if TYPE_CHECKING:
    from lifecycle.carrying import Arrived

environment_app = typer.Typer(no_args_is_help=True, help="Dev, staging, prod: carry a version on without retraining.")
Version = Annotated[str, typer.Option(help="Which version of here, like v3.")]
Heads = Annotated[
    list[str] | None,
    typer.Option("--head", help='A row of the ledger that it comes from, "model revision hash", as its reports print.'),
]
Bundle = Annotated[Path, typer.Argument(help="A folder made by `environment pack`.")]


def _said(arrived: Arrived, *, dry_run: bool) -> dict[str, Any]:
    carried, state = arrived.carried, arrived.state
    return {
        "dry_run": dry_run,
        "model": carried.model,
        "from": f"{carried.environment or 'another workspace'} {carried.version}",
        "version_here": arrived.version,
        "manifest_sha256": carried.manifest_sha256,
        "gate_here": arrived.verdict.outcome.value,
        "words": arrived.verdict.words,
        "stage_here": state.stage.value if state.challenger == arrived.version else "waits",
    }


@environment_app.command("list")
def list_environments(json_output: Json = False) -> None:
    """The environments in order, and what serves in each."""
    from contracts.environments import load_environments, settings_in
    from contracts.errors import SeatrialError
    from contracts.settings import Settings
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    settings = Settings()
    found: dict[str, Any] = {}
    for one in load_environments(settings.environments).environments:
        told: dict[str, Any] = {"home": str(one.home), "requires": one.requires}
        told |= {"this_one": True} if one.name == settings.environment else {}
        try:
            ws = Workspace(settings_in(settings, one.name))
            serving = {
                model: ws.registrar.state(model).champion or "none"
                for model in (ws.policies if ws.settings.home.exists() or ws.settings.ledger_url else ())
            }
            found[one.name] = {**told, "champions": serving or "none"}
        except SeatrialError as error:
            found[one.name] = {**told, "problem": str(error)}
    emit(found, json_output=json_output)


@environment_app.command("carry")
def carry(
    model: Model,
    version: Version,
    to: Annotated[str, typer.Option("--to", help="The environment that takes it.")],
    json_output: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Take a version of this environment into the next: same files, same evidence, its own trial there."""
    from contracts.environments import load_environments, settings_in
    from contracts.errors import UsageError
    from lifecycle.carrying import carry as carried
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    known, here = load_environments(ws.settings.environments), ws.settings.environment
    before = known.before(to)
    if not here or before is None or before.name != here:
        wanted = before.name if before else "nothing: it is the first"
        this = f"this is {here}" if here else "this is none; set SEATRIAL_ENVIRONMENT"
        raise UsageError(f"environment {to} takes versions from {wanted}, {this}")
    target, name = settings_in(ws.settings, to), ws.policy(model).model
    arrived = carried(ws, target, name, version, known.named(to).requires, dry_run=dry_run)
    emit(_said(arrived, dry_run=dry_run), json_output=json_output)


@environment_app.command("pack")
def pack(
    model: Model,
    version: Version,
    out: Annotated[Path, typer.Option(help="A new folder; it appears whole or not at all.")],
    json_output: Json = False,
) -> None:
    """Write a version with its files and its ledger into a folder, for an environment out of reach."""
    from lifecycle.carrying import pack_version
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace
    from registry.carry import open_bundle

    ws = Workspace()
    carried = open_bundle(pack_version(ws, ws.policy(model).model, version, out))
    facts = {"packed": str(out), "model": carried.model, "version": version, "manifest": carried.manifest_sha256}
    emit({**facts, "ledger_rows": len(carried.rows), "head": str(carried.head)}, json_output=json_output)


@environment_app.command("take")
def take(bundle: Bundle, head: Heads = None, json_output: Json = False, dry_run: DryRun = False) -> None:
    """Register a packed version here and judge its evidence by the policy of here.

    A bundle proves that it is whole; --head proves that it is of the ledger whose report you have.
    """
    from contracts.environments import load_environments
    from lifecycle.carrying import take as taken
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace
    from registry.anchors import parse_anchor

    ws = Workspace()
    name = ws.settings.environment
    requires = load_environments(ws.settings.environments).named(name).requires if name else "gated"
    heads = [parse_anchor(one) for one in head or ()]
    arrived = taken(ws, bundle, requires, heads=heads, dry_run=dry_run)
    emit(_said(arrived, dry_run=dry_run), json_output=json_output)
