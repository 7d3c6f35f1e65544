"""Fault 60: the ledger is gone; from an export, the anchors and the artifacts folder it is put back and goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.errors import Conflict
from contracts.rollout import RowKind
from registry.anchors import read_anchors
from registry.ledger import RowDraft, read_export, verify
from registry.ledger import export as as_lines
from registry.sql_ledger import SqlLedger
from tests.faults.system_calls import assert_invariants
from tests.lifecycle.command_runs import Ended, ran
from tests.registry.rig import MODEL, START, World, evidence

Seatrial = Callable[..., Ended]


def _world(home: Path) -> World:
    return World(home, ledger=SqlLedger(f"sqlite:///{home / 'ledger.db'}", anchors=home / "anchors.jsonl"))


@pytest.fixture
def seatrial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Seatrial:
    """Runs a command in the workspace `home`."""
    return lambda *words: ran(monkeypatch, capsys, {"SEATRIAL_HOME": str(tmp_path / "home")}, words)


@pytest.fixture
def export(tmp_path: Path, seatrial: Seatrial) -> Path:
    """The export of a ledger with a champion, the one before and a challenger."""
    world = _world(tmp_path / "home")
    world.crown("first")
    world.crown("second")
    world.register("third")
    world.advance(evidence())
    file = tmp_path / "ledger.jsonl"
    ended = seatrial("ledger", "export", "--out", file, "--json")
    assert (ended.code, ended.json["rows"][MODEL]) == (0, len(world.ledger.rows(MODEL)))
    return file


def _lose(home: Path) -> None:
    """Everything but the artifacts and the anchors."""
    for path in home.iterdir():
        if path.name.startswith("ledger.db"):
            path.unlink()
    shutil.rmtree(home / "serving")


def test_an_empty_machine_gets_its_ledger_back(
    tmp_path: Path, export: Path, seatrial: Seatrial, record_property: Callable[[str, object], None]
) -> None:
    """Chains, anchors and models are verified, no row is lost, servers come back, and the chain goes on."""
    home = tmp_path / "home"
    before = _world(home)
    state, rows = before.state, before.ledger.rows(MODEL)
    _lose(home)
    ended = seatrial("ledger", "restore", export, "--verify", "--json")
    assert (ended.code, ended.json["rows_lost_after_the_export"]) == (0, 0), ended
    assert ended.json["versions_in_use"] == {MODEL: ["v2", "v1", "v3"]}
    world = _world(home)
    assert (world.state, world.ledger.rows(MODEL)) == (state, rows)
    world.registrar.reconcile(MODEL, world.policy)
    assert_invariants(home)
    world.register("fourth")
    assert seatrial("ledger", "verify", "--json").code == 0
    record_property("figure: restore, rows lost (RPO)", 0)
    record_property("figure: restore, rows", ended.json["rows"][MODEL])
    record_property("figure: restore, seconds (RTO)", ended.json["seconds"])


def test_rows_after_the_export_are_counted_as_lost(tmp_path: Path, export: Path, seatrial: Seatrial) -> None:
    """The anchors tell how many rows came after the export; they are given up with a name, and the chain goes on."""
    home = tmp_path / "home"
    world = _world(home)
    exported = len(world.ledger.rows(MODEL))
    for number in range(2):
        draft = RowDraft(MODEL, RowKind.RETRAIN_REQUESTED, "v2", START, "ann", "later", f"late{number}")
        world.ledger.append(draft, exported + number)
    _lose(home)
    ended = seatrial("ledger", "restore", export, "--json")
    assert (ended.code, ended.json["rows_lost_after_the_export"]) == (0, {MODEL: 2})
    assert [anchor.revision for anchor in read_anchors(home / "anchors.jsonl")][-1] == exported
    again = _world(home)
    assert again.ledger.append(draft, exported).revision == exported + 1
    assert seatrial("ledger", "verify").code == 0


def test_a_rehearsal_changes_nothing(tmp_path: Path, export: Path, seatrial: Seatrial) -> None:
    """`--dry-run` says the same and leaves ledger and anchors alone."""
    _lose(tmp_path / "home")
    before = (tmp_path / "home" / "anchors.jsonl").read_bytes()
    ended = seatrial("ledger", "restore", export, "--dry-run", "--json")
    assert (ended.code, ended.json["restored"]) == (0, False)
    assert _world(tmp_path / "home").ledger.models() == ()
    assert (tmp_path / "home" / "anchors.jsonl").read_bytes() == before


def _edited(text: str) -> str:
    return text.replace('"actor":"seatrial"', '"actor":"eve"', 1)


def _cut(text: str) -> str:
    return text[: len(text) // 2]


def _reordered(text: str) -> str:
    first, second, *rest = text.splitlines(keepends=True)
    return "".join((second, first, *rest))


@pytest.mark.parametrize(
    ("damage", "code"), [(_edited, 1), (_cut, 2), (_reordered, 1), (lambda _: "", 2), (lambda _: "[]\n", 2)]
)
def test_a_damaged_export_is_refused(
    tmp_path: Path, export: Path, seatrial: Seatrial, damage: Callable[[str], str], code: int
) -> None:
    """Edited, cut, reordered or empty: the first bad place is named and the ledger stays empty."""
    _lose(tmp_path / "home")
    export.write_text(damage(export.read_text()))
    assert seatrial("ledger", "restore", export).code == code
    assert _world(tmp_path / "home").ledger.models() == ()


def test_an_export_of_another_chain_is_refused(tmp_path: Path, export: Path, seatrial: Seatrial) -> None:
    """A valid chain that the anchors contradict is not taken."""
    _lose(tmp_path / "home")
    other = World(tmp_path / "other")
    other.crown("else")
    other_file = tmp_path / "other.jsonl"
    other_file.write_text(as_lines(other.ledger.rows(MODEL)))
    ended = seatrial("ledger", "restore", other_file, "--no-verify")
    assert (ended.code, "replaced" in ended.err) == (1, True), ended
    assert export.exists()


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_a_version_in_use_without_its_files_is_refused(
    tmp_path: Path, export: Path, seatrial: Seatrial, version: str
) -> None:
    """Champion, the one before and challenger must lie there as they were sealed; the version is named."""
    home = tmp_path / "home"
    _lose(home)
    path = home / "artifacts" / MODEL / version / "spec.json"
    path.chmod(0o644)
    path.write_text("{}")
    ended = seatrial("ledger", "restore", export)
    assert (ended.code, f"{MODEL} {version}" in ended.err) == (1, True), ended
    assert _world(home).ledger.models() == ()
    shutil.rmtree(home / "artifacts" / MODEL / version)
    assert seatrial("ledger", "restore", export).code == 1
    assert seatrial("ledger", "restore", export, "--no-verify").code == 0


def test_a_ledger_that_holds_rows_is_left_alone(tmp_path: Path, export: Path, seatrial: Seatrial) -> None:
    """Other rows than the export's are never overwritten or mixed with it."""
    world = _world(tmp_path / "home")
    world.register("fourth")
    rows = world.ledger.rows(MODEL)
    ended = seatrial("ledger", "restore", export, "--json")
    assert (ended.code, "other rows" in ended.err) == (4, True), ended
    assert world.ledger.rows(MODEL) == rows
    with pytest.raises(Conflict):
        SqlLedger(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}").restore(read_export(export.read_text()))
    assert world.ledger.rows(MODEL) == rows


def test_a_restore_that_was_killed_after_its_rows_is_completed(
    tmp_path: Path, export: Path, seatrial: Seatrial
) -> None:
    """The rows went in and the process died before the anchors: running again finishes it."""
    home = tmp_path / "home"
    _lose(home)
    rows = read_export(export.read_text())
    SqlLedger(f"sqlite:///{home / 'ledger.db'}").restore(rows)
    assert seatrial("ledger", "restore", export).code == 0
    verify(_world(home).ledger.rows(MODEL))
    assert '"restored_by"' in (home / "anchors.jsonl").read_text()


def test_a_restore_works_on_postgresql(tmp_path: Path, export: Path, postgres: object) -> None:
    """An export of a SQLite ledger moves it to PostgreSQL, hashes and all."""
    rows = read_export(export.read_text())
    ledger = SqlLedger(postgres.database())  # type: ignore[attr-defined]
    ledger.restore(rows)
    assert ledger.rows(MODEL) == tuple(rows)
    verify(ledger.rows(MODEL))
    with pytest.raises(Conflict):
        ledger.restore(rows)
