"""Anchors outside the ledger: appended, read through a torn line, never going backwards but by a restore."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from contracts.errors import DependencyDown, InputInvalid
from contracts.rollout import RowKind
from registry.anchors import (
    check_chains,
    newest_anchor,
    parse_anchor,
    read_anchors,
    record_anchor,
    record_restored,
)
from registry.ledger import Anchor, MemoryLedger, RowDraft, head
from tests.registry.rig import MODEL, START, chain

ROWS = chain(*((RowKind.RETRAIN_REQUESTED, f"v{i}", {"n": i}) for i in range(1, 7)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Anchors of the first four rows."""
    path = tmp_path / "kept" / "anchors.jsonl"
    for row in ROWS[:4]:
        record_anchor(path, row)
    return path


def test_each_row_has_its_anchor(file: Path) -> None:
    """What was recorded reads back as places and hashes, in order."""
    assert read_anchors(file) == tuple(Anchor(MODEL, row.revision, row.hash) for row in ROWS[:4])
    assert newest_anchor(file, MODEL) == head(ROWS[:4], MODEL)
    assert newest_anchor(file, "other") is None


def test_no_file_is_no_anchor(tmp_path: Path) -> None:
    """A workspace that never had one has none."""
    assert (read_anchors(tmp_path / "none"), newest_anchor(tmp_path / "none", MODEL)) == ((), None)


def test_the_file_never_goes_backwards(file: Path) -> None:
    """An older row, or the same one again, adds nothing."""
    before = file.read_bytes()
    for row in (ROWS[3], ROWS[1]):
        record_anchor(file, row)
    assert file.read_bytes() == before


@pytest.mark.parametrize("cut", [1, 2, 20, 100])
def test_a_torn_last_line_is_passed_over(file: Path, cut: int) -> None:
    """A line that a crash cut short counts for nothing, and the next one is whole."""
    file.write_bytes(file.read_bytes()[:-cut])
    whole = 4 if cut == 1 else 3
    assert len(read_anchors(file)) == whole
    record_anchor(file, ROWS[4])
    assert read_anchors(file)[-1] == Anchor(MODEL, 5, ROWS[4].hash)
    assert len(read_anchors(file)) == whole + 1


@pytest.mark.parametrize("line", ['{"model": "x"}', '{"model": "x", "revision": "1", "hash": "00"}', "{}", "[1]}"])
def test_a_whole_line_that_is_no_anchor_is_reported(file: Path, line: str) -> None:
    """Somebody else wrote into the file: the line is named, nothing is guessed."""
    with file.open("a") as out:
        out.write(line + "\n")
    with pytest.raises(InputInvalid, match=r"anchors.jsonl:5: wanted an anchor"):
        read_anchors(file)


def test_a_restore_takes_later_anchors_away(file: Path) -> None:
    """After a restore to row 2 the anchors of rows 3 and 4 stand no more, and the chain may go on differently."""
    record_restored(file, [head(ROWS[:2], MODEL)], START, "ann")
    assert [anchor.revision for anchor in read_anchors(file)] == [1, 2]
    assert newest_anchor(file, MODEL) == head(ROWS[:2], MODEL)
    other = chain(*((RowKind.RETRAIN_REQUESTED, f"v{i}", {"n": min(i, 2) * 1 if i < 3 else -i}) for i in range(1, 4)))
    record_anchor(file, other[2])
    assert read_anchors(file)[-1] == Anchor(MODEL, 3, other[2].hash)
    assert '"restored_by":"ann"' in file.read_text()


def test_a_file_that_cannot_be_written_is_a_dependency_that_is_down(tmp_path: Path) -> None:
    """The place is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DependencyDown, match="file/anchors"):
        record_anchor(tmp_path / "file" / "anchors.jsonl", ROWS[0])


def _record(path: Path, model: str) -> None:
    for row in chain(*((RowKind.RETRAIN_REQUESTED, "v1", {}) for _ in range(20)), model=model):
        record_anchor(path, row)


def test_processes_share_the_file(tmp_path: Path) -> None:
    """Four processes that anchor four chains at once lose no line and tear none."""
    started = [
        multiprocessing.get_context("fork").Process(target=_record, args=(tmp_path / "a.jsonl", f"m{number}"))
        for number in range(4)
    ]
    for one in started:
        one.start()
    for one in started:
        one.join(60)
    kept = read_anchors(tmp_path / "a.jsonl")
    assert [sum(a.model == f"m{number}" for a in kept) for number in range(4)] == [20] * 4


@pytest.mark.parametrize(
    "text", ["", "demand 1", "demand one " + "0" * 64, "demand 1 " + "g" * 64, "demand -1 " + "0" * 64]
)
def test_an_anchor_by_hand_has_three_words(text: str) -> None:
    """Anything but model, revision and hash is refused with what was wanted."""
    assert parse_anchor(f" {MODEL}  3 {'a' * 64}\n") == Anchor(MODEL, 3, "a" * 64)
    with pytest.raises(InputInvalid, match="wanted an anchor"):
        parse_anchor(text)


def test_chains_are_checked_by_model() -> None:
    """One broken chain is named and does not hide the others; a model only anchors know of is an emptied chain."""
    ledger = MemoryLedger()
    for model in ("a", "b"):
        ledger.append(RowDraft(model, RowKind.RETRAIN_REQUESTED, "v1", START, "ann", "why", "q1"), 0)
    wrong = [Anchor("b", 1, "f" * 64), Anchor("c", 2, "f" * 64)]
    found = {one.model: one for one in check_chains(ledger, wrong)}
    assert (found["a"].broken, found["a"].rows, found["a"].anchors) == ("", 1, 0)
    assert "replaced" in found["b"].broken
    assert "tail" in found["c"].broken
    assert [one.model for one in check_chains(ledger, wrong, "a")] == ["a"]
