"""The ledger: `seatrial ledger ...`."""

from __future__ import annotations

from typing import Any

import typer

from lifecycle.commands.options import Json, Model

ledger_app = typer.Typer(no_args_is_help=True, help="The hash-chained record of everything that changed.")


@ledger_app.command("log")
def log(model: Model, json_output: Json = False) -> None:
    """Every row of one model's ledger, oldest first."""
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    rows = {
        str(row.revision): f"{row.at:%Y-%m-%d %H:%M} {row.kind.value} {row.version} by {row.actor}: {row.reason}"
        for row in ws.ledger.rows(ws.policy(model).model)
    }
    emit({"model": model, "rows": rows}, json_output=json_output)


@ledger_app.command("verify")
def verify(json_output: Json = False) -> None:
    """Check the hash chain of every model; exit code 1 names the first bad row."""
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace
    from registry.ledger import verify as check

    ws = Workspace()
    result: dict[str, Any] = {}
    for model in ws.ledger.models():
        rows = ws.ledger.rows(model)
        check(rows)
        result[model] = {"rows": len(rows), "head": rows[-1].hash if rows else ""}
    emit({"verified": True, "models": result}, json_output=json_output)
