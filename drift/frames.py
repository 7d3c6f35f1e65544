"""Decision records as frames: one row a decision, with the features as they were served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from contracts.decisions import DecisionRecord, Step
from contracts.declarations import Declarations, GivenFacts, view_columns

GROWS = frozenset({"history_days"})


def judged_columns(declarations: Declarations, service: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Columns of a feature service whose distribution says something about the world, in declared order.

    Calendar and schedule facts are left out, and the length of a series' history: they move with the date, and nothing
    can be broken about them.

    Returns:
        numbers (`<view>__<column>` and given numbers) and categories (given).
    """
    declared = declarations.services[service]
    numbers = [
        f"{name}__{column}"
        for name in declared.views
        for column in view_columns(declarations.views[name])
        if column not in GROWS
    ]
    categories: list[str] = []
    for group in declared.facts:
        if isinstance(group, GivenFacts):
            numbers += group.numbers
            categories += group.categories
    return tuple(numbers), tuple(categories)


def prediction(steps: Sequence[Step], probability: float | None) -> float:
    """One figure for an answer: the probability, or the mean forecast a step in units; NaN for a refusal."""
    if probability is not None:
        return probability
    return sum(step.mean for step in steps) / len(steps) if steps else float("nan")


def feature_frame(records: Sequence[DecisionRecord], declarations: Declarations, service: str) -> pd.DataFrame:
    """Features, answers and routes of decisions.

    Args:
        records: of one model.
        declarations, service: which columns to take.

    Returns:
        one row a record, in order: decision_id, as_of (UTC), version (who was routed to; None on a refusal), answered
        (version that answered), rung, prediction, then the judged columns: float64, None as NaN; categories as text. A
        view read once a step (a plan) gives its mean. A column that **no** record carries is left out, so that its
        absence can be seen.
    """
    predictions = [prediction(r.answer.steps, r.answer.probability) for r in records]
    frame = pd.DataFrame(
        {
            "decision_id": [r.decision_id for r in records],
            "as_of": pd.DatetimeIndex([r.as_of for r in records], tz="UTC").as_unit("us"),
            "version": pd.Series([r.route.version for r in records], dtype=object),
            "answered": pd.Series([r.answer.version for r in records], dtype=object),
            "rung": [r.answer.rung.value for r in records],
            "prediction": np.array(predictions, dtype=np.float64),
        }
    )
    numbers, categories = judged_columns(declarations, service)
    views = dict.fromkeys(name.split("__", 1)[0] for name in numbers if "__" in name)
    blocks = [_view_block(records, view, view_columns(declarations.views[view])) for view in views]
    given = {name: _given(records, name) for name in (*(n for n in numbers if "__" not in n), *categories)}
    asked = pd.DataFrame({name: values for name, values in given.items() if values is not None}, index=frame.index)
    for name in asked.columns.intersection(list(numbers)):
        asked[name] = _numbers(asked[name])
    wide = pd.concat([frame, *(block.set_axis(frame.index) for block in blocks), asked], axis=1)
    return wide[[*frame.columns, *(name for name in (*numbers, *categories) if name in wide.columns)]]


def _view_block(records: Sequence[DecisionRecord], view: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """`<view>__<column>` of each record; several reads of the view are averaged.

    Rows that were not found, or were stale, are NaN: models did not see them either.
    """
    nothing: dict[str, Any] = dict.fromkeys(columns)
    owners: list[int] = []
    values: list[dict[str, Any]] = []
    for place, record in enumerate(records):
        for read in record.views:
            if read.view == view:
                owners.append(place)
                values.append(read.values if read.status == "present" else nothing)
    block = pd.DataFrame.from_records(values) if values else pd.DataFrame(index=range(0))
    block = block.astype(np.float64).add_prefix(f"{view}__")
    if len(owners) != len(set(owners)):
        block = block.groupby(np.array(owners)).mean()
        owners = list(block.index)
    block.index = pd.Index(owners, dtype=np.int64)
    return block.reindex(range(len(records)))


def _given(records: Sequence[DecisionRecord], name: str) -> list[Any] | None:
    """A field of the requests, or of their subjects; None when no record has it."""
    missing = object()
    found = [record.request.get(name, record.subject.get(name, missing)) for record in records]
    return None if all(value is missing for value in found) else [None if v is missing else v for v in found]


def _numbers(values: pd.Series) -> pd.Series:
    """Float64 where every value is a number or missing; otherwise as it is, so that the judge sees the wrong type."""
    known = values.dropna()
    plain = known.map(lambda value: isinstance(value, (int, float)) and not isinstance(value, bool)).all()
    return values.astype(np.float64) if plain else values


def stale_shares(records: Sequence[DecisionRecord]) -> tuple[tuple[str, float], ...]:
    """Share of each view's reads that were stale, in [0, 1], by view name."""
    reads: dict[str, list[bool]] = {}
    for record in records:
        for read in record.views:
            reads.setdefault(read.view, []).append(read.status == "stale")
    return tuple((view, sum(stale) / len(stale)) for view, stale in sorted(reads.items()))
