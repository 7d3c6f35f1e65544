"""FAULTS 33: late, out-of-order, duplicate and corrected events against brute force that looks at every row."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from features.asof import AsofIndex, asked_moments
from features.asof_catalog import IndexCatalog, SourceKey

# The night in which Berlin's clocks go back: 02:30 comes twice, and a day has 25 hours.
START = datetime(2026, 10, 24, 22, 0, tzinfo=UTC)
ZONES = [ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), UTC]
# Hundreds of small indexes are written; where the system has a file system in memory, syncing them costs nothing.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
HALF_HOURS = st.integers(0, 12)
KEY = st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([1, 11, None]))
SOURCE_ROW = st.tuples(KEY, st.none() | HALF_HOURS, st.none() | HALF_HOURS)
QUESTION = st.tuples(KEY, HALF_HOURS, st.sampled_from([-1, 0, 1]))
CASE = (
    st.lists(SOURCE_ROW, max_size=30),
    st.lists(QUESTION, max_size=12),
    st.none() | st.integers(1, 6),
    st.lists(st.integers(0, 30), max_size=3),
    st.sampled_from(ZONES),
    st.sampled_from(ZONES),
)


def moment(half_hours: int | None, microseconds: int = 0) -> datetime | None:
    return None if half_hours is None else START + timedelta(minutes=30 * half_hours, microseconds=microseconds)


def by_looking_at_every_row(rows, question, ttl) -> int:
    """Place of the newest usable row: the latest event, then the latest known, then the last."""
    key, asked = question
    best, best_rank = -1, None
    for place, (row_key, event, known) in enumerate(rows):
        if None in row_key or row_key != key or event is None or known is None or event > asked or known > asked:
            continue
        if ttl is not None and asked - event > ttl:
            continue
        if best_rank is None or (event, known, place) > best_rank:
            best, best_rank = place, (event, known, place)
    return best


def frame(keys, zone, **times) -> pd.DataFrame:
    """Keys k (text) and n (whole number), and times in a zone of their own."""
    columns = {
        "k": pd.Series([key[0] for key in keys], dtype=object),
        "n": pd.Series([key[1] for key in keys], dtype="Int64"),
    }
    for name, values in times.items():
        columns[name] = pd.Series(pd.to_datetime(values, utc=True), dtype="datetime64[us, UTC]").dt.tz_convert(zone)
    return pd.DataFrame(columns)


def agrees(rows, questions, ttl, cuts, source_zone, asked_zone) -> None:
    """The kernel, and an index on disk over the same rows cut into several files, answer like brute force."""
    dated = [(key, moment(event), moment(known)) for key, event, known in rows]
    asked = [(key, moment(at, micro)) for key, at, micro in questions]
    limit = None if ttl is None else timedelta(minutes=30 * ttl)
    wanted = [by_looking_at_every_row(dated, question, limit) for question in asked]
    source = frame([row[0] for row in dated], source_zone, e=[r[1] for r in dated], w=[r[2] for r in dated])
    source["place"] = range(len(source))
    rows_asked = frame([key for key, _ in asked], asked_zone, at=[at for _, at in asked])
    index = AsofIndex.build(source[["k", "n"]], source["e"], source["w"])
    assert index.lookup(rows_asked[["k", "n"]], rows_asked["at"], limit).tolist() == wanted
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        edges = sorted({0, len(source), *(min(cut, len(source)) for cut in cuts)})
        for number, (start, end) in enumerate(zip(edges, edges[1:] or edges, strict=False)):
            part = pa.Table.from_pandas(source.iloc[start:end], _schema(source), preserve_index=False)
            pa.parquet.write_table(part, Path(folder) / f"{number}.parquet")
        key = SourceKey(Path(folder), ("k", "n"), "e", "w")
        found = IndexCatalog(Path(folder) / "index", memory_limit=1).build(key)
        assert found is not None
        places = found.find(rows_asked[["k", "n"]], asked_moments(rows_asked["at"], len(rows_asked)), limit)
        assert [-1 if got is None else got for got in found.columns(["place"], places)[0].to_pylist()] == wanted


def _schema(source: pd.DataFrame) -> pa.Schema:
    times = {name: pa.timestamp("us", str(source[name].dt.tz)) for name in ("e", "w")}
    return pa.schema({"k": pa.string(), "n": pa.int64(), **times, "place": pa.int64()})


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(*CASE)
@example([(("a", 1), 2, 2), (("a", 1), 2, 5), (("a", 1), 4, 4)], [(("a", 1), 5, 0)], 3, [1], ZONES[0], ZONES[1])
@example([(("a", 1), 6, 1), (("a", 1), 6, 1)], [(("a", 1), 6, 0), (("a", 1), 6, -1)], None, [1], ZONES[0], ZONES[0])
@example([(("a", 1), 2, 2)], [(("a", 1), 5, 0), (("a", 1), 5, 1)], 3, [], UTC, ZONES[0])
@example([(("a", 11), 1, 1), (("a", 1), 1, 1)], [(("a", 1), 1, 0), (("a", None), 1, 0)], None, [1], UTC, UTC)
def test_f33_late_out_of_order_duplicate_and_corrected_events(rows, questions, ttl, cuts, source_zone, asked_zone):
    """500 cases of ties, gaps, late and corrected rows, TTL edges, two keys and a night with an hour twice."""
    agrees(rows, questions, ttl, cuts, source_zone, asked_zone)


@pytest.mark.long
@pytest.mark.timeout(1800)
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(*CASE)
def test_f33_ten_thousand_cases(rows, questions, ttl, cuts, source_zone, asked_zone):
    """The same, 10,000 times."""
    agrees(rows, questions, ttl, cuts, source_zone, asked_zone)


def test_f33_delivering_the_same_events_again_changes_nothing(tmp_path: Path):
    """The same batch landed twice, and the same rows in another file, leave every answer as it was."""
    rows = [(("a", 1), moment(1), moment(1)), (("a", 1), moment(3), moment(4)), (("a", 1), moment(1), moment(6))]
    source = frame([row[0] for row in rows], UTC, e=[row[1] for row in rows], w=[row[2] for row in rows])
    source["value"] = [1.0, 2.0, 9.0]
    key = SourceKey(tmp_path / "source", ("k", "n"), "e", "w")
    (tmp_path / "source").mkdir()
    asked = frame([("a", 1)] * 8, UTC, at=[moment(hour) for hour in range(8)])

    def answers() -> list[float | None]:
        found = IndexCatalog(tmp_path / "index").build(key)
        assert found is not None
        return found.columns(["value"], found.find(asked, asked_moments(asked["at"], 8), None))[0].to_pylist()

    source.to_parquet(tmp_path / "source" / "1.parquet")
    first = answers()
    assert first == [None, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]
    source.sample(frac=1.0, random_state=1).to_parquet(tmp_path / "source" / "2.parquet")
    assert answers() == first
