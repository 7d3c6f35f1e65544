"""The ledger: `seatrial ledger ...`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.rollout import RowKind
from lifecycle.commands.options import DryRun, Json, Model

if TYPE_CHECKING:
    from lifecycle.workspace import Workspace
    from registry.ledger import Anchor

ledger_app = typer.Typer(no_args_is_help=True, help="The hash-chained record of everything that changed.")

OneModel = Annotated[str, typer.Argument(help="One model's chain; all of them when left out.")]
Kinds = Annotated[list[RowKind] | None, typer.Option("--kind", help="Only rows of this kind; may be repeated.")]
Since = Annotated[str, typer.Option(help="Only rows from this moment on: 2026-01-31 or 2026-01-31T12:00:00Z.")]
ByHand = Annotated[
    list[str] | None,
    typer.Option("--anchor", help='An anchor copied from a report: "model revision hash"; may be repeated.'),
]
Kept = Annotated[Path | None, typer.Option("--anchors", help="The anchor file, when not the workspace's own.")]


@ledger_app.command("log")
def log(
    model: Model,
    kind: Kinds = None,
    version: Annotated[str, typer.Option(help="Only rows about this version.")] = "",
    since: Since = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the newest so many.")] = None,
    json_output: Json = False,
) -> None:
    """What happened to a model, oldest first: when, what, which version, who, why, on what evidence."""
    import json
    import shutil

    from lifecycle.ledger_lines import cells, chosen, fitted
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace
    from registry.ledger import export as as_lines

    ws = Workspace()
    name = _chain_of(ws, model)
    chain = ws.ledger.rows(name)
    rows = chosen(chain, kinds=kind or (), version=version, since=_moment(since), limit=limit)
    if json_output:
        emit(
            {"model": name, "of": len(chain), "rows": [json.loads(as_lines([row])) for row in rows]},
            json_output=True,
        )
        return
    # Into a file or pipe a row stays one line, whatever its length.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    lines = fitted([cells(row, chain) for row in rows], width)
    sys.stdout.write(f"{name}: {len(rows)} of {len(chain)} rows\n" + "\n".join(lines) + "\n")


@ledger_app.command("verify")
def verify(model: OneModel = "", anchor: ByHand = None, anchors: Kept = None, json_output: Json = False) -> None:
    """Check every chain from its first row and against what is kept outside the ledger; exit code 1 when one breaks.

    Without an anchor, a tail that was cut off cleanly or a chain replaced as a whole cannot be seen.
    """
    from contracts.errors import CheckFailed
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace
    from registry.anchors import check_chains

    ws = Workspace()
    kept = _anchors(ws, anchor, anchors)
    chains = check_chains(ws.ledger, kept, _chain_of(ws, model, kept) if model else "")
    result = {
        one.model: {"rows": one.rows, "head": one.head.hash, "anchors": one.anchors}
        | ({"broken": one.broken} if one.broken else {})
        | ({} if one.anchors else {"note": "nothing is kept outside: a tail cut off cleanly would not be seen"})
        for one in chains
    }
    broken = [one.broken for one in chains if one.broken]
    emit({"verified": not broken, "models": result}, json_output=json_output)
    if broken:
        raise CheckFailed("; ".join(broken))


@ledger_app.command("export")
def export(
    model: OneModel = "",
    out: Annotated[Path, typer.Option("--out", help="The file to write; replaced in one step.")] = Path("ledger.jsonl"),
    json_output: Json = False,
) -> None:
    """Write the ledger as JSON lines, a row a line: what `ledger restore` reads back, and an auditor without us."""
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace
    from registry.durable import replace_file
    from registry.ledger import export as as_lines
    from registry.ledger import head
    from registry.ledger import verify as check

    ws = Workspace()
    names = [_chain_of(ws, model)] if model else list(ws.ledger.models())
    chains = {name: ws.ledger.rows(name) for name in names}
    for rows in chains.values():
        check(rows)
    text = "".join(as_lines(rows) for rows in chains.values())
    replace_file(out, text.encode())
    counted = {name: len(rows) for name, rows in chains.items()}
    anchors = [str(head(rows, name)) for name, rows in chains.items()]
    emit({"file": str(out), "rows": counted, "anchors": anchors}, json_output=json_output)


@ledger_app.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(help="What `ledger export` wrote.")],
    verify: Annotated[
        bool, typer.Option(help="Also check that every version in use lies sealed in the artifacts folder.")
    ] = True,
    anchors: Kept = None,
    dry_run: DryRun = False,
    json_output: Json = False,
) -> None:
    """Put an export into an empty ledger, whole or not at all, once its chains, anchors and models hold.

    Copy the artifacts folder first, and run `seatrial reconcile` afterwards: it writes what serving reads.
    """
    from contracts.errors import InputInvalid
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace
    from registry.anchors import record_restored
    from registry.ledger import read_export
    from registry.restore import already_there, restorable

    began = time.perf_counter()
    ws = Workspace()
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputInvalid(str(file), "an export of the ledger", str(error)) from None
    found = restorable(read_export(text), _anchors(ws, None, anchors), ws.artifacts if verify else None)
    there = already_there(ws.ledger, found)
    if not dry_run:
        if not there:
            ws.ledger.restore([row for rows in found.rows.values() for row in rows])
        record_restored(anchors or ws.settings.anchor_file, found.heads, ws.clock.now(), ws.settings.actor)
    result: dict[str, Any] = {
        "dry_run": dry_run,
        "restored": not dry_run and not there,
        "was_there_already": there,
        "rows": {model: len(rows) for model, rows in found.rows.items()},
        "rows_lost_after_the_export": found.lost or 0,
        "versions_in_use": {model: list(used) for model, used in found.versions.items()},
        "artifacts_verified": verify,
        "seconds": round(time.perf_counter() - began, 3),
    }
    emit(result, json_output=json_output)


def _chain_of(ws: Workspace, model: str, anchors: tuple[Anchor, ...] = ()) -> str:
    from contracts.errors import UnknownName

    name, known = model.replace("-", "_"), {*ws.ledger.models(), *(anchor.model for anchor in anchors)}
    if name not in known | set(ws.policies):
        raise UnknownName("model", model, known | set(ws.policies))
    return name


def _anchors(ws: Workspace, by_hand: list[str] | None, file: Path | None) -> tuple[Anchor, ...]:
    from contracts.errors import InputInvalid
    from registry.anchors import parse_anchor, read_anchors

    if file is not None and not file.is_file():
        raise InputInvalid(str(file), "an anchor file", "no such file")
    return (*read_anchors(file or ws.settings.anchor_file), *(parse_anchor(text) for text in by_hand or ()))


def _moment(text: str) -> Any:
    from contracts.times import parse_time

    return parse_time(text if "T" in text else f"{text}T00:00:00Z", "--since") if text else None
