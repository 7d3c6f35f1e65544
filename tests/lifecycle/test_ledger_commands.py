"""`seatrial ledger log | verify | export` as a person and as a program reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.rollout import RowKind
from lifecycle.ledger_lines import fitted
from registry.ledger import Anchor, RowDraft, read_export, verify
from registry.sql_ledger import SqlLedger
from tests.lifecycle.command_runs import Ended, ran
from tests.registry.rig import MODEL, START, World, evidence

Seatrial = Callable[..., Ended]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which two versions became champion and one was held by hand."""
    home = tmp_path_factory.mktemp("home")
    ledger = SqlLedger(f"sqlite:///{home / 'ledger.db'}", anchors=home / "anchors.jsonl")
    world = World(home, ledger=ledger)
    world.crown("first")
    world.crown("second")
    world.register("third")
    world.advance(evidence())
    world.registrar.hold(MODEL, world.policy, "who \x1b[31mknows\x1b[0m\nwhat this is " + "x" * 200)
    return home


@pytest.fixture
def seatrial(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Seatrial:
    """Runs a command in that workspace."""
    return lambda *words: ran(monkeypatch, capsys, {"SEATRIAL_HOME": str(home)}, words)


def test_the_log_says_who_what_why_and_on_what_evidence(seatrial: Seatrial, home: Path) -> None:
    """One line a row under headings; a promotion names its gate's row, a gate its figures, a version its run."""
    ended = seatrial("ledger", "log", "late-delivery")
    rows = SqlLedger(f"sqlite:///{home / 'ledger.db'}").rows(MODEL)
    counted, headings, *lines = ended.out.splitlines()
    assert (ended.code, counted, len(lines)) == (0, f"{MODEL}: {len(rows)} of {len(rows)} rows", len(rows))
    assert headings.split()[:4] == ["row", "when", "(UTC)", "what"]
    assert "run run-firs" in lines[0]
    assert "pass: rows 500 (100)" in lines[1]
    promoted = next(line for line in lines if " promoted " in line and " v2 " in line)
    gate = next(row.revision for row in rows if row.kind is RowKind.GATED and row.version == "v2")
    assert (f"gate in row {gate}" in promoted, "pairs" in promoted) == (True, True), promoted


def test_a_row_cannot_break_its_line_or_steer_the_terminal(seatrial: Seatrial) -> None:
    """Escapes and newlines in a reason become spaces, and a long reason is cut."""
    (line,) = seatrial("ledger", "log", MODEL, "--kind", "held").out.splitlines()[2:]
    assert "who  [31mknows [0m what this is xxx" in line
    assert ("\x1b" in line, "…" in line) == (False, True)


def test_rows_are_chosen_by_kind_version_time_and_number(seatrial: Seatrial) -> None:
    """Filters narrow what is shown; --limit keeps the newest."""
    every = seatrial("ledger", "log", MODEL, "--json").json["rows"]
    kinds = seatrial("ledger", "log", MODEL, "--kind", "gated", "--kind", "promoted", "--json").json["rows"]
    assert {row["kind"] for row in kinds} == {"gated", "promoted"}
    assert {r["version"] for r in seatrial("ledger", "log", MODEL, "--version", "v2", "--json").json["rows"]} == {"v2"}
    since = seatrial("ledger", "log", MODEL, "--since", every[4]["at"], "--json").json["rows"]
    assert since == [row for row in every if row["at"] >= every[4]["at"]]
    assert seatrial("ledger", "log", MODEL, "--limit", 2, "--json").json["rows"] == every[-2:]


def test_the_log_as_json_is_the_ledger(seatrial: Seatrial, home: Path) -> None:
    """With --json the rows are whole: read back they are the ledger's, and verify."""
    said = seatrial("ledger", "log", MODEL, "--json").json["rows"]
    rows = read_export("".join(json.dumps(row) + "\n" for row in said))
    assert rows == SqlLedger(f"sqlite:///{home / 'ledger.db'}").rows(MODEL)
    verify(rows)


def test_an_unknown_model_is_named_with_the_nearest(seatrial: Seatrial) -> None:
    """A slip of the pen is answered with what was meant; a known model without rows has none."""
    ended = seatrial("ledger", "log", "late-delivry")
    assert (ended.code, "did you mean 'late_delivery'" in ended.err) == (2, True)
    assert seatrial("ledger", "log", "demand", "--json").json["rows"] == []


def test_verify_counts_rows_and_anchors(seatrial: Seatrial, home: Path) -> None:
    """Every row is anchored; an anchor by hand is checked too, and a wrong one found."""
    rows = SqlLedger(f"sqlite:///{home / 'ledger.db'}").rows(MODEL)
    right, wrong = Anchor(MODEL, 3, rows[2].hash), Anchor(MODEL, 3, "f" * 64)
    ended = seatrial("ledger", "verify", "--anchor", right, "--json")
    told = {"rows": len(rows), "head": rows[-1].hash, "anchors": len(rows) + 1}
    assert (ended.code, ended.json["models"][MODEL]) == (0, told)
    ended = seatrial("ledger", "verify", MODEL, "--anchor", wrong, "--json")
    assert (ended.code, "revision 3" in ended.json["models"][MODEL]["broken"]) == (1, True)
    assert seatrial("ledger", "verify", "--anchors", home / "none.jsonl").code == 2
    assert seatrial("ledger", "verify", "--anchor", "what").code == 2


def test_a_chain_without_anchors_says_what_would_not_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing kept outside is told, not taken for a check that passed."""
    draft = RowDraft(MODEL, RowKind.RETRAIN_REQUESTED, "v1", START, "ann", "why", "q1")
    SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}").append(draft, 0)
    ended = ran(monkeypatch, capsys, {"SEATRIAL_HOME": str(tmp_path)}, ["ledger", "verify", "--json"])
    assert (ended.code, "would not be seen" in ended.json["models"][MODEL]["note"]) == (0, True)


def test_an_export_is_written_whole_or_not_at_all(seatrial: Seatrial, tmp_path: Path, home: Path) -> None:
    """The file verifies by itself and its anchors are printed; a place that cannot be written ends with 3."""
    ended = seatrial("ledger", "export", "--out", tmp_path / "deep" / "ledger.jsonl", "--json")
    rows = read_export((tmp_path / "deep" / "ledger.jsonl").read_text())
    verify(rows)
    assert (ended.code, ended.json["anchors"]) == (0, [f"{MODEL} {len(rows)} {rows[-1].hash}"])
    (tmp_path / "file").write_text("")
    assert seatrial("ledger", "export", MODEL, "--out", tmp_path / "file" / "x.jsonl").code == 3


def test_a_row_stays_one_line_where_it_fits_and_is_folded_below_itself_where_not() -> None:
    """Wide: a line a row. Narrow: the short cells in columns, the two long ones below them, no word lost."""
    rows = [("1", "gated", "why " * 30, "pass: beat_champion 0.1"), ("2", "held", "a look", "-")]
    headings = ("row", "what", "why", "evidence")
    assert len(fitted(rows, 400, headings)) == 3
    narrow = fitted(rows, 60, headings)
    assert max(map(len, narrow)) <= 60
    assert (narrow[0], narrow[-1]) == ("row  what", "    why: a look")
    assert " ".join(narrow).count("why") == 30 + 2
