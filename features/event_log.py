"""Landed events as arrays that only grow: what has been read once is not converted again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FAR = np.iinfo(np.int64).max // 4


class Events(Protocol):
    """Where landed events are read from: every landed version, new ones at the end."""

    def read(self, kind: str, *, known_by: datetime | None = None) -> pd.DataFrame:
        """All landed versions of a kind in canonical columns, in the order of landing."""
        ...

    def latest(self, kind: str, known_by: datetime | None) -> pd.DataFrame:
        """The newest version of each natural key known by a moment."""
        ...


class Growing:
    """A one-dimensional array with room to grow; `values` is a view of what was put in."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._room: npt.NDArray[Any] = np.empty(64, dtype=dtype)
        self._size = 0

    @property
    def values(self) -> npt.NDArray[Any]:
        """What was added so far; valid until the next `add`."""
        return self._room[: self._size]

    def add(self, more: npt.NDArray[Any]) -> None:
        """Put values at the end."""
        size = self._size + len(more)
        if size > len(self._room):
            room = np.empty(max(size, 2 * len(self._room)), dtype=self._room.dtype)
            room[: self._size] = self.values
            self._room = room
        self._room[self._size : size] = more
        self._size = size


class KeyCodes:
    """Numbers keys 0, 1, 2, ... in order of first appearance, however the rows are batched."""

    def __init__(self) -> None:
        self.keys: list[tuple[Any, ...]] = []
        self._codes: dict[tuple[Any, ...], int] = {}

    def __len__(self) -> int:
        return len(self.keys)

    def code(self, columns: Sequence[npt.NDArray[Any]]) -> Ints:
        """Codes of n keys given column by column; -1 where a part is missing (None or NaN)."""
        codes, keys = self._codes, self.keys
        found = np.empty(len(columns[0]), dtype=np.int64)
        for row, key in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
            code = codes.get(key)
            if code is None:
                if any(part is None or part != part for part in key):
                    code = -1
                else:
                    code = codes[key] = len(keys)
                    keys.append(key)
            found[row] = code
        return found


class EventLog:
    """Events of one kind: their times as microseconds since the epoch, and the canonical frame behind them."""

    def __init__(self, source: Events, kind: str) -> None:
        self._source = source
        self._kind = kind
        self._event, self._known = Growing(np.int64), Growing(np.int64)
        self._parts: dict[tuple[str, ...], tuple[KeyCodes, Growing]] = {}
        self._numbers: dict[str, Growing] = {}
        self._last_id: object = None
        self._counted = (0, 0, 0)
        self._reached = Growing(np.int64)
        self.frame = pd.DataFrame()

    def refresh(self) -> bool:
        """Take in what landed since the last call.

        Returns:
            False when what was read before is not the beginning any more: start over with a new log.
        """
        frame = self._source.read(self._kind)
        size = len(self._event.values)
        if len(frame) < size or (size and frame["event_id"].iat[size - 1] != self._last_id):
            return False
        self.frame = frame
        if len(frame) > size:
            self._event.add(microseconds(frame["event_time"].iloc[size:]))
            self._known.add(microseconds(frame["known_at"].iloc[size:]))
            self._last_id = frame["event_id"].iat[len(frame) - 1]
        return True

    def __len__(self) -> int:
        return len(self._event.values)

    @property
    def event(self) -> Ints:
        """event_time in microseconds since the epoch."""
        return self._event.values

    @property
    def known(self) -> Ints:
        """known_at in microseconds since the epoch."""
        return self._known.values

    def keyed(self, columns: tuple[str, ...]) -> tuple[KeyCodes, Ints]:
        """Keys of some columns and every event's code, -1 where one is missing; event_time counts in microseconds."""
        codes, rows = self._parts.setdefault(columns, (KeyCodes(), Growing(np.int64)))
        start = len(rows.values)
        if start < len(self):
            rows.add(codes.code([self._raw(column, start) for column in columns]))
        return codes, rows.values

    def number(self, column: str) -> Floats:
        """A numeric or boolean column as float64, NaN where missing."""
        values = self._numbers.setdefault(column, Growing(np.float64))
        start = len(values.values)
        if start < len(self):
            values.add(self.frame[column].iloc[start : len(self)].to_numpy(dtype=np.float64, na_value=np.nan))
        return values.values

    def _raw(self, column: str, start: int) -> npt.NDArray[Any]:
        if column == "event_time":
            return self.event[start:]
        return self.frame[column].iloc[start : len(self)].to_numpy(dtype=object)

    def known_by(self, until: int) -> int:
        """Number of events with known_at at or before `until` (microseconds)."""
        if self._counted[:2] != (len(self), until):
            self._counted = (len(self), until, int(np.count_nonzero(self.known <= until)))
        return self._counted[2]

    def known_after(self, moment: int) -> int:
        """A row before which nothing became known after `moment` (microseconds); rows from it on may have."""
        done = len(self._reached.values)
        if done < len(self):
            fresh = np.maximum.accumulate(self.known[done:])
            self._reached.add(np.maximum(fresh, self._reached.values[-1]) if done else fresh)
        return int(np.searchsorted(self._reached.values, moment, side="right"))


def microseconds(times: pd.Series[Any]) -> Ints:
    """A datetime64[us, UTC] series as microseconds since the epoch."""
    return times.to_numpy(dtype="M8[us]").view(np.int64)


def stamps(moments: Ints) -> pd.DatetimeIndex:
    """Microseconds since the epoch as datetime64[us, UTC]."""
    return pd.DatetimeIndex(moments.astype("M8[us]")).tz_localize("UTC")


def instant(moment: datetime) -> int:
    """A moment with a zone as microseconds since the epoch, exactly."""
    return length(moment - _EPOCH)


def length(duration: timedelta) -> int:
    """A duration in whole microseconds."""
    return duration // timedelta(microseconds=1)


def first_ticks(event: Ints, known: Ints, tick: int) -> Ints:
    """The first tick number at which an event counts: known by it, and begun strictly before it."""
    return np.maximum(-(-known // tick), event // tick + 1)
