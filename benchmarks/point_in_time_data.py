"""The data of the point-in-time benchmark: sources with late and restated rows, questions, true answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Ints = npt.NDArray[np.int64]
SPAN = timedelta(days=180)
START = np.datetime64("2025-01-01", "us").astype(np.int64)
LATE, RESTATED, MISSING, UNKNOWN = 0.10, 0.05, 0.03, 0.02
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Source:
    """One feature view and its Parquet file.

    `rows_a_key`: rows of a key, on average; keys grow with the rows, as they do when a business grows.
    """

    name: str
    keys: tuple[str, ...]
    ttl: timedelta | None
    rows_a_key: int
    floats: int
    whole: bool = False
    text: bool = False

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features, unique over all views."""
        extra = [f"{self.name}_{kind}" for kind, there in (("whole", self.whole), ("text", self.text)) if there]
        return (*(f"{self.name}_{number}" for number in range(self.floats)), *extra)


SOURCES = (
    Source("product", ("sku",), timedelta(days=7), 100, 7, whole=True, text=True),
    Source("site", ("location",), timedelta(days=2), 500, 9),
    Source("stock", ("sku", "location"), timedelta(days=14), 50, 9),
    Source("lane", ("supplier", "location"), None, 100, 9),
)
FEATURES = tuple(feature for source in SOURCES for feature in source.features)


@dataclass(frozen=True)
class Folder:
    """One size of the data on disk."""

    path: Path

    @property
    def questions(self) -> Path:
        """Parquet of the rows that are asked about: row_id, event_timestamp, sku, location, supplier."""
        return self.path / "questions.parquet"

    def source(self, name: str) -> Path:
        """Parquet of one view: keys, event_time, known_at, features, in the order in which they became known."""
        return self.path / f"{name}.parquet"

    def answer(self, name: str) -> Path:
        """For each question the place of the true row in the source, -1 where there is none."""
        return self.path / f"{name}.answer.npy"


def make(path: Path, questions: int, rows: int, seed: int = 0) -> Folder:
    """Write data of one size, unless it is there already.

    Args:
        questions: entity rows.
        rows: rows of all sources together.
    """
    folder = Folder(path)
    if folder.questions.exists():
        return folder
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, questions, rows])
    each = rows // len(SOURCES)
    count = {source.name: max(each // source.rows_a_key, 4) for source in SOURCES}
    sizes = {"sku": count["product"], "location": count["site"], "supplier": 20}
    pairs = {s.name: _pairs(rng, count[s.name], tuple(sizes[key] for key in s.keys)) for s in SOURCES}
    for source in SOURCES:
        _write_source(folder.source(source.name), source, pairs[source.name], each, rng)
    pq.write_table(_questions(rng, questions, pairs), folder.questions)
    return folder


def _pairs(rng: np.random.Generator, count: int, sizes: tuple[int, ...]) -> Ints:
    """Distinct keys as one column of numbers a key part."""
    total = int(np.prod(sizes))
    return np.stack(np.unravel_index(rng.choice(total, min(count, total), replace=False), sizes), axis=1)


def _names(kind: str, numbers: Ints) -> pa.Array:
    shown = pa.array([f"{kind}-{number:06d}" for number in range(int(numbers.max(initial=0)) + 1)])
    return shown.take(pa.array(numbers))


def _write_source(path: Path, source: Source, keys: Ints, rows: int, rng: np.random.Generator) -> None:
    first = rows - int(rows * RESTATED)
    which = rng.integers(0, len(keys), first)
    event = START + rng.choice(int(SPAN / MICROSECOND), first, replace=False)
    delay = np.where(rng.random(first) < LATE, rng.exponential(timedelta(days=1) / MICROSECOND, first), 0.0)
    known = event + delay.astype(np.int64)
    again = rng.choice(first, rows - first, replace=False)
    later = known[again] + 1 + rng.exponential(timedelta(days=3) / MICROSECOND, rows - first).astype(np.int64)
    which, event = np.append(which, which[again]), np.append(event, event[again])
    known = np.append(known, later)
    arrival = np.argsort(known, kind="stable")
    which, event, known = which[arrival], event[arrival], known[arrival]
    columns: dict[str, Any] = {name: _names(name, keys[which, part]) for part, name in enumerate(source.keys)}
    columns |= {"event_time": _times(event), "known_at": _times(known)}
    for number in range(source.floats):
        columns[f"{source.name}_{number}"] = pa.array(rng.normal(size=rows), mask=rng.random(rows) < MISSING)
    if source.whole:
        columns[f"{source.name}_whole"] = pa.array(rng.integers(0, 1000, rows), mask=rng.random(rows) < MISSING)
    if source.text:
        columns[f"{source.name}_text"] = _names("class", rng.integers(0, 20, rows))
    pq.write_table(pa.table(columns), path, row_group_size=1 << 17)


def _questions(rng: np.random.Generator, count: int, pairs: Mapping[str, Ints]) -> pa.Table:
    """Rows to ask about, in no order of time: known keys but for a few, and one in a hundred rows asked twice."""
    stock = pairs["stock"][rng.integers(0, len(pairs["stock"]), count)]
    lanes = pairs["lane"][np.argsort(pairs["lane"][:, 1], kind="stable")]
    from_, to = (np.searchsorted(lanes[:, 1], stock[:, 1], side=side) for side in ("left", "right"))
    unknown = rng.random(count) < UNKNOWN
    columns = {
        "event_timestamp": START + rng.integers(int(SPAN / MICROSECOND) // 10, int(SPAN / MICROSECOND), count),
        "sku": np.where(unknown, 999_999, stock[:, 0]),
        "location": stock[:, 1],
        "supplier": lanes[np.minimum(from_ + rng.integers(0, np.maximum(to - from_, 1)), len(lanes) - 1), 0],
    }
    twice = rng.choice(count // 2, count // 100, replace=False)
    for values in columns.values():
        values[count - len(twice) :] = values[twice]
    keys = {name: _names(name, columns[name]) for name in ("sku", "location", "supplier")}
    return pa.table({"row_id": np.arange(count), "event_timestamp": _times(columns["event_timestamp"]), **keys})


def _times(microseconds: Ints) -> pa.Array:
    return pa.array(microseconds, pa.timestamp("us", "UTC"))


def answer(folder: Folder, chunk: int = 100_000) -> None:
    """Write the true answers by the plainest method there is: join all pairs of a key, filter, take the greatest.

    DuckDB does the joining, without ASOF or windows; rows are ranked by (event_time, known_at) beforehand in NumPy.
    """
    import duckdb

    questions = pq.read_table(folder.questions)
    connection = duckdb.connect()
    for source in SOURCES:
        if folder.answer(source.name).exists():
            continue
        table = pq.read_table(folder.source(source.name), columns=[*source.keys, "event_time", "known_at"])
        keys = pa.concat_tables([table.select(source.keys), questions.select(source.keys)]).to_pandas()
        codes = pa.array(keys.groupby(list(source.keys), sort=False).ngroup().to_numpy())
        event, known = (np.asarray(table[name].cast(pa.int64())) for name in ("event_time", "known_at"))
        order = np.lexsort((known, event))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        found = {"code": codes[: len(order)], "event": event, "known": known, "place": rank}
        connection.register("found", pa.table(found))
        moments = questions["event_timestamp"].cast(pa.int64())
        asked = pa.table({"row_id": questions["row_id"], "code": codes[len(order) :], "moment": moments})
        fresh = f"AND moment - event <= {source.ttl // MICROSECOND}" if source.ttl else ""
        places = np.full(questions.num_rows, -1, np.int64)
        for begin in range(0, questions.num_rows, chunk):
            connection.register("asked", asked.slice(begin, chunk))
            best = connection.execute(
                f"""SELECT row_id, max(place) AS place FROM asked JOIN found USING (code)
                WHERE event <= moment AND known <= moment {fresh} GROUP BY row_id"""
            ).fetchnumpy()
            places[best["row_id"]] = order[best["place"]]
        np.save(folder.answer(source.name), places)


def check(folder: Folder, found: pa.Table) -> dict[str, Any]:
    """Compare a contender's table (row_id and the features) with the true answers.

    Returns:
        rows (returned), lost (questions without a row), in_order (rows are the questions, in their order), wrong (cells
        that differ from the truth, rows matched by row_id; a null equals NaN).
    """
    asked = pq.read_metadata(folder.questions).num_rows
    ids = np.asarray(found["row_id"].cast(pa.int64()))
    wrong = 0
    for source in SOURCES:
        places = np.load(folder.answer(source.name))[ids]
        taken = pa.array(places, mask=places < 0)
        for feature in source.features:
            true = pq.read_table(folder.source(source.name), columns=[feature])[feature].combine_chunks()
            wrong += differing(true.take(taken), found[feature])
    in_order = len(ids) == asked and bool((ids == np.arange(asked)).all())
    return {"rows": len(ids), "lost": asked - len(np.unique(ids)), "in_order": in_order, "wrong": wrong}


def differing(true: Any, found: Any) -> int:
    """Number of cells in which two Arrow columns differ; NaN and null are alike, whole numbers may come as floats."""
    left, right = _plain(true), _plain(found)
    different = pc.fill_null(pc.not_equal(left, right), False)  # pyright: ignore[reportAttributeAccessIssue]
    one_missing = pc.xor(pc.is_null(left), pc.is_null(right))  # pyright: ignore[reportAttributeAccessIssue]
    return int(pc.sum(pc.or_(different, one_missing)).as_py() or 0)  # pyright: ignore[reportAttributeAccessIssue]


def _plain(column: Any) -> pa.Array:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], whole.type)
    if pa.types.is_dictionary(whole.type):
        whole = whole.dictionary_decode()
    if pa.types.is_floating(whole.type) or pa.types.is_integer(whole.type) or pa.types.is_null(whole.type):
        numbers = whole.cast(pa.float64())
        return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)  # pyright: ignore[reportAttributeAccessIssue]
    return whole.cast(pa.large_string())


def frame(folder: Folder) -> pd.DataFrame:
    """The questions as Feast wants them."""
    rows: pd.DataFrame = pq.read_table(folder.questions).to_pandas()
    return rows
