"""Indexes on disk: the same answers as in memory, extended when rows land, never used for other content."""

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

from contracts.errors import InputInvalid, TimeInvalid
from features.asof import AsofIndex, asked_moments
from features.asof_catalog import IndexCatalog, SourceKey

START = np.datetime64("2026-01-01", "us")


def rows_of(seed: int, count: int) -> pa.Table:
    """Rows with two key columns, late and corrected, missing values, and features of several types."""
    rng = np.random.default_rng(seed)
    event = rng.integers(0, 400, count)
    known = event + rng.choice([0, 0, 1, 50], count)
    text = np.char.add("s", rng.integers(0, 9, count).astype(str)).astype(object)
    text[rng.random(count) < 0.05] = None
    whole = pd.array(rng.integers(0, 1000, count), dtype="Int64")
    whole[rng.random(count) < 0.2] = pd.NA
    times = {
        name: pa.array(START + (values * 3_600_000_000).astype("m8[us]")).cast(pa.timestamp("us", "UTC"))
        for name, values in (("e", event), ("w", known))
    }
    return pa.table(
        {"k": pa.array(text, pa.string()), "n": pa.array(rng.integers(0, 4, count))}
        | times
        | {"x": rng.normal(size=count), "whole": pa.array(whole), "word": pa.array(text, pa.string())}
    )


def questions(seed: int, count: int) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed + 1)
    keys = pd.DataFrame({"k": np.char.add("s", rng.integers(0, 11, count).astype(str)), "n": rng.integers(0, 4, count)})
    moments = pd.DatetimeIndex(START + (rng.integers(0, 450, count) * 3_600_000_000).astype("m8[us]"), tz="UTC")
    return keys, asked_moments(moments, count)


class Folder:
    """A source that grows file by file, and its catalog."""

    def __init__(self, home: Path, memory_limit: int = 1 << 30) -> None:
        self.source, self.limit, self.home = home / "source", memory_limit, home / "index"
        self.source.mkdir()
        self.key = SourceKey(self.source, ("k", "n"), "e", "w")
        self.tables: list[pa.Table] = []

    def land(self, table: pa.Table, **options) -> None:
        pq.write_table(table, self.source / f"{len(self.tables):04d}.parquet", **options)
        self.tables.append(table)

    @property
    def catalog(self) -> IndexCatalog:
        return IndexCatalog(self.home, self.limit)

    def parts(self) -> list[str]:
        return [part["name"] for part in json.loads((self.home / self.key.name / "index.json").read_bytes())["parts"]]

    def check(self, seed: int = 0) -> None:
        """The index gives what an index in memory over all rows gives, for every column."""
        keys, moment = questions(seed, 300)
        whole = pa.concat_tables(self.tables)
        memory = AsofIndex.build(whole.select(["k", "n"]), whole["e"], whole["w"])
        found = memory.find(keys, moment, None)
        places = np.where(found >= 0, np.append(memory.positions, -1)[found], -1)
        indexed = self.catalog.build(self.key)
        assert indexed is not None
        asked = indexed.find(keys, moment, None)
        for name in ("x", "whole", "word"):
            wanted = whole[name].take(pa.array(places, mask=places < 0)).combine_chunks()
            got = indexed.columns([name], asked)[0]
            assert got.type == wanted.type
            assert got.to_pylist() == wanted.to_pylist()


@pytest.mark.parametrize("seed", range(5))
def test_an_index_on_disk_answers_like_one_in_memory(tmp_path: Path, seed: int):
    """Over several files and row groups, cut into segments of a few hundred rows."""
    folder = Folder(tmp_path, memory_limit=320 * 400)
    for part in range(3):
        folder.land(rows_of(10 * seed + part, 350), row_group_size=90)
    folder.check(seed)
    assert len(folder.parts()) >= 3


def test_new_rows_are_appended_and_small_segments_merged(tmp_path: Path):
    """A new file leaves a large segment as it is; segments of like size become one; there are few of them."""
    folder = Folder(tmp_path)
    folder.land(rows_of(0, 2000))
    folder.check()
    (large,) = folder.parts()
    made = (folder.home / folder.key.name / large).stat().st_ino
    for part in range(1, 13):
        folder.land(rows_of(part, 50))
        folder.check(part)
        assert folder.parts()[0] == large
        assert len(folder.parts()) <= 5
    assert (folder.home / folder.key.name / large).stat().st_ino == made
    kept = {entry.name for entry in (folder.home / folder.key.name).iterdir() if entry.is_dir()}
    assert kept == set(folder.parts())


def test_other_content_under_the_same_name_size_and_time_is_noticed(tmp_path: Path):
    """An index is never stale: a file that was replaced by one of equal size and modification time is read again."""
    folder = Folder(tmp_path)
    rows = rows_of(1, 200)
    folder.land(rows, use_dictionary=False, compression="none")
    folder.check()
    file = folder.source / "0000.parquet"
    before = file.stat()
    other = rows.set_column(rows.schema.get_field_index("x"), "x", pa.array(np.asarray(rows["x"])[::-1]))
    pq.write_table(other, file, use_dictionary=False, compression="none")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert folder.catalog.ready(folder.key) is None
    folder.tables = [other]
    folder.check()


def test_files_that_are_merged_or_vanish_are_followed(tmp_path: Path):
    """A writer that merges small files into one, and one that takes a file away, leave no old row in the answers."""
    folder = Folder(tmp_path)
    for part in range(4):
        folder.land(rows_of(part, 100))
    folder.check()
    for part in range(1, 4):
        (folder.source / f"{part:04d}.parquet").unlink()
    pq.write_table(pa.concat_tables(folder.tables[1:]), folder.source / "0001-0003.parquet")
    folder.check()
    (folder.source / "0000.parquet").unlink()
    folder.tables = folder.tables[1:]
    folder.check()


def test_what_a_killed_builder_left_is_swept_away(tmp_path: Path):
    """A half-made segment and a manifest that is no JSON cost a rebuild, and nothing of them stays."""
    folder = Folder(tmp_path)
    folder.land(rows_of(0, 100))
    home = folder.home / folder.key.name
    (home / "_abc.1").mkdir(parents=True)
    (home / "_abc.1" / "c0.arrow").write_bytes(b"half")
    (home / "index.json").write_text("{")
    folder.check()
    assert not (home / "_abc.1").exists()
    assert folder.catalog.ready(folder.key) is not None


KILLED = """
import sys, signal, os, threading
from pathlib import Path
from features.asof_catalog import IndexCatalog, SourceKey
threading.Timer(float(sys.argv[3]), lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
while True:
    key = SourceKey(Path(sys.argv[1]), ("k", "n"), "e", "w")
    IndexCatalog(Path(sys.argv[2])).build(key)
    manifest = Path(sys.argv[2]) / key.name / "index.json"
    manifest.unlink()
"""


def test_a_builder_killed_at_any_moment_leaves_a_whole_index_or_none(tmp_path: Path):
    """Killed in the middle of building again and again; the next build answers right each time."""
    folder = Folder(tmp_path)
    for part in range(3):
        folder.land(rows_of(part, 400))
    for wait in (0.0, 0.01, 0.02, 0.03, 0.05):
        found = subprocess.run(
            [sys.executable, "-c", KILLED, str(folder.source), str(folder.home), str(wait)],
            capture_output=True,
            cwd=Path(__file__).parents[2],
            timeout=60,
        )
        assert found.returncode == -9, found.stderr
        folder.check()


READER = """
import sys
import numpy as np, pandas as pd
from pathlib import Path
from features.asof_catalog import IndexCatalog, SourceKey
key = SourceKey(Path(sys.argv[1]), ("k",), "e", None)
keys = pd.DataFrame({"k": ["a"] * 50})
seen = 0
while seen < 20:
    try:
        found = IndexCatalog(Path(sys.argv[2])).build(key)
        values = found.columns(["x"], found.find(keys, np.full(50, 2**60), None))[0].to_pylist()
    except FileNotFoundError:
        continue
    assert len(set(values)) == 1 and values[0] >= seen, (values[0], seen)
    seen = int(values[0])
print(seen)
"""


def test_readers_beside_a_growing_source_see_old_or_new(tmp_path: Path):
    """Two processes that read and build while rows land never see a mixture, and never go back."""
    source = tmp_path / "source"
    source.mkdir()

    def land(number: int) -> None:
        table = pa.table({"k": ["a"], "e": pa.array([number], pa.timestamp("us", "UTC")), "x": [float(number)]})
        pq.write_table(table, source / f"_{number:04d}.parquet")
        (source / f"_{number:04d}.parquet").rename(source / f"{number:04d}.parquet")

    land(0)
    command = [sys.executable, "-c", READER, str(source), str(tmp_path / "index")]
    root = Path(__file__).parents[2]
    pipe = subprocess.PIPE
    readers = [subprocess.Popen(command, stdout=pipe, stderr=pipe, cwd=root) for _ in range(2)]
    for number in range(1, 21):
        land(number)
    for reader in readers:
        out, err = reader.communicate(timeout=100)
        assert out.strip() == b"20", err.decode()


def test_a_source_without_rows_or_files_has_an_answer(tmp_path: Path):
    """No file: no index. A file without rows: an index that finds nothing, and is not built again."""
    folder = Folder(tmp_path)
    assert folder.catalog.build(folder.key) is None
    folder.land(rows_of(0, 5).slice(0, 0))
    folder.check()
    assert folder.catalog.ready(folder.key) is not None


def test_a_column_that_came_later_is_missing_before(tmp_path: Path):
    """Rows of files without a column have no value in it; a column that no file has is an error that names it."""
    folder = Folder(tmp_path, memory_limit=320 * 100)
    old = rows_of(0, 100)
    folder.land(old.drop_columns(["whole"]))
    folder.land(rows_of(1, 100))
    indexed = folder.catalog.build(folder.key)
    assert indexed is not None
    assert len(indexed.columns(["whole"], np.arange(200) % 150)[0]) == 200
    with pytest.raises(InputInvalid, match="'wholes'"):
        indexed.columns(["wholes"], np.zeros(1, np.int64))


def test_times_without_a_zone_are_refused_by_name(tmp_path: Path):
    """A source whose times have no zone cannot be indexed, and nothing is left behind."""
    folder = Folder(tmp_path)
    rows = rows_of(0, 10)
    folder.land(rows.set_column(2, "e", rows["e"].cast(pa.timestamp("us"))))
    with pytest.raises(TimeInvalid, match="event_time"):
        folder.catalog.build(folder.key)
    assert not [entry for entry in (folder.home / folder.key.name).iterdir() if entry.is_dir()]
