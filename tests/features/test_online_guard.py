"""What every online store promises, shown on the embedded one and on Redis: the guard, ages, statuses, marks."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import InputInvalid
from features.online import OnlineStore
from features.online_rows import Ask, Mark, OnlineFeatures
from tests.features.redis_server import redis_url

__all__ = ["redis_url"]
START = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = ("sku", "location")
COLUMNS = ("lag_1", "scale")
TTL = timedelta(days=3)
_projects = count()
Opened = Callable[[], OnlineFeatures]


def rows(*entries: tuple[str, int, int, float]) -> pd.DataFrame:
    """Rows (sku, event hour, known hour, lag_1) at location `l`."""
    frame = pd.DataFrame(entries, columns=["sku", "event_time", "known_at", "lag_1"])
    for name in ("event_time", "known_at"):
        frame[name] = (pd.Timestamp(START) + pd.to_timedelta(frame[name], unit="h")).astype("datetime64[us, UTC]")
    return frame.assign(location="l", scale=2.0)


@pytest.fixture(params=["embedded", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """Opens an empty store of each kind; opening it again gives another on the same data."""
    made: list[OnlineFeatures] = []
    folder, project = tmp_path_factory.mktemp("online"), f"p{next(_projects)}"
    url = request.getfixturevalue("redis_url") if request.param == "redis" else ""

    def open_it() -> OnlineFeatures:
        made.append(store_at(url, project, folder))
        return made[-1]

    yield open_it
    for store in made:
        store.close()


def store_at(url: str, project: str, folder: Path) -> OnlineFeatures:
    if not url:
        return OnlineStore(folder)
    from features.redis_online import RedisOnline

    return RedisOnline(url, project, dict.fromkeys(("v", "v2", "w"), KEYS))


def kept(store: OnlineFeatures, sku: str = "s") -> Any:
    found = store.newest("v", COLUMNS, (sku, "l"))
    return None if found is None else found.values["lag_1"]


MOMENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=7, unique=True)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MOMENTS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_state(
    opened: Opened, moments: list[tuple[int, int]], share: int, chance: random.Random
):
    """However rows come in, one by one or some at once, and twice over: the latest event wins, then the last known."""
    store, sku = opened(), f"s{next(_projects)}"
    entries = [(sku, event, known, float(event * 10 + known)) for event, known in moments] * 2
    chance.shuffle(entries)
    for start in range(0, len(entries), share):
        store.write("v", KEYS, rows(*entries[start : start + share]))
    event, known = max(moments)
    found = store.newest("v", COLUMNS, (sku, "l"))
    hours = [START + timedelta(hours=event), START + timedelta(hours=known)]
    assert found == (*hours, {"lag_1": event * 10.0 + known, "scale": 2.0})


def test_counts_tell_what_became_of_the_rows(opened: Opened):
    """Written, older (in the same write or in the store) and the same: they add up to the rows given."""
    store = opened()
    first = {"v": (KEYS, rows(("s", 1, 1, 1.0), ("s", 3, 3, 3.0), ("t", 1, 1, 1.0)))}
    assert store.write_views(first)["v"] == (2, 1, 0)
    second = {"v": (KEYS, rows(("s", 3, 3, 3.0), ("t", 0, 9, 0.0), ("u", 1, 1, 1.0)))}
    assert store.write_views(second)["v"] == (1, 1, 1)


def test_of_rows_with_equal_stamps_the_last_stays(opened: Opened):
    """Equal in both times: the row that came last, inside one write and across writes; the same row is not written."""
    store = opened()
    assert store.write("v", KEYS, rows(("s", 1, 1, 1.0), ("s", 1, 1, 2.0))) == 1
    assert (kept(store), store.write("v", KEYS, rows(("s", 1, 1, 3.0))), kept(store)) == (2.0, 1, 3.0)
    assert store.write("v", KEYS, rows(("s", 1, 1, 3.0))) == 0


def test_events_before_the_epoch_are_compared_as_well(opened: Opened):
    """A moment before 1970 is older than one after it, and of two such moments the later wins."""
    store = opened()
    hours = -24 * 365 * 70
    for entry in (("s", hours, hours, 1.0), ("s", hours + 1, hours + 1, 2.0), ("s", hours, hours + 9, 3.0)):
        store.write("v", KEYS, rows(entry))
    assert kept(store) == 2.0
    assert store.newest("v", COLUMNS, ("s", "l"))[0] == START + timedelta(hours=hours + 1)  # type: ignore[index]
    store.write("v", KEYS, rows(("s", 0, 0, 4.0)))
    assert kept(store) == 4.0


@pytest.mark.parametrize(
    ("hours", "status", "age"),
    [(9, "missing", None), (12, "present", 7200.0), (82, "present", 259200.0), (83, "stale", 262800.0)],
)
def test_status_and_age(opened: Opened, hours: int, status: str, age: float | None):
    """Missing before the event, present up to the time to live included, then stale with the values still there."""
    store = opened()
    store.write("v", KEYS, rows(("s", 10, 10, 1.5)))
    found = store.read("v", COLUMNS, ("s", "l"), START + timedelta(hours=hours), TTL)
    assert (found.status, found.age_s) == (status, age)
    assert found.values == ({"lag_1": None, "scale": None} if status == "missing" else {"lag_1": 1.5, "scale": 2.0})
    assert type(found).model_validate(found.model_dump()) == found


def test_many_questions_are_answered_in_order(opened: Opened):
    """Unknown keys, keys without a part, unknown columns, NaN and a row known only later, all in one call."""
    store = opened()
    store.write("v", KEYS, rows(("s", 1, 1, np.nan), ("later", 1, 5, 1.0)))
    keys: list[Any] = [("s", "l"), ("x", "l"), ("s", None), ("later", "l")]
    found = store.read_many([Ask("v", ("scale", "new", "lag_1"), key, TTL) for key in keys], START + timedelta(hours=2))
    assert found[0].values == {"scale": 2.0, "new": None, "lag_1": None}
    assert [read.status for read in found] == ["present", "missing", "missing", "missing"]


def test_a_view_with_other_columns_forgets_the_old_ones(opened: Opened):
    """A newer row has only its own columns; a row that was not replaced keeps its old ones."""
    store = opened()
    store.write("v", KEYS, rows(("s", 1, 1, 1.0), ("t", 1, 1, 1.0)))
    store.write("v", KEYS, rows(("s", 2, 2, 2.0)).drop(columns="scale").assign(other=5.0))
    asked = ("lag_1", "scale", "other")
    assert store.newest("v", asked, ("s", "l")).values == {"lag_1": 2.0, "scale": None, "other": 5.0}  # type: ignore[union-attr]
    assert store.newest("v", asked, ("t", "l")).values == {"lag_1": 1.0, "scale": 2.0, "other": None}  # type: ignore[union-attr]


def test_keys_of_text_and_numbers_are_told_apart(opened: Opened):
    """(1, 11), (11, 1) and ("1", "11") are three keys; a missing part or a fraction is refused, and nothing is kept."""
    store = opened()
    for number, (sku, location) in enumerate([(1, 11), (11, 1), ("1", "11")]):
        store.write("v", KEYS, rows(("s", 1, 1, float(number))).assign(sku=[sku], location=[location]))
    keys: list[Any] = [(1, 11), (11, 1), ("1", "11"), (1, 1)]
    found = store.read_many([Ask("v", ("lag_1",), key, TTL) for key in keys], START + timedelta(hours=2))
    assert [read.values["lag_1"] for read in found] == [0.0, 1.0, 2.0, None]
    for bad in (None, 1.5, True):
        with pytest.raises(InputInvalid, match="join key"):
            store.write("v", KEYS, rows(("new", 1, 1, 1.0), ("s", 1, 1, 1.0)).assign(location=["l", bad]))
    assert kept(store, "new") is None


def test_marks_are_kept_and_views_are_forgotten_one_by_one(opened: Opened):
    """A mark has a moment and a place, an empty place too; forgetting a view leaves the other with the same keys."""
    store = opened()
    both = {"v": (KEYS, rows(("s", 1, 1, 1.0), ("t", 1, 1, 1.0))), "v2": (KEYS, rows(("s", 1, 1, 2.0)))}
    store.write_views(both, {"v": Mark(START), "v2": Mark(START, "7 abc")})
    again = opened()
    assert (again.mark("v"), again.mark("v2")) == (Mark(START), Mark(START, "7 abc"))
    assert again.forget("v") == 2
    assert (store.mark("v"), kept(store), store.mark("v2")) == (None, None, Mark(START, "7 abc"))
    assert store.newest("v2", ("lag_1",), ("s", "l")).values == {"lag_1": 2.0}  # type: ignore[union-attr]


def _write_many(url: str, project: str, folder: Path, seed: int) -> None:
    store, chance = store_at(url, project, folder), random.Random(seed)
    for hour in chance.sample(range(40), 40):
        store.write("v", KEYS, rows(("s", hour, seed, float(hour)), (f"own{seed}", hour, hour, float(hour))))


def _read_whole(url: str, project: str, folder: Path, torn: Any) -> None:
    """Reads until the last row is there; counts reads whose two values do not belong together, or that go back."""
    store, last, moment = store_at(url, project, folder), -1.0, START + timedelta(days=9)
    for _ in range(100_000):
        read = store.read("w", ("a", "b"), ("s", "l"), moment, timedelta(0))
        if read.status == "present":
            a, b = read.values["a"] or 0.0, read.values["b"] or 0.0
            torn.value += int(a != -b or a < last)
            last = a
            if a == 39.0:
                return


@pytest.fixture(params=["embedded", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str, Path]:
    url = request.getfixturevalue("redis_url") if request.param == "redis" else ""
    return url, f"p{next(_projects)}", tmp_path


def test_writers_in_several_processes_keep_the_newest(place: tuple[str, str, Path]):
    """Three processes that write the same key in random order leave the latest event, known last."""
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(*place, seed)) for seed in (1, 2, 3)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(90)
    store = store_at(*place)
    assert [process.exitcode for process in writers] == [0, 0, 0]
    assert [kept(store, sku) for sku in ("s", "own1", "own2", "own3")] == [39.0] * 4
    assert store.newest("v", COLUMNS, ("s", "l"))[1] == START + timedelta(hours=3)  # type: ignore[index]


def test_several_readers_see_whole_rows_while_one_writes(place: tuple[str, str, Path]):
    """Two reading processes beside a writer never see values of two rows together, nor an older row after a newer."""
    writer = store_at(*place)
    context = multiprocessing.get_context("fork")
    torn = [context.Value("i", 0) for _ in range(2)]
    readers = [context.Process(target=_read_whole, args=(*place, flag)) for flag in torn]
    for process in readers:
        process.start()
    for hour in range(40):
        frame = rows(("s", hour, hour, 0.0)).drop(columns=["lag_1", "scale"]).assign(a=float(hour), b=-float(hour))
        writer.write("w", KEYS, frame)
    for process in readers:
        process.join(90)
    assert [process.exitcode for process in readers] == [0, 0]
    assert [flag.value for flag in torn] == [0, 0]
