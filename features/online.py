"""The embedded online store: the newest row of every view and key, in one LMDB file that many processes may read."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import numpy as np
import numpy.typing as npt
import pandas as pd

from contracts.decisions import ViewRead
from contracts.errors import DependencyDown, InputInvalid
from contracts.times import utc
from features.asof import MICROSECOND, NEVER, microseconds

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAP_BYTES = 8 << 30
_HEADER = struct.Struct("<qqQ")
_MOMENT = struct.Struct("<q")
_LAYOUT, _MARK, _LONG = b"\xfe", b"\xfd", b"\xff"
_TIMES = ("event_time", "known_at")


class Ask(NamedTuple):
    """One question to the store: `columns` of `view` for `key`, stale after `ttl`."""

    view: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    ttl: timedelta


@dataclass(frozen=True)
class _Layout:
    """Columns of one record shape, and how its values are unpacked."""

    columns: tuple[str, ...]
    values: struct.Struct

    def pick(self, columns: tuple[str, ...], record: bytes) -> dict[str, float | None]:
        values = self.values.unpack_from(record, _HEADER.size)
        if columns == self.columns:
            return {name: None if value != value else value for name, value in zip(columns, values, strict=True)}
        have = dict(zip(self.columns, values, strict=True))
        picked = {name: have.get(name) for name in columns}
        return {name: None if value is None or value != value else value for name, value in picked.items()}


@dataclass(frozen=True)
class _Rows:
    """Rows of one write: the best row of each key, in order of key bytes."""

    layout: bytes
    columns: tuple[str, ...]
    records: list[tuple[bytes, int, int, bytes]]


class OnlineStore:
    """Newest rows by view and key in `folder`: any number of reading processes, one writer at a time (others wait).

    A row holds its event time, the time it became known, and float64 values. A row never replaces one with a later
    event time, nor one with the same event time that became known later, so the order of arrival does not matter. Equal
    in both: the row that came last stays, as in the offline join.
    """

    def __init__(self, folder: Path) -> None:
        """Args:
        folder: where the file is; made when it is not there.

        Raises:
            DependencyDown: the folder cannot be written or does not hold such a store.
        """
        self.folder = Path(folder)
        self._opened_by = os.getpid()
        self._held = _opened(self.folder)
        self._layouts: dict[tuple[str, int], _Layout] = {}

    def write(self, view: str, keys: Sequence[str], frame: pd.DataFrame) -> int:
        """Put rows in place of older ones.

        Args:
            view: the view's name.
            keys: the join-key columns, in the order in which `read` gives them.
            frame: the key columns (text), event_time and known_at (with zone); every other column is a value.

        Returns:
            Number of rows really written; 0 when the store held all of it, or newer.

        Raises:
            InputInvalid: a missing key or time, a value that is no finite number or NaN, or no such column.
            TimeInvalid: times without a zone.
        """
        return self.write_views({view: (keys, frame)})[view]

    def write_views(
        self, views: Mapping[str, tuple[Sequence[str], pd.DataFrame]], marks: Mapping[str, datetime] | None = None
    ) -> dict[str, int]:
        """Rows of several views and their marks in one transaction: all of it, or after a crash none.

        Args:
            views: name -> (key columns, rows), as in `write`.
            marks: name -> a moment to remember with the view, read back by `mark`.

        Returns:
            Rows really written a view.
        """
        encoded = {view: _encode(view, keys, frame) for view, (keys, frame) in views.items()}
        try:
            with self._environment.begin(write=True) as transaction:
                written = {view: _put(transaction, view, rows) for view, rows in encoded.items()}
                for view, moment in (marks or {}).items():
                    transaction.put(_MARK + view.encode(), _MOMENT.pack((utc(moment) - EPOCH) // MICROSECOND))
        except lmdb.MapFullError:
            raise DependencyDown(f"online store {self.folder}", f"more than {MAP_BYTES >> 30} GiB in it") from None
        return written

    def mark(self, view: str) -> datetime | None:
        """The moment last remembered with a view, in UTC, or None."""
        with self._environment.begin() as transaction:
            found = transaction.get(_MARK + view.encode())
        return EPOCH + timedelta(microseconds=_MOMENT.unpack(found)[0]) if found else None

    def read(
        self, view: str, columns: tuple[str, ...], key: tuple[str, ...], as_of: datetime, ttl: timedelta
    ) -> ViewRead:
        """The newest row of one key.

        Args:
            view: the view's name.
            columns: the values wanted, in this order.
            key: the parts of the key, in the order of `write`.
            as_of: the moment of the decision, with a zone.
            ttl: a row older than this is stale; zero: never.

        Returns:
            Status `present`; `stale` with the values still there; or `missing` with all values None, also when the row
            happened or became known after `as_of`.
        """
        return self.read_many((Ask(view, columns, key, ttl),), as_of)[0]

    def read_many(self, asks: Iterable[Ask], as_of: datetime) -> list[ViewRead]:
        """Answers to several questions from one consistent state of the store, in their order."""
        moment = (utc(as_of, "as_of") - EPOCH) // MICROSECOND
        with self._environment.begin() as transaction:
            return [self._answer(transaction, ask, moment) for ask in asks]

    def newest(
        self, view: str, columns: tuple[str, ...], key: tuple[str, ...]
    ) -> tuple[datetime, datetime, dict[str, float | None]] | None:
        """Event time, known-at and values of the row of a key, however old or new it is; None without one."""
        with self._environment.begin() as transaction:
            record = transaction.get(_address(view, key))
            if record is None:
                return None
            event, known, layout = _HEADER.unpack_from(record)
            values = self._layout(transaction, view, layout).pick(columns, record)
        return EPOCH + timedelta(microseconds=event), EPOCH + timedelta(microseconds=known), values

    def forget(self, view: str) -> int:
        """Take away all rows of a view and its mark; returns the number of rows."""
        prefix, gone = view.encode() + b"\0", 0
        with self._environment.begin(write=True) as transaction:
            cursor = transaction.cursor()
            there = cursor.set_range(prefix)
            while there and cursor.key().startswith(prefix):
                there = cursor.delete()
                gone += 1
            transaction.delete(_MARK + view.encode())
        return gone

    def close(self) -> None:
        """Let go of the file; it is closed when nobody else in this process uses it."""
        _let_go(self.folder, self._held)

    @property
    def _environment(self) -> Any:
        """The open file; opened again in a process that was forked from the one that opened it."""
        if self._opened_by != os.getpid():
            self._opened_by, self._held = os.getpid(), _opened(self.folder)
        return self._held

    def _answer(self, transaction: Any, ask: Ask, moment: int) -> ViewRead:
        record = None if None in ask.key else transaction.get(_address(ask.view, ask.key))
        if record is not None:
            event, known, layout = _HEADER.unpack_from(record)
            if event <= moment and known <= moment:
                values = self._layout(transaction, ask.view, layout).pick(ask.columns, record)
                age = moment - event
                stale = ask.ttl and age > ask.ttl // MICROSECOND
                return ViewRead.model_construct(
                    view=ask.view,
                    values=values,
                    event_time=EPOCH + timedelta(microseconds=event),
                    age_s=age / 1e6,
                    status="stale" if stale else "present",
                )
        values = dict.fromkeys(ask.columns)
        return ViewRead.model_construct(view=ask.view, values=values, event_time=None, age_s=None, status="missing")

    def _layout(self, transaction: Any, view: str, number: int) -> _Layout:
        found = self._layouts.get((view, number))
        if found is None:
            names = transaction.get(_LAYOUT + view.encode() + b"\0" + number.to_bytes(8, "little"))
            columns = tuple(names.decode().split("\n")) if names else ()
            found = self._layouts[view, number] = _Layout(columns, struct.Struct(f"<{len(columns)}d"))
        return found


def _address(view: str, key: Iterable[str]) -> bytes:
    """Bytes under which a row is kept: view and parts divided by NUL, a digest when that is too long for LMDB."""
    parts = (view, *key)
    address = "\0".join(parts).encode()
    if address.count(b"\0") != len(parts) - 1:
        raise InputInvalid(f"key of view {view}", "text without NUL", repr(parts[1:]))
    if len(address) > 500:
        return view.encode() + b"\0" + _LONG + blake2b(address, digest_size=32).digest()
    return address


def _encode(view: str, keys: Sequence[str], frame: pd.DataFrame) -> _Rows:
    for needed in (*keys, *_TIMES):
        if needed not in frame.columns:
            raise InputInvalid(f"rows of view {view}", f"a column {needed!r}", f"columns {', '.join(frame.columns)}")
    columns = tuple(str(name) for name in frame.columns if name not in (*keys, *_TIMES))
    event, known = (microseconds(frame[name], name) for name in _TIMES)
    if (event == NEVER).any() or (known == NEVER).any():
        raise InputInvalid(f"rows of view {view}", "event_time and known_at in every row", "a row without")
    values = _numbers(view, frame, columns)
    layout = blake2b("\n".join(columns).encode(), digest_size=8).digest()
    shape = [("event", "<i8"), ("known", "<i8"), ("layout", "<u8"), ("values", "<f8", (len(columns),))]
    packed = np.zeros(len(frame), np.dtype(shape))
    packed["event"], packed["known"], packed["values"] = event, known, values
    packed["layout"] = int.from_bytes(layout, "little")
    data, size = packed.tobytes(), packed.dtype.itemsize
    order = np.lexsort((known, event)).tolist()
    addresses = _addresses(view, [frame[name].tolist() for name in keys])
    best = {addresses[row]: row for row in order}
    events, knowns = event.tolist(), known.tolist()
    ends = [(address, row, row * size) for address, row in sorted(best.items())]
    return _Rows(layout, columns, [(key, events[row], knowns[row], data[at : at + size]) for key, row, at in ends])


def _addresses(view: str, parts: list[list[Any]]) -> list[bytes]:
    try:
        return [_address(view, key) for key in zip(*parts, strict=True)]
    except TypeError:
        raise InputInvalid(f"rows of view {view}", "text in every join key", "a missing or other value") from None


def _numbers(view: str, frame: pd.DataFrame, columns: tuple[str, ...]) -> npt.NDArray[np.float64]:
    try:
        values = frame[list(columns)].to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise InputInvalid(f"rows of view {view}", "numbers in every value column", "something else") from None
    if np.isinf(values).any():
        name = columns[int(np.flatnonzero(np.isinf(values).any(axis=0))[0])]
        raise InputInvalid(f"rows of view {view}", f"finite numbers or NaN in {name!r}", "infinity")
    return values


def _put(transaction: Any, view: str, rows: _Rows) -> int:
    """Write the rows that are newer than what is there; returns how many."""
    if rows.records:
        transaction.put(_LAYOUT + view.encode() + b"\0" + rows.layout, "\n".join(rows.columns).encode())
    written = 0
    for address, event, known, record in rows.records:
        there = transaction.get(address)
        if there is not None:
            old_event, old_known, _ = _HEADER.unpack_from(there)
            if (old_event, old_known) > (event, known) or there == record:
                continue
        transaction.put(address, record)
        written += 1
    return written


@dataclass
class _Held:
    """One open environment of a process, the file it is on, and how many stores use it."""

    environment: Any
    file: tuple[int, int]
    users: int


# LMDB must not be opened twice in one process, so stores on the same folder share one environment, by process id.
_open: dict[tuple[int, str], _Held] = {}
_guard = threading.Lock()


def _file_of(folder: Path) -> tuple[int, int] | None:
    """Device and inode of the store's file, None when it is not there: a folder deleted and made anew is another."""
    try:
        found = (folder / "data.mdb").stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _opened(folder: Path) -> Any:
    pid, place = os.getpid(), os.path.realpath(folder)
    with _guard:
        for owner, path in [key for key in _open if key[0] != pid]:
            # inherited by a fork: not to be used here, and in the way of opening our own
            _open.pop((owner, path)).environment.close()
        held = _open.get((pid, place))
        if held is None or held.file != _file_of(folder):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                environment = lmdb.open(
                    str(folder), map_size=MAP_BYTES, metasync=False, max_readers=1024, max_spare_txns=16
                )
            except (lmdb.Error, OSError) as error:
                raise DependencyDown(f"online store {folder}", str(error)) from None
            environment.reader_check()
            held = _open[pid, place] = _Held(environment, _file_of(folder) or (0, 0), 0)
        held.users += 1
        return held.environment


def _let_go(folder: Path, environment: Any) -> None:
    place = (os.getpid(), os.path.realpath(folder))
    with _guard:
        held = _open.get(place)
        if held is None or held.environment is not environment:
            return
        held.users -= 1
        if held.users == 0:
            environment.close()
            del _open[place]
