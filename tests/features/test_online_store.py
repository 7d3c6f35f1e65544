"""The embedded online store: the guard against older rows, status and age, several processes."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import InputInvalid, TimeInvalid
from features.online import OnlineStore
from features.online_rows import Ask, Mark

START = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = ("sku", "location")
COLUMNS = ("lag_1", "scale")
TTL = timedelta(days=3)


def rows(*entries: tuple[str, int, int, float]) -> pd.DataFrame:
    """Rows (sku, event hour, known hour, lag_1) at location `l`."""
    frame = pd.DataFrame(entries, columns=["sku", "event_time", "known_at", "lag_1"])
    for name in ("event_time", "known_at"):
        frame[name] = (pd.Timestamp(START) + pd.to_timedelta(frame[name], unit="h")).astype("datetime64[us, UTC]")
    return frame.assign(location="l", scale=2.0)


def lag(store: OnlineStore, sku: str = "s") -> float | None:
    return store.read("v", COLUMNS, (sku, "l"), START + timedelta(hours=99), timedelta(0)).values["lag_1"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8, unique=True), st.randoms())
def test_the_order_of_arrival_does_not_matter(tmp_path_factory, stamps, chance: random.Random):
    """Whatever order rows arrive in, the latest event wins, and of that the version known last."""
    entries = [("s", event, known, float(event * 10 + known)) for event, known in stamps]
    chance.shuffle(entries)
    store = OnlineStore(tmp_path_factory.mktemp("online"))
    for entry in entries:
        store.write("v", KEYS, rows(entry))
    event, known = max(stamps)
    assert lag(store) == event * 10 + known
    store.close()


def test_one_write_may_hold_a_key_many_times_in_any_order(tmp_path: Path):
    """Of several rows of a key in one write the newest is kept, wherever it stands."""
    store = OnlineStore(tmp_path)
    assert store.write("v", KEYS, rows(("s", 3, 3, 3.0), ("s", 3, 4, 4.0), ("s", 1, 9, 1.0), ("s", 2, 2, 2.0))) == 1
    assert lag(store) == 4.0


def test_writing_again_changes_nothing(tmp_path: Path):
    """The second write of the same rows writes none, and an older row does not either."""
    store = OnlineStore(tmp_path)
    assert store.write("v", KEYS, rows(("s", 2, 2, 1.0), ("t", 2, 2, 5.0))) == 2
    assert store.write("v", KEYS, rows(("s", 2, 2, 1.0), ("t", 2, 2, 5.0))) == 0
    assert store.write("v", KEYS, rows(("s", 1, 9, 7.0))) == 0
    assert (lag(store), lag(store, "t")) == (1.0, 5.0)


def test_of_rows_with_equal_stamps_the_last_stays(tmp_path: Path):
    """As in the offline join, the last of otherwise equal rows wins, inside one write and across writes."""
    store = OnlineStore(tmp_path)
    assert store.write("v", KEYS, rows(("s", 1, 1, 1.0), ("s", 1, 1, 2.0))) == 1
    assert lag(store) == 2.0
    assert store.write("v", KEYS, rows(("s", 1, 1, 3.0))) == 1
    assert lag(store) == 3.0


@pytest.mark.parametrize(
    ("hours", "status", "age"),
    [
        (0, "missing", None),
        (10, "present", 0.0),
        (12, "present", 7200.0),
        (82, "present", 259200.0),
        (83, "stale", 262800.0),
    ],
)
def test_status_and_age(tmp_path: Path, hours: int, status: str, age: float | None):
    """Missing before the event, present up to the time to live included, then stale with the values still there."""
    store = OnlineStore(tmp_path)
    store.write("v", KEYS, rows(("s", 10, 10, 1.5)))
    found = store.read("v", COLUMNS, ("s", "l"), START + timedelta(hours=hours), TTL)
    assert (found.status, found.age_s) == (status, age)
    assert found.values == ({"lag_1": None, "scale": None} if status == "missing" else {"lag_1": 1.5, "scale": 2.0})
    assert found.event_time == (None if status == "missing" else START + timedelta(hours=10))
    assert type(found).model_validate(found.model_dump()) == found


def test_a_row_known_only_later_is_missing(tmp_path: Path):
    """A row of an earlier event that became known after the decision is not served to it."""
    store = OnlineStore(tmp_path)
    store.write("v", KEYS, rows(("s", 1, 5, 1.0)))
    read = [store.read("v", COLUMNS, ("s", "l"), START + timedelta(hours=at), TTL).status for at in (4, 5)]
    assert read == ["missing", "present"]


def test_missing_values_unknown_columns_and_unknown_keys(tmp_path: Path):
    """NaN and a column that the row does not have read as None; a key never written, or without a part, is missing."""
    store = OnlineStore(tmp_path)
    store.write("v", KEYS, rows(("s", 1, 1, np.nan)))
    asks = [Ask("v", ("scale", "new", "lag_1"), key, TTL) for key in (("s", "l"), ("x", "l"), ("s", None))]  # type: ignore[arg-type]
    found = store.read_many(asks, START + timedelta(hours=2))
    assert found[0].values == {"scale": 2.0, "new": None, "lag_1": None}
    assert [read.status for read in found] == ["present", "missing", "missing"]


def test_old_rows_stay_readable_when_a_view_gets_other_columns(tmp_path: Path):
    """A record carries its own column layout, so rows of two layouts are read by name."""
    store = OnlineStore(tmp_path)
    store.write("v", KEYS, rows(("s", 1, 1, 1.0)))
    other = rows(("t", 1, 1, 2.0)).rename(columns={"scale": "other"})
    store.write("v", KEYS, other[["other", *KEYS, "lag_1", "event_time", "known_at"]])
    assert (lag(store), lag(store, "t")) == (1.0, 2.0)


def test_keys_are_told_apart_and_may_be_long(tmp_path: Path):
    """("1", "11") and ("11", "1") differ, and so do two long keys that differ at their end; NUL is refused."""
    store = OnlineStore(tmp_path)
    long = ["x" * 900 + "1", "x" * 900 + "2"]
    frame = rows(*[("s", 1, 1, float(i)) for i in range(4)])
    frame = frame.assign(sku=["1", "11", *long], location=["11", "1", "l", "l"])
    assert store.write("v", KEYS, frame) == 4
    keys = [("1", "11"), ("11", "1"), (long[0], "l"), (long[1], "l")]
    found = store.read_many([Ask("v", COLUMNS, key, TTL) for key in keys], START + timedelta(hours=2))
    assert [read.values["lag_1"] for read in found] == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(InputInvalid, match="NUL"):
        store.read("v", COLUMNS, ("a\0b", "l"), START, TTL)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"lag_1": np.inf}, InputInvalid, "infinity"),
        ({"lag_1": "many"}, InputInvalid, "numbers"),
        ({"sku": None}, InputInvalid, "join key"),
        ({"known_at": pd.NaT}, InputInvalid, "every row"),
        ({"event_time": pd.Timestamp("2026-01-01")}, TimeInvalid, "event_time"),
    ],
)
def test_rows_that_cannot_be_kept_are_refused_whole(tmp_path: Path, change, error, words):
    """A bad row is named and nothing of its write stays."""
    store = OnlineStore(tmp_path)
    bad = rows(("s", 1, 1, 1.0), ("t", 1, 1, 1.0))
    if "known_at" in change:
        bad.loc[1, "known_at"] = pd.NaT
    else:
        bad = bad.assign(**change)
    with pytest.raises(error, match=words):
        store.write("v", KEYS, bad)
    assert lag(store) is None


def test_views_and_marks_are_written_together_and_forgotten_by_view(tmp_path: Path):
    """Two views and their marks go in at once; forgetting one leaves the other."""
    store = OnlineStore(tmp_path)
    both = {"v": (KEYS, rows(("s", 1, 1, 1.0))), "v2": (KEYS, rows(("s", 1, 1, 2.0)))}
    assert store.write_views(both, {"v": Mark(START), "v2": Mark(START, "7 x")}) == {"v": (1, 0, 0), "v2": (1, 0, 0)}
    assert store.forget("v") == 1
    assert (store.mark("v"), store.mark("v2"), lag(store)) == (None, (START, "7 x"), None)
    assert store.newest("v2", ("lag_1",), ("s", "l")) == (START + timedelta(hours=1),) * 2 + ({"lag_1": 2.0},)


def test_a_deleted_folder_starts_empty(tmp_path: Path):
    """Deleting the folder while a store is open in this process does not bring the old rows back."""
    folder = tmp_path / "online"
    OnlineStore(folder).write("v", KEYS, rows(("s", 1, 1, 1.0)))
    shutil.rmtree(folder)
    assert lag(OnlineStore(folder)) is None


def test_two_stores_on_one_folder_share_it_in_one_process(tmp_path: Path):
    """A second store on the folder sees the first one's rows, and closing one leaves the other working."""
    first, second = OnlineStore(tmp_path), OnlineStore(tmp_path / ".")
    first.write("v", KEYS, rows(("s", 1, 1, 1.0)))
    first.close()
    assert lag(second) == 1.0
    second.close()
    assert lag(OnlineStore(tmp_path)) == 1.0


def _write_and_die(folder: Path) -> None:
    OnlineStore(folder).write("v", KEYS, rows(("s", 5, 5, 5.0)))
    os.kill(os.getpid(), 9)


def _write_many(folder: Path, seed: int) -> None:
    store, chance = OnlineStore(folder), random.Random(seed)
    for hour in chance.sample(range(40), 40):
        store.write("v", KEYS, rows(("s", hour, hour, float(hour)), (f"own{seed}", hour, hour, float(hour))))


def test_rows_of_a_killed_process_are_there(tmp_path: Path):
    """Another process sees what a process had written before it was killed, and an open reader sees it at once."""
    reader = OnlineStore(tmp_path)
    child = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(tmp_path,))
    child.start()
    child.join(60)
    assert child.exitcode == -9
    assert lag(reader) == 5.0


def _read_and_stay(store: OnlineStore, told: Any) -> None:
    told.send(lag(store))
    told.recv()
    os._exit(0)


def test_a_child_that_reads_takes_nothing_from_its_parent(tmp_path: Path):
    """While a forked child reads through the store it inherited, the parent and another store go on reading."""
    store = OnlineStore(tmp_path)
    store.write("v", KEYS, rows(("s", 1, 1, 1.0)))
    assert lag(store) == 1.0
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_read_and_stay, args=(store, there))
    child.start()
    assert here.recv() == 1.0
    for hour in range(2, 6):
        assert (lag(store), lag(OnlineStore(tmp_path))) == (hour - 1.0, hour - 1.0)
        store.write("v", KEYS, rows(("s", hour, hour, float(hour))))
    here.send("go")
    child.join(60)
    assert (child.exitcode, lag(store)) == (0, 5.0)


def _read_inherited(store: OnlineStore) -> None:
    os._exit(0 if lag(store) == 1.0 else 3)


def test_a_store_inherited_by_a_fork_works(tmp_path: Path):
    """A store opened before a fork answers in the child and goes on answering in the parent."""
    store = OnlineStore(tmp_path)
    store.write("v", KEYS, rows(("s", 1, 1, 1.0)))
    child = multiprocessing.get_context("fork").Process(target=_read_inherited, args=(store,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert store.write("v", KEYS, rows(("s", 2, 2, 2.0))) == 1
    assert lag(store) == 2.0


@pytest.mark.parametrize("how", ["spawn", "fork"])
def test_writers_in_two_processes_keep_the_newest(tmp_path: Path, how: str):
    """Two processes that write the same keys in random order leave the newest rows of both."""
    store = OnlineStore(tmp_path)
    store.write("v", KEYS, rows(("s", 0, 0, 0.0)))
    context = multiprocessing.get_context(how)
    children = [context.Process(target=_write_many, args=(tmp_path, seed)) for seed in (1, 2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert [lag(store, sku) for sku in ("s", "own1", "own2")] == [39.0, 39.0, 39.0]
