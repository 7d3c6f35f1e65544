"""One contract for every ledger: in memory and in SQLite."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.errors import DependencyDown, LedgerConflict, RequestConflict
from contracts.rollout import RowKind
from registry.ledger import GENESIS, Ledger, MemoryLedger, RowDraft, export, read_export, verify
from registry.sql_ledger import SqlLedger
from tests.registry.rig import START

DRAFT = RowDraft("demand", RowKind.REGISTERED, "v1", START, "ann", "first", "q1", {"b": [1, 2.5], "a": float("nan")})


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    """Each kind of ledger, empty."""
    return MemoryLedger() if request.param == "memory" else SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")


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
    """The same id for another version is refused."""
    ledger.append(DRAFT, 0)
    with pytest.raises(RequestConflict):
        ledger.append(replace(DRAFT, version="v2"), 1)


def test_models_have_chains_of_their_own(ledger: Ledger) -> None:
    """Revisions and request ids are counted by model."""
    ledger.append(DRAFT, 0)
    ledger.append(replace(DRAFT, model="late_delivery"), 0)
    assert ledger.models() == ("demand", "late_delivery")
    assert ledger.rows("nobody") == ()


def test_an_export_reads_back_and_verifies(ledger: Ledger) -> None:
    """The rows survive the way through text, hashes and all."""
    ledger.append(DRAFT, 0)
    rows = read_export(export(ledger.rows("demand")))
    assert rows == ledger.rows("demand")
    verify(rows)


def test_rows_outlive_the_process_that_wrote_them(tmp_path: Path) -> None:
    """A second ledger on the same file sees the rows and continues the chain."""
    url = f"sqlite:///{tmp_path / 'deep' / 'ledger.db'}"
    SqlLedger(url).append(DRAFT, 0)
    SqlLedger(url).append(replace(DRAFT, request_id="q2"), 1)
    verify(SqlLedger(url).rows("demand"))


@pytest.mark.parametrize("verb", ["UPDATE seatrial_ledger SET actor = 'eve'", "DELETE FROM seatrial_ledger"])
def test_sqlite_refuses_to_change_or_delete_a_row(tmp_path: Path, verb: str) -> None:
    """Triggers stand against anyone who opens the file with another program."""
    path = tmp_path / "ledger.db"
    SqlLedger(f"sqlite:///{path}").append(DRAFT, 0)
    with sqlite3.connect(path) as connection, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(verb)


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
