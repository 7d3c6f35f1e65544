"""Gold parts: whole or not at all, the same content once, read by when it became known."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.dataset
import pytest

from contracts.errors import InputInvalid
from features.gold import GoldStore
from tests.features.view_events import at


def rows(*hours: float, value: float = 1.0) -> pd.DataFrame:
    moments = pd.Series([at(hour) for hour in hours], dtype="datetime64[us, UTC]")
    names = pd.Series(["a" for _ in hours], dtype=object)
    return pd.DataFrame({"sku": names, "event_time": moments, "known_at": moments, "mean": [value] * len(hours)})


def test_rows_are_read_by_known_at(tmp_path: Path) -> None:
    """The lower end is exclusive, the upper inclusive, and order is that of appending."""
    gold = GoldStore(tmp_path)
    gold.append("v", rows(1, 2, 3))
    gold.append("v", rows(4))
    assert gold.read("v", at(1), at(3))["known_at"].tolist() == [at(2), at(3)]
    assert gold.read("v", after=at(2))["known_at"].tolist() == [at(3), at(4)]
    assert gold.last_tick("v") == at(4)
    assert gold.read("v", at(4)).columns.tolist() == ["sku", "event_time", "known_at", "mean"]


def test_nothing_there_is_an_empty_frame(tmp_path: Path) -> None:
    """A view without rows reads as empty, without a newest tick or a note."""
    gold = GoldStore(tmp_path / "not yet")
    assert gold.read("v").empty
    assert gold.last_tick("v") is None
    assert gold.built("v") is None
    assert gold.views() == ()


def test_the_same_rows_are_kept_once(tmp_path: Path) -> None:
    """Appending the very same part again changes nothing."""
    gold = GoldStore(tmp_path)
    assert gold.append("v", rows(1))
    assert not gold.append("v", rows(1))
    assert not gold.append("v", rows())
    assert len(gold.read("v")) == 1


def test_another_reader_sees_the_same(tmp_path: Path) -> None:
    """What was appended reads the same from disk, by us and by any Parquet reader, through merges too."""
    gold = GoldStore(tmp_path, merge_at=4)
    for hour in range(11):
        gold.append("v", rows(hour, value=hour / 3), note={"hour": hour})
    other = GoldStore(tmp_path)
    pd.testing.assert_frame_equal(gold.read("v"), other.read("v"))
    assert other.read("v")["mean"].tolist() == [hour / 3 for hour in range(11)]
    assert other.built("v") == {"hour": 10}
    assert len(list(gold.folder("v").iterdir())) < 11
    assert pyarrow.dataset.dataset(gold.folder("v")).count_rows() == 11


def test_parts_inside_a_merged_part_are_void(tmp_path: Path) -> None:
    """A merge that ended before it took away what it merged doubles no row."""
    gold = GoldStore(tmp_path, merge_at=3)
    gold.append("v", rows(1))
    gold.append("v", rows(2))
    kept = {path.name: path.read_bytes() for path in gold.folder("v").iterdir()}
    gold.append("v", rows(3))
    for name, data in kept.items():
        (gold.folder("v") / name).write_bytes(data)
    assert GoldStore(tmp_path).read("v")["known_at"].tolist() == [at(1), at(2), at(3)]


def test_another_process_merging_while_we_read(tmp_path: Path) -> None:
    """A reader that listed parts that another store has merged since finds the rows all the same."""
    ours, theirs = GoldStore(tmp_path, merge_at=3), GoldStore(tmp_path)
    ours.append("v", rows(1))
    assert len(theirs.read("v")) == 1
    ours.append("v", rows(2))
    ours.append("v", rows(3))
    assert theirs.read("v")["known_at"].tolist() == [at(1), at(2), at(3)]


def test_cut_takes_away_what_came_later(tmp_path: Path) -> None:
    """Rows after a moment go, in every part; the note given with the cut stands."""
    gold = GoldStore(tmp_path)
    gold.append("v", rows(1, 5), note={"n": 1})
    gold.append("v", rows(2, 6), note={"n": 2})
    gold.cut("v", at(2), note={"n": 3})
    assert GoldStore(tmp_path).read("v")["known_at"].tolist() == [at(1), at(2)]
    assert gold.built("v") == {"n": 3}
    gold.cut("v", None)
    assert gold.read("v").empty


@pytest.mark.parametrize("column", ["event_time", "known_at"])
def test_times_without_a_zone_are_refused(tmp_path: Path, column: str) -> None:
    """Naive times never get into gold."""
    frame = rows(1)
    frame[column] = frame[column].dt.tz_localize(None)
    with pytest.raises(InputInvalid, match=column):
        GoldStore(tmp_path).append("v", frame)
