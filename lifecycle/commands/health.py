"""Whether all agree: `seatrial reconcile`."""

from __future__ import annotations

from typing import Any

from lifecycle.commands.options import DryRun, Json


def reconcile(json_output: Json = False, dry_run: DryRun = False) -> None:
    """Bring serving snapshots and MLflow aliases back to what the ledger says; reports what was different."""
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    found: dict[str, Any] = {}
    for model in ws.ledger.models():
        if model not in ws.policies:
            found[model] = "no policy: left alone"
            continue
        if dry_run:
            from registry.mlflow_store import MlflowProjection

            differences = MlflowProjection(ws.settings.tracking).differences(ws.registrar.state(model))
        else:
            differences = list(ws.registrar.reconcile(model, ws.policies[model]))
        found[model] = differences or "as the ledger says"
    emit({"dry_run": dry_run, "differences": found}, json_output=json_output)
