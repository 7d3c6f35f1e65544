"""Fault 57: rows edited, deleted, reordered, cut off or replaced; verifying names the first bad row."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from contracts.canonical import canonical_json
from contracts.errors import LedgerBroken
from contracts.rollout import LedgerRow, RowKind
from contracts.times import iso
from registry.ledger import RowDraft, head, row_hash, verify
from registry.sql_ledger import SqlLedger
from tests.lifecycle import command_runs
from tests.registry.rig import MODEL, START, chain, changed

ROWS = chain(*((RowKind.RETRAIN_REQUESTED, f"v{i}", {"n": i}) for i in range(1, 7)))
Rows = Sequence[LedgerRow]


def _rehashed(row: LedgerRow, **change: object) -> LedgerRow:
    altered = changed(row, **change)
    return replace(altered, hash=row_hash(altered))


def _edit(field: str, value: object) -> Callable[[Rows], Rows]:
    return lambda rows: (*rows[:2], changed(rows[2], **{field: value}), *rows[3:])


MUTATIONS: dict[str, tuple[Callable[[Rows], Rows], int]] = {
    "actor": (_edit("actor", "eve"), 3),
    "reason": (_edit("reason", "trust me"), 3),
    "version": (_edit("version", "v9"), 3),
    "kind": (_edit("kind", RowKind.PROMOTED), 3),
    "time": (_edit("at", ROWS[2].at + timedelta(microseconds=1)), 3),
    "payload": (_edit("payload", {"n": 3.5}), 3),
    "request": (_edit("request_id", "q9"), 3),
    "format": (_edit("format", 2), 3),
    "hash": (_edit("hash", "0" * 64), 3),
    "edited and hashed again": (lambda rows: (*rows[:2], _rehashed(rows[2], actor="eve"), *rows[3:]), 4),
    "deleted": (lambda rows: (*rows[:2], *rows[3:]), 3),
    "deleted and renumbered": (lambda rows: (*rows[:2], *(_rehashed(r, revision=r.revision - 1) for r in rows[3:])), 3),
    "first deleted": (lambda rows: rows[1:], 1),
    "swapped": (lambda rows: (*rows[:2], rows[3], rows[2], *rows[4:]), 3),
    "doubled": (lambda rows: (*rows[:3], rows[2], *rows[3:]), 4),
    "of another model": (_edit("model", "demand"), 3),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_verify_names_the_first_bad_row(name: str) -> None:
    """Each way to tamper inside the chain is found at its first bad row, without anything from outside."""
    mutate, first_bad = MUTATIONS[name]
    verify(ROWS)
    with pytest.raises(LedgerBroken) as error:
        verify(mutate(ROWS))
    assert error.value.revision == first_bad


@pytest.mark.parametrize("keep", range(6))
def test_a_cut_tail_is_found_by_an_anchor(keep: int) -> None:
    """A tail cut off cleanly leaves a valid chain; the newest row's hash kept elsewhere gives it away."""
    verify(ROWS[:keep])
    with pytest.raises(LedgerBroken, match="tail") as error:
        verify(ROWS[:keep], head(ROWS, MODEL))
    assert error.value.revision == keep + 1


def test_a_replaced_chain_is_found_by_an_anchor() -> None:
    """A whole new chain is valid by itself and contradicts the anchor."""
    other = chain(*((RowKind.RETRAIN_REQUESTED, f"v{i}", {"n": -i}) for i in range(1, 9)))
    verify(other)
    with pytest.raises(LedgerBroken, match="replaced"):
        verify(other, head(ROWS, MODEL))
    verify(ROWS, head(ROWS[:3], MODEL))


def _sql(*statements: str) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: [connection.execute(statement) for statement in statements]


def _swap(connection: sqlite3.Connection) -> None:
    for was, now in ((3, 90), (4, 3), (90, 4)):
        connection.execute(f"UPDATE seatrial_ledger SET revision = {now} WHERE revision = {was}")


def _replace_all(connection: sqlite3.Connection) -> None:
    """A whole new chain of the same length, valid by itself."""
    connection.execute("DELETE FROM seatrial_ledger")
    for row in chain(*((RowKind.RETRAIN_REQUESTED, f"v{i}", {"n": -i}) for i in range(1, 7))):
        values = [*vars(row).values()]
        values[2], values[4], values[8] = row.kind.value, iso(row.at), canonical_json(row.payload)
        names = ", ".join(vars(row))
        connection.execute(f"INSERT INTO seatrial_ledger ({names}) VALUES ({', '.join('?' * len(values))})", values)


IN_THE_FILE: dict[str, tuple[Callable[[sqlite3.Connection], object], str]] = {
    "edited": (_sql("UPDATE seatrial_ledger SET actor = 'eve' WHERE revision = 2"), "revision 2"),
    "not a row any more": (_sql("UPDATE seatrial_ledger SET kind = 'crowned' WHERE revision = 4"), "revision 4"),
    "deleted": (_sql("DELETE FROM seatrial_ledger WHERE revision = 3"), "revision 3"),
    "reordered": (_swap, "revision 3"),
    "tail cut": (_sql("DELETE FROM seatrial_ledger WHERE revision > 4"), "the tail is gone"),
    "emptied": (_sql("DELETE FROM seatrial_ledger"), "the tail is gone"),
    "replaced": (_replace_all, "the chain was replaced"),
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A workspace whose ledger holds six rows, each anchored outside of it."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}", anchors=tmp_path / "anchors.jsonl")
    for i in range(6):
        ledger.append(RowDraft(MODEL, RowKind.RETRAIN_REQUESTED, f"v{i}", START, "ann", "why", f"q{i}"), i)
    ledger.close()
    return tmp_path


@pytest.fixture
def seatrial(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., command_runs.Ended]:
    """Runs a command in that workspace."""
    return lambda *arguments: command_runs.ran(monkeypatch, capsys, {"SEATRIAL_HOME": str(home)}, arguments)


@pytest.mark.parametrize("how", IN_THE_FILE)
def test_tampering_with_the_file_itself_is_found(
    home: Path, seatrial: Callable[..., command_runs.Ended], how: str
) -> None:
    """Who drops the triggers and changes the file is found by `ledger verify`, and nothing is appended on top."""
    before = seatrial("ledger", "verify", "--json")
    assert (before.code, before.json["models"][MODEL]["anchors"]) == (0, 6)
    tamper, said = IN_THE_FILE[how]
    with sqlite3.connect(home / "ledger.db") as connection:
        connection.execute("DROP TRIGGER seatrial_ledger_no_update")
        connection.execute("DROP TRIGGER seatrial_ledger_no_delete")
        tamper(connection)
    after = seatrial("ledger", "verify", "--json")
    assert (after.code, after.json["verified"], said in after.err) == (1, False, True), after
    if how in ("tail cut", "emptied", "replaced"):
        ledger = SqlLedger(f"sqlite:///{home / 'ledger.db'}", anchors=home / "anchors.jsonl")
        count = len(ledger.rows(MODEL))
        with pytest.raises(LedgerBroken, match="cut or replaced"):
            ledger.append(RowDraft(MODEL, RowKind.RETRAIN_REQUESTED, "v9", START, "eve", "why", "q9"), count)


@pytest.mark.parametrize("how", ["tail cut", "emptied", "replaced"])
def test_an_anchor_copied_from_a_report_is_enough(
    home: Path, seatrial: Callable[..., command_runs.Ended], how: str
) -> None:
    """When the anchor file went with the rows, one line that somebody kept elsewhere still gives it away."""
    line = str(head(SqlLedger(f"sqlite:///{home / 'ledger.db'}").rows(MODEL), MODEL))
    (home / "anchors.jsonl").unlink()
    with sqlite3.connect(home / "ledger.db") as connection:
        connection.execute("DROP TRIGGER seatrial_ledger_no_update")
        connection.execute("DROP TRIGGER seatrial_ledger_no_delete")
        IN_THE_FILE[how][0](connection)
    unaware = seatrial("ledger", "verify", "--json")
    assert (unaware.code, all("note" in chain for chain in unaware.json["models"].values())) == (0, True)
    assert seatrial("ledger", "verify", MODEL, "--anchor", line).code == 1
