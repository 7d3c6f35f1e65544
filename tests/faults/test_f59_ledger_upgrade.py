"""Fault 59: a ledger of 0.1.0, one of a newer release, and a migration that was killed half-way."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, event, text

from contracts.canonical import canonical_json
from contracts.errors import UsageError
from contracts.rollout import LedgerRow, RowKind
from contracts.times import iso
from registry import migrate
from registry.ledger import RowDraft, verify
from registry.sql_engine import engine_of
from registry.sql_ledger import SqlLedger
from registry.sql_tables import METADATA
from tests.registry.rig import MODEL, START, chain

# What 0.1.0 sent to the database, word for word.
OLD_TABLE = """CREATE TABLE IF NOT EXISTS seatrial_ledger (
 model TEXT NOT NULL, revision INTEGER NOT NULL, format INTEGER NOT NULL, kind TEXT NOT NULL, version TEXT NOT NULL,
 at TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL, request_id TEXT NOT NULL, payload TEXT NOT NULL,
 previous TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (model, revision), UNIQUE (model, request_id))"""
OLD_TRIGGERS = [
    f"CREATE TRIGGER IF NOT EXISTS seatrial_ledger_no_{verb.lower()} BEFORE {verb} ON seatrial_ledger "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    for verb in ("UPDATE", "DELETE")
]
OLD_ROWS = chain(
    (RowKind.REGISTERED, "v1", {"manifest_sha256": "a" * 64, "rows": 7}),
    (RowKind.GATED, "v1", {"outcome": "pass", "criteria": [{"value": 0.1, "name": "café"}]}),
    (RowKind.PROMOTED, "v1", {"share": 1.0}),
)
NEXT = RowDraft(MODEL, RowKind.RETRAIN_REQUESTED, "v1", START, "ann", "after the upgrade", "next")


def _written_by_0_1_0(url: str) -> str:
    """A ledger as 0.1.0 left it: its table, its triggers (SQLite), three rows of format 1."""
    engine = engine_of(url)
    names = ", ".join(vars(OLD_ROWS[0]))
    marks = ", ".join(f":{name}" for name in vars(OLD_ROWS[0]))
    with engine.begin() as connection:
        for statement in (OLD_TABLE, *(OLD_TRIGGERS if engine.dialect.name == "sqlite" else ())):
            connection.execute(text(statement))
        for row in OLD_ROWS:
            connection.execute(text(f"INSERT INTO seatrial_ledger ({names}) VALUES ({marks})"), _as_text(row))
    engine.dispose()
    return url


def _as_text(row: LedgerRow) -> dict[str, Any]:
    return {**vars(row), "kind": row.kind.value, "at": iso(row.at), "payload": canonical_json(row.payload)}


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return str(request.getfixturevalue("postgres").database())


def _stamp(url: str) -> str:
    engine = engine_of(url)
    try:
        with engine.connect() as connection:
            return migrate.stamp(connection)
    finally:
        engine.dispose()


def test_a_ledger_of_0_1_0_is_adopted(url: str) -> None:
    """Reading changes nothing; the first append migrates, the old rows stay as they were, and the chain goes on."""
    _written_by_0_1_0(url)
    ledger = SqlLedger(url)
    assert (ledger.rows(MODEL), ledger.models(), _stamp(url)) == (OLD_ROWS, (MODEL,), "")
    row = ledger.append(NEXT, 3)
    assert (row.revision, _stamp(url), ledger.rows(MODEL)) == (4, migrate.HEAD, (*OLD_ROWS, row))
    verify(ledger.rows(MODEL))


def test_sqlite_is_copied_before_it_is_migrated(tmp_path: Path) -> None:
    """The copy is named after the release it can be opened with, holds the old rows, and stays."""
    url = _written_by_0_1_0(f"sqlite:///{tmp_path / 'ledger.db'}")
    SqlLedger(url).append(NEXT, 3)
    SqlLedger(url).append(NEXT, 3)
    assert sorted(p.name for p in tmp_path.glob("*backup*")) == ["ledger.db.0.1.0.backup"]
    with sqlite3.connect(tmp_path / "ledger.db.0.1.0.backup") as copy:
        assert copy.execute("SELECT count(*) FROM seatrial_ledger").fetchone() == (3,)
        assert copy.execute("SELECT name FROM sqlite_master WHERE name = 'seatrial_outbox'").fetchone() is None
    assert SqlLedger(f"sqlite:///{tmp_path / 'ledger.db.0.1.0.backup'}").rows(MODEL) == OLD_ROWS


def test_a_new_ledger_needs_no_copy(tmp_path: Path) -> None:
    """Nothing was there, so nothing is kept."""
    SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}").append(NEXT, 0)
    assert not list(tmp_path.glob("*backup*"))


def test_migrations_end_where_the_program_thinks(url: str) -> None:
    """The scripts lead to HEAD, their tables are the ones that the code works with, old or new alike."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    assert (scripts.get_heads(), tuple(s.revision for s in reversed(list(scripts.walk_revisions())))) == (
        [migrate.HEAD],
        migrate.REVISIONS,
    )
    SqlLedger(_written_by_0_1_0(url)).append(NEXT, 3)
    engine = engine_of(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": migrate.VERSION_TABLE})
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_a_ledger_of_a_newer_release_is_refused(url: str) -> None:
    """Neither read nor written: what was found, what is known and what to do are said; the ledger is as it was."""
    ledger = SqlLedger(url)
    ledger.append(NEXT, 0)
    before = ledger.rows(MODEL)
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '0417'"))
    for use in (lambda: SqlLedger(url).append(NEXT, 1), lambda: SqlLedger(url).rows(MODEL), SqlLedger(url).models):
        with pytest.raises(UsageError, match=r"schema 0417, this program knows schemas up to 0002.*install"):
            use()
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '{migrate.HEAD}'"))
    engine.dispose()
    assert SqlLedger(url).rows(MODEL) == before


def _die_after(statements: int, url: str) -> None:
    """Append, and die when so many statements were executed."""
    left = [statements]

    def count(*_: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "after_cursor_execute", count)
    SqlLedger(url).append(NEXT, 3)


def _in_child(work: Callable[..., None], *arguments: object) -> int:
    child = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    child.start()
    child.join(60)
    assert child.exitcode is not None
    return child.exitcode


def _killed_migration(url: str, statements: int) -> bool:
    _written_by_0_1_0(url)
    code = _in_child(_die_after, statements, url)
    assert code in (0, -signal.SIGKILL)
    ledger = SqlLedger(url)
    assert ledger.rows(MODEL)[:3] == OLD_ROWS
    row = ledger.append(NEXT, 3)
    assert (row.revision, _stamp(url), ledger.rows(MODEL)) == (4, migrate.HEAD, (*OLD_ROWS, row))
    verify(ledger.rows(MODEL))
    ledger.close()
    return code != 0


def test_a_migration_that_was_killed_is_completed(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Killed after each statement in turn, the next writer finds the old ledger or the new, and goes on."""
    killed = 0
    while _killed_migration(f"sqlite:///{tmp_path / f'{killed}.db'}", killed + 1):
        killed += 1
    record_property("figure: kills in a migration of SQLite, each completed by the next writer", killed)
    assert killed > 8
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("statements", [4, 9, 14])
def test_on_postgresql_too(postgres: Any, statements: int) -> None:
    """The server takes back what a killed writer began."""
    assert _killed_migration(postgres.database(), statements)


def _append_own(url: str, number: int) -> None:
    draft = RowDraft(f"m{number}", RowKind.RETRAIN_REQUESTED, "v1", START, "ann", "together", "q1")
    SqlLedger(url).append(draft, 0)


def test_processes_that_start_together_migrate_once(url: str) -> None:
    """Four first writers of an old ledger all get their row in."""
    _written_by_0_1_0(url)
    work = multiprocessing.get_context("fork")
    started = [work.Process(target=_append_own, args=(url, number)) for number in range(4)]
    for one in started:
        one.start()
    for one in started:
        one.join(60)
    assert [one.exitcode for one in started] == [0] * 4
    assert SqlLedger(url).models() == (MODEL, "m0", "m1", "m2", "m3")
    assert SqlLedger(url).rows(MODEL) == OLD_ROWS


def test_a_ledger_at_head_is_opened_without_alembic(tmp_path: Path) -> None:
    """Only a migration pays for the library that migrates."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    SqlLedger(url).append(NEXT, 0)

    program = (
        "import sys; from registry.sql_ledger import SqlLedger; "
        f"assert len(SqlLedger({url!r}).rows({MODEL!r})) == 1; assert 'alembic' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0
