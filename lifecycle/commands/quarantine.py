"""Refused rows: `seatrial quarantine list|show|release|discard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.commands.options import DryRun, Json

if TYPE_CHECKING:
    from features.quarantine import Group, Quarantine, Resolved

quarantine_app = typer.Typer(no_args_is_help=True, help="Rows that failed a check: look, release, discard.")
Named = Annotated[str, typer.Argument(help="Group, as `list` names it; its beginning is enough.")]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Only this row of the group, by event id or row id.")]
Why = Annotated[str, typer.Option("--reason", help="Why, in a sentence; it is kept with the rows.")]


@quarantine_app.command("list")
def list_groups(
    everything: Annotated[bool, typer.Option("--all", help="Also groups that are decided.")] = False,
    json_output: Json = False,
) -> None:
    """Groups of refused rows by kind, source and broken rule, and where all rows of each kind are."""
    from features.quarantine import Quarantine
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    landing = Workspace().landing
    store = Quarantine(landing)
    groups = [group for group in store.groups() if everything or group.open]
    accounts = {kind: _account(store, kind) for kind in landing.kinds()}
    emit({"groups": {group.group: _said(group) for group in groups}, "rows": accounts}, json_output=json_output)


@quarantine_app.command("show")
def show(
    group: Named,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Rows to print at most.")] = 20,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write all rows of the group to this file.")] = None,
    json_output: Json = False,
) -> None:
    """The rows of a group as they came, with their reasons and state."""
    from features.quarantine_csv import write_rows
    from lifecycle.terminal import emit

    store = _store()
    kind, name = store.find(group)
    rows = store.rows(kind)
    rows = rows[rows["group"] == name]
    result: dict[str, Any] = {"group": name, "kind": kind, "rows": len(rows)}
    if csv_file is not None:
        write_rows(csv_file, rows)
        result["written"] = str(csv_file)
    else:
        columns = [column for column in rows.columns if column not in ("id", "group", "rule", "batch", "row")]
        shown = rows.head(limit)
        pairs = zip(shown["id"], shown[columns].to_dict("records"), strict=True)
        result["shown"] = {row: {key: cell for key, cell in cells.items() if cell is not None} for row, cells in pairs}
    emit(result, json_output=json_output)


@quarantine_app.command("release")
def release(
    group: Named,
    reason: Why,
    ids: Ids = None,
    corrections: Annotated[
        Path | None,
        typer.Option(help="CSV as `show --csv` writes it, with cells put right; only its rows are released."),
    ] = None,
    json_output: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Take rows through the checks again and land those that pass; they count as known from now on.

    Ends with exit code 1 when a row failed again: it stays in quarantine, and its reason is printed.
    """
    from features.quarantine_csv import read_corrections
    from lifecycle.workspace import Workspace

    ws = Workspace()
    store = _store(ws)
    kind, name = store.find(group)
    fixes = read_corrections(corrections, store.rows(kind), kind) if corrections else None
    actor, now = ws.settings.actor, ws.clock.now()
    done = store.release(
        kind, group=name, events=ids, corrections=fixes, actor=actor, why=reason, now=now, dry_run=dry_run
    )
    _report("released", store, kind, done, json_output=json_output, dry_run=dry_run)
    raise typer.Exit(1 if done.refused else 0)


@quarantine_app.command("discard")
def discard(group: Named, reason: Why, ids: Ids = None, json_output: Json = False, dry_run: DryRun = False) -> None:
    """Mark rows as refused for good, with who and why; they stay readable and are never deleted."""
    from lifecycle.workspace import Workspace

    ws = Workspace()
    store = _store(ws)
    kind, name = store.find(group)
    actor, now = ws.settings.actor, ws.clock.now()
    done = store.discard(kind, group=name, events=ids, actor=actor, why=reason, now=now, dry_run=dry_run)
    _report("discarded", store, kind, done, json_output=json_output, dry_run=dry_run)


def _store(ws: Any = None) -> Quarantine:
    from features.quarantine import Quarantine
    from lifecycle.workspace import Workspace

    return Quarantine((ws or Workspace()).landing)


def _said(group: Group) -> dict[str, Any]:
    return {
        "kind": group.kind,
        "source": group.source,
        "rule": group.rule,
        "open": group.open,
        "released": group.released,
        "discarded": group.discarded,
        "first_batch": group.first_batch[:12],
        "last_batch": group.last_batch[:12],
        "sample": list(group.sample),
    }


def _account(store: Quarantine, kind: str) -> dict[str, int]:
    account = store.account(kind)
    return {
        "in": account.rows_in,
        "landed": account.landed,
        "quarantined": account.quarantined,
        "discarded": account.discarded,
        "released": account.released,
    }


def _report(what: str, store: Quarantine, kind: str, done: Resolved, *, json_output: bool, dry_run: bool) -> None:
    from contracts.times import iso
    from lifecycle.terminal import emit

    said = {
        "dry_run": dry_run,
        what: done.rows,
        "refused_again": len(done.refused),
        "decided_before": done.already,
        "at": iso(done.at),
        "reasons": dict(list(done.refused.items())[:20]),
        "rows": {kind: _account(store, kind)},
    }
    emit(said, json_output=json_output)
