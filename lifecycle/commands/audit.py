"""Proof of the features: `seatrial features audit`, `seatrial features skew`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.commands.data import Until
from lifecycle.commands.options import Json, Model

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from contracts.policy import Policy
    from lifecycle.progress import Progress
    from lifecycle.workspace import Workspace

Seed = Annotated[int, typer.Option(help="Of the random choice of rows.")]


def audit(
    training_set: Annotated[str, typer.Argument(help="A model's name, or a training set as a Parquet file.")],
    service: Annotated[str | None, typer.Option(help="Feature service of the file; a model's own otherwise.")] = None,
    sample: Annotated[int, typer.Option(min=1, help="Random rows a view.")] = 40,
    edges: Annotated[int, typer.Option(min=1, help="Rows a view, at most, that sit on an edge in time.")] = 120,
    moments: Annotated[int, typer.Option(min=0, help="Moments at which the future is deleted.")] = 3,
    seed: Seed = 0,
    until: Until = None,
    json_output: Json = False,
) -> None:
    """Recompute a training set from landed events by brute force and look for leaks; changes no features.

    A model's training set is made as `seatrial train` makes it, from the features as they are built, at the moment at
    which the newest landed label became known (or --until, when that is earlier). Ends with exit
    code 1 when a value differs, a feature knows the label, or a value changes when the future is deleted.
    """
    from lifecycle.audits import full_audit
    from lifecycle.terminal import emit, progress_bar
    from lifecycle.workspace import Workspace

    ws = Workspace()
    with progress_bar(json_output=json_output) as progress:
        rows, named = _rows(ws, training_set, service, until, progress)
        report, clean = full_audit(
            ws, named, rows, sample=sample, most_edges=edges, moments=moments, seed=seed, progress=progress
        )
    if not json_output:
        report = _for_people(report)
    emit({"training_set": training_set, "clean": clean, **report}, json_output=json_output, title="leakage audit")
    raise typer.Exit(0 if clean else 1)


def _rows(
    ws: Workspace, training_set: str, service: str | None, until: str | None, progress: Progress
) -> tuple[pd.DataFrame, str]:
    """The training set and its feature service."""
    from contracts.errors import UsageError
    from contracts.times import parse_time
    from lifecycle.pipeline import training_set as made

    limit = parse_time(until, "--until") if until else None
    path = Path(training_set)
    if not path.is_file() and path.suffix != ".parquet":
        policy = ws.policy(training_set)
        if service not in (None, policy.features):
            raise UsageError(f"{policy.model} uses {policy.features}; --service is for a file")
        now = min(ws.clock.now(), _newest_label(ws, policy))
        return made(ws, policy, now if limit is None else min(limit, now), progress), policy.features
    if service is None:
        raise UsageError(f"{path}: say with --service which feature service the training set was made with")
    rows = _read(path)
    return (rows if limit is None else rows[rows["as_of"] <= limit]), service


def _newest_label(ws: Workspace, policy: Policy) -> datetime:
    """When the newest landed label became known: recorded history ends before the clock's present."""
    known = ws.landing.read("demand" if policy.kind == "forecast" else "outcome")["known_at"]
    newest: datetime = known.max().to_pydatetime() if len(known) else ws.clock.now()
    return newest


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    from contracts.errors import InputInvalid, UnknownName

    try:
        rows = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputInvalid(str(path), "a readable Parquet file", str(error).splitlines()[0]) from None
    if "as_of" not in rows.columns:
        raise UnknownName("column of a training set", "as_of", [str(name) for name in rows.columns])
    if not isinstance(rows["as_of"].dtype, pd.DatetimeTZDtype):
        raise InputInvalid(f"{path}: as_of", "times with a zone", str(rows["as_of"].dtype))
    rows["as_of"] = rows["as_of"].dt.tz_convert("UTC")
    return rows


def _for_people(report: dict[str, Any]) -> dict[str, Any]:
    """The report with one line a finding, and one a view for its edges."""
    edges, left_out = report["edges"], report["edge_rows_left_out"]
    short = {name: value for name, value in report.items() if name not in ("edges", "edge_rows_left_out")}
    short["edge_rows"] = {
        view: ", ".join(f"{kind} {count}" for kind, count in kinds.items()) + f"; {left_out[view]} rows left out"
        for view, kinds in edges.items()
    }
    short["differences"] = [
        f"{one['row_id']} {one['column']}: {one['given']} instead of {one['wanted']}; {one['why']}"
        + "".join(f" [{e['event_id']}, {e['event_time']}, known {e['known_at']}]" for e in one["events"])
        for one in report["differences"]
    ]
    short["suspects"] = [f"{one['column']}: {one['kind']}, {one['words']}" for one in report["suspects"]]
    future = dict(report["future_deleted"])
    future["changes"] = [
        f"{one['row_id']} {one['column']}: {one['given']}, without the future {one['without']}"
        for one in future["changes"]
    ]
    return short | {"future_deleted": future}


def skew(
    model: Model,
    max_share: Annotated[float, typer.Option(min=0, max=1, help="Share of differing rows that is let pass.")] = 0.0,
    sample: Annotated[int, typer.Option(min=1, help="Decisions to compare, at random.")] = 3000,
    seed: Seed = 0,
    json_output: Json = False,
) -> None:
    """Compare what decisions were served with what the offline join gives for the same keys and moments.

    Ends with exit code 1 when a fact of the request differs at all, or a stored feature in more than --max-share.
    """
    from dataclasses import asdict

    from lifecycle.skew import skew_of
    from lifecycle.terminal import emit, progress_bar
    from lifecycle.workspace import Workspace

    ws = Workspace()
    policy = ws.policy(model)
    with ws.closing(), progress_bar(json_output=json_output) as progress:
        found = skew_of(ws, policy, sample=sample, seed=seed, progress=progress)
    over = found.over(max_share)
    differing = [one for one in found.features if one.differing]
    result: dict[str, Any] = {
        "model": policy.model,
        "decisions": found.decisions,
        "left_out_other_features": found.other_features,
        "facts_from_landed_shipments": found.from_landed,
        "features": len(found.features),
        "pure_features": sum(one.pure for one in found.features),
        "differing_features": len(differing),
        "over": [one.feature for one in over],
    }
    if json_output:
        result["by_feature"] = {one.feature: asdict(one) | {"share": one.share} for one in found.features}
    else:
        result |= {one.feature: _line(one) for one in differing}
    emit(result, json_output=json_output, title=f"skew of {policy.model}")
    raise typer.Exit(1 if over else 0)


def _line(one: Any) -> str:
    said = one.examples[0].cause if one.examples else ""
    return (
        f"{one.differing} of {one.rows} rows ({one.share:.2%}), largest difference {one.largest:.4g}, "
        f"likely {one.cause}: {said}"
    )
