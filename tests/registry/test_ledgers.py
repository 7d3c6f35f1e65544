"""Every ledger keeps the same promises: in memory, on SQLite, on PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from contracts.errors import DependencyDown, LedgerBroken, LedgerConflict, RequestConflict, TimeInvalid, UsageError
from contracts.rollout import RowKind
from registry.anchors import newest_anchor
from registry.ledger import GENESIS, Ledger, MemoryLedger, RowDraft, export, read_export, verify
from registry.sql_ledger import SqlLedger
from registry.sql_tables import OUTBOX

START = datetime(2026, 1, 1, tzinfo=UTC)
DRAFT = RowDraft("demand", RowKind.REGISTERED, "v1", START, "ann", "first", "q1", {"b": [1, 2.5], "a": float("nan")})


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return str(request.getfixturevalue("postgres").database())


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    """Each kind of ledger, empty."""
    if request.param == "memory":
        return MemoryLedger()
    if request.param == "sqlite":
        return SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    return SqlLedger(request.getfixturevalue("postgres").database())


def test_rows_come_back_as_they_went_in_and_chained(ledger: Ledger) -> None:
    """Appended rows read back equal, each with the hash of the one before, and the chain verifies."""
    first = ledger.append(DRAFT, 0)
    second = ledger.append(replace(DRAFT, kind=RowKind.GATED, request_id="q2"), 1)
    assert ledger.rows("demand") == (first, second)
    assert (first.previous, second.previous, first.payload) == (GENESIS, first.hash, {"a": None, "b": [1, 2.5]})
    verify(ledger.rows("demand"))


def test_a_stale_expectation_loses(ledger: Ledger) -> None:
    """Who expects an older or a future revision is told the newest, and nothing is written."""
    ledger.append(DRAFT, 0)
    for expected in (0, 2):
        with pytest.raises(LedgerConflict) as error:
            ledger.append(replace(DRAFT, request_id="q2"), expected)
        assert error.value.found == 1
    assert len(ledger.rows("demand")) == 1


def test_the_same_request_gives_the_first_row(ledger: Ledger) -> None:
    """A wish repeated, even with an outdated expectation and a later clock, is answered with its first row."""
    first = ledger.append(DRAFT, 0)
    ledger.append(replace(DRAFT, request_id="q2"), 1)
    assert ledger.append(replace(DRAFT, reason="again"), 0) == first
    assert len(ledger.rows("demand")) == 2


def test_one_request_id_is_one_wish(ledger: Ledger) -> None:
    """The same id for another version or another kind of row is refused."""
    ledger.append(DRAFT, 0)
    for other in (replace(DRAFT, version="v2"), replace(DRAFT, kind=RowKind.PROMOTED)):
        with pytest.raises(RequestConflict):
            ledger.append(other, 1)


def test_models_have_chains_of_their_own(ledger: Ledger) -> None:
    """Revisions and request ids are counted by model; names come back in plain order."""
    for model in ("zinc", "zin_c", "demand", "_keys"):
        ledger.append(replace(DRAFT, model=model), 0)
    assert ledger.models() == ("_keys", "demand", "zin_c", "zinc")
    assert ledger.rows("nobody") == ()


def test_an_empty_ledger_is_read_as_empty(ledger: Ledger) -> None:
    """Looking into a ledger that nobody has written to is no error."""
    assert (ledger.models(), ledger.rows("demand")) == ((), ())


def test_any_text_comes_back(ledger: Ledger) -> None:
    """Quotes, percent signs, right-to-left text, emoji, newlines and a megabyte of reason are only text."""
    odd = "O'Hara; DROP TABLE x; -- 100% \\ \n\t \u202eabc \U0001f6a2 \u2028 \x85 \r :name %(x)s " + "x" * 1_000_000
    row = ledger.append(replace(DRAFT, reason=odd, actor=odd[:40], payload={odd[:40]: [odd[:40], None, True]}), 0)
    assert ledger.rows("demand") == (row,) == read_export(export([row]))
    verify(ledger.rows("demand"))


@pytest.mark.parametrize("field", ["reason", "actor", "version", "request_id", "model"])
@pytest.mark.parametrize("bad", ["a\0b", "a\ud800b"])
def test_text_that_no_database_keeps_is_refused(ledger: Ledger, field: str, bad: str) -> None:
    """A NUL or half a surrogate pair is refused by every ledger alike, and nothing is written."""
    with pytest.raises(UsageError, match=field):
        ledger.append(replace(DRAFT, **{field: bad}), 0)  # type: ignore[arg-type]
    assert ledger.models() == ()


def test_a_payload_keeps_a_nul_and_refuses_half_a_pair(ledger: Ledger) -> None:
    """Inside JSON a NUL is an escape and comes back; half of a surrogate pair is refused."""
    assert ledger.append(replace(DRAFT, payload={"x": "a\0b"}), 0).payload == {"x": "a\0b"}
    with pytest.raises(UsageError, match="payload"):
        ledger.append(replace(DRAFT, request_id="q2", payload={"x": "\ud800"}), 1)
    verify(ledger.rows("demand"))


def test_times_are_kept_in_utc_to_the_microsecond(ledger: Ledger) -> None:
    """A time in another zone is the same moment in UTC; one without a zone is refused."""
    there = datetime(2026, 3, 29, 3, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    ledger.append(replace(DRAFT, at=there), 0)
    assert (ledger.rows("demand")[0].at, ledger.rows("demand")[0].at.tzinfo) == (there, UTC)
    with pytest.raises(TimeInvalid):
        ledger.append(replace(DRAFT, at=datetime(2026, 1, 1), request_id="q2"), 1)  # noqa: DTZ001


def test_an_export_reads_back_and_verifies(ledger: Ledger) -> None:
    """The rows survive the way through text, hashes and all."""
    ledger.append(DRAFT, 0)
    rows = read_export(export(ledger.rows("demand")))
    assert rows == ledger.rows("demand")
    verify(rows)


def test_rows_outlive_the_process_that_wrote_them(url: str) -> None:
    """A second ledger on the same database sees the rows and continues the chain."""
    SqlLedger(url).append(DRAFT, 0)
    SqlLedger(url).append(replace(DRAFT, request_id="q2"), 1)
    verify(SqlLedger(url).rows("demand"))


@pytest.mark.parametrize("verb", ["UPDATE seatrial_ledger SET actor = 'eve'", "DELETE FROM seatrial_ledger"])
def test_the_database_refuses_to_change_or_delete_a_row(url: str, verb: str) -> None:
    """Triggers stand against anyone who opens the database with another program."""
    ledger = SqlLedger(url)
    row = ledger.append(DRAFT, 0)
    with pytest.raises(DBAPIError, match="append-only"), ledger.engine.begin() as connection:
        connection.execute(text(verb))
    assert ledger.rows("demand") == (row,)


def test_a_row_and_its_event_are_one_commit(url: str) -> None:
    """Each row that others need to know of has one event in the outbox, and a wish repeated makes no second one."""
    ledger = SqlLedger(url)
    row = ledger.append(DRAFT, 0)
    ledger.append(DRAFT, 0)
    ledger.append(replace(DRAFT, kind=RowKind.KEY_ISSUED, request_id="q2"), 1)
    with ledger.engine.connect() as connection:
        events = connection.execute(select(OUTBOX)).all()
    assert [(e.sequence, e.model, e.revision, json.loads(e.event)["id"]) for e in events] == [
        (1, "demand", 1, events[0].event_id)
    ]
    assert row.hash in events[0].event


def test_a_failed_append_leaves_neither_row_nor_event(url: str) -> None:
    """When the event cannot be stored, the row is not there either, and the next append works."""
    ledger = SqlLedger(url)
    ledger.append(DRAFT, 0)
    with ledger.engine.begin() as connection:
        connection.execute(text("ALTER TABLE seatrial_outbox RENAME TO elsewhere"))
    with pytest.raises(DependencyDown, match="seatrial_outbox"):
        ledger.append(replace(DRAFT, request_id="q2"), 1)
    assert len(ledger.rows("demand")) == 1
    with ledger.engine.begin() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO seatrial_outbox"))
    assert ledger.append(replace(DRAFT, request_id="q2"), 1).revision == 2


def test_a_locked_ledger_is_a_dependency_that_is_down(tmp_path: Path) -> None:
    """A writer that waits longer than the busy timeout gets a typed error, and goes on once the lock is gone."""
    path = tmp_path / "ledger.db"
    ledger = SqlLedger(f"sqlite:///{path}", busy_timeout=0.1)
    ledger.append(DRAFT, 0)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DependencyDown, match="locked"):
        ledger.append(replace(DRAFT, request_id="q2"), 1)
    holder.close()
    assert ledger.append(replace(DRAFT, request_id="q2"), 1).revision == 2


def test_sqlite_commits_are_on_disk(tmp_path: Path) -> None:
    """The ledger's connections use write-ahead logging and sync every commit fully."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.append(DRAFT, 0)
    with ledger.engine.connect() as connection:
        settings = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 2]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("mysql://root@localhost/x", "begins with mysql://"),
        ("postgresql+psycopg://u:secret@h/d", r"begins with postgresql\+psycopg://"),
        ("not a url: secret", "no database URL"),
    ],
)
def test_another_kind_of_database_is_a_usage_error(address: str, said: str) -> None:
    """What the ledger cannot live in is named, with what it can live in, and without the password."""
    with pytest.raises(UsageError, match=said) as error:
        SqlLedger(address)
    assert "postgresql+pg8000://" in str(error.value)
    assert "secret" not in str(error.value)


def test_a_plain_postgresql_address_is_understood(postgres: object) -> None:
    """`postgresql://` means our driver."""
    ledger = SqlLedger(postgres.database().replace("+pg8000", ""))  # type: ignore[attr-defined]
    assert ledger.append(DRAFT, 0).revision == 1


@pytest.fixture
def anchored(url: str, tmp_path: Path) -> Callable[[], SqlLedger]:
    """Opens the same ledger with an anchor file, as another process would."""
    return lambda: SqlLedger(url, anchors=tmp_path / "kept" / "anchors.jsonl")


def test_every_row_is_anchored(anchored: Callable[[], SqlLedger], tmp_path: Path) -> None:
    """After each append the file holds the newest row's place and hash; a wish repeated adds nothing."""
    kept = tmp_path / "kept" / "anchors.jsonl"
    for number in range(3):
        row = anchored().append(replace(DRAFT, request_id=f"q{number}"), number)
        assert newest_anchor(kept, "demand").hash == row.hash  # type: ignore[union-attr]
    anchored().append(replace(DRAFT, request_id="q1"), 0)
    assert len(kept.read_text().splitlines()) == 3


def test_a_missing_anchor_comes_with_the_repeated_wish(anchored: Callable[[], SqlLedger], tmp_path: Path) -> None:
    """A file that cannot be written is a dependency that is down; the row stands, asking again writes its anchor."""
    (tmp_path / "kept" / "anchors.jsonl").mkdir(parents=True)
    ledger = anchored()
    with pytest.raises(DependencyDown, match=r"anchors\.jsonl"):
        ledger.append(DRAFT, 0)
    (tmp_path / "kept" / "anchors.jsonl").rmdir()
    row = ledger.append(DRAFT, 0)
    assert newest_anchor(tmp_path / "kept" / "anchors.jsonl", "demand").hash == row.hash  # type: ignore[union-attr]


def test_nothing_is_appended_to_a_chain_that_was_emptied(anchored: Callable[[], SqlLedger], tmp_path: Path) -> None:
    """A ledger that lacks what its anchor file knows takes no more rows."""
    anchored().append(DRAFT, 0)
    other = SqlLedger(f"sqlite:///{tmp_path / 'other.db'}", anchors=tmp_path / "kept" / "anchors.jsonl")
    with pytest.raises(LedgerBroken, match="cut or replaced"):
        other.append(DRAFT, 0)
    assert other.rows("demand") == ()
