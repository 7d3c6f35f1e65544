"""The schema of the registry's database: which migration it stands at, and bringing it up to this program's."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import Engine, inspect, select, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from contracts.errors import UsageError
from registry.durable import sync_folder
from registry.sql_engine import reading, sqlstate
from registry.sql_tables import LEDGER

REVISIONS = ("0001", "0002")
HEAD = REVISIONS[-1]
UNSTAMPED = "0.1.0"
# Not Alembic's usual name: MLflow may keep its own tables, and its own stamp, in the same database.
VERSION_TABLE = "seatrial_schema"
_LOCK = 5_831_402_977_315_221
_FOLDER = Path(__file__).parent / "migrations"


def ready(engine: Engine, *, writing: bool) -> str:
    """The migration that the tables stand at; to write, they are made or brought up to the newest first.

    A database of an older release is read as it stands and migrated by the first writer, once, under a lock, in one
    transaction; a SQLite ledger that holds rows is copied beside itself first.

    Args:
        engine: from `engine_of`.
        writing: False asks only to read.

    Returns:
        HEAD, an older migration or UNSTAMPED when there is something to read, empty when there is no table yet.

    Raises:
        UsageError: the database was written by a newer release; nothing was changed.
    """
    with reading(engine) as connection:
        found = stamp(connection)
    if found == HEAD:
        return HEAD
    _not_newer(found, engine)
    if writing:
        _migrate(engine)
        return HEAD
    with reading(engine) as connection:
        return found or (UNSTAMPED if inspect(connection).has_table(LEDGER.name) else "")


def stamp(connection: Connection) -> str:
    """The migration that the database stands at; empty when no migration has been here."""
    try:
        found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    except DBAPIError as error:
        if sqlstate(error) == "42P01" or "no such table" in str(error.orig):
            return ""
        raise
    return str(found or "")


def _not_newer(found: str, engine: Engine) -> None:
    if found and found not in REVISIONS:
        raise UsageError(
            f"the ledger at {engine.url.render_as_string()} has schema {found}, this program knows schemas up to "
            f"{HEAD}: a newer seatrial wrote it; install that release, or point SEATRIAL_LEDGER_URL at another ledger"
        )


def _migrate(engine: Engine) -> None:
    from alembic import command  # half a second that only a migration pays, and nobody who waits for its lock
    from alembic.config import Config

    lite = engine.dialect.name == "sqlite"
    # PostgreSQL: a SERIALIZABLE snapshot would be older than the lock, and would not see what the other one did.
    waiting = engine if lite else engine.execution_options(isolation_level="READ COMMITTED")
    with waiting.begin() as connection:
        if not lite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        tables = inspect(connection).get_table_names()
        found = stamp(connection) if VERSION_TABLE in tables else ""
        if found == HEAD:
            return
        _not_newer(found, engine)
        if (
            lite
            and engine.url.database
            and LEDGER.name in tables
            and connection.execute(select(LEDGER).limit(1)).first()
        ):
            _back_up(Path(engine.url.database), found or UNSTAMPED)
        config = Config()
        config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _back_up(ledger: Path, revision: str) -> None:
    """Copy the ledger as it stands to a file beside it that names the schema it had; the copy stays."""
    target = ledger.with_name(f"{ledger.name}.{revision}.backup")
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with closing(sqlite3.connect(ledger)) as old, closing(sqlite3.connect(temporary)) as new:
            old.backup(new)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)
