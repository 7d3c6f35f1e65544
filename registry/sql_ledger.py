"""The ledger in an SQL database: SQLite in WAL mode by default, PostgreSQL by URL."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Row, func, insert, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from contracts.canonical import canonical_json
from contracts.errors import Conflict, DependencyDown, LedgerBroken, LedgerConflict, UsageError
from contracts.rollout import LedgerRow, RowKind
from contracts.times import iso, parse_time
from registry.anchors import newest_anchor, record_anchor
from registry.crashpoints import crash_point
from registry.ledger import GENESIS, Anchor, RowDraft, chained, same_wish
from registry.migrate import HEAD, ready
from registry.outbox import event_of
from registry.sql_engine import engine_of, reaching, reading, sqlstate
from registry.sql_tables import LEDGER, OUTBOX

_TRIES = 20
# Serialization failure, deadlock: PostgreSQL asks for the transaction again.
_AGAIN = ("40001", "40P01")


class SqlLedger:
    """A ledger behind an SQLAlchemy URL; several processes may write, the database decides who was first.

    When `append` returns, the row is on disk, and with it, in the same transaction, the event for the outbox. Triggers
    refuse to change or delete a row.

    Args:
        url: `sqlite:///path/to/ledger.db`, `postgresql+pg8000://...`.
        busy_timeout: seconds to wait for another writer before DependencyDown.
        anchors: a file outside the ledger that every appended row's place and hash is written to; None for none.

    Raises:
        UsageError: the URL names another kind of database, or its driver is not installed.
    """

    def __init__(self, url: str, *, busy_timeout: float = 30.0, anchors: Path | None = None) -> None:
        self.engine = engine_of(url, busy_timeout)
        self._anchors = anchors
        self._ready = False

    def append(self, draft: RowDraft, expected: int) -> LedgerRow:
        """See Ledger.append. A wish repeated after a crash or an unknown commit also gets its missing anchor."""
        row = self._appended(draft, expected)
        if self._anchors is not None:
            record_anchor(self._anchors, row)
        return row

    def rows(self, model: str) -> tuple[LedgerRow, ...]:
        """See Ledger.rows."""
        query = select(LEDGER).where(LEDGER.c.model == model).order_by(LEDGER.c.revision)
        return tuple(_row(found) for found in self._read(query))

    def models(self) -> tuple[str, ...]:
        """See Ledger.models."""
        return tuple(sorted(str(found[0]) for found in self._read(select(LEDGER.c.model).distinct())))

    def restore(self, rows: Sequence[LedgerRow]) -> None:
        """Put the rows of an export, which the caller has verified, into an empty ledger: all of them or none.

        They become no events: those went out when the rows were new.

        Raises:
            Conflict: the ledger holds rows; nothing was written.
            DependencyDown: the store does not answer.
        """
        if not rows:
            return
        with reaching("ledger"):
            self._prepare(writing=True)
            try:
                with self.engine.begin() as connection:
                    there = connection.execute(select(func.count()).select_from(LEDGER)).scalar_one()
                    if there:
                        raise Conflict(f"the ledger holds {there} rows; an export is restored only into an empty one")
                    connection.execute(insert(LEDGER), [_values(row) for row in rows])
            except IntegrityError:
                raise Conflict("somebody else wrote to the ledger meanwhile; nothing was restored") from None

    def close(self) -> None:
        """Close the connections to the database."""
        self.engine.dispose()

    def _appended(self, draft: RowDraft, expected: int) -> LedgerRow:
        # Read before the transaction begins: what is anchored by now was committed, so the transaction sees it.
        kept = newest_anchor(self._anchors, draft.model) if self._anchors is not None else None
        for turn in range(_TRIES):
            with reaching("ledger"):
                self._prepare(writing=True)
                try:
                    return self._transaction(draft, expected, kept)
                except DBAPIError as error:
                    if not isinstance(error, IntegrityError) and sqlstate(error) not in _AGAIN:
                        raise
            known = self._known(draft, expected)
            if known is not None:
                return known
            time.sleep(random.uniform(0.0, 0.01) * (turn + 1))
        raise DependencyDown("ledger", f"it asked {_TRIES} times to try again; too many write at once")

    def _transaction(self, draft: RowDraft, expected: int, kept: Anchor | None) -> LedgerRow:
        with self.engine.begin() as connection:
            if kept is not None:
                _still_there(connection, kept)
            row, new = _append(connection, draft, expected)
            if new:
                crash_point("ledger.inserted")
        if new:
            crash_point("ledger.committed")
        return row

    def _known(self, draft: RowDraft, expected: int) -> LedgerRow | None:
        """What came of a transaction that another writer's pushed aside; None when the place is still free."""
        rows = self.rows(draft.model)
        for row in rows:
            if row.request_id == draft.request_id:
                return same_wish(row, draft)
        if len(rows) != expected:
            raise LedgerConflict(draft.model, expected, len(rows))
        return None

    def _read(self, query: Any) -> list[Row[Any]]:
        with reaching("ledger"):
            if not self._prepare(writing=False):
                return []
            for _ in range(_TRIES):
                try:
                    with reading(self.engine) as connection:
                        return list(connection.execute(query).all())
                except DBAPIError as error:
                    if sqlstate(error) not in _AGAIN:
                        raise
        raise DependencyDown("ledger", f"it asked {_TRIES} times to try again; too many write at once")

    def _prepare(self, *, writing: bool) -> bool:
        if self._ready:
            return True
        stands_at = ready(self.engine, writing=writing)
        self._ready = stands_at == HEAD
        return bool(stands_at)


def _append(connection: Connection, draft: RowDraft, expected: int) -> tuple[LedgerRow, bool]:
    mine = LEDGER.c.model == draft.model
    first = connection.execute(select(LEDGER).where(mine, LEDGER.c.request_id == draft.request_id)).first()
    if first is not None:
        return same_wish(_row(first), draft), False
    newest = connection.execute(
        select(LEDGER.c.revision, LEDGER.c.hash).where(mine).order_by(LEDGER.c.revision.desc()).limit(1)
    ).first()
    revision, previous = (int(newest[0]), str(newest[1])) if newest else (0, GENESIS)
    if revision != expected:
        raise LedgerConflict(draft.model, expected, revision)
    row = chained(draft, expected + 1, previous)
    connection.execute(insert(LEDGER).values(_values(row)))
    event = event_of(row)
    if event is not None:
        told = {"event_id": event["id"], "type": event["type"], "event": canonical_json(event), "at": iso(row.at)}
        connection.execute(insert(OUTBOX).values(model=row.model, revision=row.revision, **told))
    return row, True


def _still_there(connection: Connection, kept: Anchor) -> None:
    place = (LEDGER.c.model == kept.model) & (LEDGER.c.revision == kept.revision)
    there = connection.execute(select(LEDGER.c.hash).where(place)).scalar()
    if kept.revision and there != kept.hash:
        why = "the anchor file holds another hash of it" if there else "the anchor file says that it was there"
        raise LedgerBroken(kept.model, kept.revision, f"{why}; nothing is appended to a chain that was cut or replaced")


def _values(row: LedgerRow) -> dict[str, Any]:
    values = {column.name: getattr(row, column.name) for column in LEDGER.columns}
    return values | {"kind": row.kind.value, "at": iso(row.at), "payload": canonical_json(row.payload)}


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
