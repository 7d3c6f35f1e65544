"""Fault 57: rows edited, deleted, reordered, cut off or replaced; verifying names the first bad row."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from contracts.errors import LedgerBroken
from contracts.rollout import LedgerRow, RowKind
from registry.ledger import head, row_hash, verify
from registry.sql_ledger import SqlLedger
from tests.registry.rig import MODEL, chain, changed

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


def test_tampering_with_the_file_itself_is_found(tmp_path: Path) -> None:
    """Someone who drops the triggers and edits the SQLite file is found by the chain."""
    path = tmp_path / "ledger.db"
    ledger = SqlLedger(f"sqlite:///{path}")
    from tests.registry.test_ledgers import DRAFT

    for i in range(3):
        ledger.append(replace(DRAFT, request_id=f"q{i}"), i)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TRIGGER seatrial_ledger_no_update")
        connection.execute("UPDATE seatrial_ledger SET payload = '{}' WHERE revision = 2")
    with pytest.raises(LedgerBroken) as error:
        verify(ledger.rows("demand"))
    assert error.value.revision == 2
