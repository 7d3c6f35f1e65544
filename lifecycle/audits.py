"""Leakage audits of training sets: a small one inside every training, a thorough one on demand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from contracts.declarations import Declarations, DemandHistory, fact_columns, join_keys, view_columns
from contracts.errors import NotEnoughData
from contracts.policy import Policy
from contracts.times import iso
from features.audit import Audit, Difference, audit
from features.leaks import Suspect, suspects
from lifecycle.progress import Progress, quiet
from lifecycle.workspace import Workspace

# What a training can spare: about half a second. A fault in half of a view's rows is missed once in eight trainings,
# one in a tenth of them seven times in ten; the thorough audit is for those.
TRAINING_SAMPLE = 3
TRAINING_SUSPECTS = 2_000
SHOWN = 50


def training_audit(ws: Workspace, policy: Policy, rows: pd.DataFrame) -> dict[str, Any]:
    """A small audit of a training set, for the gate.

    A few random rows and the first and last are recomputed; a few thousand are looked at for label leaks. The seed is
    the policy's, moved by the number of rows, so that the next training looks at other rows.

    Returns:
        rows, cells, differing (numbers), derived and implausible (names of features), and example (words, "" if clean).
    """
    found = audit(
        ws.declarations,
        policy.features,
        ws.landing,
        rows,
        sample=TRAINING_SAMPLE,
        most_edges=0,
        seed=policy.training.seed + len(rows),
    )
    some = rows.sample(min(len(rows), TRAINING_SUSPECTS), random_state=policy.training.seed)
    leaks = label_suspects(ws.declarations, policy.features, some)
    derived = [one.column for one in leaks if one.kind != "implausible"]
    words = [_words(one) for one in found.differences[:1]] + [f"{one.column}: {one.words}" for one in leaks[:1]]
    return {
        "rows": found.rows,
        "cells": found.cells,
        "differing": len(found.differences),
        "derived": derived,
        "implausible": [one.column for one in leaks if one.kind == "implausible"],
        "example": words[0] if words else "",
    }


def label_suspects(
    declarations: Declarations, service: str, rows: pd.DataFrame, **limits: float | int
) -> tuple[Suspect, ...]:
    """Features of a service that look as if they knew the label; none when the rows have no label."""
    if "label" not in rows.columns:
        return ()
    declared = declarations.services[service]
    names = [f"{view}__{column}" for view in declared.views for column in view_columns(declarations.views[view])]
    names += [name for group in declared.facts for name in fact_columns(group)]
    features = {name: rows[name].to_numpy() for name in names}
    groups = _series(declarations, declared.views, rows)
    return suspects(features, rows["label"].to_numpy(dtype=np.float64), groups=groups, **limits)  # type: ignore[arg-type]


def _series(declarations: Declarations, views: Sequence[str], rows: pd.DataFrame) -> npt.NDArray[Any] | None:
    """Which series each row belongs to, for a service with a demand history."""
    for view in views:
        declared = declarations.views[view]
        if isinstance(declared, DemandHistory):
            return rows.groupby(list(join_keys(declared)), sort=False, dropna=False).ngroup().to_numpy()
    return None


def full_audit(
    ws: Workspace,
    service: str,
    rows: pd.DataFrame,
    *,
    sample: int,
    most_edges: int,
    moments: int,
    seed: int,
    progress: Progress = quiet,
) -> tuple[dict[str, Any], bool]:
    """Audit a training set thoroughly: brute force on a sample and on edges, label leaks, and the future deleted.

    Returns:
        the report (plain values), and whether nothing was found.

    Raises:
        NotEnoughData: the training set has no rows.
    """
    from features.no_future import delete_the_future

    if rows.empty:
        raise NotEnoughData("rows of the training set", 1, 0)

    def stage(name: str, share: float) -> None:
        progress(f"brute force: {name}" if name else "label leaks", 0.6 * share)

    def future(name: str, share: float) -> None:
        progress(name, 0.7 + 0.3 * share)

    found = audit(
        ws.declarations, service, ws.landing, rows, sample=sample, most_edges=most_edges, seed=seed, progress=stage
    )
    leaks = label_suspects(ws.declarations, service, rows)
    without = delete_the_future(ws.declarations, service, ws.landing, rows, moments=moments, seed=seed, progress=future)
    changed = sorted({change.column for change in without.changes})
    report = {
        "service": service,
        "training_rows": len(rows),
        **_brute_force(found),
        "suspects": [asdict(one) for one in leaks],
        "future_deleted": {
            "moments": [iso(moment) for moment in without.moments],
            "rows": without.rows,
            "cells": without.cells,
            "changed": len(without.changes),
            "features": changed,
            "changes": [_plain(asdict(change)) for change in without.changes[:SHOWN]],
        },
    }
    return report, found.clean and not leaks and not changed


def _brute_force(found: Audit) -> dict[str, Any]:
    return {
        "audited_rows": found.rows,
        "cells": found.cells,
        "differing": len(found.differences),
        "edges": {view: dict(kinds) for view, kinds in found.edges.items()},
        "edge_rows_left_out": dict(found.edges_left_out),
        "differences": [_plain(asdict(one)) for one in found.differences[:SHOWN]],
    }


def _plain(value: Any) -> Any:
    """Values for JSON: missing numbers as None, times as text."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    return iso(value) if isinstance(value, datetime) else value


def _words(one: Difference) -> str:
    return f"{one.column} of {one.row_id} is {one.given:g}, landed events give {one.wanted:g}: {one.why}"
