"""Point-in-time joins over Dask, Ray or Spark through Fugue: the same kernel on every part of the keys."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from fugue.execution.api import engine_context
from fugue.execution.execution_engine import ExecutionEngine
from fugue.workflow.api import transform

from contracts.errors import DependencyDown, RowGuarantee
from features.asof import AsofIndex, Int64, Keys, encoded
from features.parquet_source import (
    InMemory,
    Kept,
    RowGroups,
    Stamp,
    read_columns,
    row_groups,
    rows_and_width,
    source_files,
)

if TYPE_CHECKING:  # workers import this file, and have no need of Feast
    from features.asof_retrieval import ViewPlan

Engine = Literal["dask", "ray", "spark"]
LOOPBACK = "127.0.0.1"
_RAY_REACHABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0": a Ray of this process listens on loopback, on any system
ROWS_A_READ = 1 << 18
BYTES_A_PART = 256 << 20
_FRAME = pa.schema([("part", pa.int64()), ("task", pa.int64()), ("rows", pa.binary())])
_FUGUE_FRAME = "part:long,task:long,rows:bytes"
_MODULES = {"dask": ("fugue_dask", "distributed"), "ray": ("ray.data",), "spark": ("pyspark.sql",)}

_DASK = {
    "dataframe.convert-string": False,  # a column of bytes is no text
    "dataframe.shuffle.method": "tasks",  # a few large cells: no work for a shuffle through disk
    "distributed.admin.large-graph-warning-threshold": "4GB",  # the questions travel with the graph
}


@dataclass(frozen=True)
class _Work:
    """What a worker is told of a join. `ends`: no row group of the source's first and last file; they decide the types.
    `reads`: tasks below it read the source, the others carry questions; `asked`: parts that have a question."""

    columns: tuple[str, ...]
    keys: tuple[str, ...]
    event: str
    known: str | None
    ttl: timedelta | None
    stored: tuple[str, ...]
    ends: tuple[RowGroups, RowGroups]
    parts: int
    reads: int
    asked: frozenset[int]


def partitioned(
    engine: Engine, plan: ViewPlan, keys: pa.Table, moment: Int64, partitions: int = 0
) -> dict[str, pa.Array]:
    """Answer a view's questions on a Fugue engine.

    Tasks read the source's row groups and cut them by a hash of the key; the questions are cut in the same way; one
    more task a part builds the index of its rows and asks it. Between tasks the rows travel as Arrow streams, whose
    order is the source's, so that types and ties come out as they do locally. A running Dask client, Ray or Spark
    session of the process is used; otherwise one is started on this machine that nobody else can reach.

    Args:
        engine: which one.
        plan: the view. Its files must be readable, under the same path, wherever the engine's workers run.
        keys: the source's key columns, one row a question.
        moment: microseconds since the epoch, one a question.
        partitions: parts of the keys; 0: one a core, and as many as keep a part of the source near 256 MB.

    Returns:
        A column for each output of the plan, in the questions' order, null where nothing is found.

    Raises:
        DependencyDown: the engine's package is not installed, or the engine does not start.
        InputInvalid: a file is no Parquet file, lacks a column, or a key is of another type than the source's.
        TimeInvalid: the source's times have no zone.
        FileNotFoundError: a file vanished between list and read; ask again.
    """
    files = source_files(plan.path)
    if not files:
        return {name: pa.nulls(len(moment), plan.types[stored]) for name, stored in plan.outputs.items()}
    columns, names = tuple(plan.source_columns), tuple(plan.keys)
    ends = (RowGroups(files[0], 0, 0, 0), RowGroups(files[-1], 0, 0, 0))
    empty = read_columns(ends, columns)
    # what a worker would refuse is refused here, by the same code
    known = None if plan.known is None else empty[plan.known]
    AsofIndex.build(empty.select(names), empty[plan.event], known).find(keys, moment)
    reads = _reads(row_groups(files))
    bytes_in_memory = sum(rows * width for rows, width in map(rows_and_width, files))
    with ready(engine) as running:
        parts = partitions or max(running.get_current_parallelism(), -(-bytes_in_memory // BYTES_A_PART))
        asking = _plain(keys.select(names)).append_column("moment", pa.array(moment))
        order, questions = _cut(asking, parts_of(keys, names, parts))
        stored = tuple(dict.fromkeys(plan.outputs.values()))
        asked = frozenset(questions)
        work = _Work(columns, names, plan.event, plan.known, plan.ttl, stored, ends, parts, len(reads), asked)
        answers = _run(running, work, reads, questions) if questions else {}
    found = _in_order(questions, answers, order, empty.select(stored))
    if found.num_rows != len(moment):
        raise RowGuarantee(f"view {plan.name} on {engine}", len(moment), found.num_rows)
    return {name: _flat(found[column]) for name, column in plan.outputs.items()}


@contextmanager
def ready(engine: Engine) -> Iterator[ExecutionEngine]:
    """The engine, ready: the one that the process has, or one on this machine that listens on loopback at most."""
    if "ray" not in sys.modules and "RAY_ADDRESS" not in os.environ:
        # Ray reads it when it is imported, and Fugue imports every engine that is installed
        os.environ.setdefault(_RAY_REACHABLE, "0")
    try:
        for module in _MODULES[engine]:
            import_module(module)
    except ImportError as error:
        raise DependencyDown(f"engine {engine}", f"{error}; install the extra: seatrial[{engine}]") from None
    if engine == "dask":
        with import_module("dask").config.set(_DASK), _dask_client() as client, engine_context(client) as running:
            yield running
        return
    try:
        session = _ray() if engine == "ray" else _spark_session()
    except (RuntimeError, OSError) as error:
        raise DependencyDown(f"engine {engine}", f"it did not start: {error}") from error
    with engine_context(session) as running:
        yield running


@contextmanager
def _dask_client() -> Iterator[Any]:
    distributed = import_module("distributed")
    try:
        given = distributed.get_client()
    except ValueError:
        # threads: the kernel works outside Python's lock, and nothing is copied between processes
        here = {"processes": False, "n_workers": 1, "threads_per_worker": os.cpu_count()}
        doors = dict.fromkeys(("dashboard_address", "worker_dashboard_address"), f"{LOOPBACK}:0")
        with distributed.Client(**here, **doors) as client:
            yield client
        return
    yield given


def _ray() -> str:
    ray = import_module("ray")
    if not ray.is_initialized() and "RAY_ADDRESS" not in os.environ:
        if os.environ.get(_RAY_REACHABLE) != "0":
            raise RuntimeError(f"it would listen on every address; call ray.init() first, or set {_RAY_REACHABLE}=0")
        ray.init(include_dashboard=False, log_to_driver=False)
        context = import_module("ray.data").DataContext.get_current()
        context.default_hash_shuffle_parallelism = 2 * (os.cpu_count() or 1)  # Ray's own 200 are for a cluster
    return "ray"


def _spark_session() -> Any:
    for name in ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"):
        os.environ.setdefault(name, sys.executable)
    sessions = import_module("pyspark.sql").SparkSession
    builder = sessions.builder.appName("seatrial")
    if not {"PYSPARK_GATEWAY_PORT", "SPARK_REMOTE"} & os.environ.keys() and sessions.getActiveSession() is None:
        hosts = {"spark.driver.host": LOOPBACK, "spark.driver.bindAddress": LOOPBACK, "spark.ui.enabled": "false"}
        for name, value in hosts.items():
            builder = builder.config(name, value)
        builder = builder.master("local[*]")
    return builder.getOrCreate()


def _run(
    running: ExecutionEngine, work: _Work, reads: Sequence[bytes], questions: Mapping[int, pa.Table]
) -> dict[int, pa.Table]:
    """The answers of each part that has any."""
    tasks = [(-1, task, groups) for task, groups in enumerate(reads)]
    tasks += [(part, len(reads) + place, _stream(rows)) for place, (part, rows) in enumerate(questions.items())]
    common: dict[str, Any] = {"schema": _FUGUE_FRAME, "params": {"work": work}, "engine": running, "as_fugue": True}
    try:
        cut = transform(_frame(tasks), _read_and_cut, partition={"num": len(tasks)}, **common)
        found = transform(cut, _answer, partition={"by": "part", "algo": "coarse"}, **common).as_arrow()
    except Exception as error:
        if "FileNotFoundError" in str(error):  # Spark and Ray give a worker's error as text
            raise FileNotFoundError(f"a file of the source vanished: {error}") from error
        raise
    return {part.as_py(): _table(rows) for part, rows in zip(found["part"], found["rows"], strict=True)}


def _in_order(
    questions: Mapping[int, pa.Table], answers: Mapping[int, pa.Table], order: Int64, nothing: pa.Table
) -> pa.Table:
    """The answers in the order that the questions had before `order` cut them; nulls where a part has no answer."""
    pieces = [_nulls(nothing, len(order) - sum(rows.num_rows for rows in questions.values()))]
    pieces += [answers.get(part, _nulls(nothing, rows.num_rows)) for part, rows in questions.items()]
    found = pa.concat_tables(pieces).unify_dictionaries()
    if found.num_rows != len(order):
        return found
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return found.combine_chunks().take(pa.array(back))


def _read_and_cut(tasks: pa.Table, work: _Work) -> pa.Table:
    """Source rows of the row groups that a task names, cut into the parts that were asked; questions pass by."""
    made: list[tuple[int, int, Any]] = []
    for part, task, body in zip(*(tasks[name] for name in _FRAME.names), strict=True):
        if task.as_py() >= work.reads:
            made.append((part.as_py(), task.as_py(), body.as_py()))
            continue
        groups = [RowGroups(Stamp(*file), *span) for file, *span in json.loads(body.as_py())]
        rows = read_columns([work.ends[0], *groups, work.ends[1]], work.columns)
        _, cut = _cut(rows, parts_of(rows, work.keys, work.parts))
        made += [(number, task.as_py(), _stream(some)) for number, some in cut.items() if number in work.asked]
    return _frame(made)


def _answer(rows: pa.Table, work: _Work) -> pa.Table:
    """Answers of each part among the rows: its questions, asked of its source rows."""
    made = []
    for part in rows["part"].unique().to_pylist():
        mine = rows.filter(pa.array(rows["part"].to_numpy() == part)).sort_by("task")
        *source, questions = map(_table, mine["rows"])
        if source and mine["task"][-1].as_py() >= work.reads:
            made.append((part, work.reads, _stream(_found(source, questions, work))))
    return _frame(made)


def _found(source: Sequence[pa.Table], questions: pa.Table, work: _Work) -> pa.Table:
    """What the local kernel finds: the rows are in the source's order, so that ties end alike."""
    rows = pa.concat_tables(source).unify_dictionaries().combine_chunks()
    kept = InMemory(Kept((), rows, {}), work.keys, work.event, work.known)
    keys, moment = questions.select(range(len(work.keys))), questions.column(len(work.keys))
    places = kept.find(keys, moment.to_numpy(), work.ttl)
    return pa.table(dict(zip(work.stored, kept.columns(list(work.stored), places), strict=True)))


def _frame(rows: Sequence[tuple[int, int, bytes]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    return pa.table([pa.array(column, kind.type) for column, kind in zip(columns, _FRAME, strict=True)], schema=_FRAME)


def _reads(groups: Sequence[RowGroups]) -> list[bytes]:
    """Row groups in order, some for each task that reads: about `ROWS_A_READ` rows."""
    tasks: list[list[RowGroups]] = []
    rows = ROWS_A_READ
    for group in groups:
        if rows + group.rows > ROWS_A_READ:
            tasks.append([])
            rows = 0
        tasks[-1].append(group)
        rows += group.rows
    return [json.dumps(task).encode() for task in tasks]


def parts_of(keys: Keys, names: Sequence[str], parts: int) -> Int64:
    """The part of each row: a hash of its key that is the same in every process; -1 where a part of the key is missing.

    Equal keys have equal hashes whatever the width of their whole numbers or of their text's offsets.
    """
    mixed = np.zeros(len(keys), np.uint64)
    missing = np.zeros(len(keys), bool)
    for name in names:
        coded = encoded(keys, name)
        values = coded.dictionary
        if pa.types.is_integer(values.type):
            values = values.cast(pa.int64(), safe=False)
        distinct = pd.util.hash_array(values.to_numpy(zero_copy_only=False), categorize=False)
        codes = coded.indices.fill_null(-1).to_numpy()
        mixed = mixed * np.uint64(1_000_003) ^ np.append(distinct, np.uint64(0))[codes]
        missing |= codes < 0
    return np.where(missing, -1, (mixed % np.uint64(parts)).astype(np.int64))


def _cut(rows: pa.Table, part: Int64) -> tuple[Int64, dict[int, pa.Table]]:
    """Rows by part, in their order, without those of no part; and the order that puts parts behind each other."""
    order = np.argsort(part, kind="stable")
    numbers, starts, counts = np.unique(part[order], return_index=True, return_counts=True)
    together = rows.take(pa.array(order))
    spans = zip(numbers.tolist(), starts.tolist(), counts.tolist(), strict=True)
    return order, {number: together.slice(start, count) for number, start, count in spans if number >= 0}


def _plain(table: pa.Table) -> pa.Table:
    """The same values without dictionaries, which would be sent whole with every slice."""
    return pa.table(
        {
            name: column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
            for name, column in zip(table.column_names, table.columns, strict=True)
        }
    )


def _nulls(like: pa.Table, rows: int) -> pa.Table:
    return pa.table({field.name: pa.nulls(rows, field.type) for field in like.schema})


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _table(stream: pa.BinaryScalar) -> pa.Table:
    return pa.ipc.open_stream(stream.as_buffer()).read_all()


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
