"""Registered versions: `seatrial compare`, `seatrial card`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.commands.options import Json, Model

if TYPE_CHECKING:
    from lifecycle.comparison import Paired

First = Annotated[str | None, typer.Argument(help="A version like v1; the champion when none is given.")]
Second = Annotated[str | None, typer.Argument(help="Another; the newest other version when none is given.")]
Which = Annotated[
    str | None, typer.Argument(help="A version like v1; the champion, else the newest, when none is given.")
]


def compare(model: Model, first: First = None, second: Second = None, json_output: Json = False) -> None:
    """Two registered versions and the incumbent on the same rows, and what was different in their making.

    On decisions since both were trained, or, while too few of those have matured, on what their backtests scored; the
    answer says which. Registers nothing.
    """
    from lifecycle.comparison import by_part, differences, unlike
    from lifecycle.terminal import emit, progress_bar
    from lifecycle.versions import pair_of, paired
    from lifecycle.workspace import Workspace

    ws = Workspace()
    policy = ws.policy(model)
    now = ws.clock.now()
    with ws.closing(), progress_bar(json_output=json_output) as progress:
        versions = pair_of(ws, policy, first, second)
        found = paired(ws, policy, versions, now, progress)
    settings = unlike(*(version.settings for version in versions))
    value: dict[str, Any] = {
        "model": policy.model,
        "metric": policy.gate.metric,
        "confidence": policy.gate.confidence,
        "rows": found.which,
        "differences": differences(found, policy),
        "parts": by_part(found, policy),
        "settings": {
            name: {versions[0].name: mine, versions[1].name: other} for name, (mine, other) in settings.items()
        },
    }
    if json_output:
        emit(value, json_output=True)
    else:
        _print(value, found)


def _print(value: dict[str, Any], found: Paired) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    console.print(f"{value['model']}: {value['metric']} on {found.which}", highlight=False)
    sure = 2 * value["confidence"] - 1
    pairs = Table("", "less loss", f"{sure:.0%} interval", "days", "so", box=box.SIMPLE)
    for line in value["differences"]:
        known = line["lower"] is not None and line["upper"] is not None
        interval = f"{line['lower']:+.1%} to {line['upper']:+.1%}" if known else "unknown"
        words = f"{line['of']} against {line['against']}"
        pairs.add_row(words, f"{line['less_loss']:+.1%}", interval, str(line["days"]), line["words"])
    parts = Table("part", "rows", *found.contenders, box=box.SIMPLE)
    for line in value["parts"]:
        parts.add_row(escape(line["part"]), str(line["rows"]), *(f"{line[who]:.4g}" for who in found.contenders))
    made = Table("made from", *found.contenders[:2], box=box.SIMPLE)
    for name, both in value["settings"].items():
        made.add_row(name, *(_short(item) for item in both.values()))
    console.print(pairs, parts, made)


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 30 else f"{text[:12]}..."


def card(
    model: Model,
    version: Which = None,
    json_output: Json = False,
    out: Annotated[Path | None, typer.Option(help="Write the page to this file.")] = None,
) -> None:
    """Where the model card of a registered version is; with --json the card itself.

    The page is made anew from the files of the version, which are verified before.
    """
    import json

    from lifecycle.terminal import emit
    from lifecycle.versions import version_of
    from lifecycle.workspace import Workspace
    from models.card_page import card_page
    from registry.durable import replace_file

    ws = Workspace()
    with ws.closing():
        found = version_of(ws, ws.policy(model), version)
    if out is not None:
        replace_file(out, card_page(found.folder).encode())
    if json_output:
        emit(json.loads((found.folder / "card.json").read_text(encoding="utf-8")), json_output=True)
        return
    shown = json.loads((found.folder / "card.json").read_text(encoding="utf-8"))
    place = out or found.folder / "card.html"
    emit(
        {"page": str(place), "owner": shown["owner"], "summary": shown["summary"], "limits": shown["limits"]},
        json_output=False,
        title=f"{shown['model']} {found.name}",
    )
