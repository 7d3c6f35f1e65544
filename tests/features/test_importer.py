"""The importer: stage counts every row, batches land in the order of knowledge, reruns change nothing."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.mapping import EventsFile, load_mapping
from features.importer import Staged, ingest, land_slice, stage
from features.landing import Landing

MAPPING = """
source_system: till
inputs: {sales: {}}
events:
  - kind: demand
    columns:
      event_id: {join: [item, store, day], separator: "/"}
      event_time: {from: day}
      known_at: {from: seen}
      sku: {from: item}
      location: {from: store}
      period: {value: day}
      quantity: {from: sold}
"""
CSV = """item,store,day,seen,sold
tea,north,2026-01-02,2026-01-03T06:00:00Z,4
tea,north,2026-01-01,2026-01-02T06:00:00Z,3
rice,north,2026-01-01,2026-01-02T06:00:00Z,many
rice,north,2026-01-03,whenever,2
rice,north,2026-01-02,2026-01-03T06:00:00Z,-2
"""


def mapped(tmp_path: Path, extra: str = "", mapping: str = MAPPING) -> EventsFile:
    file = tmp_path / "till.yaml"
    file.write_text(mapping + extra)
    return load_mapping(file)


def source(tmp_path: Path, text: str = CSV) -> Path:
    file = tmp_path / "sales.csv"
    file.write_text(text)
    return file


def at(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 1, day, hour, tzinfo=UTC)


def test_stage_counts_every_row_and_keeps_what_it_refused(tmp_path: Path) -> None:
    """Rows in = events + rejected; the rejected keep the source's own text and the reason for each bad cell."""
    staged = stage(mapped(tmp_path), source(tmp_path))
    assert staged.rows_in == {"demand": 5}
    assert staged.events["demand"]["event_id"].tolist() == ["tea/north/2026-01-01", "tea/north/2026-01-02"]
    rejected = staged.rejected["demand"].set_index("event_id")
    assert (
        rejected.loc["rice/north/2026-01-01", "reason"] == "quantity: wanted a number, got 'many' [logicalType]; line 4"
    )
    assert rejected.loc["rice/north/2026-01-01", "quantity"] == "many"
    assert rejected.loc["rice/north/2026-01-02", "reason"] == "quantity: wanted at least 0, got -2.0 [minimum]; line 6"
    assert rejected.loc["rice/north/2026-01-03", "reason"].startswith("known_at: wanted a time with a zone")


def test_ingest_lands_batches_in_order_of_knowledge(tmp_path: Path) -> None:
    """One batch a day of known_at, oldest first; over all of them rows in = landed + quarantined."""
    landing = Landing(tmp_path / "lake")
    done: list[float] = []
    receipts = ingest(mapped(tmp_path), source(tmp_path), landing, progress=lambda words, share: done.append(share))
    assert [(one.rows_in, one.landed, one.quarantined) for one in receipts] == [(3, 1, 2), (2, 1, 1)]
    assert landing.read("demand")["known_at"].is_monotonic_increasing
    assert sum(one.rows_in for one in receipts) == 5
    assert done == [0.5, 1.0]


def test_ingesting_again_is_a_no_op(tmp_path: Path) -> None:
    """The same file again gives the same receipts, all marked already, and not one more file."""
    landing = Landing(tmp_path / "lake")
    first = ingest(mapped(tmp_path), source(tmp_path), landing)
    files = sorted((tmp_path / "lake").rglob("*.parquet"))
    again = ingest(mapped(tmp_path), source(tmp_path), Landing(tmp_path / "lake"))
    assert [one.batch for one in again] == [one.batch for one in first]
    assert all(one.already for one in again)
    assert sorted((tmp_path / "lake").rglob("*.parquet")) == files


def test_ingest_until_lands_whole_batches_and_goes_on_later(tmp_path: Path) -> None:
    """A moment inside a batch leaves that batch for later, so that going on refuses nothing as a duplicate."""
    landing = Landing(tmp_path / "lake")
    early = ingest(mapped(tmp_path), source(tmp_path), landing, until=at(3, 12))
    assert [one.landed for one in early] == [1]
    rest = ingest(mapped(tmp_path), source(tmp_path), landing)
    assert [(one.already, one.landed) for one in rest] == [(True, 1), (False, 1)]


def test_gaps_become_zeros_between_first_sale_and_the_files_end(tmp_path: Path) -> None:
    """`gaps: zero` adds a zero for each missing day from a series' first to the file's last, known like the rest."""
    rows = ("tea,n,2026-01-01,2026-01-02,3", "tea,n,2026-01-04,2026-01-05,1", "rice,n,2026-01-03,2026-01-04,2")
    csv = "\n".join(("item,store,day,seen,sold", *rows))
    staged = stage(mapped(tmp_path, "    gaps: zero\n"), source(tmp_path, csv))
    demand = staged.events["demand"]
    zeros = demand[demand["quantity"] == 0].sort_values(["sku", "event_time"])
    assert list(zip(zeros["sku"], zeros["event_time"], strict=True)) == [
        ("rice", at(4)),
        ("tea", at(2)),
        ("tea", at(3)),
    ]
    assert (zeros["known_at"] - zeros["event_time"]).unique().tolist() == [timedelta(days=1)]
    assert (staged.filled["demand"], staged.rows_in["demand"]) == (3, 3)
    assert demand["event_id"].is_unique


def test_monthly_gaps_follow_the_calendar(tmp_path: Path) -> None:
    """A missing February is one zero that starts on the first of February."""
    csv = "item,store,day,seen,sold\ntea,n,2026-01-01,2026-02-10,3\ntea,n,2026-03-01,2026-04-10,1\n"
    mapping = mapped(tmp_path, "    gaps: zero\n", MAPPING.replace("value: day", "value: month"))
    demand = stage(mapping, source(tmp_path, csv)).events["demand"]
    assert sorted(demand["event_time"]) == [at(1), datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)]


def test_where_and_prepare_shape_the_rows(tmp_path: Path) -> None:
    """SQL sums to the grain before parsing; `where` keeps part of the rows for one event."""
    columns = "item, store, day, min(seen) AS seen, sum(TRY_CAST(sold AS INT)) AS sold"
    prepare = f"prepare: SELECT {columns} FROM sales GROUP BY ALL\n"
    mapping = mapped(tmp_path, "    where: sold > 3\n" + prepare)
    demand = stage(mapping, source(tmp_path)).events["demand"]
    assert demand["quantity"].tolist() == [4.0]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(
    cuts=st.lists(st.integers(0, 8 * 24), max_size=5), hours=st.lists(st.integers(0, 8 * 24), min_size=1, max_size=12)
)
def test_slices_land_everything_once(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], hours: list[int]
) -> None:
    """However time is cut, the slices (after, until] together land each staged row exactly once."""
    folder = tmp_path_factory.mktemp("slices")
    lines = [
        f"tea,{n},2026-01-01,{(at(2) + timedelta(hours=hour)).isoformat()},{'x' if hour % 5 == 0 else hour}"
        for n, hour in enumerate(hours)
    ]
    staged: Staged = stage(mapped(folder), source(folder, "item,store,day,seen,sold\n" + "\n".join(lines)))
    landing = Landing(folder / "lake")
    edges = [None, *sorted({at(2) + timedelta(hours=cut) for cut in cuts}), None]
    receipts = [one for low, high in itertools.pairwise(edges) for one in land_slice(staged, landing, low, high)]
    assert sum(one.rows_in for one in receipts) == len(hours)
    assert sum(one.landed for one in receipts) == len(landing.read("demand")) == len(staged.events["demand"])
    assert len(landing.quarantined("demand")) == len(staged.rejected["demand"])


def test_a_slice_holds_exactly_what_became_known_in_it(tmp_path: Path) -> None:
    """`after` is exclusive and `until` inclusive."""
    staged = stage(mapped(tmp_path), source(tmp_path))
    landing = Landing(tmp_path / "lake")
    land_slice(staged, landing, at(2, 6), at(3, 6))
    assert landing.read("demand")["known_at"].tolist() == [pd.Timestamp(at(3, 6))]
