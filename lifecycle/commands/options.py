"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and no progress.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and change nothing.")]
Model = Annotated[str, typer.Argument(help="Model name, as in its policy: demand, late_delivery (or late-delivery).")]
Seed = Annotated[int | None, typer.Option(min=0, help="In place of the policy's seed; kept with what it makes.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin anew what was interrupted, for the present moment.")]
