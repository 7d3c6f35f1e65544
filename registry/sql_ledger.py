"""The ledger in an SQL database: SQLite in WAL mode by default, PostgreSQL by URL."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    Row,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    make_url,
    select,
)
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.schema import CreateTable

from contracts.canonical import canonical_json
from contracts.errors import DependencyDown, LedgerBroken, LedgerConflict, UsageError
from contracts.rollout import LedgerRow, RowKind
from contracts.times import iso, parse_time
from registry.crashpoints import crash_point
from registry.ledger import GENESIS, RowDraft, chained, same_wish

_METADATA = MetaData()
_ROWS = Table(
    "seatrial_ledger",
    _METADATA,
    Column("model", Text, primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("format", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
    UniqueConstraint("model", "request_id"),
)
_REFUSALS = [
    f"CREATE TRIGGER IF NOT EXISTS seatrial_ledger_no_{verb.lower()} BEFORE {verb} ON seatrial_ledger "
    f"BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    for verb in ("UPDATE", "DELETE")
]


class SqlLedger:
    """A ledger behind an SQLAlchemy URL; several processes may write, the database decides who was first.

    On SQLite every commit is on disk before `append` returns, and triggers refuse to change or delete a row. On
    PostgreSQL give the writing role INSERT and SELECT only.

    Args:
        url: `sqlite:///path/to/ledger.db`, `postgresql+psycopg://...`.
        busy_timeout: seconds to wait for another writer before DependencyDown.
    """

    def __init__(self, url: str, *, busy_timeout: float = 30.0) -> None:
        self._engine = _engine(url, busy_timeout)
        self._ready = False

    def append(self, draft: RowDraft, expected: int) -> LedgerRow:
        """See Ledger.append."""
        try:
            self._prepare()
            with self._engine.begin() as connection:
                row, new = self._append(connection, draft, expected)
                if new:
                    crash_point("ledger.inserted")
            if new:
                crash_point("ledger.committed")
        except IntegrityError:
            return self._lost(draft, expected)
        except DBAPIError as error:
            raise DependencyDown("ledger", str(error.orig)) from error
        return row

    def rows(self, model: str) -> tuple[LedgerRow, ...]:
        """See Ledger.rows."""
        query = select(_ROWS).where(_ROWS.c.model == model).order_by(_ROWS.c.revision)
        return tuple(_row(found) for found in self._read(query))

    def models(self) -> tuple[str, ...]:
        """See Ledger.models."""
        return tuple(str(found[0]) for found in self._read(select(_ROWS.c.model).distinct().order_by(_ROWS.c.model)))

    def close(self) -> None:
        """Close the connections to the database."""
        self._engine.dispose()

    def _append(self, connection: Connection, draft: RowDraft, expected: int) -> tuple[LedgerRow, bool]:
        mine = _ROWS.c.model == draft.model
        first = connection.execute(select(_ROWS).where(mine, _ROWS.c.request_id == draft.request_id)).first()
        if first is not None:
            return same_wish(_row(first), draft), False
        newest = connection.execute(
            select(_ROWS.c.revision, _ROWS.c.hash).where(mine).order_by(_ROWS.c.revision.desc()).limit(1)
        ).first()
        revision, previous = (int(newest[0]), str(newest[1])) if newest else (0, GENESIS)
        if revision != expected:
            raise LedgerConflict(draft.model, expected, revision)
        row = chained(draft, expected + 1, previous)
        values = {column.name: getattr(row, column.name) for column in _ROWS.columns}
        values |= {"kind": row.kind.value, "at": iso(row.at), "payload": canonical_json(row.payload)}
        connection.execute(insert(_ROWS).values(values))
        return row, True

    def _lost(self, draft: RowDraft, expected: int) -> LedgerRow:
        """What to say after another writer took the revision or the request id between our look and our insert."""
        rows = self.rows(draft.model)
        for row in rows:
            if row.request_id == draft.request_id:
                return same_wish(row, draft)
        raise LedgerConflict(draft.model, expected, len(rows))

    def _read(self, query: Any) -> list[Row[Any]]:
        try:
            self._prepare()
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                return list(connection.execute(query).all())
        except DBAPIError as error:
            raise DependencyDown("ledger", str(error.orig)) from error

    def _prepare(self) -> None:
        if self._ready:
            return
        with self._engine.begin() as connection:
            connection.execute(CreateTable(_ROWS, if_not_exists=True))
            if self._engine.dialect.name == "sqlite":
                for refusal in _REFUSALS:
                    connection.exec_driver_sql(refusal)
        self._ready = True


def _row(found: Row[Any]) -> LedgerRow:
    values = dict(found._mapping)
    try:
        read = {
            "kind": RowKind(values["kind"]),
            "at": parse_time(values["at"], "at"),
            "payload": json.loads(values["payload"]),
        }
    except (ValueError, TypeError, UsageError) as error:
        raise LedgerBroken(values["model"], values["revision"], f"not a ledger row: {error}") from None
    return LedgerRow(**{**values, **read})


def _into_wal(connection: Any, deadline: float) -> None:
    """Put the database into WAL mode. SQLite does not wait for its busy timeout here, so that we have to."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _engine(url: str, busy_timeout: float) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(url, isolation_level="SERIALIZABLE")
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": busy_timeout})

    @event.listens_for(engine, "connect")
    def _settings(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={int(busy_timeout * 1000)}")
        _into_wal(connection, time.monotonic() + busy_timeout)
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _writer_first(connection: Connection) -> None:
        if connection.get_isolation_level() != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
