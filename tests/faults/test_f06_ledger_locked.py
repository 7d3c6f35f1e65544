"""Fault 6: somebody holds the ledger locked; serving does not notice, writers are told, and go on afterwards."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from contracts.errors import DependencyDown
from contracts.rollout import RowKind
from registry.ledger import RowDraft, verify
from registry.snapshot import snapshot_path
from registry.sql_ledger import SqlLedger
from tests.registry.rig import MODEL, START, World
from tests.serving.conftest import Port, declarations, policies, port, shipment, trained  # noqa: F401


def _locked(path: Path) -> sqlite3.Connection:
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    return holder


def test_a_locked_ledger_stops_writers_and_nothing_else(tmp_path: Path) -> None:
    """Registering a version fails with a typed error and leaves champion and chain as they were; then it works."""
    patient = World(tmp_path)
    first = patient.crown("first")
    before = patient.ledger.rows(MODEL)
    world = World(tmp_path, ledger=SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}", busy_timeout=0.1))
    holder = _locked(tmp_path / "ledger.db")
    with pytest.raises(DependencyDown, match="ledger is not available: database is locked") as error:
        world.register("second")
    holder.close()
    assert error.value.exit_code == 3
    assert (world.state.champion, world.ledger.rows(MODEL)) == (first, before)
    assert world.register("second") == "v2"
    verify(world.ledger.rows(MODEL))


def test_serving_answers_from_its_snapshot(port: Port, shipment: object) -> None:  # noqa: F811
    """With the ledger locked, a server starts and answers as it would without a ledger at all."""
    ledger = SqlLedger(port.settings.ledger)
    ledger.append(RowDraft(MODEL, RowKind.RETRAIN_REQUESTED, "v1", START, "ann", "because", "q1"), 0)
    holder = _locked(port.settings.home / "ledger.db")
    handler = port.handler()
    (answer,) = handler.score(MODEL, {"request_id": "r1", "items": [shipment()]})  # type: ignore[operator]
    assert (answer.answer.version, answer.answer.rung, handler.ready()["ready"]) == ("v1", "champion", True)
    assert snapshot_path(port.settings.serving, MODEL).exists()
    handler.close()
    holder.close()
