"""The quarantine: refused rows are grouped, shown, released through the checks, or discarded, and never lost."""

from __future__ import annotations

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

from contracts.errors import UnknownName, UsageError
from contracts.mapping import load_mapping
from features.export_cells import safe_cell
from features.importer import ingest
from features.landing import Landing
from features.quarantine import Quarantine, Resolved

ROOT = Path(__file__).parents[2]
DAY = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 2, 1, 12, tzinfo=UTC)
WHO = {"actor": "ann", "why": "the till was repaired", "now": NOW}

CHILD = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
from features.landing import Landing
from features.quarantine import Quarantine
real, calls = os.replace, [0]
def replace(source, target):
    calls[0] += 1
    if calls[0] == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
os.replace = replace
store = Quarantine(Landing(Path(sys.argv[1])))
fix = {name: {"quantity": "4"} for name in store.rows("demand")["id"]}
store.release("demand", corrections=fix, actor="ann", why="x", now=datetime.fromisoformat(sys.argv[3]))
"""


def sales(*quantities: object, day: int = 0, prefix: str = "e") -> pd.DataFrame:
    start = DAY + timedelta(days=day)
    rows = len(quantities)
    return pd.DataFrame(
        {
            "event_id": [f"{prefix}{day}-{n}" for n in range(rows)],
            "event_time": [start] * rows,
            "known_at": [start + timedelta(days=1)] * rows,
            "sku": [f"sku{n}" for n in range(rows)],
            "location": "north",
            "period": "day",
            "quantity": list(quantities),
            "source_system": "till",
        }
    )


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    """Two days: 3 rows landed, 2 with negative quantities and 1 that is no number refused."""
    made = Landing(tmp_path)
    made.append("demand", sales(1, -2, 3), source="till")
    made.append("demand", sales(-4, 5, "many", day=1), source="till")
    return made


def fixed(store: Quarantine, **fields: str | None) -> dict[str, dict[str, str | None]]:
    return {name: dict(fields) for name in store.rows("demand").query("state == 'open'")["id"]}


def numbers(store: Quarantine) -> tuple[int, int, int, int]:
    account = store.account("demand")
    assert account.balanced
    return account.rows_in, account.landed, account.quarantined, account.discarded


def test_groups_say_what_was_refused_where_and_how_often(landing: Landing) -> None:
    """Rows are grouped by kind, source and rule, with counts, first and last batch, and a sample of reasons."""
    first, second = Quarantine(landing).groups()
    assert (first.rule, first.open, first.source) == ("quantity: wanted at least 0", 2, "till")
    assert first.first_batch == landing.receipts("demand")[0].batch
    assert first.last_batch == landing.receipts("demand")[1].batch
    assert first.sample[0] == "'e0-1': quantity: wanted at least 0, got -2 [minimum]"
    assert (second.rule, second.open) == ("quantity: wanted a number", 1)
    assert Quarantine(landing).find(first.group[:5]) == ("demand", first.group)


def test_a_release_goes_through_the_checks_and_never_around_them(landing: Landing) -> None:
    """Uncorrected rows fail again and stay where they are; nothing lands and nothing is written for them."""
    store = Quarantine(landing)
    group = store.groups()[0].group
    done = store.release("demand", group=group, **WHO)
    assert (done.rows, len(done.refused)) == (0, 2)
    assert numbers(store) == (6, 3, 3, 0)
    assert store.history("demand") == ()


def test_corrected_rows_land_known_from_their_release_on(landing: Landing) -> None:
    """A released row is invisible to every decision before its release, and the books still balance."""
    store = Quarantine(landing)
    done = store.release("demand", corrections=fixed(store, quantity="4"), **WHO)
    assert (done.rows, done.refused) == (3, {})
    assert numbers(store) == (6, 6, 0, 0)
    assert len(landing.read("demand", known_by=NOW - timedelta(microseconds=1))) == 3
    seen = landing.read("demand", known_by=NOW)
    assert sorted(seen["quantity"]) == [1.0, 3.0, 4.0, 4.0, 4.0, 5.0]
    assert set(seen.loc[seen["quantity"] == 4.0, "known_at"]) == {pd.Timestamp(NOW)}
    (note,) = store.history("demand")
    assert (note["actor"], note["why"], note["rows"]) == ("ann", "the till was repaired", {"released": 3})


def test_a_later_known_at_is_kept(landing: Landing) -> None:
    """A row that says it becomes known after its release stays unknown until then."""
    store = Quarantine(landing)
    later = "2026-03-01T00:00:00+00:00"
    store.release("demand", corrections=fixed(store, quantity="4", known_at=later), **WHO)
    assert len(landing.read("demand", known_by=NOW)) == 3


def test_a_row_that_fails_anew_stays_with_the_new_reason(landing: Landing) -> None:
    """A correction that breaks another rule leaves the row open, in the group of what is wrong now."""
    store = Quarantine(landing)
    done = store.release("demand", corrections=fixed(store, quantity="4", period="fortnight"), **WHO)
    assert done.rows == 0
    assert all(reason.startswith("period: wanted one of day, week, month") for reason in done.refused.values())
    (group,) = store.groups()
    assert (group.rule, group.open) == ("period: wanted one of day, week, month", 3)
    assert numbers(store) == (6, 3, 3, 0)


def test_releasing_or_discarding_again_does_nothing(landing: Landing) -> None:
    """What is decided stays decided: the same call again finds no open row, and a discarded row cannot be released."""
    store = Quarantine(landing)
    names = store.rows("demand")["id"].tolist()
    store.release("demand", corrections={names[0]: {"quantity": "4"}}, **WHO)
    assert store.discard("demand", events=names[1:], **WHO) == Resolved(2, {}, 0, NOW)
    files = sorted(landing.root.rglob("*.parquet"))
    assert store.release("demand", corrections={names[0]: {"quantity": "4"}}, **WHO).already == 1
    assert store.release("demand", corrections={names[1]: {"quantity": "4"}}, **WHO).already == 1
    assert store.discard("demand", events=names, **WHO) == Resolved(0, {}, 3, NOW)
    assert sorted(landing.root.rglob("*.parquet")) == files
    assert numbers(Quarantine(Landing(landing.root))) == (6, 4, 0, 2)


def test_an_id_that_landed_meanwhile_is_refused(landing: Landing) -> None:
    """A release cannot land an event id a second time, nor the same id twice."""
    store = Quarantine(landing)
    done = store.release("demand", corrections=fixed(store, quantity="4", event_id="e0-0"), **WHO)
    assert done.rows == 0
    assert sorted(reason.partition(", got")[0] for reason in done.refused.values()) == [
        "event_id: wanted an id that no other row of the release has",
        "event_id: wanted an id that no other row of the release has",
        "event_id: wanted an id that was not used before",
    ]


def test_rows_without_an_id_are_told_apart(landing: Landing) -> None:
    """Rows whose event id was emptied are refused one by one, and one beside them that is right lands."""
    store = Quarantine(landing)
    first, second, third = store.rows("demand")["id"]
    fixes = {first: {"event_id": None}, second: {"quantity": "4"}, third: {"event_id": " ", "quantity": "4"}}
    done = store.release("demand", corrections=fixes, **WHO)
    assert done.rows == 1
    assert list(done.refused) == [first, third]
    assert "event_id: wanted a value" in done.refused[third]


def test_a_dry_run_says_what_would_happen(landing: Landing) -> None:
    """With dry_run the counts are those of the real thing and no file is written."""
    store = Quarantine(landing)
    files = sorted(landing.root.rglob("*.parquet"))
    assert store.release("demand", corrections=fixed(store, quantity="4"), dry_run=True, **WHO).rows == 3
    assert store.discard("demand", group=store.groups()[0].group, dry_run=True, **WHO).rows == 2
    assert sorted(landing.root.rglob("*.parquet")) == files


def test_names_that_are_not_there_are_refused(landing: Landing) -> None:
    """No selection, an unknown group, row, field or kind is an error that names it; nothing is decided."""
    store = Quarantine(landing)
    with pytest.raises(UsageError, match="name a group"):
        store.release("demand", **WHO)
    with pytest.raises(UnknownName, match="quarantine group"):
        store.find("zzzz")
    with pytest.raises(UnknownName, match="e9-9"):
        store.discard("demand", events=["e9-9"], **WHO)
    with pytest.raises(UnknownName, match="quantity"):
        store.release("demand", corrections=fixed(store, quantty="4"), **WHO)
    assert numbers(store) == (6, 3, 3, 0)


@pytest.mark.parametrize("at", [1, 2])
def test_a_kill_inside_a_release_is_completed_by_a_rerun(landing: Landing, at: int) -> None:
    """Killed before the resolution is written (1) or before its rows land (2), the rows are open and counted once; the
    same call later releases them once, known from then on, and sweeps up what was left behind."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(landing.root), str(at), NOW.isoformat()]
    assert subprocess.run(command, env=env, check=False).returncode == -signal.SIGKILL
    assert len(list((landing.root / "resolutions").rglob("*.parquet"))) == at - 1
    store = Quarantine(Landing(landing.root))
    assert numbers(store) == (6, 3, 3, 0)
    later = NOW + timedelta(hours=1)
    done = store.release("demand", corrections=fixed(store, quantity="4"), actor="ann", why="again", now=later)
    assert done.rows == 3
    assert numbers(Quarantine(Landing(landing.root))) == (6, 6, 0, 0)
    assert [note["why"] for note in store.history("demand")] == ["again"]
    assert len(list((landing.root / "resolutions").rglob("*.parquet"))) == 1


def test_racing_releases_land_rows_once(landing: Landing) -> None:
    """Three processes that release the same rows at once: each row lands once."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(landing.root), "99", NOW.isoformat()]
    children = [subprocess.Popen(command, env=env) for _ in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]
    store = Quarantine(Landing(landing.root))
    assert numbers(store) == (6, 6, 0, 0)
    assert len(store.history("demand")) == 1


STEP = st.tuples(
    st.sampled_from(["release", "discard", "append"]), st.sets(st.integers(0, 8)), st.sampled_from(["4", "-1", "x"])
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEP, max_size=5))
def test_the_books_balance_whatever_is_decided(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, set[int], str]]
) -> None:
    """After any sequence of arrivals, releases and discards: rows in = landed + quarantined + discarded, event ids are
    used once, and every row that came is still to be found."""
    landing = Landing(tmp_path_factory.mktemp("lake"))
    store = Quarantine(landing)
    came = 0
    for number, (what, chosen, quantity) in enumerate([("append", set(), ""), *steps]):
        rows = store.rows("demand")
        names = [name for place, name in enumerate(rows["id"]) if place in chosen]
        if what == "append":
            came += landing.append("demand", sales(1, -2, "many", day=number), source="till").rows_in
        elif names and what == "release":
            store.release("demand", corrections={name: {"quantity": quantity} for name in names}, **WHO)
        elif names:
            store.discard("demand", events=names, **WHO)
        account = store.account("demand")
        assert account.balanced
        assert account.rows_in == came
        assert account.landed == len(landing.read("demand"))
        assert account.quarantined == (store.rows("demand")["state"] == "open").sum()
    assert landing.read("demand")["event_id"].is_unique


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-cmd", "@x", "\tx", "\rx"])
def test_cells_that_run_are_made_text(cell: str) -> None:
    """A cell that a spreadsheet would run gets an apostrophe; negative and signed numbers stay numbers."""
    assert safe_cell(cell) == "'" + cell
    assert [safe_cell(text) for text in ("-5", "+.5e3", "a=b", "")] == ["-5", "+.5e3", "a=b", ""]


@pytest.mark.slow
def test_the_returns_of_a_real_shop_are_listed_and_discarded(tmp_path: Path) -> None:
    """Online Retail: 10,626 of 541,909 lines are refused in two groups; discarding them leaves none open, none lost."""
    path = Path(os.environ.get("SEATRIAL_DATA", ROOT.parent / "shared" / "data")) / "online_retail"
    if not path.exists():
        pytest.skip(f"no {path}: set SEATRIAL_DATA to the folder with the real data")
    landing = Landing(tmp_path)
    ingest(load_mapping(ROOT / "examples/online_retail/orders.yaml"), path / "online_retail.parquet", landing)
    store = Quarantine(landing)
    counts = {group.rule: group.open for group in store.groups()}
    assert counts == {"quantity: wanted at least 0": 10624, "unit_price: wanted at least 0": 2}
    for group in store.groups():
        store.discard("order_line", group=group.group, actor="ann", why="returns are no orders", now=NOW)
    account = store.account("order_line")
    assert (account.rows_in, account.landed, account.quarantined) == (541909, 531283, 0)
    assert (account.discarded, account.balanced) == (10626, True)
