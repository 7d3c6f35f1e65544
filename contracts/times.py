"""Times are timezone-aware UTC with microseconds; durations are written like 36h or 7d."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Protocol

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from contracts.errors import TimeInvalid

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*$")


def parse_duration(text: Any) -> timedelta:
    """A duration from a number and one of s, m, h, d, w.

    >>> parse_duration("36h")
    datetime.timedelta(days=1, seconds=43200)
    """
    if isinstance(text, timedelta):
        return text
    found = _DURATION.match(str(text))
    if not found:
        raise ValueError("a duration: a number and one of s, m, h, d, w, like 36h or 7d")
    return timedelta(seconds=float(found.group(1)) * _UNITS[found.group(2)])


def write_duration(value: timedelta) -> str:
    """The shortest exact text of a duration in whole units.

    >>> write_duration(timedelta(days=7))
    '7d'
    """
    seconds = value.total_seconds()
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{int(seconds // _UNITS[unit])}{unit}"
    return f"{int(seconds)}s" if seconds.is_integer() else f"{seconds!r}s"


# Editors would otherwise want ISO 8601 (P7D) where files say 7d.
_DURATION_SCHEMA = {"type": "string", "pattern": _DURATION.pattern, "description": "like 36h or 7d"}
Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(write_duration, return_type=str),
    WithJsonSchema(_DURATION_SCHEMA),
]


def utc(value: datetime, what: str = "time") -> datetime:
    """`value` in UTC.

    Raises:
        TimeInvalid: `value` has no zone.
    """
    if value.tzinfo is None:
        raise TimeInvalid(what, value.isoformat())
    return value.astimezone(UTC)


def parse_time(text: str, what: str = "time") -> datetime:
    """An ISO 8601 text with a zone, in UTC; a bare date means its first moment in UTC.

    >>> parse_time("2026-01-31T02:00:00+02:00").isoformat()
    '2026-01-31T00:00:00+00:00'

    Raises:
        TimeInvalid: the text is no time, or a time of day without a zone.
    """
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise TimeInvalid(what, repr(text)) from None
    if value.tzinfo is None and len(text) == 10:
        value = value.replace(tzinfo=UTC)
    return utc(value, what)


def iso(value: datetime) -> str:
    """ISO 8601 in UTC with microseconds and Z.

    >>> iso(datetime(2026, 1, 31, tzinfo=UTC))
    '2026-01-31T00:00:00.000000Z'
    """
    return utc(value).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Clock(Protocol):
    """Where "now" comes from; injected, so that history can be replayed through the same code."""

    def now(self) -> datetime:
        """The present moment, in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present moment, in UTC."""
        return datetime.now(UTC)


class SetClock:
    """A clock that stands where it was put; for rehearsals and tests. It never goes back."""

    def __init__(self, at: datetime) -> None:
        self._at = utc(at)

    def now(self) -> datetime:
        """The moment the clock was last set to."""
        return self._at

    def set(self, at: datetime) -> None:
        """Put the clock forward.

        Raises:
            TimeInvalid: `at` lies before the clock's present.
        """
        if utc(at) < self._at:
            raise TimeInvalid("clock", iso(at), f"a time at or after {iso(self._at)}")
        self._at = utc(at)
