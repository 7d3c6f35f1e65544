"""Data in: `seatrial ingest`, `seatrial features ...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lifecycle.commands.options import DryRun, Json

if TYPE_CHECKING:
    import pandas as pd

features_app = typer.Typer(no_args_is_help=True, help="Feast definitions, feature rows, online store.")
Until = Annotated[str | None, typer.Option(help="Only what was known by then (ISO 8601 with zone).")]


def ingest(
    mapping: Annotated[Path, typer.Argument(help="Mapping file (YAML).")],
    file: Annotated[Path, typer.Argument(help="Data file, or the folder of the mapping's files.")],
    until: Until = None,
    accept: Annotated[
        list[str] | None, typer.Option(help="A rule (kind.field.rule) that the file may break: the change is real.")
    ] = None,
    json_output: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Read a file by its mapping and land its events; bad rows go to quarantine, a file unlike the last stops here."""
    from contracts.mapping import load_mapping
    from contracts.times import SystemClock, parse_time
    from features.importer import check_feeds, stage
    from features.importer import ingest as land
    from lifecycle.terminal import emit, progress_bar
    from lifecycle.workspace import Workspace

    loaded = load_mapping(mapping)
    limit, accepted = parse_time(until, "--until") if until else None, accept or ()
    landing, now = Workspace().landing, SystemClock().now()  # a rehearsal's clock may stand before its data
    if dry_run:
        staged = stage(loaded, file, now=now)
        check_feeds(staged, landing, accepted)
        counts = {kind: len(frame) for kind, frame in staged.events.items()}
        emit({"dry_run": True, "events": counts, "refused": _reasons(staged.rejected)}, json_output=json_output)
        return
    with progress_bar(json_output=json_output) as progress:
        receipts = land(loaded, file, landing, until=limit, progress=progress, now=now, accept=accepted)
    result: dict[str, dict[str, object]] = {}
    for receipt in receipts:
        sums = result.setdefault(receipt.kind, {"in": 0, "landed": 0, "quarantined": 0, "again": 0, "reasons": {}})
        _add(sums, "in", receipt.rows_in)
        _add(sums, "again" if receipt.already else "landed", receipt.landed)
        _add(sums, "quarantined", receipt.quarantined)
        reasons = sums["reasons"]
        for reason, count in receipt.reasons.items():
            _add(reasons, reason, count)  # type: ignore[arg-type]
    emit(dict(result), json_output=json_output, title=f"{mapping.name}: {file.name}")


def _add(sums: dict[str, object], name: str, count: int) -> None:
    sums[name] = int(sums.get(name, 0)) + count  # type: ignore[call-overload]


def _reasons(rejected: dict[str, pd.DataFrame]) -> dict[str, dict[str, int]]:
    def rules(frame: pd.DataFrame) -> pd.Series[str]:
        return frame["reason"].map(lambda reason: reason.partition(", got ")[0])

    return {
        kind: {str(name): int(n) for name, n in rules(frame).value_counts().head(20).items()}
        for kind, frame in rejected.items()
        if len(frame)
    }


@features_app.command("apply")
def apply(json_output: Json = False) -> None:
    """Register the declared views and services with Feast."""
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    ws.feast.apply()
    services = {name: ws.declarations.service_hash(name) for name in ws.declarations.services}
    emit({"views": list(ws.declarations.views), "services": services}, json_output=json_output)


@features_app.command("materialize")
def materialize(
    until: Until = None,
    full: Annotated[bool, typer.Option(help="From the beginning, whatever was remembered of earlier runs.")] = False,
    json_output: Json = False,
) -> None:
    """Build feature rows from landed events up to now and put what is new online."""
    from contracts.times import parse_time
    from features.build import build
    from features.materialize import materialize as bring_online
    from lifecycle.posted import land_posted
    from lifecycle.terminal import emit, progress_bar
    from lifecycle.workspace import Workspace

    ws = Workspace()
    now = ws.clock.now()
    limit = min(parse_time(until, "--until"), now) if until else now
    posted = land_posted(ws)
    with progress_bar(json_output=json_output) as progress:
        built = build(ws.declarations, ws.landing, ws.gold, until=limit, progress=progress)
        online = bring_online(ws.declarations, ws.gold, ws.online, limit, full=full, clock=ws.clock, progress=progress)
    rows = {view: {"built": built.get(view, 0), **online[view]._asdict()} for view in ws.declarations.views}
    emit({"until": limit.isoformat(), "posted_outcomes": posted, "rows": rows}, json_output=json_output)
