"""The landing zone: append-only, idempotent, crash-safe, and every row is either landed or quarantined."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import DependencyDown, InputInvalid
from contracts.events import event_contract
from features.landing import Landing

ROOT = Path(__file__).parents[2]
DAY = datetime(2026, 1, 1, tzinfo=UTC)

CHILD = """
import os, signal, sys
from pathlib import Path
import pandas as pd
from features.landing import Landing
real, calls = os.replace, [0]
def replace(source, target):
    calls[0] += 1
    if calls[0] == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
os.replace = replace
frame = pd.read_pickle(sys.argv[3])
Landing(Path(sys.argv[1])).append("demand", frame, source="till")
"""


def sales(*quantities: object, day: int = 0, prefix: str = "e", late: int = 0) -> pd.DataFrame:
    start = DAY + timedelta(days=day)
    rows = len(quantities)
    return pd.DataFrame(
        {
            "event_id": [f"{prefix}{day}-{n}" for n in range(rows)],
            "event_time": [start] * rows,
            "known_at": [start + timedelta(days=1 + late)] * rows,
            "sku": [f"sku{n}" for n in range(rows)],
            "location": "north",
            "period": "day",
            "quantity": list(quantities),
            "source_system": "till",
        }
    )


def test_landed_rows_are_canonical(tmp_path: Path) -> None:
    """What lands is read back with exactly the contract's columns and the canonical dtypes."""
    Landing(tmp_path).append("demand", sales(1, 2.5), source="till")
    frame = Landing(tmp_path).read("demand")
    assert tuple(frame.columns) == event_contract("demand").names
    assert frame["quantity"].tolist() == [1.0, 2.5]
    assert str(frame["known_at"].dtype) == "datetime64[us, UTC]"
    assert str(frame["stocked_out"].dtype) == "boolean"
    assert frame["correlation_id"].tolist() == [None, None]


def test_the_same_batch_again_is_a_no_op(tmp_path: Path) -> None:
    """A batch that comes again is answered with its first receipt, marked already, also in another process' view."""
    first = Landing(tmp_path).append("demand", sales(1, -2), source="till")
    files = sorted(tmp_path.rglob("*.parquet"))
    again = Landing(tmp_path).append("demand", sales(1, -2), source="till")
    assert (first.already, again.already) == (False, True)
    assert again.reasons == first.reasons == {"quantity: wanted at least 0": 1}
    assert sorted(tmp_path.rglob("*.parquet")) == files
    assert len(Landing(tmp_path).quarantined("demand")) == 1


def test_duplicate_ids_are_quarantined(tmp_path: Path) -> None:
    """An event_id used before, in the batch or in the lake, is refused with the id in its reason."""
    landing = Landing(tmp_path)
    landing.append("demand", sales(1, 2), source="till")
    more = pd.concat([sales(7), sales(5, 6, prefix="f"), sales(8, prefix="f")])
    receipt = landing.append("demand", more, source="till")
    assert (receipt.rows_in, receipt.landed, receipt.quarantined) == (4, 2, 2)
    assert landing.quarantined("demand")["reason"].tolist() == [
        "event_id: wanted an id that was not used before, got 'e0-0' [unique]",
        "event_id: wanted an id that was not used before, got 'f0-0' [unique]",
    ]


def test_a_correction_is_newest_and_history_stays(tmp_path: Path) -> None:
    """A later version wins in latest(), is invisible before it was known, and does not remove the first one."""
    landing = Landing(tmp_path)
    landing.append("demand", sales(1, 2), source="till")
    landing.append("demand", sales(9, prefix="fix", late=3), source="till")
    assert len(landing.read("demand")) == 3
    assert landing.latest("demand").set_index("sku")["quantity"].to_dict() == {"sku0": 9.0, "sku1": 2.0}
    before = landing.latest("demand", DAY + timedelta(days=2))
    assert before.set_index("sku")["quantity"].to_dict() == {"sku0": 1.0, "sku1": 2.0}


def test_known_by_cuts_whatever_the_order_of_landing(tmp_path: Path) -> None:
    """The known_at cut is exact and inclusive when batches land out of order."""
    landing = Landing(tmp_path)
    for day in (3, 0, 2, 1):
        landing.append("demand", sales(day, day=day), source="till")
    seen = landing.read("demand", known_by=DAY + timedelta(days=2))
    assert sorted(seen["quantity"]) == [0.0, 1.0]


def test_a_frame_read_earlier_does_not_change(tmp_path: Path) -> None:
    """Appends, even across a growth of the buffers, leave frames that were handed out as they were."""
    landing = Landing(tmp_path)
    landing.append("demand", sales(*range(3)), source="till")
    before = landing.read("demand")
    copy = before.copy(deep=True)
    for day in range(1, 5):
        landing.append("demand", sales(*range(700), day=day), source="till")
    pd.testing.assert_frame_equal(before, copy)
    assert len(landing.read("demand")) == 2803


def test_parts_of_another_writer_are_seen(tmp_path: Path) -> None:
    """Two Landings on one folder see each other's batches."""
    one, two = Landing(tmp_path), Landing(tmp_path)
    one.append("demand", sales(1), source="till")
    two.append("demand", sales(2, day=1), source="till")
    one.append("demand", sales(3, day=2), source="till")
    assert one.read("demand")["quantity"].tolist() == two.read("demand")["quantity"].tolist() == [1.0, 2.0, 3.0]
    assert one.kinds() == ("demand",)


@pytest.mark.parametrize("at", [1, 2])
def test_a_kill_between_the_parts_is_completed_by_a_rerun(tmp_path: Path, at: int) -> None:
    """Killed before the quarantine part (1) or between it and the landing part (2), the batch is not there; the same
    call makes it whole, once."""
    batch = tmp_path / "batch.pickle"
    sales(1, -1, 2).to_pickle(batch)
    lake = tmp_path / "lake"
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.run([sys.executable, "-c", CHILD, str(lake), str(at), str(batch)], env=env, check=False)
    assert child.returncode == -signal.SIGKILL
    assert len(list((lake / "quarantine").rglob("*.parquet"))) == at - 1
    landing = Landing(lake)
    assert landing.read("demand").empty
    assert landing.quarantined("demand").empty
    landing.append("demand", sales(5, day=9), source="till")
    receipt = landing.append("demand", sales(1, -1, 2), source="till")
    assert (receipt.landed, receipt.quarantined, receipt.already) == (2, 1, False)
    assert len(Landing(lake).quarantined("demand")) == 1
    assert len(list((lake / "quarantine").rglob("*.parquet"))) == 1


def test_racing_writers_land_a_batch_once(tmp_path: Path) -> None:
    """Four processes that append the same batch at once leave one landing part."""
    batch = tmp_path / "batch.pickle"
    sales(1, -1, 2).to_pickle(batch)
    lake = tmp_path / "lake"
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(lake), "99", str(batch)]
    children = [subprocess.Popen(command, env=env) for _ in range(4)]
    assert [child.wait() for child in children] == [0, 0, 0, 0]
    assert len(Landing(lake).receipts("demand")) == 1
    assert Landing(lake).read("demand")["quantity"].tolist() == [1.0, 2.0]


def test_a_full_disk_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full, append says so, removes its temporary file, and works again later."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(DependencyDown, match="No space left"):
            Landing(tmp_path).append("demand", sales(1), source="till")
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".parquet")] == []
    assert Landing(tmp_path).append("demand", sales(1), source="till").landed == 1


def test_a_torn_part_is_named(tmp_path: Path) -> None:
    """A landing part that lost its end is refused by name, never read as fewer rows."""
    Landing(tmp_path).append("demand", sales(1, 2, 3), source="till")
    part = next(tmp_path.rglob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(InputInvalid, match=part.name):
        Landing(tmp_path).read("demand")


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.datetimes(),
    st.datetimes(timezones=st.timezones(), allow_imaginary=False),
    st.binary(max_size=4),
    st.decimals(allow_nan=False),
)


def usual(name: str) -> st.SearchStrategy[object]:
    if name in ("event_time", "known_at"):
        return st.just(DAY)
    if name == "quantity":
        return st.floats(0, 1e6)
    return st.just("day") if name == "period" else st.text("ab", min_size=1, max_size=2)


ROW = st.fixed_dictionaries(
    {name: st.one_of(usual(name), usual(name), ANYTHING) for name in event_contract("demand").names}
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors]
)
@given(batches=st.lists(st.lists(ROW, max_size=6), max_size=3))
def test_every_row_is_landed_or_quarantined(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[dict]]
) -> None:  # type: ignore[type-arg]
    """Whatever the cells hold: rows in = landed + quarantined, each refused row has a reason, and all of it is kept."""
    landing = Landing(tmp_path_factory.mktemp("lake"))
    landed = quarantined = 0
    for rows in batches:
        frame = pd.DataFrame(
            {name: pd.Series([row[name] for row in rows], dtype=object) for name in event_contract("demand").names}
        )
        receipt = landing.append("demand", frame, source="fuzz")
        assert receipt.rows_in == receipt.landed + receipt.quarantined == len(rows)
        assert sum(receipt.reasons.values()) == receipt.quarantined
        if not receipt.already:
            landed, quarantined = landed + receipt.landed, quarantined + receipt.quarantined
        assert landing.append("demand", frame, source="fuzz").already == (len(rows) > 0)
    good, bad = landing.read("demand"), landing.quarantined("demand")
    assert (len(good), len(bad)) == (landed, quarantined)
    assert good["event_id"].is_unique
    assert (good["quantity"] >= 0).all()
    assert bad["reason"].str.contains("wanted").all()
