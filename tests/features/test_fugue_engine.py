"""The point-in-time join on a partitioned engine: what comes out is what the local engine gives, cell by cell."""

from __future__ import annotations

import importlib.util
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import DependencyDown, InputInvalid
from features.asof import AsofIndex
from features.asof_retrieval import ViewPlan

START = np.datetime64("2026-01-01", "us")
HOUR = 3_600_000_000
TTL = timedelta(hours=12)
PACKAGES = {"dask": "distributed", "ray": "ray", "spark": "pyspark"}
VALUES = ("number", "text", "flag", "moment")


@pytest.fixture(
    params=["dask", pytest.param("ray", marks=pytest.mark.ray), pytest.param("spark", marks=pytest.mark.spark)]
)
def engine(request) -> str:
    package = PACKAGES[request.param]
    if importlib.util.find_spec(package) is None:  # not imported here: how Ray listens is decided when it is
        pytest.skip(f"package {package} is not installed (pip install seatrial[{request.param}])")
    return request.param


@pytest.fixture(autouse=True)
def several_reads(monkeypatch) -> None:
    """As a large source is read: in several tasks, whose rows meet again in the parts."""
    monkeypatch.setattr("features.fugue_engine.ROWS_A_READ", 200)


def some(rng: np.random.Generator, values, kind: pa.DataType) -> pa.Array:
    """The values, one in twenty missing."""
    return pa.array(values, mask=rng.random(len(values)) < 0.05).cast(kind)


def names(prefix: str, numbers) -> np.ndarray:
    return np.array([f"{prefix}{number}" for number in numbers], dtype=object)


def times(rng: np.random.Generator, hours) -> pa.Array:
    return some(rng, START.astype(np.int64) + hours * HOUR, pa.timestamp("us", "UTC"))


def write_source(folder: Path, count: int = 1_200) -> pa.Table:
    """Three files of events on whole hours: late, corrected and restated ones, equal times, missing keys and values."""
    rng = np.random.default_rng(11)
    event = rng.integers(0, 36, count)
    known = event + rng.choice([-1, 0, 0, 2, 30], count)
    table = pa.table({
        "sku": some(rng, names("s", rng.integers(0, 9, count)), pa.string()),
        "site": some(rng, rng.integers(-2, 3, count), pa.int32()),
        "event_time": times(rng, event),
        "known_at": times(rng, known),
        "number": some(rng, np.arange(count), pa.int64()),
        "text": some(rng, names("x", range(count)), pa.string()),
        "flag": some(rng, rng.random(count) < 0.5, pa.bool_()),
        "moment": times(rng, event),
    })  # fmt: skip
    folder.mkdir()
    for part in range(3):
        third = table.slice(part * count // 3, count // 3)
        pq.write_table(third, folder / f"{part}.parquet", row_group_size=150)
    pq.write_table(table, folder / "_unfinished.parquet")
    return table


def write_rows(path: Path, count: int = 500) -> pd.DataFrame:
    """Questions on whole hours, so that many lie on the ttl's edge; known, unknown and missing keys, rows twice."""
    rng, at = np.random.default_rng(12), START.astype(np.int64)
    table = pa.table({
        "sku": some(rng, names("s", rng.integers(0, 11, count)), pa.string()),
        "site": some(rng, rng.integers(-3, 3, count), pa.int64()),
        "event_timestamp": pa.array(at + rng.integers(0, 60, count) * HOUR).cast(pa.timestamp("us", "UTC")),
        "note": pa.array(range(count)),
    })  # fmt: skip
    pq.write_table(pa.concat_tables([table, table.slice(0, 50)]), path, row_group_size=90)
    return pd.read_parquet(path, dtype_backend="pyarrow")


def store_on(home: Path, engine: str):
    """A Feast store over home/source: view `full` by sku and site, view `bare` by sku, without a created column."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Bool, Int32, Int64, String, UnixTimestamp

    config = RepoConfig(
        project="t",
        provider="local",
        registry=str(home / f"{engine}.db"),
        offline_store={"type": "features.asof_offline_store.AsofOfflineStore", "engine": engine},
        online_store={"type": "features.embedded_online_store.EmbeddedOnlineStore", "path": str(home / "o")},
        coerce_tz_aware=False,
    )
    sku = Entity(name="sku", join_keys=["sku"], value_type=ValueType.STRING)
    site = Entity(name="site", join_keys=["site"], value_type=ValueType.INT32)
    values = [Field(name=n, dtype=t) for n, t in zip(VALUES, (Int64, String, Bool, UnixTimestamp), strict=True)]
    keys = [Field(name="sku", dtype=String), Field(name="site", dtype=Int32)]
    path, happened = str(home / "source"), "event_time"
    full = FileSource(name="a", path=path, timestamp_field=happened, created_timestamp_column="known_at")
    bare = FileSource(name="b", path=path, timestamp_field=happened)
    views = [
        FeatureView(name="full", entities=[sku, site], ttl=TTL, schema=[*keys, *values], source=full),
        FeatureView(name="bare", entities=[sku], ttl=timedelta(0), schema=[*keys[:1], *values[:2]], source=bare),
    ]
    store = FeatureStore(config=config)
    store.apply([sku, site, *views])
    return store


def plan_of(folder: Path) -> ViewPlan:
    types = {"number": pa.int64(), "text": pa.string(), "flag": pa.bool_(), "moment": pa.timestamp("us", "UTC")}
    keys = {"sku": "sku", "site": "site"}
    return ViewPlan("v", folder, keys, "event_time", "known_at", TTL, {f"v__{n}": n for n in VALUES}, types)


def test_a_partitioned_engine_gives_what_the_local_one_gives(tmp_path: Path, engine: str):
    """Every cell, type and row of Feast's answer is the same, from a frame and from a file of several row groups."""
    write_source(tmp_path / "source")
    rows = write_rows(tmp_path / "rows.parquet")
    wanted = [*(f"full:{name}" for name in VALUES), "bare:number", "bare:text"]
    local, other = (store_on(tmp_path, name) for name in ("local", engine))
    for asked in (rows, str(tmp_path / "rows.parquet")):
        expected = local.get_historical_features(asked, wanted, full_feature_names=True).to_arrow()
        got = other.get_historical_features(asked, wanted, full_feature_names=True).to_arrow()
        assert got.schema == expected.schema
        assert got.equals(expected)
        assert 50 < got["full__number"].null_count < got.num_rows - 50


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_given_dask_client_is_used_and_any_number_of_parts_gives_the_kernels_answer(tmp_path: Path, processes: bool):
    """More parts than keys, on the caller's own workers, in other processes too: the same cells in the same order."""
    distributed = pytest.importorskip("distributed", reason="package distributed is not installed (seatrial[dask])")
    from features.fugue_engine import partitioned

    source = write_source(tmp_path / "source")
    rows = pa.Table.from_pandas(write_rows(tmp_path / "rows.parquet"), preserve_index=False)
    keys = rows.select(["sku", "site"]).set_column(0, "sku", rows["sku"].dictionary_encode())
    index = AsofIndex.build(source.select(["sku", "site"]), source["event_time"], source["known_at"])
    places = index.lookup(keys, rows["event_timestamp"], TTL)
    local = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
    local |= {"host": "127.0.0.1"} if processes else {}
    with distributed.Client(processes=processes, n_workers=1, threads_per_worker=2, **local) as given:
        moment = rows["event_timestamp"].cast(pa.int64()).to_numpy()
        found = partitioned("dask", plan_of(tmp_path / "source"), keys, moment, partitions=70)
        assert given.status == "running"
    for name in VALUES:
        assert found[f"v__{name}"].equals(source[name].combine_chunks().take(pa.array(places, mask=places < 0)))


def test_the_part_of_a_key_never_changes():
    """Every process, machine and type width must put a key into the same part; these are numbers of the first day."""
    from features.fugue_engine import parts_of

    text = pa.array(["a", "b", None, "a"])
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        for whole in (pa.int8(), pa.int64()):
            keys = pa.table({"k": text.cast(kind), "n": pa.array([1, -2, 3, None], whole)})
            assert parts_of(keys, ["k", "n"], 1_000).tolist() == [717, 759, -1, -1]


def test_no_source_and_no_question_have_their_types(tmp_path: Path):
    """A folder without files gives nulls of the declared types, no question gives empty columns of the source's."""
    from features.fugue_engine import partitioned

    asked = pa.table({"sku": pa.array(["s1"]), "site": pa.array([1])})
    plan = plan_of(tmp_path / "source")
    nothing = partitioned("dask", plan, asked, np.zeros(1, np.int64))
    assert {name: (str(column.type), column.to_pylist()) for name, column in nothing.items()} == {
        f"v__{name}": (str(plan.types[name]), [None]) for name in VALUES
    }
    write_source(tmp_path / "source")
    none = partitioned("dask", plan, asked.slice(0, 0), np.zeros(0, np.int64))
    assert {name: (column.type, len(column)) for name, column in none.items()} == {
        f"v__{name}": (plan.types[name], 0) for name in VALUES
    }


def test_a_key_of_another_type_is_refused_before_any_engine_runs(tmp_path: Path):
    """The refusal is the local one's, and names the key."""
    from features.fugue_engine import partitioned

    write_source(tmp_path / "source")
    asked = pa.table({"sku": pa.array([1]), "site": pa.array([1])})
    with pytest.raises(InputInvalid, match="join key 'sku'"):
        partitioned("spark", plan_of(tmp_path / "source"), asked, np.zeros(1, np.int64))


@pytest.mark.parametrize(("name", "module"), [("dask", "distributed"), ("ray", "ray.data"), ("spark", "pyspark.sql")])
def test_a_missing_engine_names_the_extra_to_install(tmp_path: Path, monkeypatch, name: str, module: str):
    """The error says what to install; None in sys.modules is how Python itself marks a module as not importable."""
    from features.fugue_engine import ready

    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DependencyDown, match=rf"install the extra: seatrial\[{name}\]"), ready(name):
        pass


def test_what_a_join_starts_listens_on_loopback_only(engine: str):
    """No other machine can reach the engine, nor the processes that it starts."""
    psutil = pytest.importorskip("psutil", reason="package psutil is not installed (it comes with distributed)")
    from features.fugue_engine import ready

    me = psutil.Process()
    with ready(engine) as running:
        assert running.get_current_parallelism() >= 1
        open_ = [item for one in [me, *me.children(recursive=True)] for item in one.net_connections(kind="inet")]
        hosts = {item.laddr.ip.removeprefix("::ffff:") for item in open_ if item.status == psutil.CONN_LISTEN}
    assert hosts == {"127.0.0.1"}
