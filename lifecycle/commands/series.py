"""The time-series contract over landed demand: `seatrial features series`."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Annotated, Any

import typer

from lifecycle.commands.options import Json

_SHOWN = 5


def series(
    rule: Annotated[str | None, typer.Option(help="Only this rule, with every series.")] = None,
    strict: Annotated[bool, typer.Option(help="End with 1 when anything is found.")] = False,
    json_output: Json = False,
) -> None:
    """Say which demand series have gaps, duplicates, jumps of unit, negative, missing, constant or too few values."""
    from contracts.errors import CheckFailed, UnknownName
    from features.series_contract import RULES, check_series
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    if rule is not None and rule not in RULES:
        raise UnknownName("series rule", rule, RULES)
    demand = Workspace().landing.read("demand")
    newest = demand.groupby(["sku", "location", "event_time"], sort=False)["known_at"].transform("max")
    found = check_series(demand[demand["known_at"] == newest])  # a later row is a correction, not a duplicate
    if rule is not None:
        found = found[found["rule"] == rule]
    result: dict[str, object] = {"series": int(demand.groupby(["sku", "location"]).ngroups), "rows": len(demand)}
    for name, rows in found.groupby("rule", sort=False):
        listed = rows if rule is not None or json_output else rows.head(_SHOWN)
        records = listed.drop(columns="rule").to_dict("records")
        told = records if json_output else [_line(record) for record in records]
        result[str(name)] = {"series": len(rows), "count": int(rows["count"].sum()), "found": told}
    emit(result, json_output=json_output, title="time-series contract")
    if strict and len(found):
        raise CheckFailed(f"time-series contract: {len(found)} findings; without --strict they are only told")


def _line(record: dict[Hashable, Any]) -> str:
    days = f"{record['first']:%Y-%m-%d} to {record['last']:%Y-%m-%d}"
    return f"{record['sku']} at {record['location']}: {record['count']} from {days} ({record['examples']})"
