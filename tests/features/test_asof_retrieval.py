"""Retrievals through Feast: pieces, Parquet in and out, saved datasets, types, and a join larger than memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputInvalid

feast = pytest.importorskip("feast")
START = pd.Timestamp("2026-01-01", tz="UTC")


def hours(values) -> pd.Series:
    return (START + pd.to_timedelta(pd.Series(values, dtype="float64"), unit="h")).astype("datetime64[us, UTC]")


def store_over(home: Path, source: Path, **offline):
    """A Feast store with one view `v` (x, n, yes, word) by k on a source, with these settings of the offline store."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Bool, Float64, Int64, String

    store = FeatureStore(
        config=RepoConfig(
            project="t",
            provider="local",
            registry=str(home / "registry.db"),
            offline_store={"type": "features.asof_offline_store.AsofOfflineStore"} | offline,
            online_store={"type": "features.embedded_online_store.EmbeddedOnlineStore", "path": str(home / "o")},
            coerce_tz_aware=False,
        )
    )
    kinds = {"k": String, "x": Float64, "n": Int64, "yes": Bool, "word": String}
    key = Entity(name="k", join_keys=["k"], value_type=ValueType.STRING)
    view = FeatureView(
        name="v",
        entities=[key],
        ttl=None,
        schema=[Field(name=name, dtype=kind) for name, kind in kinds.items()],
        source=FileSource(
            name="s", path=str(source), timestamp_field="event_time", created_timestamp_column="known_at"
        ),
    )
    store.apply([key, view])
    return store, view


FEATURES = ["v:x", "v:n", "v:yes", "v:word"]


def source_rows(count: int = 4000) -> pd.DataFrame:
    """Forty keys; the value of x is the hour, n is missing in some rows."""
    hour = np.arange(count) // 40
    frame = pd.DataFrame({"k": [f"k{n % 40}" for n in range(count)], "x": hour.astype(float)})
    whole = pd.array(hour, dtype="Int64")
    whole[::7] = pd.NA
    times = {"event_time": hours(hour), "known_at": hours(hour + 1)}
    return frame.assign(n=whole, yes=pd.array(hour % 2 == 0, dtype="boolean"), word=[f"w{h}" for h in hour], **times)


def asked_rows(count: int = 3500) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    keys = [f"k{n}" for n in rng.integers(0, 45, count)]
    rows = pd.DataFrame({"k": keys, "event_timestamp": hours(rng.integers(0, 110, count)), "note": range(count)})
    return rows.set_axis(rng.permutation(count), axis=0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source_rows().to_parquet(tmp_path / "s.parquet", row_group_size=500)
    return tmp_path / "s.parquet"


def test_every_setting_gives_the_same_answers(tmp_path: Path, source: Path):
    """In memory, through an index, in pieces of a thousand rows, and with a result and an index on disk: all equal."""
    rows = asked_rows()
    settings = [
        {"index": "never"},
        {"index": "always", "index_path": str(tmp_path / "index")},
        {"index": "never", "memory_limit": "100KB"},
        {"index": "always", "index_path": str(tmp_path / "index2"), "memory_limit": "100KB"},
    ]
    answers = []
    for number, offline in enumerate(settings):
        home = tmp_path / str(number)
        home.mkdir()
        store, _ = store_over(home, source, **offline)
        job = store.get_historical_features(rows, FEATURES)
        answers.append((job.to_df(), job.to_arrow()))
        pd.testing.assert_frame_equal(answers[-1][0][list(rows.columns)], rows)
    frame, table = answers[0]
    assert frame["x"].notna().sum() > 1000
    for other, arrow in answers[1:]:
        pd.testing.assert_frame_equal(other, frame)
        assert arrow.combine_chunks().equals(table.combine_chunks())


def test_types_do_not_depend_on_what_is_missing(tmp_path: Path, source: Path):
    """Whole numbers and yes-or-no stay so in Arrow and are nullable in pandas, with and without missing values."""
    store, _ = store_over(tmp_path, source)
    for keys in (["k1", "k2"], ["k1", "unknown"], ["unknown", "unknown"]):
        rows = pd.DataFrame({"k": keys, "event_timestamp": hours([50, 50])})
        job = store.get_historical_features(rows, FEATURES)
        kinds = {name: str(kind) for name, kind in job.to_df().dtypes.items() if name not in rows}
        assert kinds == {"x": "float64", "n": "Int64", "yes": "boolean", "word": "object"}
        assert job.to_arrow().schema.types[2:] == [pa.float64(), pa.int64(), pa.bool_(), pa.string()]


def test_the_callers_frame_is_its_own(tmp_path: Path, source: Path):
    """Writing into the answer does not reach the caller's rows; mixed columns that no join needs come back as is."""
    store, _ = store_over(tmp_path, source)
    rows = asked_rows(5).assign(mixed=[1, "a", None, 2.5, b"x"])
    before = rows.copy(deep=True)
    found = store.get_historical_features(rows, FEATURES).to_df()
    found.iloc[0, found.columns.get_loc("note")] = -1
    found["x"] += 1
    pd.testing.assert_frame_equal(rows, before)
    assert found["mixed"].tolist() == before["mixed"].tolist()


def test_rows_from_parquet_and_a_saved_dataset(tmp_path: Path, source: Path):
    """Rows are read from a Parquet file in pieces, the result is saved through Feast, and read back as it was."""
    from feast.errors import SavedDatasetLocationAlreadyExists
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    store, _ = store_over(tmp_path, source, memory_limit="100KB")
    rows = asked_rows().reset_index(drop=True)
    rows.to_parquet(tmp_path / "rows.parquet", row_group_size=700)
    wanted = store.get_historical_features(rows, FEATURES).to_df()
    job = store.get_historical_features(str(tmp_path / "rows.parquet"), FEATURES)
    pd.testing.assert_frame_equal(job.to_df(), wanted, check_dtype=False)
    for name in ("saved.parquet", "saved_folder"):
        storage = SavedDatasetFileStorage(str(tmp_path / name))
        with pytest.warns(RuntimeWarning):
            store.create_saved_dataset(job, name, storage)
        with pytest.warns(RuntimeWarning):
            saved = store.get_saved_dataset(name).to_df()
        pd.testing.assert_frame_equal(saved[["x", "n"]], wanted[["x", "n"]], check_dtype=False)
        with pytest.raises(SavedDatasetLocationAlreadyExists):
            job.persist(storage)
        job.persist(storage, allow_overwrite=True)
    assert not list(tmp_path.glob("**/_*"))


def test_a_field_mapping_renames_columns_and_keys(tmp_path: Path):
    """Columns of the source under other names than the view's are found by the mapping."""
    from feast import Entity, FeatureView, Field, FileSource, ValueType
    from feast.types import Float64, String

    source_rows().rename(columns={"x": "raw", "k": "code"}).to_parquet(tmp_path / "m.parquet")
    source_rows(40).to_parquet(tmp_path / "s.parquet")
    store, _ = store_over(tmp_path, tmp_path / "s.parquet")
    key = Entity(name="k", join_keys=["k"], value_type=ValueType.STRING)
    source = FileSource(
        name="m",
        path=str(tmp_path / "m.parquet"),
        timestamp_field="event_time",
        created_timestamp_column="known_at",
        field_mapping={"raw": "x", "code": "k"},
    )
    fields = [Field(name="k", dtype=String), Field(name="x", dtype=Float64)]
    store.apply([FeatureView(name="mapped", entities=[key], ttl=None, schema=fields, source=source)])
    rows = pd.DataFrame({"k": ["k3", "k3"], "event_timestamp": hours([20, 21])})
    assert store.get_historical_features(rows, ["mapped:x"]).to_df()["x"].tolist() == [19.0, 20.0]


def test_names_that_cannot_stand_beside_each_other_are_refused(tmp_path: Path, source: Path):
    """A repeated column and a path that is not there are errors that say so; a name like pandas' suffix is fine."""
    store, _ = store_over(tmp_path, source)
    rows = asked_rows(3)
    with pytest.raises(InputInvalid, match="'note' more than once"):
        store.get_historical_features(pd.concat([rows, rows[["note"]]], axis=1), FEATURES)
    with pytest.raises(InputInvalid, match=r"nowhere\.parquet"):
        store.get_historical_features("nowhere.parquet", FEATURES)
    with pytest.raises(ValueError, match="a size like 512MB"):
        store_over(tmp_path, source, memory_limit="a lot")
    found = store.get_historical_features(rows.rename(columns={"note": "x_y"}), FEATURES).to_df()
    assert found["x_y"].tolist() == [0, 1, 2]


LARGE = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.features.test_asof_retrieval import FEATURES, store_over
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
import pyarrow.parquet as pq
home, limit = Path(sys.argv[1]), sys.argv[2]
store, _ = store_over(home, home / "s.parquet", index="never", memory_limit=limit)
def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
before = kilobytes("VmRSS")
job = store.get_historical_features(str(home / "rows.parquet"), FEATURES)
job.persist(SavedDatasetFileStorage(str(home / "out.parquet")), allow_overwrite=True)
grown = (kilobytes("VmHWM") - before) << 10
print(json.dumps({"rows": pq.read_metadata(home / "out.parquet").num_rows, "grown": grown}))
"""


@pytest.mark.slow
def test_a_join_larger_than_memory_finishes_under_its_limit(tmp_path: Path):
    """500,000 rows against a million, which take more than three times the limit of 32MB without it."""
    rng = np.random.default_rng(1)
    rows, asked = 1_000_000, 500_000
    hour = np.sort(rng.integers(0, 5000, rows))
    keys = pa.array([f"k{n}" for n in range(300)])
    moments = np.datetime64("2026-01-01", "us") + hour.astype("m8[h]").astype("m8[us]")
    times = pa.array(moments).cast(pa.timestamp("us", "UTC"))
    table = {"k": keys.take(pa.array(rng.integers(0, 300, rows))), "event_time": times, "known_at": times}
    values = {"x": rng.normal(size=rows), "n": hour, "yes": hour % 2 == 0, "word": pa.array(hour.astype(str))}
    pq.write_table(pa.table(table | values), tmp_path / "s.parquet", row_group_size=100_000)
    chosen = pa.array(rng.integers(0, rows, asked))
    questions = pa.table({"k": table["k"].take(chosen), "event_timestamp": times.take(chosen)})
    pq.write_table(questions, tmp_path / "rows.parquet", row_group_size=100_000)
    root = str(Path(__file__).parents[2])

    def run(limit: str) -> dict[str, int]:
        environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"}
        command = [sys.executable, "-c", LARGE, str(tmp_path), limit, root]
        done = subprocess.run(command, capture_output=True, cwd=root, timeout=250, env=environment)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        found: dict[str, int] = json.loads(done.stdout)
        return found

    bounded, free = run("32MB"), run("64GB")
    assert bounded["rows"] == free["rows"] == asked
    code_and_buffers = 32 << 20
    assert bounded["grown"] < (32 << 20) + code_and_buffers
    assert free["grown"] > 3 * (32 << 20) + code_and_buffers
