"""Canonical event frames: their dtypes in pandas and Arrow, and buffers that grow without copying what they hold."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from contracts.events import EventField, FieldType, event_contract

# Arrow makes its compute functions when it is imported, where type checkers cannot see them.
pc: Any = importlib.import_module("pyarrow.compute")

ARROW_TYPES: dict[FieldType, pa.DataType] = {
    "text": pa.string(),
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "time": pa.timestamp("us", tz="UTC"),
}
DTYPES: dict[FieldType, str] = {
    "text": "object",
    "number": "float64",
    "integer": "Int64",
    "boolean": "boolean",
    "time": "datetime64[us, UTC]",
}
_EXTENSIONS = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
_STORED: dict[FieldType, str] = {
    "text": "object",
    "number": "float64",
    "integer": "int64",
    "boolean": "bool",
    "time": "datetime64[us]",
}


def event_schema(kind: str) -> pa.Schema:
    """Arrow schema of a canonical event frame."""
    return pa.schema([(field.name, ARROW_TYPES[field.type]) for field in event_contract(kind).fields])


def frame_of(table: pa.Table) -> pd.DataFrame:
    """A canonical Arrow table as a canonical frame: text as str objects, None where missing."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_EXTENSIONS.get, ignore_metadata=True)
    return frame


def table_of(kind: str, frame: pd.DataFrame) -> pa.Table:
    """A canonical frame as an Arrow table with the kind's schema; NaN and None become null."""
    schema = event_schema(kind)
    arrays = [pa.array(frame[field.name], type=field.type, from_pandas=True) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def empty_frame(kind: str) -> pd.DataFrame:
    """A canonical frame without rows."""
    return frame_of(event_schema(kind).empty_table())


class ColumnBuffer:
    """One canonical column that grows at its end; views handed out earlier stay valid and unchanged."""

    def __init__(self, field: EventField) -> None:
        self._field = field
        self._values: Any = np.empty(0, dtype=_STORED[field.type])
        self._mask: Any = np.empty(0, dtype=bool) if field.type in ("integer", "boolean") else None

    def extend(self, series: pd.Series[Any], size: int) -> None:
        """Put `series` (canonical dtype) behind the first `size` values."""
        total = size + len(series)
        if total > len(self._values):
            capacity = max(1024, 2 * len(self._values), total)
            self._values = _grown(self._values, size, capacity)
            self._mask = None if self._mask is None else _grown(self._mask, size, capacity)
        if self._mask is not None:
            gone = series.isna().to_numpy()
            self._mask[size:total] = gone
            self._values[size:total] = series.to_numpy(dtype=self._values.dtype, na_value=0)
        elif self._field.type == "time":
            self._values[size:total] = series.to_numpy(dtype="datetime64[us]")
        else:
            self._values[size:total] = series.to_numpy()

    def view(self, size: int) -> Any:
        """The first `size` values as a column; no copy except of times (8 bytes a row)."""
        values = self._values[:size]
        if self._field.type == "integer":
            return pd.arrays.IntegerArray(values, self._mask[:size])
        if self._field.type == "boolean":
            return pd.arrays.BooleanArray(values, self._mask[:size])
        if self._field.type == "time":
            return pd.DatetimeIndex(values).tz_localize("UTC")
        return values


class FrameBuffer:
    """A canonical frame of one kind that grows at its end, and whether its known_at never went back."""

    def __init__(self, kind: str) -> None:
        contract = event_contract(kind)
        self.kind = kind
        self.size = 0
        self.in_order = True
        self._newest: pd.Timestamp | None = None
        self._columns = {field.name: ColumnBuffer(field) for field in contract.fields}
        self._frame: pd.DataFrame | None = None

    def extend(self, frame: pd.DataFrame) -> None:
        """Add the rows of a canonical frame of this kind."""
        if frame.empty:
            return
        known = frame["known_at"]
        first, last = known.iloc[0], known.iloc[-1]
        behind = self._newest is not None and first < self._newest
        if behind or not known.is_monotonic_increasing:
            self.in_order = False
        self._newest = last if self._newest is None else max(last, self._newest)
        for name, column in self._columns.items():
            column.extend(frame[name], self.size)
        self.size += len(frame)
        self._frame = None

    def frame(self) -> pd.DataFrame:
        """All rows so far; callers must not write into it."""
        if self._frame is None:
            views = {name: column.view(self.size) for name, column in self._columns.items()}
            self._frame = pd.DataFrame(views, copy=False)
        return self._frame


def _grown(values: Any, size: int, capacity: int) -> Any:
    larger = np.empty(capacity, dtype=values.dtype)
    larger[:size] = values[:size]
    return larger
