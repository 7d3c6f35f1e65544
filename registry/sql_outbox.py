"""The outbox: which events wait for which target, who tries them at the moment, and what came of it.

An event without a delivery row was never tried. Order is kept for each target within a model: nobody gets to try an
event while an earlier one of the same model still waits. A dead event waits no longer, so that one that a receiver
refuses for good does not hold up all others; brought back by `retry` it may arrive after later ones (`sequence` tells).
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, and_, func, insert, or_, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from contracts.errors import DependencyDown
from contracts.times import iso, parse_time
from registry.migrate import HEAD, ready
from registry.sql_engine import engine_of, reaching, reading, sqlstate
from registry.sql_tables import DELIVERY, OUTBOX

T = TypeVar("T")
_TRIES = 20
_AGAIN = ("40001", "40P01")


class State(StrEnum):
    """How far an event got with a target."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True)
class Wanted:
    """Which events a target takes: its name, globs over the event's type, and the moment it begins (ISO, or empty)."""

    target: str
    types: tuple[str, ...] = ("*",)
    since: str = ""


@dataclass(frozen=True)
class Delivery:
    """One event with one target; `next_at`: not to be tried before, None for one that was never tried."""

    event_id: str
    target: str
    model: str
    revision: int
    type: str
    at: datetime
    event: dict[str, Any]
    state: State
    attempts: int
    next_at: datetime | None
    last_error: str
    changed_at: datetime | None


class Outbox:
    """The outbox in the ledger's database; several dispatchers may work on it.

    Args:
        url: the ledger's.
        busy_timeout: seconds to wait for another writer before DependencyDown.
    """

    def __init__(self, url: str, *, busy_timeout: float = 30.0) -> None:
        self._engine = engine_of(url, busy_timeout)
        self._ready = False

    def models(self, wanted: Wanted) -> tuple[str, ...]:
        """Models with an event that waits for the target, sorted."""
        found = self._read(_waiting(self._mine(wanted), wanted, OUTBOX.c.model).distinct())
        return tuple(sorted(str(row[0]) for row in found))

    def waiting(self, wanted: Wanted, model: str, limit: int = 100) -> tuple[Delivery, ...]:
        """The first events of a model that wait for the target, in the model's order, due or not."""
        query = _waiting(self._mine(wanted), wanted, *_COLUMNS).where(OUTBOX.c.model == model)
        return self._deliveries(query.order_by(OUTBOX.c.revision).limit(limit), wanted.target)

    def listing(self, wanted: Wanted, state: State | None = None, limit: int = 1_000) -> tuple[Delivery, ...]:
        """Events that are or were for a target, newest last, the last `limit` of them."""
        query = _joined(wanted.target, *_COLUMNS).where(_is_for(self._mine(wanted), wanted))
        if state is not None:
            query = query.where(func.coalesce(DELIVERY.c.state, State.PENDING.value) == state.value)
        return self._deliveries(query.order_by(OUTBOX.c.sequence.desc()).limit(limit), wanted.target)[::-1]

    def counts(self, wanted: Wanted) -> dict[str, int]:
        """How many events of a target are in which state."""
        state = func.coalesce(DELIVERY.c.state, State.PENDING.value)
        query = _joined(wanted.target, state, func.count()).where(_is_for(self._mine(wanted), wanted)).group_by(state)
        found = {str(row[0]): int(row[1]) for row in self._read(query)}
        return {state.value: found.get(state.value, 0) for state in State}

    def claim(self, delivery: Delivery, now: datetime, lease: timedelta) -> Delivery | None:
        """Take an event for one attempt; nobody else gets it before the lease ends.

        A dispatcher that dies between sending and saying so leaves the claim; after the lease the event is sent again.

        Returns:
            the delivery with the attempt counted, or None: it is not due, or somebody else was first.
        """
        if delivery.next_at is not None and delivery.next_at > now:
            return None
        values = {"attempts": delivery.attempts + 1, "next_at": iso(now + lease), "changed_at": iso(now)}
        mine = replace(delivery, attempts=delivery.attempts + 1, next_at=now + lease, changed_at=now)
        return mine if self._write(lambda connection: _take(connection, delivery, values)) else None

    def delivered(self, claimed: Delivery, now: datetime) -> None:
        """Record that the target has the event; also when the claim had run out meanwhile."""
        values = {"state": State.DELIVERED.value, "last_error": "", "changed_at": iso(now)}
        self._write(lambda connection: connection.execute(update(DELIVERY).where(_this(claimed)).values(values)))

    def failed(self, claimed: Delivery, words: str, now: datetime, next_at: datetime | None) -> None:
        """Record a failed attempt; nothing when somebody else has claimed the event meanwhile.

        Args:
            claimed: from `claim`.
            words: why.
            now: the time.
            next_at: when to try again, None for never: the event is dead.
        """
        state = State.PENDING if next_at else State.DEAD
        values = {"state": state.value, "next_at": iso(next_at or now), "last_error": words, "changed_at": iso(now)}
        still = and_(_this(claimed), DELIVERY.c.attempts == claimed.attempts, DELIVERY.c.state == State.PENDING.value)
        self._write(lambda connection: connection.execute(update(DELIVERY).where(still).values(values)))

    def retry(self, target: str, event_ids: Sequence[str], now: datetime) -> int:
        """Let dead events be tried again, with all their attempts before them; others stay as they are.

        Returns:
            how many there were.
        """
        values = {"state": State.PENDING.value, "attempts": 0, "next_at": iso(now), "changed_at": iso(now)}
        dead = and_(DELIVERY.c.target == target, DELIVERY.c.state == State.DEAD.value)

        def revive(connection: Connection) -> int:
            changed = 0
            for event_id in event_ids:
                mine = and_(dead, DELIVERY.c.event_id == event_id)
                changed += connection.execute(update(DELIVERY).where(mine).values(values)).rowcount
            return changed

        return self._write(revive)

    def close(self) -> None:
        """Close the connections to the database."""
        self._engine.dispose()

    def _mine(self, wanted: Wanted) -> list[str]:
        """Types in the outbox that the target's globs let through."""
        known = [str(row[0]) for row in self._read(select(OUTBOX.c.type).distinct())]
        return [name for name in known if any(fnmatchcase(name, glob) for glob in wanted.types)]

    def _deliveries(self, query: Any, target: str) -> tuple[Delivery, ...]:
        return tuple(_delivery(row, target) for row in self._read(query))

    def _read(self, query: Any) -> list[Any]:
        def look() -> list[Any]:
            if not self._there():
                return []
            with reading(self._engine) as connection:
                return list(connection.execute(query).all())

        return _until_it_holds(look)

    def _there(self) -> bool:
        """Whether there is an outbox: not before the first row, nor in a ledger that an older release wrote."""
        self._ready = self._ready or ready(self._engine, writing=False) == HEAD
        return self._ready

    def _write(self, work: Callable[[Connection], T]) -> T:
        def transaction() -> T:
            with self._engine.begin() as connection:
                return work(connection)

        return _until_it_holds(transaction)


def _until_it_holds(work: Callable[[], T]) -> T:
    """Do `work`, and again when another transaction pushed it aside; on PostgreSQL a look can be pushed aside too.

    Raises:
        DependencyDown: the store does not answer.
    """
    for turn in range(_TRIES):
        with reaching("ledger"):
            try:
                return work()
            except DBAPIError as error:
                if not isinstance(error, IntegrityError) and sqlstate(error) not in _AGAIN:
                    raise
        time.sleep(random.uniform(0.0, 0.01) * (turn + 1))
    raise DependencyDown("ledger", f"it asked {_TRIES} times to try again; too many write at once")


_COLUMNS = (
    *(OUTBOX.c.event_id, OUTBOX.c.model, OUTBOX.c.revision, OUTBOX.c.type, OUTBOX.c.at, OUTBOX.c.event),
    *(DELIVERY.c.state, DELIVERY.c.attempts, DELIVERY.c.next_at, DELIVERY.c.last_error, DELIVERY.c.changed_at),
)


def _joined(target: str, *columns: Any) -> Any:
    here = and_(DELIVERY.c.event_id == OUTBOX.c.event_id, DELIVERY.c.target == target)
    return select(*columns).select_from(OUTBOX.outerjoin(DELIVERY, here))


def _is_for(types: Sequence[str], wanted: Wanted) -> ColumnElement[bool]:
    """An event that the target takes, or that it took before its entry was changed."""
    takes = and_(OUTBOX.c.type.in_(types), OUTBOX.c.at >= wanted.since)
    return or_(takes, DELIVERY.c.state.is_not(None))


def _waiting(types: Sequence[str], wanted: Wanted, *columns: Any) -> Any:
    takes = and_(OUTBOX.c.type.in_(types), OUTBOX.c.at >= wanted.since)
    open_ = or_(DELIVERY.c.state.is_(None), DELIVERY.c.state == State.PENDING.value)
    return _joined(wanted.target, *columns).where(takes, open_)


def _this(delivery: Delivery) -> ColumnElement[bool]:
    return and_(DELIVERY.c.event_id == delivery.event_id, DELIVERY.c.target == delivery.target)


def _take(connection: Connection, seen: Delivery, values: dict[str, Any]) -> bool:
    """Claim the event if nobody touched it since it was seen."""
    there = connection.execute(select(DELIVERY.c.state, DELIVERY.c.attempts).where(_this(seen))).first()
    if there is None:
        names = {"event_id": seen.event_id, "target": seen.target, "state": State.PENDING.value, "last_error": ""}
        connection.execute(insert(DELIVERY).values(**names, **values))
        return True
    if seen.next_at is None or (str(there[0]), int(there[1])) != (State.PENDING.value, seen.attempts):
        return False
    as_seen = and_(_this(seen), DELIVERY.c.attempts == seen.attempts, DELIVERY.c.next_at == iso(seen.next_at))
    return connection.execute(update(DELIVERY).where(as_seen).values(values)).rowcount == 1


def _delivery(row: Any, target: str) -> Delivery:
    values = dict(row._mapping)
    next_at, changed_at = values["next_at"], values["changed_at"]
    return Delivery(
        event_id=str(values["event_id"]),
        target=target,
        model=str(values["model"]),
        revision=int(values["revision"]),
        type=str(values["type"]),
        at=parse_time(values["at"], "at"),
        event=json.loads(values["event"]),
        state=State(values["state"] or State.PENDING),
        attempts=int(values["attempts"] or 0),
        next_at=parse_time(next_at, "next_at") if next_at else None,
        last_error=str(values["last_error"] or ""),
        changed_at=parse_time(changed_at, "changed_at") if changed_at else None,
    )
