"""The point-in-time benchmark in small: everyone who takes part gives the same answers, and the check would tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("feast")
pytest.importorskip("ibis")
pytest.importorskip("polars")

from benchmarks.measure import Cost, in_child, measured, medians
from benchmarks.point_in_time import BUILD, INDEXED, PLAIN, SIZES, Runs, break_even, table, verdict
from benchmarks.point_in_time_contenders import CONTENDERS, as_table, ours_build
from benchmarks.point_in_time_data import MICROSECOND, SOURCES, Folder, answer, check, make

GOOD = {"rows": 1000, "lost": 0, "in_order": True, "wrong": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    made = make(tmp_path_factory.mktemp("bench") / "data", 1_000, 10_000)
    answer(made)
    return made


@pytest.mark.parametrize("name", [name for name in CONTENDERS if not name.startswith("Feast")])
def test_a_contender_gives_every_row_in_order_with_the_true_values(folder: Folder, tmp_path: Path, name: str):
    """Ours (with and without index), Polars and DuckDB equal the reference cell by cell."""
    assert check(folder, as_table(CONTENDERS[name](tmp_path, folder)())) == GOOD


def test_ours_on_a_prebuilt_index_gives_the_same(folder: Folder, tmp_path: Path):
    """The indexes lie on disk before the query, and it answers from them."""
    prepared = ours_build(tmp_path, folder)
    assert prepared is not None
    build, where = prepared
    build()
    assert any(file.stat().st_size for file in where.rglob("*") if file.is_file())
    assert check(folder, as_table(CONTENDERS[INDEXED](tmp_path, folder)())) == GOOD


def test_feast_duckdb_gives_the_same_in_any_order(folder: Folder, tmp_path: Path):
    """On this data Feast's DuckDB store is right in every cell."""
    found = check(folder, as_table(CONTENDERS["Feast duckdb"](tmp_path, folder)()))
    assert {**found, "in_order": True} == GOOD


def test_feast_file_loses_rows_where_ours_loses_none(tmp_path: Path):
    """Feast's default store returns fewer rows than were asked for; none of them twice."""
    few = make(tmp_path / "data", 200, 2_000)
    answer(few)
    theirs, ours = (check(few, as_table(CONTENDERS[name](tmp_path, few)())) for name in ("Feast file", PLAIN))
    assert theirs["lost"] > 0
    assert theirs["rows"] + theirs["lost"] == 200
    assert ours == {**GOOD, "rows": 200}


def test_the_reference_is_what_plain_python_finds(folder: Folder):
    """For 40 questions a view, a loop over all rows of the source gives the reference's place."""
    asked = pq.read_table(folder.questions).to_pylist()[::25]
    for source in SOURCES:
        rows = pq.read_table(folder.source(source.name), columns=[*source.keys, "event_time", "known_at"]).to_pylist()
        places = np.load(folder.answer(source.name))
        for question in asked:
            moment, key = question["event_timestamp"], tuple(question[name] for name in source.keys)
            usable = [
                (row["event_time"], row["known_at"], place)
                for place, row in enumerate(rows)
                if tuple(row[name] for name in source.keys) == key
                and row["event_time"] <= moment
                and row["known_at"] <= moment
                and (source.ttl is None or moment - row["event_time"] <= source.ttl)
            ]
            assert places[question["row_id"]] == (max(usable)[2] if usable else -1)


def test_the_data_has_late_restated_and_missing_values(folder: Folder):
    """About a tenth of the rows are late, a twentieth restated; both kinds change answers of some questions."""
    for source in SOURCES:
        rows = pq.read_table(folder.source(source.name)).to_pandas()
        again = rows.duplicated([*source.keys, "event_time"], keep=False)
        late = rows["known_at"][~again] > rows["event_time"][~again]
        assert 0.07 < late.mean() < 0.13
        assert 0.07 < again.mean() < 0.12
        assert 0 < rows[source.features[0]].isna().mean() < 0.06


def test_the_check_finds_a_lost_row_a_changed_cell_and_another_order(folder: Folder, tmp_path: Path):
    """Each fault that a contender could have is counted."""
    right = as_table(CONTENDERS["Polars join_asof"](tmp_path, folder)())
    assert check(folder, right.slice(1)) == {**GOOD, "rows": 999, "lost": 1, "in_order": False}
    assert check(folder, right.take(np.arange(1000)[::-1])) == {**GOOD, "in_order": False}
    twice = pa.concat_tables([right.slice(0, 1), right.slice(0, 999)])
    assert check(folder, twice)["lost"] == 1
    place = right.column_names.index("site_3")
    other = right["site_3"].to_pylist()
    other[5] = None if other[5] is not None else 1.0
    assert check(folder, right.set_column(place, "site_3", pa.array(other)))["wrong"] == 1


def test_memory_and_time_of_a_piece_of_work_are_measured():
    """200 MB that were held for a moment show in the peak, though they are gone when the work ends."""
    size, cost = measured(lambda: len(bytearray(200 << 20)))
    assert size == 200 << 20
    assert 180 < cost.above_mb < 300
    assert cost.peak_mb > cost.above_mb
    assert medians([cost, replace(cost, wall=1e9), cost]) == cost


def test_a_contender_that_takes_too_long_is_stopped_and_one_that_fails_is_named(tmp_path: Path):
    """The table says so instead of a figure."""
    arguments = ["--child", "DuckDB ASOF", "--data", str(tmp_path), "--folder", str(tmp_path)]
    assert in_child("benchmarks.point_in_time", arguments, seconds=0.01) == {"stopped": "stopped at 0 s"}
    failed = in_child("benchmarks.point_in_time", arguments, seconds=60)["stopped"]
    assert "failed" in failed
    assert "tiny-data" in failed


def test_the_table_gives_ratios_break_even_and_who_did_not_finish():
    """Twice the time is 2.0; an index of 10 s that saves 4 s a query has paid after 3; never when it saves nothing."""
    ours, plain = Cost(1.0, 1.0, 100.0, 10.0), Cost(5.0, 2.0, 300.0, 210.0)
    found = {
        BUILD: Runs([Cost(10.0, 9.0, 500.0, 400.0)], {"megabytes": 7.0}),
        INDEXED: Runs([ours], GOOD),
        PLAIN: Runs([plain], {**GOOD, "lost": 3, "wrong": 4}),
        "Feast duckdb": Runs(stopped="stopped at 300 s"),
    }
    text = "\n".join(table(SIZES[0], found))
    assert f"| {PLAIN} | 5.0 | 2.0 | 3.0 | 5.00 | 2.00 | 300 | 210 | 1,000 | 3 rows lost, 4 cells wrong |" in text
    assert "stopped at 300 s" in text
    assert "3 / 9 against ours without an index" in text
    assert break_even(10.0, 1.0, 1.0) == "never"
    assert verdict({**GOOD, "in_order": False}) == "equal, rows in another order"
    assert MICROSECOND.total_seconds() == 1e-6
