"""The offline store through Feast's own get_historical_features, on Parquet that other tools wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputInvalid, TimeInvalid, UnknownName
from features.asof import AsofIndex
from features.parquet_source import ParquetSources

feast = pytest.importorskip("feast")
START = pd.Timestamp("2026-01-01", tz="UTC")


def hours(values: list[float | None]) -> pd.Series:
    return (START + pd.to_timedelta(pd.Series(values, dtype="float64"), unit="h")).astype("datetime64[us, UTC]")


def source_rows() -> pd.DataFrame:
    """Key a: 1 at hour 1, restated to 9 at hour 8; 2 at hour 5. Key b: one row whose value is null."""
    frame = pd.DataFrame({"k": ["a", "a", "a", "b", None], "x": [1.0, 2.0, 9.0, np.nan, 7.0], "n": [1, 2, 9, 4, 7]})
    return frame.assign(event_time=hours([1, 5, 1, 1, 1]), known_at=hours([1, 5, 8, 1, 1]))


class Repo:
    """A Feast repository in a folder: one view `v` (x: Float64, n: Int64) by k, ttl of 10 hours, on `source`."""

    def __init__(self, home: Path, source: Path, **options) -> None:
        from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
        from feast.types import Float64, Int64, String

        self.store = FeatureStore(
            config=RepoConfig(
                project="t",
                provider="local",
                registry=str(home / "registry.db"),
                offline_store={"type": "features.asof_offline_store.AsofOfflineStore"},
                online_store={"type": "features.embedded_online_store.EmbeddedOnlineStore", "path": str(home / "o")},
                coerce_tz_aware=False,
            )
        )
        key = Entity(name="k", join_keys=["k"], value_type=ValueType.STRING)
        times = {"timestamp_field": "event_time", "created_timestamp_column": "known_at"} | options
        fields = [Field(name="k", dtype=String), Field(name="x", dtype=Float64), Field(name="n", dtype=Int64)]
        self.view = FeatureView(
            name="v",
            entities=[key],
            ttl=pd.Timedelta(hours=10).to_pytimedelta(),
            schema=fields,
            source=FileSource(name="s", path=str(source), **times),
        )
        self.store.apply([key, self.view])

    def ask(self, rows: pd.DataFrame, **options) -> pd.DataFrame:
        return self.store.get_historical_features(rows, ["v:x", "v:n"], **options).to_df()


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    source_rows().to_parquet(tmp_path / "s.parquet")
    return Repo(tmp_path, tmp_path / "s.parquet")


def asked(*pairs: tuple[str | None, float]) -> pd.DataFrame:
    return pd.DataFrame({"k": [pair[0] for pair in pairs], "event_timestamp": hours([pair[1] for pair in pairs])})


def test_rows_out_are_rows_in(repo: Repo):
    """Order, index, duplicates, unknown and missing keys and the caller's columns come back; nothing is lost."""
    rows = asked(("a", 6), ("z", 6), ("a", 6), (None, 6), ("b", 2), ("a", 0.5))
    rows.index = pd.Index([9, 9, 3, 1, 0, 5])
    before = rows.copy()
    found = repo.ask(rows.assign(note=list("uvwxyz")))
    assert found["x"].fillna(-1).tolist() == [2, -1, 2, -1, -1, -1]
    pd.testing.assert_frame_equal(found[["k", "event_timestamp"]], before)
    pd.testing.assert_frame_equal(rows, before)


def test_a_restated_value_stays_unseen_until_known_and_ttl_includes_its_edge(repo: Repo):
    """The restatement of hour 1, known at hour 8, never beats the newer event; exactly 10 hours old is still usable."""
    found = repo.ask(asked(("a", 4), ("a", 9), ("a", 15), ("a", 15.001)))
    assert found["x"].fillna(-1).tolist() == [1, 2, 2, -1]


def test_the_cut_cannot_be_switched_off(tmp_path: Path):
    """Feast's default of not cutting at the created time gives the same as cutting."""
    late = source_rows().iloc[[0, 2]]
    late.to_parquet(tmp_path / "s.parquet")
    repo = Repo(tmp_path, tmp_path / "s.parquet")
    rows = asked(("a", 7), ("a", 8))
    for flag in (True, False):
        assert repo.ask(rows, filter_by_created_timestamp=flag)["x"].tolist() == [1, 9]


def test_a_newest_null_is_not_skipped_and_whole_numbers_stay_whole(repo: Repo):
    """The newest value being null is the answer, and an int64 column with missing rows stays int64 in Arrow."""
    job = repo.store.get_historical_features(asked(("b", 3), ("z", 3)), ["v:x", "v:n"], full_feature_names=True)
    table = job.to_arrow()
    assert table["v__n"].type == pa.int64()
    assert table["v__n"].to_pylist() == [4, None]
    assert np.isnan(table.to_pandas()["v__x"]).all()


def test_a_folder_grows_and_only_its_new_files_are_read(tmp_path: Path):
    """Rows of a part that was added are found, temporary files are not, and a replaced part is read again."""
    folder = tmp_path / "gold"
    folder.mkdir()
    rows = source_rows()
    repo = Repo(tmp_path, folder)
    assert repo.ask(asked(("a", 6)))["x"].isna().all()
    rows.iloc[:1].to_parquet(folder / "1.parquet")
    rows.iloc[1:2].to_parquet(folder / "_2.parquet")
    assert repo.ask(asked(("a", 6)))["x"].tolist() == [1]
    rows.iloc[1:2].to_parquet(folder / "2.parquet")
    assert repo.ask(asked(("a", 6)))["x"].tolist() == [2]
    rows.iloc[1:2].assign(x=5.0).to_parquet(folder / "2.parquet")
    assert repo.ask(asked(("a", 6)))["x"].tolist() == [5]


def test_sources_over_the_limit_are_let_go(tmp_path: Path):
    """Memory is bounded: the source read longest ago is dropped, the newest is kept and reused."""
    sources = ParquetSources(limit=1)
    for name in ("a", "b"):
        source_rows().to_parquet(tmp_path / f"{name}.parquet")
    first = sources.read(tmp_path / "a.parquet", ["k"])
    assert sources.read(tmp_path / "a.parquet", ["k"]) is first
    sources.read(tmp_path / "b.parquet", ["k"])
    assert sources.read(tmp_path / "a.parquet", ["k"]) is not first


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        (asked(("a", 1)).assign(x=1.0), InputInvalid, "'x'; rename"),
        (asked(("a", 1)).drop(columns="k"), UnknownName, "'k'"),
        (asked(("a", 1)).assign(k=[1]), InputInvalid, "join key 'k'"),
        (asked(("a", 1)).assign(event_timestamp=pd.Timestamp("2026-01-01")), TimeInvalid, "as_of"),
        (asked(("a", 1)).assign(event_timestamp=hours([None])), TimeInvalid, "1 rows without a time"),
        (asked(("a", 1)).drop(columns="event_timestamp"), InputInvalid, "event_timestamp"),
        ("select 1", InputInvalid, "a DataFrame"),
    ],
)
def test_questions_that_cannot_be_answered_are_refused(repo: Repo, rows, error, words):
    """The refusal names the column and what to do."""
    with pytest.raises(error, match=words):
        repo.ask(rows)


def test_a_missing_column_or_a_file_that_is_no_parquet_is_named(tmp_path: Path):
    """A source that is not what the view says is an error that names the file or the column."""
    source_rows().drop(columns="n").to_parquet(tmp_path / "s.parquet")
    repo = Repo(tmp_path, tmp_path / "s.parquet")
    with pytest.raises(InputInvalid, match="columns n"):
        repo.ask(asked(("a", 1)))
    (tmp_path / "s.parquet").write_text("no parquet")
    with pytest.raises(InputInvalid, match="a Parquet file"):
        repo.ask(asked(("a", 1)))


def test_sources_with_nanoseconds_and_without_created_time_work(tmp_path: Path):
    """Nanosecond Parquet joins as well; without a created column each row counts from its event time on."""
    frame = source_rows().iloc[[0, 1]]
    pq.write_table(
        pa.Table.from_pandas(frame.astype({"event_time": "datetime64[ns, UTC]"}), preserve_index=False),
        tmp_path / "s.parquet",
    )
    repo = Repo(tmp_path, tmp_path / "s.parquet", created_timestamp_column="")
    assert repo.ask(asked(("a", 4), ("a", 5)))["x"].tolist() == [1, 2]


def test_an_alias_of_a_join_key_is_joined_by_its_column(repo: Repo):
    """One view joined twice by two columns of the rows gives two sets of values."""
    from feast import FeatureService

    views = [repo.view.with_name(name).with_join_key_map({"k": name}) for name in ("origin", "target")]
    rows = pd.DataFrame({"origin": ["a", "b"], "target": ["z", "a"], "event_timestamp": hours([6, 6])})
    service = FeatureService(name="two", features=views)
    repo.store.apply([service])
    found = repo.store.get_historical_features(rows, service, full_feature_names=True).to_df()
    assert found["origin__n"].fillna(-1).tolist() == [2, 4]
    assert found["target__n"].fillna(-1).tolist() == [-1, 2]


def test_pulling_the_latest_misses_no_late_row(repo: Repo):
    """The newest row of each key among those that became usable in the span; a late row of an old event is one."""
    from features.asof_offline_store import AsofOfflineStore

    span = (hours([7])[0].to_pydatetime(), hours([9])[0].to_pydatetime())
    names = (repo.store.config, repo.view.batch_source, ["k"], ["x"], "event_time", "known_at")
    assert AsofOfflineStore.pull_latest_from_table_or_query(*names, *span).to_df()["x"].tolist() == [9.0]
    early = (hours([0])[0].to_pydatetime(), hours([9])[0].to_pydatetime())
    latest = AsofOfflineStore.pull_latest_from_table_or_query(*names, *early).to_df().set_index("k")["x"]
    assert latest["a"] == 2.0
    assert len(AsofOfflineStore.pull_all_from_table_or_query(*names, *early).to_df()) == 5


def test_the_store_agrees_with_the_kernel_on_many_random_rows(tmp_path: Path):
    """Through Feast and Parquet comes exactly what the kernel finds on the frame in memory."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"k": rng.choice(list("abcdef"), 900), "x": rng.normal(size=900), "n": np.arange(900)})
    frame["event_time"] = hours(rng.integers(0, 60, 900).tolist())
    frame["known_at"] = frame["event_time"] + pd.to_timedelta(rng.integers(-2, 30, 900), unit="h")
    frame["known_at"] = frame["known_at"].astype("datetime64[us, UTC]")
    for part in range(3):
        (tmp_path / "gold").mkdir(exist_ok=True)
        frame.iloc[part * 300 : part * 300 + 300].to_parquet(tmp_path / "gold" / f"{part}.parquet")
    repo = Repo(tmp_path, tmp_path / "gold")
    rows = asked(*zip(rng.choice(list("abcdefz"), 500), rng.integers(0, 90, 500).tolist(), strict=True))
    index = AsofIndex.build(frame[["k"]], frame["event_time"], frame["known_at"])
    places = index.lookup(rows[["k"]], rows["event_timestamp"], repo.view.ttl)
    assert repo.ask(rows)["n"].fillna(-1).astype(int).tolist() == places.tolist()
