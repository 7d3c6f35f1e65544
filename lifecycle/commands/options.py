"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and no progress.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and change nothing.")]
Model = Annotated[str, typer.Argument(help="Model name, as in its policy: demand, late_delivery (or late-delivery).")]
