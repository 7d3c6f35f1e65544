"""Why a feature's value is not what the landed events give: found by trying which mistake would give it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from contracts.declarations import View, view_columns
from contracts.times import iso
from features.audit_events import VALUES
from features.audit_values import HONEST, Cut, Event, Key, Reading, begins, event_fields, read_view, tick_of

TOLERANCE = 1e-9
TRIED_EVENTS = 80
TRIED_TICKS = 8
SHOWN_EVENTS = 5
FOREVER = timedelta(days=36_500)


@dataclass(frozen=True)
class SourceEvent:
    """A landed event by its id and times (UTC)."""

    event_id: str
    event_time: datetime
    known_at: datetime


@dataclass(frozen=True)
class Why:
    """What explains a value: words, and the landed events behind it (the newest ones first)."""

    words: str
    events: tuple[SourceEvent, ...] = ()


@dataclass(frozen=True)
class _Trial:
    words: str
    reading: Reading | None
    events: tuple[Event, ...]


def same(left: float, right: float) -> bool:
    """Equal up to the order of summation (1e-9, relative and absolute); missing equals missing."""
    if math.isnan(left) or math.isnan(right):
        return math.isnan(left) and math.isnan(right)
    return math.isclose(left, right, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


class Detective:
    """Finds what explains wrong values of one view's row.

    Args:
        view: the declaration.
        events: all landed versions that can matter, those after the moment too.
        key, as_of: of the row.
        label: the row's label, when it has one.
    """

    def __init__(
        self, view: View, events: Sequence[Event], key: Key, as_of: datetime, label: float | None = None
    ) -> None:
        self._view, self._events, self._key, self._as_of, self._label = view, events, key, as_of, label
        self._columns = view_columns(view)
        self._fields = event_fields(view)
        self._tried: list[_Trial] = []
        self._untried = self._trials()

    def explain(self, column: str, given: float) -> Why:
        """What explains the value of one column."""
        if math.isnan(given):
            return self._missing()
        place = self._columns.index(column)
        for trial in self._all():
            if trial.reading is not None and same(trial.reading.values[place], given):
                return Why(trial.words, _shown(trial.events))
        return self._raw(given) or Why("no cut of the landed events that was tried gives this value", self._honest())

    def _all(self) -> Iterator[_Trial]:
        yield from self._tried
        for trial in self._untried:
            self._tried.append(trial)
            yield trial

    def _read(
        self,
        cut: Cut = HONEST,
        *,
        shift: int = 0,
        ttl: timedelta | None = None,
        events: Sequence[Event] | None = None,
    ) -> Reading | None:
        known = self._events if events is None else events
        return read_view(self._view, known, self._key, self._as_of, cut=cut, shift=shift, ttl=ttl)

    def _trials(self) -> Iterator[_Trial]:
        at = tick_of(self._view, self._as_of)
        ticked = hasattr(self._view, "tick")
        mine = [event for event in self._events if tuple(event[field] for field in self._fields) == self._key]
        future = [event for event in mine if not HONEST.counts(event, at, before=ticked)]
        past = [event for event in mine if HONEST.counts(event, at, before=ticked)]
        # what had happened and was not known yet is the commonest mistake, so it is tried first
        future.sort(key=lambda event: (begins(event) >= at, max(event["known_at"], begins(event))))
        past.sort(key=lambda event: event["known_at"], reverse=True)
        for event in islice(future, TRIED_EVENTS):
            words = f"equals the value when {_named(event, at)} is counted"
            yield _Trial(words, self._read(Cut(plus=frozenset([event["event_id"]]))), (event,))
        unknown = tuple(event for event in future if begins(event) <= at)
        yield _Trial("equals the value when what became known later is counted", self._read(Cut(known=False)), unknown)
        words = "equals the value when events count from when they happen, not from when they are known"
        yield _Trial(words, self._read(events=[{**e, "known_at": begins(e)} for e in self._events]), unknown)
        early = tuple(event for event in future if event["known_at"] <= at)
        yield _Trial("equals the value when what had not happened yet is counted", self._read(Cut(begun=False)), early)
        words = "equals the value when every landed event is counted, later ones too"
        yield _Trial(words, self._read(Cut(known=False, begun=False)), tuple(future))
        yield from self._other_moments(at, ticked, future)
        for event in islice(past, TRIED_EVENTS):
            words = f"equals the value without {_named(event, at)}: the row was made before it landed"
            yield _Trial(words, self._read(Cut(minus=frozenset([event["event_id"]]))), (event,))

    def _other_moments(self, at: datetime, ticked: bool, future: Sequence[Event]) -> Iterator[_Trial]:
        for shift in range(1, TRIED_TICKS + 1) if ticked else ():
            moment = at + shift * self._view.tick  # type: ignore[union-attr]
            new = tuple(event for event in future if HONEST.counts(event, moment, before=True))
            yield _Trial(f"equals the row of the later tick {iso(moment)}", self._read(shift=shift), new)
        reading = self._read(ttl=FOREVER)
        yield _Trial("equals a row that is older than the ttl", reading, () if reading is None else reading.events)
        for shift in range(-1, -TRIED_TICKS - 1, -1) if ticked else ():
            moment = at + shift * self._view.tick  # type: ignore[union-attr]
            words = f"equals the row of the earlier tick {iso(moment)}: newer ones were not built, or not found"
            reading = self._read(shift=shift, ttl=FOREVER)
            yield _Trial(words, reading, () if reading is None else reading.events)

    def _missing(self) -> Why:
        return Why("missing, although the landed events give a value: not built, or not found", self._honest())

    def _raw(self, given: float) -> Why | None:
        """The value as a field of one event, the label's own included."""
        if self._label is not None and same(self._label, given):
            return Why("equals the row's own label")
        names = [name for kind in VALUES.values() for name in kind]
        for event in self._events:
            for name in dict.fromkeys(names):
                if isinstance(event.get(name), (int, float)) and same(float(event[name]), given):
                    words = f"equals {name} of {_named(event, tick_of(self._view, self._as_of))} itself"
                    return Why(words, _shown((event,)))
        return None

    def _honest(self) -> tuple[SourceEvent, ...]:
        reading = self._read()
        return () if reading is None else _shown(reading.events)


def _named(event: Event, at: datetime) -> str:
    words = f"event {event['event_id']}"
    if event["known_at"] > at:
        return f"{words}, known_at {iso(event['known_at'])}, later than {iso(at)},"
    if begins(event) >= at:
        return f"{words}, which begins {iso(begins(event))}, not before {iso(at)},"
    return f"{words}, known_at {iso(event['known_at'])},"


def _shown(events: Sequence[Any]) -> tuple[SourceEvent, ...]:
    newest = sorted(events, key=lambda event: event["known_at"], reverse=True)[:SHOWN_EVENTS]
    return tuple(SourceEvent(event["event_id"], event["event_time"], event["known_at"]) for event in newest)
