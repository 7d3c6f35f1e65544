"""Refused rows, which are text, with corrections put in and read again as canonical events."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa

from contracts.errors import UnknownName
from contracts.events import event_contract
from contracts.mapping import Column
from features.frames import ARROW_TYPES, frame_of
from features.parse import parse_column

Corrections = Mapping[str, Mapping[str, str | None]]


def corrected(kind: str, rows: pd.DataFrame, corrections: Corrections) -> pd.DataFrame:
    """The rows' texts with the corrections put in."""
    names = event_contract(kind).names
    texts = rows[list(names)].copy()
    places = {name: place for place, name in enumerate(rows["id"])}
    for row, fields in corrections.items():
        for field, text in fields.items():
            if field not in names:
                raise UnknownName(f"field of {kind}", field, names)
            if row in places:
                texts.iloc[places[row], names.index(field)] = text
    return texts


def typed(kind: str, texts: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Texts as a canonical frame, and for each row why it cannot be read as one ('' when it can)."""
    table = pa.table({name: pa.array(texts[name], pa.string(), from_pandas=True) for name in texts.columns})
    columns: dict[str, pa.Array] = {}
    reasons: list[list[str]] = [[] for _ in range(len(texts))]
    for field in event_contract(kind).fields:
        cells = parse_column(table, Column.model_validate({"from": field.name, "missing": ("",)}), field)
        columns[field.name] = cells.values.cast(ARROW_TYPES[field.type])
        for row in np.flatnonzero(cells.bad).tolist():
            reasons[row].append(cells.reason(field.name, row))
    return frame_of(pa.table(columns)), ["; ".join(found) for found in reasons]
