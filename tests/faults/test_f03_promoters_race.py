"""Fault 3: eight promoters race for one ledger; compare-and-swap lets each revision have one winner."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

from contracts.errors import LedgerConflict
from contracts.rollout import RowKind
from registry.ledger import RowDraft, verify
from registry.sql_ledger import SqlLedger
from tests.registry.rig import START

PROMOTERS = 8
EACH = 200


def _promoter(url: str, number: int, start: object, results: object) -> None:
    ledger = SqlLedger(url)
    start.wait()  # type: ignore[attr-defined]
    won, lost, expected = 0, 0, 0
    for turn in range(EACH):
        name = f"p{number}t{turn}"
        draft = RowDraft("demand", RowKind.RETRAIN_REQUESTED, "v1", START, f"p{number}", "race", name)
        while True:
            try:
                expected = ledger.append(draft, expected).revision
                won += 1
                break
            except LedgerConflict as conflict:
                expected = conflict.found
                lost += 1
    results.put((won, lost))  # type: ignore[attr-defined]


def test_eight_promoters_lose_no_row_and_share_no_revision(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Every append wins exactly one revision, every loser is told the newest one, and the chain holds."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(PROMOTERS), context.Queue()
    racers = [context.Process(target=_promoter, args=(url, i, start, results)) for i in range(PROMOTERS)]
    for racer in racers:
        racer.start()
    counts = [results.get(timeout=120) for _ in racers]
    for racer in racers:
        racer.join(timeout=30)
    rows = SqlLedger(url).rows("demand")
    assert [racer.exitcode for racer in racers] == [0] * PROMOTERS
    assert [row.revision for row in rows] == list(range(1, PROMOTERS * EACH + 1))
    assert len({row.request_id for row in rows}) == sum(won for won, _ in counts) == PROMOTERS * EACH
    verify(rows)
    record_property(f"figure: rows appended by {PROMOTERS} racing processes, none lost", len(rows))
    record_property("figure: conflicts among them, each told the newest revision", sum(lost for _, lost in counts))


def test_of_eight_that_expect_the_same_revision_one_wins(tmp_path: Path) -> None:
    """Eight writers with the same expectation: one row is written, seven conflicts name the revision found."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(PROMOTERS), context.Queue()
    racers = [context.Process(target=_one_shot, args=(url, i, start, results)) for i in range(PROMOTERS)]
    for racer in racers:
        racer.start()
    outcomes = sorted(results.get(timeout=60) for _ in racers)
    for racer in racers:
        racer.join(timeout=30)
    assert outcomes == ["found 1"] * (PROMOTERS - 1) + ["won"]
    assert len(SqlLedger(url).rows("demand")) == 1


def _one_shot(url: str, number: int, start: object, results: object) -> None:
    ledger = SqlLedger(url)
    start.wait()  # type: ignore[attr-defined]
    draft = RowDraft("demand", RowKind.PROMOTED, f"v{number}", START, f"p{number}", "race", f"promote {number}")
    try:
        ledger.append(draft, 0)
        results.put("won")  # type: ignore[attr-defined]
    except LedgerConflict as conflict:
        results.put(f"found {conflict.found}")  # type: ignore[attr-defined]
