"""A part of an as-of index on disk: some row groups of a source, in index order, one memory-mapped file a column.

A segment is a folder: `keys.arrow` (vocabularies and folds of the key coder, and the timeline's moments if it has any,
one list each), `ordered.arrow`, `event.arrow`, `known.arrow` (the index), and `c0.arrow`, `c1.arrow`, ... (the source's
other columns). All are uncompressed Arrow IPC files of one record batch: a column is used where it lies on disk, and
its pages are let go when it is no longer looked at.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from contracts.errors import DependencyDown
from features.asof import AsofIndex, Int64, KeyCoder, Keys, Timeline
from features.parquet_source import RowGroups, column_names, read_columns


@dataclass(frozen=True)
class Segment:
    """An as-of index over some row groups, used where it lies in `folder`.

    `columns`: source column -> number of its file; `rows`: rows that can be an answer; `first`, `size`: the timeline.
    """

    folder: Path
    keys: tuple[str, ...]
    columns: Mapping[str, int]
    rows: int
    first: int
    size: int

    def find(self, keys: Keys, moment: Int64, ttl: timedelta | None) -> Int64:
        """Place in the segment of the newest row known at each moment, -1 where there is none; see AsofIndex.find."""
        lists = _batch(self.folder / "keys.arrow")
        width = len(self.keys)
        parts = [lists.column(place).flatten() for place in range(2 * width - 1)]
        folds = tuple(part.to_numpy() for part in parts[width:])
        coder = KeyCoder(self.keys, tuple(parts[:width]), folds, len(parts[-1]))
        moments = lists.column(2 * width - 1).flatten().to_numpy() if lists.num_columns == 2 * width else None
        ordered, event = self._numbers("ordered"), self._numbers("event")
        index = AsofIndex(coder, Timeline(self.first, self.size, moments), ordered, event, event)
        return index.find(keys, moment, ttl)

    def times(self, places: Int64) -> tuple[Int64, Int64]:
        """Event time and known-at, microseconds since the epoch, of rows by their places (>= 0)."""
        return self._numbers("event")[places], self._numbers("known")[places]

    def column(self, name: str) -> pa.Array:
        """One of the source's columns, in the segment's order, mapped from disk."""
        return _batch(self.folder / f"c{self.columns[name]}.arrow").column(0)

    def _numbers(self, name: str) -> Int64:
        return np.asarray(_batch(self.folder / f"{name}.arrow").column(0).to_numpy())


def build_segment(
    folder: Path, groups: Sequence[RowGroups], keys: Sequence[str], event: str, known: str | None
) -> dict[str, Any]:
    """Index some row groups of a source into a new folder, one column in memory at a time.

    Args:
        folder: made whole or not at all.
        groups: which row groups of which files, in order.
        keys: join-key columns.
        event: event-time column, with a zone.
        known: known-at column, with a zone; None when every row was known when it happened.

    Returns:
        the arguments of `Segment` besides the folder (JSON values).

    Raises:
        InputInvalid, TimeInvalid: the source lacks a column or has times without a zone.
        DependencyDown: the disk is full or fails; nothing is left behind.
    """
    times = [event] if known is None else [event, known]
    needed = list(dict.fromkeys([*keys, *times]))
    table = read_columns(groups, needed, dictionaries=keys)
    index = AsofIndex.build(table.select(list(keys)), table[event], None if known is None else table[known])
    del table
    names = [name for name in column_names([group.file for group in groups]) if name not in keys]
    unfinished = folder.with_name(f"_{folder.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        lists = [*index.coder.vocabularies, *map(pa.array, index.coder.folds)]
        if index.timeline.moments is not None:
            lists.append(pa.array(index.timeline.moments))
        _write(unfinished / "keys.arrow", [_as_list(values) for values in lists])
        for name, values in (("ordered", index.ordered), ("event", index.event_us), ("known", index.known_us)):
            _write(unfinished / f"{name}.arrow", [pa.array(values)])
        places = pa.array(index.positions)
        for number, name in enumerate(names):
            column = read_columns(groups, [name])[name]
            flat = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
            _write(unfinished / f"c{number}.arrow", [flat.take(places)])
        _sync(unfinished)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.replace(folder)
    except FileNotFoundError:
        # a writer merged the source's files meanwhile: the caller lists them anew
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise DependencyDown(f"the disk under {folder.parent}", str(error)) from error
    pa.default_memory_pool().release_unused()  # or the next segment's peak is put on top of this one's
    return {
        "keys": list(keys),
        "columns": {name: number for number, name in enumerate(names)},
        "rows": len(index.ordered),
        "first": index.timeline.first,
        "size": index.timeline.size,
    }


def _as_list(values: pa.Array) -> pa.Array:
    """One row that holds all of `values`."""
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)


def _write(path: Path, columns: Sequence[pa.Array]) -> None:
    batch = pa.record_batch(list(columns), names=[str(n) for n in range(len(columns))])
    with path.open("wb") as sink:
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        sink.flush()
        os.fsync(sink.fileno())


def _batch(path: Path) -> pa.RecordBatch:
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
