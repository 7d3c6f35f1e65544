"""Connections to the registry's database, SQLite or PostgreSQL: settings, timeouts, and errors in our own words."""

from __future__ import annotations

import logging
import os
import sqlite3
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError

from contracts.errors import DependencyDown, UsageError

POSTGRES = "postgresql+pg8000"
_WANTED = f"wanted sqlite:///path/to/ledger.db or {POSTGRES}://user@host/database"
_SSL_MODES = ("disable", "prefer", "require", "verify-full")
_IDLE_SECONDS = 30.0
# Server shutting down, starting up, or cutting us off: the connection is of no more use.
_GONE = ("57P", "08", "25P03")


def engine_of(url: str, busy_timeout: float = 30.0) -> Engine:
    """An engine for the registry's database; connects to nothing yet.

    SQLite: WAL, every commit on disk before it returns, a transaction takes the write lock when it begins.
    PostgreSQL: SERIALIZABLE, nothing waits longer than `busy_timeout` for a lock or a statement, a connection that was
    used before is tried before it is used again, and a forked process shares none.

    Args:
        url: `sqlite:///path` (the folder is made), `postgresql+pg8000://...` or, meaning the same, `postgresql://...`;
            with `?sslmode=` disable, prefer (the default: encrypted if the server can, unverified), require (encrypted,
            unverified) or verify-full (encrypted, certificate and host name verified), and `sslrootcert=FILE`.
        busy_timeout: seconds to wait for another writer, and for any statement.

    Raises:
        UsageError: another kind of database or driver, or the driver of PostgreSQL is not installed.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise UsageError(f"ledger: {_WANTED}, got something that is no database URL") from None
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        return _sqlite(parsed, busy_timeout)
    if parsed.drivername in ("postgresql", POSTGRES):
        return _postgres(parsed.set(drivername=POSTGRES), busy_timeout)
    raise UsageError(f"ledger: {_WANTED}, got a URL that begins with {parsed.drivername}://")


@contextmanager
def reaching(dependency: str) -> Iterator[None]:
    """Turn what a database or its network throws into DependencyDown with one line of why.

    Raises:
        DependencyDown: the store is locked, full, gone, too slow or refuses.
    """
    try:
        yield
    except Exception as error:
        # pg8000's own errors come unwrapped where SQLAlchemy only tidies a connection up.
        if isinstance(error, (DBAPIError, OSError, sqlite3.Error)) or type(error).__module__.startswith("pg8000"):
            raise DependencyDown(dependency, why(error)) from error
        raise


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection to look with; on SQLite it takes no lock that a writer would wait for."""
    if engine.dialect.name == "sqlite":
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection


def sqlstate(error: DBAPIError) -> str:
    """The five-letter SQLSTATE that a PostgreSQL server sent with an error; empty when it sent none."""
    told = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return str(told.get("C", "")) if isinstance(told, dict) else ""


def why(error: BaseException) -> str:
    """One line of what went wrong, without statements, parameters or addresses with passwords."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    told = cause.args[0] if cause.args else ""
    if isinstance(told, dict):
        return f"{told.get('M', 'the server refused')} ({told.get('C', 'no code')})"
    inner = f": {cause.__cause__}" if isinstance(cause.__cause__, OSError) else ""
    return f"{cause or type(cause).__name__}{inner}"


def _sqlite(url: URL, busy_timeout: float) -> Engine:
    if url.database:
        with reaching("ledger"):
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
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


def _into_wal(connection: Any, deadline: float) -> None:
    """Put the database into WAL mode. SQLite does not wait for its busy timeout here, so that we have to."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _postgres(url: URL, busy_timeout: float) -> Engine:
    limit = str(int(busy_timeout * 1000))
    waits = {"lock_timeout": limit, "statement_timeout": limit}
    # A writer that was stopped in the middle of its transaction does not hold the others up for ever.
    waits["idle_in_transaction_session_timeout"] = str(int(max(busy_timeout, _IDLE_SECONDS) * 1000))
    # The server ends what takes too long and says so; the socket's own limit is for a server that says nothing.
    url, encryption = _encryption(url)
    arguments = {
        "ssl_context": encryption,
        "timeout": 1.5 * busy_timeout + 1.0,
        "startup_params": waits,
        "application_name": "seatrial",
    }
    try:
        engine = create_engine(
            url, isolation_level="SERIALIZABLE", pool_size=2, pool_logging_name="seatrial", connect_args=arguments
        )
    except ModuleNotFoundError:
        raise UsageError(
            "ledger: PostgreSQL needs the driver pg8000, which is not installed: pip install 'seatrial[postgres]'"
        ) from None
    # Closing a connection that is dead already is no news to anyone; it would be told with a traceback.
    logging.getLogger(f"{type(engine.pool).__module__}.{type(engine.pool).__name__}.seatrial").setLevel("CRITICAL")
    event.listen(engine, "checkout", _alive)
    event.listen(engine, "handle_error", _mark_dead)
    return engine


def _encryption(url: URL) -> tuple[URL, ssl.SSLContext | bool | None]:
    """The URL without its words on encryption, and what they mean to the driver."""
    said = {name: str(value) for name, value in url.query.items()}
    mode, root = said.pop("sslmode", "prefer"), said.pop("sslrootcert", None)
    if said or mode not in _SSL_MODES:
        got = ", ".join(said) or f"sslmode={mode}"
        raise UsageError(
            f"ledger: wanted of a PostgreSQL URL only sslrootcert and sslmode={'|'.join(_SSL_MODES)}, got {got}"
        )
    url = url.set(query={})
    if mode in ("disable", "prefer"):
        return url, False if mode == "disable" else None
    try:
        context = ssl.create_default_context(cafile=root)
    except OSError as error:
        raise UsageError(f"ledger: sslrootcert {root}: {error.strerror or error}") from None
    if mode == "require":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return url, context


def _alive(connection: Any, record: Any, proxy: Any) -> None:
    """Refuse a pooled connection that another process opened or that is dead; the pool then opens a new one."""
    owner = record.info.setdefault("owner", os.getpid())
    if owner != os.getpid():
        record.dbapi_connection = proxy.dbapi_connection = None
        raise DisconnectionError("opened by another process")
    if record.info.setdefault("fresh", True):
        record.info["fresh"] = False
        return
    try:
        connection.cursor().execute("SELECT 1")
        connection.rollback()
    except Exception as error:  # whatever a torn connection throws: the driver's own, the network's, a parser's
        raise DisconnectionError("no longer answers") from error


def _mark_dead(context: ExceptionContext) -> None:
    """Tell SQLAlchemy to throw a connection away when the network or the server ended it."""
    error = context.original_exception
    told = error.args[0] if error.args else None
    code = str(told.get("C", "")) if isinstance(told, dict) else ""
    if isinstance(error, OSError) or code.startswith(_GONE) or (not code and _is_interface(error)):
        context.is_disconnect = True


def _is_interface(error: BaseException) -> bool:
    return type(error).__name__ == "InterfaceError"
