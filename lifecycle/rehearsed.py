"""What a person's intervention would do, tried on a copy of the ledger: the same checks, nothing changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lifecycle.workspace import Workspace
from registry.ledger import MemoryLedger, RowDraft
from registry.promotion import Registrar


@contextmanager
def registrar_of(ws: Workspace, model: str, *, dry_run: bool) -> Iterator[Registrar]:
    """The workspace's registrar, or for a dry run one over a copy of the model's chain in memory.

    Artifacts are the real ones, so that a rollback's target is verified in a dry run too.
    """
    if not dry_run:
        yield ws.registrar
        return
    copy = MemoryLedger()
    for row in ws.ledger.rows(model):
        draft = RowDraft(row.model, row.kind, row.version, row.at, row.actor, row.reason, row.request_id, row.payload)
        copy.append(draft, row.revision - 1)
    with TemporaryDirectory(prefix="seatrial-dry-run-") as folder:
        only = ws.settings.access == "required"
        yield Registrar(copy, ws.artifacts, Path(folder), None, ws.clock, ws.registrar.actor, adopted_only=only)
