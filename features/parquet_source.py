"""Parquet files or folders as one Arrow table, kept in memory while the files stay the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from contracts.errors import InputInvalid
from features.asof import AsofIndex, Int64

KEPT_BYTES = 512 << 20
Stamp = tuple[str, int, int]


@dataclass
class Kept:
    """A source's rows as last read, from which files, and the as-of indexes built on them (by key and time columns)."""

    files: tuple[Stamp, ...]
    table: pa.Table
    indexes: dict[tuple[tuple[str, ...], str, str | None], AsofIndex]

    def index(self, keys: Sequence[str], event: str, known: str | None) -> AsofIndex:
        """The as-of index over these join keys and time columns; built once for these files."""
        name = (tuple(keys), event, known)
        if name not in self.indexes:
            known_at = None if known is None else self.table[known]
            self.indexes[name] = AsofIndex.build(self.table.select(list(keys)), self.table[event], known_at)
        return self.indexes[name]


class ParquetSources:
    """Sources by path and columns; a source that only got new files is read only there."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        """Args:
        limit: bytes of rows to keep at most; the source used longest ago goes first.
        """
        self._kept: dict[tuple[str, tuple[str, ...]], Kept] = {}
        self._limit = limit

    def read(self, path: Path, columns: Sequence[str]) -> Kept | None:
        """The rows of a Parquet file, or of all Parquet files below a folder in order of their names.

        Returns:
            None when there is no file yet.

        Raises:
            InputInvalid: a file is no Parquet file or lacks a column.
        """
        for attempt in range(5):
            try:
                return self._read(path, tuple(columns))
            except FileNotFoundError:
                # a writer merged files between our listing and our reading
                if attempt == 4:
                    raise
        return None

    def _read(self, path: Path, columns: tuple[str, ...]) -> Kept | None:
        files = _files(path)
        if not files:
            return None
        name = (str(path), columns)
        kept = self._kept.pop(name, None)
        if kept is None or kept.files != files:
            old = kept.files if kept and files[: len(kept.files)] == kept.files else ()
            fresh = _table([file[0] for file in files[len(old) :]], columns)
            table = pa.concat_tables([kept.table, fresh]).combine_chunks() if kept and old else fresh
            kept = Kept(files, table, {})
        self._kept[name] = kept
        while len(self._kept) > 1 and sum(item.table.nbytes for item in self._kept.values()) > self._limit:
            del self._kept[next(iter(self._kept))]
        return kept


def _files(path: Path) -> tuple[Stamp, ...]:
    found = [path] if path.is_file() else sorted(path.rglob("*.parquet")) if path.is_dir() else []
    stamps: list[Stamp] = []
    for file in found:
        if not file.name.startswith(("_", ".")):
            stat = file.stat()
            stamps.append((str(file), stat.st_size, stat.st_mtime_ns))
    return tuple(stamps)


def _table(files: list[str], columns: tuple[str, ...]) -> pa.Table:
    """The columns of some files in their order; a type that is null or narrower in the first or last is widened."""
    try:
        data = ds.dataset(files, format="parquet", partitioning=None)
        schemas = [ds.dataset(file, format="parquet").schema for file in {files[0], files[-1]}]
        schema = pa.unify_schemas(schemas, promote_options="permissive")
        missing = [name for name in columns if name not in schema.names]
        if missing:
            raise InputInvalid(files[0], f"columns {', '.join(missing)}", f"columns {', '.join(schema.names)}")
        return data.replace_schema(schema).to_table(columns=list(columns)).combine_chunks()
    except pa.ArrowInvalid as error:
        raise InputInvalid(files[0], "a Parquet file", str(error).splitlines()[0]) from None


def taken(column: pa.ChunkedArray, places: Int64) -> pa.ChunkedArray:
    """Values at `places`, null where a place is -1; the type stays."""
    return column.take(pa.array(places, mask=places < 0))


def newest_first(table: pa.Table, event: str, known: str | None) -> pa.Table:
    """Rows from the newest event to the oldest; of equal ones the last known, then the last, comes first."""
    order = [(event, "descending"), *([(known, "descending")] if known else []), ("__place", "descending")]
    placed = table.append_column("__place", pa.array(np.arange(table.num_rows)))
    places = pc.sort_indices(placed, sort_keys=order)  # pyright: ignore[reportAttributeAccessIssue]
    return placed.take(places).drop_columns(["__place"])
