"""What every online store has in common: questions and answers, rows ready to be put, marks, and how values are packed.

A value is a number (float64, NaN where unknown) or an encoded value: the bytes of Feast's Value message, empty where
unknown, for whatever else a Feast user keeps (text, integers, lists). Serving reads numbers only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from contracts.decisions import Status, ViewRead
from contracts.errors import InputInvalid
from contracts.times import utc
from features.asof import MICROSECOND, NEVER, microseconds

Int64 = npt.NDArray[np.int64]
Part = str | int | bytes
Key = tuple[Part, ...]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES = ("event_time", "known_at")
# later than every moment: what is not there has not happened
MISSING = int(np.iinfo(np.int64).max)
NUMBER_TAG = b"\x29"
_MOMENT = struct.Struct("<q")
_NUMBER = struct.Struct("<d")
_VARINT_TAGS = {0x18, 0x20, 0x38, 0x40}


class Int32(int):
    """A part of a key that Feast keeps in four bytes."""


class UnixTime(int):
    """A part of a key that Feast keeps as seconds since the epoch."""


class Ask(NamedTuple):
    """One question to the store: `columns` of `view` for `key`, stale after `ttl`."""

    view: str
    columns: tuple[str, ...]
    key: tuple[Part, ...]
    ttl: timedelta


class Mark(NamedTuple):
    """How far a view was filled: what became known by `until`, as far as gold went at `place` (empty: not told)."""

    until: datetime
    place: str = ""


class Counts(NamedTuple):
    """What became of the rows of one write: put in, kept out by a newer row, or there already."""

    written: int
    older: int
    same: int


class Newest(NamedTuple):
    """A row as it is kept, however old."""

    event_time: datetime
    known_at: datetime
    values: dict[str, float | None]


@dataclass(frozen=True)
class Rows:
    """Rows of one view ready to be put.

    Args:
        names: the join keys, in order.
        keys: their values, n tuples.
        event, known: microseconds since the epoch, (n,).
        columns: names of the number columns, p of them.
        numbers: (n, p).
        encoded: n encoded values a further column.
    """

    names: tuple[str, ...]
    keys: Sequence[Key]
    event: Int64
    known: Int64
    columns: tuple[str, ...]
    numbers: npt.NDArray[np.float64]
    encoded: Mapping[str, Sequence[bytes]] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """Rows of one view as read, one a key asked for.

    Args:
        event, known: microseconds since the epoch, MISSING without a row, (n,).
        numbers: (columns, n) when all columns asked for are numbers.
        encoded: otherwise n encoded values a column.
    """

    event: Int64
    known: Int64
    numbers: npt.NDArray[np.float64] | None
    encoded: Sequence[Sequence[bytes]] = ()

    def values(self) -> Sequence[Sequence[bytes]]:
        """n encoded values a column."""
        return self.encoded if self.numbers is None else [encoded_numbers(column) for column in self.numbers]


Views = Mapping[str, tuple[Sequence[str], pd.DataFrame]]


class OnlineFeatures(Protocol):
    """The newest row of every view and key, guarded against older rows; the embedded store and Redis both are one."""

    def read(self, view: str, columns: tuple[str, ...], key: Key, as_of: datetime, ttl: timedelta) -> ViewRead:
        """The newest row of one key, with its age and status."""
        ...

    def read_many(self, asks: Iterable[Ask], as_of: datetime) -> list[ViewRead]:
        """Answers to several questions from one consistent state of the store, in their order."""
        ...

    def write(self, view: str, keys: Sequence[str], frame: pd.DataFrame) -> int:
        """Put rows in place of older ones; returns how many were written."""
        ...

    def write_views(self, views: Views, marks: Mapping[str, Mark] | None = None) -> dict[str, Counts]:
        """Rows of several views, and what is to be remembered with them."""
        ...

    def put(self, view: str, rows: Rows) -> Counts:
        """Put rows that are encoded already."""
        ...

    def block(self, view: str, names: Sequence[str], keys: Sequence[Key | None], columns: Sequence[str]) -> Block:
        """The rows of many keys of one view, column by column."""
        ...

    def mark(self, view: str) -> Mark | None:
        """What was last remembered with a view."""
        ...

    def newest(self, view: str, columns: tuple[str, ...], key: Key) -> Newest | None:
        """The row of a key, however old or new it is."""
        ...

    def forget(self, view: str) -> int:
        """Take away all rows of a view and its mark; returns the number of rows."""
        ...

    def close(self) -> None:
        """Let go of the store."""
        ...


def instant(moment: datetime, what: str = "as_of") -> int:
    """Microseconds since the epoch.

    Raises:
        TimeInvalid: no zone.
    """
    return (utc(moment, what) - EPOCH) // MICROSECOND


def moment_of(microseconds: int) -> datetime:
    """The moment of microseconds since the epoch, in UTC."""
    return EPOCH + timedelta(microseconds=microseconds)


def status_of(event: int, known: int, moment: int, ttl: int) -> Status:
    """The one rule of what may be served: happened and known by `moment`, and not older than `ttl` (0: any age)."""
    if event > moment or known > moment:
        return "missing"
    return "stale" if ttl and moment - event > ttl else "present"


def answer(ask: Ask, event: int, known: int, values: dict[str, float | None], moment: int) -> ViewRead:
    """The answer to one question from the row that was found."""
    status = status_of(event, known, moment, ask.ttl // MICROSECOND)
    if status == "missing":
        return nothing(ask)
    return ViewRead.model_construct(
        view=ask.view,
        values=values,
        event_time=moment_of(event),
        age_s=(moment - event) / 1e6,
        status=status,
    )


def nothing(ask: Ask) -> ViewRead:
    """The answer when there is no row."""
    values = dict.fromkeys(ask.columns)
    return ViewRead.model_construct(view=ask.view, values=values, event_time=None, age_s=None, status="missing")


def number_of(raw: bytes, name: str) -> float | None:
    """The number in an encoded value, None where it is unknown or NaN.

    Raises:
        InputInvalid: the value is no number.
    """
    if not raw:
        return None
    tag = raw[0]
    if raw[:1] == NUMBER_TAG:
        value = float(_NUMBER.unpack_from(raw, 1)[0])
    elif tag == 0x35:
        value = float(struct.unpack_from("<f", raw, 1)[0])
    elif tag in _VARINT_TAGS:
        whole = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(raw[1:]))
        value = float(whole - (1 << 64) if whole >> 63 else whole)
    else:
        raise InputInvalid(f"online value of {name!r}", "a number", "something else", hint="read it through Feast")
    return None if value != value else value


def encoded_numbers(values: npt.NDArray[np.float64]) -> list[bytes]:
    """Numbers as Feast keeps them: a tag and eight bytes each, nothing for NaN."""
    packed = np.empty(len(values), [("tag", "u1"), ("value", "<f8")])
    packed["tag"], packed["value"] = NUMBER_TAG[0], values
    data = packed.tobytes()
    return [
        b"" if gone else data[at : at + 9]
        for at, gone in zip(range(0, 9 * len(values), 9), np.isnan(values).tolist(), strict=True)
    ]


def packed_mark(mark: Mark) -> bytes:
    """A mark as both stores keep it: the moment, and the place as text."""
    return _MOMENT.pack(instant(mark.until, "mark")) + mark.place.encode()


def mark_of(data: bytes) -> Mark:
    """A mark as it was kept; the eight bytes of the first release have no place."""
    return Mark(moment_of(_MOMENT.unpack_from(data)[0]), data[_MOMENT.size :].decode())


def rows_of(view: str, keys: Sequence[str], frame: pd.DataFrame) -> Rows:
    """The rows of a frame: key columns (text or whole numbers), event_time, known_at, and number columns.

    Raises:
        InputInvalid: a missing key or time, a value that is no finite number or NaN, or no such column.
        TimeInvalid: times without a zone.
    """
    for needed in (*keys, *TIMES):
        if needed not in frame.columns:
            raise InputInvalid(f"rows of view {view}", f"a column {needed!r}", f"columns {', '.join(frame.columns)}")
    columns = tuple(str(name) for name in frame.columns if name not in (*keys, *TIMES))
    event, known = (microseconds(frame[name], name) for name in TIMES)
    check_times(view, event, known)
    parts = list(zip(*(frame[name].tolist() for name in keys), strict=True))
    return Rows(tuple(keys), parts, event, known, columns, finite(view, frame, columns))


def check_times(view: str, event: Int64, known: Int64) -> None:
    """Both times in every row.

    Raises:
        InputInvalid: one is missing.
    """
    if (event == NEVER).any() or (known == NEVER).any():
        raise InputInvalid(f"rows of view {view}", "event_time and known_at in every row", "a row without")


def finite(view: str, frame: pd.DataFrame, columns: Sequence[str]) -> npt.NDArray[np.float64]:
    """Number columns as one array, NaN where unknown.

    Raises:
        InputInvalid: something that is no number, or infinite.
    """
    try:
        values = frame[list(columns)].to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise InputInvalid(f"rows of view {view}", "numbers in every value column", "something else") from None
    if np.isinf(values).any():
        name = columns[int(np.flatnonzero(np.isinf(values).any(axis=0))[0])]
        raise InputInvalid(f"rows of view {view}", f"finite numbers or NaN in {name!r}", "infinity")
    return values


def best_rows(rows: Rows, addresses: Sequence[bytes]) -> dict[bytes, int]:
    """Of each address the place of its newest row, by event time, then by when it became known, then the last."""
    order: list[int] = np.lexsort((rows.known, rows.event)).tolist()
    return {addresses[place]: place for place in order}


def refused_key(view: str, got: Any) -> InputInvalid:
    """The error for a key that no store can keep."""
    return InputInvalid(f"rows of view {view}", "text or a whole number in every join key", f"{got!r}")
