"""Fault 3 on PostgreSQL: eight processes append to one chain; nobody's row is lost, and nobody's is there twice."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from datetime import UTC, datetime

from contracts.errors import LedgerConflict
from contracts.rollout import RowKind
from registry.ledger import RowDraft, verify
from registry.sql_ledger import SqlLedger
from tests.postgres_cluster import Cluster

PROCESSES, EACH = 8, 25
START = datetime(2026, 1, 1, tzinfo=UTC)


def _draft(who: int, number: int) -> RowDraft:
    return RowDraft("demand", RowKind.RETRAIN_REQUESTED, "v1", START, f"p{who}", "race", f"p{who}:{number}")


def _write_all(url: str, who: int) -> None:
    """Append EACH rows, looking at the newest revision again after every lost race; each wish is uttered twice."""
    ledger = SqlLedger(url)
    for number in range(EACH):
        while True:
            try:
                row = ledger.append(_draft(who, number), len(ledger.rows("demand")))
                break
            except LedgerConflict:
                continue
        if ledger.append(_draft(who, number), 0) != row:
            os._exit(3)


def test_eight_processes_lose_no_row(postgres: Cluster, record_property: Callable[[str, object], None]) -> None:
    """8 x 25 appends, started together on a database without tables, give one chain of 200 rows that verifies."""
    url = postgres.database()
    work = multiprocessing.get_context("fork")
    started = [work.Process(target=_write_all, args=(url, who)) for who in range(PROCESSES)]
    for one in started:
        one.start()
    for one in started:
        one.join(timeout=240)
    assert [one.exitcode for one in started] == [0] * PROCESSES
    rows = SqlLedger(url).rows("demand")
    verify(rows)
    assert sorted(row.request_id for row in rows) == sorted(f"p{w}:{n}" for w in range(PROCESSES) for n in range(EACH))
    record_property("figure: processes x appends on PostgreSQL, rows lost", f"{PROCESSES} x {EACH}, 0")


def test_an_engine_is_not_shared_with_a_forked_process(postgres: Cluster) -> None:
    """Parent and child append through the same object; neither disturbs the other's connection."""
    ledger = SqlLedger(postgres.database())
    ledger.append(_draft(0, 0), 0)
    child = multiprocessing.get_context("fork").Process(target=lambda: ledger.append(_draft(1, 0), 1))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0
    assert ledger.append(_draft(0, 1), 2).revision == 3
