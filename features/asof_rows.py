"""The rows that features are wanted for: a frame, or a Parquet file or folder that is read in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from contracts.errors import InputInvalid

ENTITY_TIME = "event_timestamp"
_NO_AHEAD = {"batch_readahead": 1, "fragment_readahead": 1}


@dataclass
class AskedRows:
    """The rows that features are wanted for: a frame, or a Parquet file or folder that is read in pieces.

    `moment`: name of the column with each row's time.
    """

    rows: pd.DataFrame | None
    path: Path | None
    moment: str = field(init=False)

    def __post_init__(self) -> None:
        self.moment = self._moment_column()

    @property
    def columns(self) -> list[str]:
        """Names of the rows' columns, as text."""
        if self.rows is not None:
            return [str(name) for name in self.rows.columns]
        return list(self._dataset.schema.names)

    def __len__(self) -> int:
        return len(self.rows) if self.rows is not None else int(self._dataset.count_rows())

    def pieces(self, most: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows in order, at most `most` at a time; only `columns` when given."""
        if self.rows is None:
            names = None if columns is None else list(columns)
            for batch in self._dataset.to_batches(columns=names, batch_size=most, **_NO_AHEAD):
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])
            return
        frame = self.rows if columns is None else self.rows[list(columns)]
        try:
            # one schema for all pieces: a piece in which a column is all missing would have another
            schema = pa.Schema.from_pandas(frame, preserve_index=False).remove_metadata()
            for start in range(0, max(len(frame), 1), most):
                yield pa.Table.from_pandas(frame.iloc[start : start + most], schema, preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputInvalid("rows", "one type in every column", str(error).splitlines()[0]) from None

    def range(self) -> tuple[datetime | None, datetime | None]:
        """First and last moment, for Feast's metadata; None without rows or with times that will be refused."""
        if self.rows is not None:
            times = pd.Index(self.rows[self.moment])
            if not len(times) or not isinstance(times, pd.DatetimeIndex):
                return None, None
            return times.min().to_pydatetime(), times.max().to_pydatetime()
        ends = [
            pc.call_function("min_max", [batch.column(0)])
            for batch in self._dataset.to_batches(columns=[self.moment], **_NO_AHEAD)
        ]
        found = [(end["min"].as_py(), end["max"].as_py()) for end in ends if end["min"].is_valid]
        return (min(low for low, _ in found), max(high for _, high in found)) if found else (None, None)

    @property
    def _dataset(self) -> Any:
        try:
            return ds.dataset(str(self.path), format="parquet", partitioning=None)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputInvalid(str(self.path), "a Parquet file of rows", str(error).splitlines()[0]) from None

    def _moment_column(self) -> str:
        if ENTITY_TIME in self.columns:
            return ENTITY_TIME
        if self.rows is not None:
            times = [str(n) for n in self.rows.columns if pd.api.types.is_datetime64_any_dtype(self.rows[n])]
        else:
            times = [item.name for item in self._dataset.schema if pa.types.is_timestamp(item.type)]
        if len(times) != 1:
            raise InputInvalid(
                "get_historical_features", f"a column {ENTITY_TIME!r}", f"time columns {times or 'none'}"
            )
        return times[0]
