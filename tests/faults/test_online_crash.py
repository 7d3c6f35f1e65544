"""The embedded online store under SIGKILL at any moment of bulk and single writes: it opens, rows are whole."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features.online import OnlineStore
from features.online_rows import Mark

START = datetime(2026, 1, 1, tzinfo=UTC)
KILLS, KEYS, COLUMNS = 20, 400, tuple(f"c{number}" for number in range(12))


def bulk(number: int, keys: int = KEYS) -> pd.DataFrame:
    """A row a key; every value of it is the number of the write."""
    stamp = pd.Timestamp(START + timedelta(seconds=number)).as_unit("us")
    values = dict.fromkeys(COLUMNS, np.full(keys, float(number)))
    return pd.DataFrame({"sku": [f"k{key}" for key in range(keys)], "event_time": stamp, "known_at": stamp, **values})


def _write_until_killed(folder: Path, first: int, told: Any) -> None:
    """Bulk writes with a mark, and single writes between them; tells the number of each that returned."""
    store = OnlineStore(folder)
    for number in range(first, first + 100_000):
        store.write_views({"bulk": (("sku",), bulk(number))}, {"bulk": Mark(START + timedelta(seconds=number), "x")})
        for key in range(3):
            store.write("single", ("sku",), bulk(number, 1).assign(sku=f"k{key}"))
        told.value = number


def _whole(store: OnlineStore, view: str, keys: int) -> set[float]:
    """The numbers of the writes whose rows are there; fails when a row is of two writes."""
    block = store.block(view, ("sku",), [(f"k{key}",) for key in range(keys)], COLUMNS)
    table = block.numbers
    assert table is not None
    assert (table == table[0]).all(), "a row of two writes"
    assert (block.event == (int(START.timestamp()) + table[0]) * 1_000_000).all(), "values of another row's moment"
    return set(table[0].tolist())


def test_a_killed_writer_leaves_whole_rows_that_are_old_or_new(tmp_path: Path):
    """After each kill the store opens; a bulk write and its mark are all there or not at all, never older than told."""
    chance, context = random.Random(7), multiprocessing.get_context("fork")
    told, last = context.Value("q", 0), 0
    OnlineStore(tmp_path).write_views({"bulk": (("sku",), bulk(0))}, {"bulk": Mark(START, "x")})
    for key in range(3):
        OnlineStore(tmp_path).write("single", ("sku",), bulk(0, 1).assign(sku=f"k{key}"))
    kept = OnlineStore(tmp_path)
    for _ in range(KILLS):
        writer = context.Process(target=_write_until_killed, args=(tmp_path, last + 1, told))
        writer.start()
        time.sleep(chance.uniform(0.0, 0.12))
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join(60)
        assert writer.exitcode == -signal.SIGKILL
        store = OnlineStore(tmp_path)
        (number,) = _whole(store, "bulk", KEYS)
        mark = store.mark("bulk")
        assert mark is not None
        assert mark.until == START + timedelta(seconds=number)
        assert number in (told.value, told.value + 1)
        assert _whole(store, "single", 3) <= {told.value, number}
        assert _whole(kept, "bulk", KEYS) == {number}
        # the next writer is not held up by what the killed one left
        last = int(number) + 1
        store.write_views({"bulk": (("sku",), bulk(last))}, {"bulk": Mark(START + timedelta(seconds=last), "x")})
        told.value = last
        for key in range(3):
            store.write("single", ("sku",), bulk(last, 1).assign(sku=f"k{key}"))
    assert last > KILLS
