"""A Feast retrieval over as-of sources: in bounded pieces, the answer as Arrow, as a frame, or straight to Parquet."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView

from contracts.errors import DependencyDown, InputInvalid, RowGuarantee, UnknownName
from features.asof import Int64, Keys, asked_moments, encoded
from features.asof_rows import AskedRows

_NULLABLE = {pa.bool_(): pd.BooleanDtype()} | {
    getattr(pa, name.lower())(): getattr(pd, f"{name}Dtype")()
    for name in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
}
_log = logging.getLogger(__name__)


class Source(Protocol):
    """A view's rows, ready to be asked: features.parquet_source.InMemory or features.asof_catalog.Indexed."""

    def find(self, keys: Keys, moment: Int64, ttl: timedelta | None) -> Int64:
        """Place of the newest row known at each moment, -1 where there is none."""
        ...

    def columns(self, names: Sequence[str], places: Int64) -> list[pa.Array]:
        """Values of columns at some places, null where a place is -1."""
        ...


@dataclass(frozen=True)
class ViewPlan:
    """What one view contributes: where its rows are, how they are joined, and the columns that come out.

    `keys`: source column -> column of the rows; `outputs`: name in the result -> source column; `types`: source column
    -> declared Arrow type, for a source that has no rows yet.
    """

    name: str
    path: Path
    keys: Mapping[str, str]
    event: str
    known: str | None
    ttl: timedelta | None
    outputs: Mapping[str, str]
    types: Mapping[str, pa.DataType]

    @property
    def source_columns(self) -> list[str]:
        """The columns of the source that the join reads."""
        times = [self.event, *([self.known] if self.known else [])]
        return list(dict.fromkeys([*self.keys, *times, *self.outputs.values()]))


@dataclass(frozen=True)
class Join:
    """A point-in-time join that is ready to be done, piece by piece.

    `opened`: gives a plan's source, None while it has no rows; `piece`: rows to do at once; `on_disk`: the result is
    too large to be held, an Arrow answer lies on disk and is mapped; `engine`: any but local answers a view without
    opening it here, and reads its source anew for every piece.
    """

    asked: AskedRows
    plans: Sequence[ViewPlan]
    opened: Callable[[ViewPlan], Source | None]
    piece: int
    on_disk: bool
    engine: Literal["local", "dask", "ray", "spark"] = "local"

    def check(self) -> None:
        """Refuse what cannot be answered, by name.

        Raises:
            InputInvalid: a join key is missing, names repeat, or a column would have a feature's name.
        """
        columns = self.asked.columns
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise InputInvalid("rows", "column names that differ", f"{twice[0]!r} more than once", hint="rename one")
        given: dict[str, str] = {}
        for plan in self.plans:
            for key in plan.keys.values():
                if key not in columns:
                    raise UnknownName(f"join key of view {plan.name}", key, columns)
            for output in plan.outputs:
                if output in columns:
                    raise InputInvalid("rows", "no column with a feature's name", f"{output!r}", hint="rename it")
                if output in given:
                    got = f"{output!r} in {given[output]} and {plan.name}"
                    raise InputInvalid("features", "names that differ", got, hint="ask with full_feature_names=True")
                given[output] = plan.name

    def pieces(self, *, with_rows: bool) -> Iterator[pa.Table]:
        """Features of all rows, a piece at a time, in the rows' order; `with_rows` puts the rows' columns in front."""
        needed = list(dict.fromkeys([self.asked.moment, *(key for plan in self.plans for key in plan.keys.values())]))
        done = 0
        pieces = self.asked.pieces(self.piece, None if with_rows else needed)
        held: dict[str, Source | None] = {}  # a source is opened once for all pieces
        for piece in pieces if self.engine == "local" else _gathered(pieces, self.piece):
            features = self._features(piece, held)
            done += piece.num_rows
            yield _beside(piece, features) if with_rows else features
        if done != len(self.asked):
            raise RowGuarantee("get_historical_features", len(self.asked), done)

    def _features(self, rows: pa.Table, held: dict[str, Source | None]) -> pa.Table:
        moment = asked_moments(rows[self.asked.moment], rows.num_rows)
        codes = {key: encoded(rows, key) for plan in self.plans for key in plan.keys.values()}

        def answered(plan: ViewPlan) -> dict[str, pa.Array]:
            keys = pa.table({stored: codes[key] for stored, key in plan.keys.items()})
            return self._of_view(plan, keys, moment, held)

        # sorting, searching and taking leave Python's lock alone, so that views are answered side by side
        workers = min(len(self.plans), pa.cpu_count()) if self.engine == "local" else 1
        with ThreadPoolExecutor(max(workers, 1)) as pool:
            columns = {name: column for found in pool.map(answered, self.plans) for name, column in found.items()}
        if any(len(column) != rows.num_rows for column in columns.values()):
            raise RowGuarantee("get_historical_features", rows.num_rows, min(map(len, columns.values())))
        return pa.table(columns)

    def _of_view(
        self, plan: ViewPlan, keys: pa.Table, moment: Int64, held: dict[str, Source | None]
    ) -> dict[str, pa.Array]:
        for attempt in range(5):
            try:
                if self.engine != "local":
                    from features.fugue_engine import partitioned  # slow to import, and not always wanted

                    return partitioned(self.engine, plan, keys, moment)
                if plan.name not in held:
                    held[plan.name] = self.opened(plan)
                source = held[plan.name]
                if source is None:
                    _log.info("view %s has no rows yet in %s", plan.name, plan.path)
                    return {name: pa.nulls(len(moment), plan.types[stored]) for name, stored in plan.outputs.items()}
                places = source.find(keys, moment, plan.ttl)
                return dict(zip(plan.outputs, source.columns(list(plan.outputs.values()), places), strict=True))
            except FileNotFoundError:
                # the index was extended by another process between opening and reading
                held.pop(plan.name, None)
                if attempt == 4:
                    raise
        raise AssertionError("unreachable")


class AsofRetrievalJob(RetrievalJob):
    """A retrieval that is done when its result is asked for; a large one lies on disk and is mapped, not held."""

    def __init__(
        self,
        join: Join,
        *,
        full_feature_names: bool = False,
        on_demand: Sequence[OnDemandFeatureView] = (),
        metadata: RetrievalMetadata | None = None,
        repo: Path | None = None,
    ) -> None:
        """Args:
        join: what is to be done.
        full_feature_names: whether features carry their view's name.
        on_demand: Feast's on-demand views to compute on the result.
        metadata: what was asked.
        repo: folder that saved datasets' relative paths are under.
        """
        self._join = join
        self._full_feature_names = full_feature_names
        self._on_demand = list(on_demand)
        self._metadata = metadata
        self._repo = repo

    @property
    def full_feature_names(self) -> bool:
        """Whether features carry their view's name."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Feast's on-demand views to compute on the result."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked."""
        return self._metadata

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> pd.DataFrame:
        """The result as a frame: the caller's rows with their own types, order and index, and the features.

        Whole-number and yes-or-no features have pandas' nullable types, whether or not a value is missing.
        """
        rows = self._join.asked.rows
        if rows is not None and not self._on_demand and validation_reference is None:
            return _with_features(rows, self._join.pieces(with_rows=False))
        table = self.to_arrow(validation_reference=validation_reference, timeout=timeout)
        if rows is None:
            return _frame(table)
        mine = [str(name) for name in rows.columns if str(name) in table.column_names]
        return _with_features(rows, iter([table.drop_columns(mine)]))

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result to a file, or a folder with one file when the path does not end with .parquet.

        The file is there whole or not at all; a join that is larger than memory is written piece by piece.

        Raises:
            SavedDatasetLocationAlreadyExists: something is there and `allow_overwrite` is not set (Feast's own error).
            InputInvalid: the storage is no Parquet file on this machine.
            DependencyDown: the disk is full or fails.
        """
        if not isinstance(storage, SavedDatasetFileStorage) or "://" in storage.file_options.uri:
            raise InputInvalid("persist", "SavedDatasetFileStorage with a path of this machine", repr(storage))
        path = (self._repo or Path()) / storage.file_options.uri
        if path.exists() and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=str(path))
        file = path if path.suffix == ".parquet" else path / "rows.parquet"
        pieces = iter([self.to_arrow()]) if self._on_demand else self._join.pieces(with_rows=True)
        _write_parquet(file, pieces)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return _assembled(self._join, with_rows=True)

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return _frame(self._to_arrow_internal(timeout))


class TableJob(RetrievalJob):
    """A retrieval of rows as they lie in a source."""

    def __init__(self, work: Callable[[], pa.Table]) -> None:
        """Args:
        work: makes the rows.
        """
        self._work = work

    @property
    def full_feature_names(self) -> bool:
        """No feature carries a view's name."""
        return False

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """None are computed."""
        return []

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """Nothing was asked by feature."""
        return None

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._work()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._work().to_pandas()
        return frame


def _gathered(pieces: Iterator[pa.Table], most: int) -> Iterator[pa.Table]:
    """Neighbouring pieces put together, up to `most` rows."""
    held: list[pa.Table] = []
    for piece in pieces:
        if held and sum(part.num_rows for part in held) + piece.num_rows > most:
            yield pa.concat_tables(held)
            held = []
        held.append(piece)
    if held:
        yield pa.concat_tables(held)


def _assembled(join: Join, *, with_rows: bool) -> pa.Table:
    """All pieces as one table, on disk and mapped where the join says so."""
    if not join.on_disk:
        return pa.concat_tables(join.pieces(with_rows=with_rows))
    handle, name = tempfile.mkstemp(prefix="seatrial-join-", suffix=".arrow")
    os.close(handle)
    try:
        writer = None
        with Path(name).open("wb") as sink:
            for piece in join.pieces(with_rows=with_rows):
                writer = writer or pa.ipc.new_file(sink, piece.schema)
                writer.write_table(piece)
            if writer:
                writer.close()
        return pa.ipc.open_file(pa.memory_map(name)).read_all()
    except OSError as error:
        raise DependencyDown(f"the disk under {tempfile.gettempdir()}", str(error)) from error
    finally:
        Path(name).unlink(missing_ok=True)  # the mapping stays


def _write_parquet(file: Path, pieces: Iterator[pa.Table]) -> None:
    unfinished = file.with_name(f"_{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        writer = None
        for piece in pieces:
            writer = writer or pq.ParquetWriter(str(unfinished), piece.schema)
            writer.write_table(piece)
        if writer:
            writer.close()
        unfinished.replace(file)
    except OSError as error:
        raise DependencyDown(f"the disk under {file.parent}", str(error)) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas(types_mapper=_NULLABLE.get, split_blocks=True)
    return frame


def _with_features(rows: pd.DataFrame, pieces: Iterator[pa.Table]) -> pd.DataFrame:
    """A new frame of the caller's columns and the features', made column by column: nothing is held twice."""
    parts: dict[str, list[Any]] = {}
    for piece in pieces:
        for name in piece.column_names:
            parts.setdefault(name, []).append(_values(piece[name]))
        del piece
    columns = {name: rows[name].array.copy() for name in rows.columns}
    for name in list(parts):
        held = parts.pop(name)
        columns[name] = held[0] if len(held) == 1 else pd.concat([pd.Series(part, copy=False) for part in held]).array
    return pd.DataFrame(columns, index=rows.index, copy=False)


def _values(column: pa.ChunkedArray) -> Any:
    if pa.types.is_floating(column.type):
        return np.array(column.to_numpy())
    return column.to_pandas(types_mapper=_NULLABLE.get).array


def _beside(rows: pa.Table, features: pa.Table) -> pa.Table:
    return pa.Table.from_arrays([*rows.columns, *features.columns], names=[*rows.column_names, *features.column_names])
