"""Parquet files or folders: what is there, and their columns; small sources kept while they stay the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from contracts.errors import InputInvalid
from features.asof import AsofIndex, Int64, Keys
from features.asof_picks import Picks

KEPT_BYTES = 512 << 20
# Reading large columns once, Arrow's default pool spends more on getting memory from the system than on decoding.
_POOL = pa.system_memory_pool()


class Stamp(NamedTuple):
    """One file as it is now: whoever writes to it or puts another in its place changes at least one of these."""

    path: str
    size: int
    modified_ns: int
    changed_ns: int
    inode: int


class RowGroups(NamedTuple):
    """Row groups `first` to `last` (excluded) of one file, and how many rows they hold."""

    file: Stamp
    first: int
    last: int
    rows: int


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


class InMemory:
    """The plain kernel over a source that is read whole: see features.asof_catalog.Indexed for the other way."""

    def __init__(self, kept: Kept, keys: Sequence[str], event: str, known: str | None) -> None:
        """Args:
        kept: the source's rows.
        keys, event, known: its join-key, event-time and known-at columns.
        """
        self._kept = kept
        self._index = kept.index(keys, event, known)

    def find(self, keys: Keys, moment: Int64, ttl: timedelta | None) -> Int64:
        """Place of the newest row known at each moment, -1 where there is none; see AsofIndex.find."""
        found = self._index.find(keys, moment, ttl)
        positions = self._index.positions
        return found if positions is None or not len(positions) else np.where(found >= 0, positions[found], -1)

    def columns(self, names: Sequence[str], places: Int64) -> list[pa.Array]:
        """Values of columns at `places`, null where a place is -1; the types stay."""
        picks = Picks(places)
        flat = (self._kept.table[name] for name in names)
        return [picks.of(column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()) for column in flat]


class ParquetSources:
    """Sources by path and columns; a source that only got new files is read only there."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        """Args:
        limit: bytes of rows to keep at most; the source used longest ago goes first.
        """
        self._kept: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Kept] = {}
        self._limit = limit
        self._lock = threading.Lock()

    def read(self, path: Path, columns: Sequence[str], dictionaries: Sequence[str] = ()) -> Kept | None:
        """The rows of a Parquet file, or of all Parquet files below a folder in order of their names.

        Args:
            path: the file or folder.
            columns: the columns wanted.
            dictionaries: those among them that are kept as Arrow dictionaries (join keys, for the index).

        Returns:
            None when there is no file yet.

        Raises:
            InputInvalid: a file is no Parquet file or lacks a column.
        """
        for files in listings(path):
            try:
                return self._read(path, files, tuple(columns), tuple(dictionaries)) if files else None
            except FileNotFoundError:
                continue
        return None

    def _read(
        self, path: Path, files: tuple[Stamp, ...], columns: tuple[str, ...], dictionaries: tuple[str, ...]
    ) -> Kept:
        name = (str(path), columns, dictionaries)
        with self._lock:
            kept = self._kept.pop(name, None)
        if kept is None or kept.files != files:
            old = kept.files if kept and files[: len(kept.files)] == kept.files else ()
            fresh = read_columns([RowGroups(file, 0, -1, 0) for file in files[len(old) :]], columns, dictionaries)
            table = pa.concat_tables([kept.table, fresh], promote_options="permissive") if kept and old else fresh
            kept = Kept(files, table.unify_dictionaries().combine_chunks(_POOL), {})
        with self._lock:
            self._kept[name] = kept
            while len(self._kept) > 1 and sum(item.table.nbytes for item in self._kept.values()) > self._limit:
                del self._kept[next(iter(self._kept))]
        return kept


def listings(path: Path, times: int = 5) -> Iterator[tuple[Stamp, ...]]:
    """The files of a source, listed anew each time: for a reader whose files a writer merged between list and read.

    Raises:
        FileNotFoundError: they vanished every time.
    """
    for _ in range(times):
        try:
            files = source_files(path)
        except FileNotFoundError:
            continue
        yield files
    raise FileNotFoundError(f"{path}: its files vanish while they are read")


def source_files(path: Path) -> tuple[Stamp, ...]:
    """The file, or all Parquet files below a folder in order of their paths, but none with _ or . in front."""
    found = [path] if path.is_file() else sorted(path.rglob("*.parquet")) if path.is_dir() else []
    stamps: list[Stamp] = []
    for file in found:
        if not file.name.startswith(("_", ".")):
            stat = file.stat()
            stamps.append(Stamp(str(file), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))
    return tuple(stamps)


def row_groups(files: Sequence[Stamp]) -> list[RowGroups]:
    """Every row group of some files, in order, one by one.

    Raises:
        InputInvalid: a file is no Parquet file.
    """
    found: list[RowGroups] = []
    for file in files:
        try:
            metadata = pq.read_metadata(file.path)
        except pa.ArrowInvalid as error:
            raise _not_parquet(file.path, error) from None
        count = metadata.num_row_groups
        found += [RowGroups(file, n, n + 1, metadata.row_group(n).num_rows) for n in range(count)]
        if count == 0:
            found.append(RowGroups(file, 0, 0, 0))
    return found


@lru_cache(maxsize=65536)
def rows_and_width(file: Stamp) -> tuple[int, int]:
    """Rows of a file, and bytes that a row takes in memory: 8 a column, 32 a column of text.

    Raises:
        InputInvalid: it is no Parquet file.
    """
    try:
        metadata = pq.read_metadata(file.path)
    except pa.ArrowInvalid as error:
        raise _not_parquet(file.path, error) from None
    kinds = [metadata.schema.column(place).physical_type for place in range(metadata.num_columns)]
    return metadata.num_rows, sum(32 if kind == "BYTE_ARRAY" else 8 for kind in kinds)


def column_names(files: Sequence[Stamp]) -> list[str]:
    """Names of the columns in the first or the last of some files."""
    return list(_schema([file.path for file in files], ds.ParquetFileFormat()).names)


def read_columns(groups: Sequence[RowGroups], columns: Sequence[str], dictionaries: Sequence[str] = ()) -> pa.Table:
    """Columns of some row groups, in their order; a type that is null or narrower in the first or last is widened.

    Args:
        groups: which row groups; `last` -1 means the whole file.
        columns: names.
        dictionaries: columns to read as Arrow dictionaries.

    Raises:
        InputInvalid: a file is no Parquet file or lacks a column.
    """
    paths = list(dict.fromkeys(group.file.path for group in groups))
    form = ds.ParquetFileFormat(dictionary_columns=list(dictionaries))
    try:
        schema = _schema(paths, form)
        missing = [name for name in columns if name not in schema.names]
        if missing:
            raise InputInvalid(paths[0], f"columns {', '.join(missing)}", f"columns {', '.join(schema.names)}")
        data = ds.dataset(paths, format=form, partitioning=None)
        if all(group.last < 0 for group in groups):
            return data.replace_schema(schema).to_table(columns=list(columns), memory_pool=_POOL).combine_chunks(_POOL)
        wanted: dict[str, list[int]] = {}
        for group in groups:
            wanted.setdefault(group.file.path, []).extend(range(group.first, group.last))
        parts = [part.subset(row_group_ids=wanted[part.path]) for part in data.get_fragments() if wanted[part.path]]
        some = ds.FileSystemDataset(parts, schema, form, data.filesystem)
        return some.to_table(columns=list(columns), memory_pool=_POOL)
    except pa.ArrowInvalid as error:
        raise _not_parquet(paths[0], error) from None


def newest_first(table: pa.Table, event: str, known: str | None) -> pa.Table:
    """Rows from the newest event to the oldest; of equal ones the last known, then the last, comes first."""
    order = [(event, "descending"), *([(known, "descending")] if known else []), ("__place", "descending")]
    placed = table.append_column("__place", pa.array(np.arange(table.num_rows)))
    places = pc.sort_indices(placed, sort_keys=order)  # pyright: ignore[reportAttributeAccessIssue]
    return placed.take(places).drop_columns(["__place"])


def _schema(paths: Sequence[str], form: Any) -> pa.Schema:
    schemas = [ds.dataset(file, format=form).schema for file in dict.fromkeys((paths[0], paths[-1]))]
    return schemas[0] if len(schemas) == 1 else pa.unify_schemas(schemas, promote_options="permissive")


def _not_parquet(file: str, error: Exception) -> InputInvalid:
    return InputInvalid(file, "a Parquet file", str(error).splitlines()[0])
