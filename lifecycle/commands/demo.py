"""`seatrial demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lifecycle.commands.options import Json


def demo(
    rehearsal: Annotated[Path, typer.Option(help="Rehearsal file.")] = Path("examples/demo/demo.yaml"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Start clean even when it already ran here.")] = False,
    json_output: Json = False,
) -> None:
    """Replay real history day by day through every stage and report how it went.

    A second run of the same inputs prints the first one's figures. Ends with exit code 1 when a row was lost, a replay
    came out different, a request fact was served otherwise than training has it, or HTTP and the handler disagree.
    """
    from contracts.environments import resolved
    from contracts.settings import Settings
    from lifecycle.demo import run_demo
    from lifecycle.terminal import emit, progress_bar

    settings = resolved(Settings())
    with progress_bar(json_output=json_output) as progress:
        summary, ran = run_demo(settings, rehearsal, fresh=fresh, progress=progress)
    report = settings.reports / "demo.html"
    emit({**summary, "report": str(report), "ran": ran}, json_output=json_output, title=summary["title"])
    bad = summary["row_guarantee_violations"] + summary["replay_mismatches"] + summary["http_different"]
    bad += summary["skew_pure_differing"]
    raise typer.Exit(1 if bad else 0)
