"""The embedded online store: the newest row of every view and key, in one LMDB file that many processes may read."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pandas as pd

from contracts.decisions import ViewRead
from contracts.errors import DependencyDown
from features.online_records import HEADER, Layout, Records, address_of, addresses_of, packed_dtype, records_of
from features.online_rows import (
    MISSING,
    Ask,
    Block,
    Counts,
    Key,
    Mark,
    Newest,
    Rows,
    Views,
    answer,
    instant,
    mark_of,
    moment_of,
    nothing,
    packed_mark,
    rows_of,
)

MAP_BYTES = 8 << 30
_LAYOUT, _MARK = b"\xfe", b"\xfd"


class OnlineStore:
    """Newest rows by view and key in `folder`: any number of reading processes, one writer at a time (others wait).

    A row holds its event time, the time it became known, and its values. A row never replaces one with a later event
    time, nor one with the same event time that became known later, so the order of arrival does not matter. Equal in
    both: the row that came last stays, as in the offline join.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        """Args:
        folder: where the file is; made when it is not there.
        durable: a write is on the disk when it returns; False: the last one may be undone by a power failure.

        Raises:
            DependencyDown: the folder cannot be written or does not hold such a store.
        """
        self.folder = Path(folder)
        self._durable = durable
        self._opened_by = os.getpid()
        self._held = _opened(self.folder)
        self._layouts: dict[tuple[str, int], Layout] = {}

    def write(self, view: str, keys: Sequence[str], frame: pd.DataFrame) -> int:
        """Put rows in place of older ones.

        Args:
            view: the view's name.
            keys: the join-key columns, in the order in which `read` gives them.
            frame: the key columns (text or whole numbers), event_time and known_at (with zone); every other column is
                a number.

        Returns:
            Number of rows really written; 0 when the store held all of it, or newer.

        Raises:
            InputInvalid: a missing key or time, a value that is no finite number or NaN, or no such column.
            TimeInvalid: times without a zone.
        """
        return self.write_views({view: (keys, frame)})[view].written

    def write_views(self, views: Views, marks: Mapping[str, Mark] | None = None) -> dict[str, Counts]:
        """Rows of several views and their marks in one transaction: all of it, or after a crash none.

        Args:
            views: name -> (key columns, rows), as in `write`.
            marks: name -> what to remember with the view, read back by `mark`.

        Returns:
            What became of each view's rows.
        """
        return self._put({view: rows_of(view, keys, frame) for view, (keys, frame) in views.items()}, marks or {})

    def put(self, view: str, rows: Rows) -> Counts:
        """Put rows in place of older ones, encoded values among them; in one transaction.

        Raises:
            InputInvalid: a key that cannot be kept.
        """
        return self._put({view: rows}, {})[view]

    def mark(self, view: str) -> Mark | None:
        """What was last remembered with a view, or None."""
        with self._environment.begin() as transaction:
            found = transaction.get(_MARK + view.encode())
        return mark_of(found) if found else None

    def read(self, view: str, columns: tuple[str, ...], key: Key, as_of: datetime, ttl: timedelta) -> ViewRead:
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

        Raises:
            InputInvalid: one of the columns holds no numbers.
        """
        return self.read_many((Ask(view, columns, key, ttl),), as_of)[0]

    def read_many(self, asks: Iterable[Ask], as_of: datetime) -> list[ViewRead]:
        """Answers to several questions from one consistent state of the store, in their order."""
        moment = instant(as_of)
        with self._environment.begin() as transaction:
            return [self._answer(transaction, ask, moment) for ask in asks]

    def block(self, view: str, names: Sequence[str], keys: Sequence[Key | None], columns: Sequence[str]) -> Block:
        """The rows of many keys of one view from one consistent state, column by column.

        Args:
            view: the view's name.
            names: the join keys (their order is what counts here).
            keys: the keys; None for one that has no row.
            columns: the values wanted; one that a row does not have is unknown.
        """
        addresses, wanted = addresses_of(view, keys), tuple(columns)
        with self._environment.begin() as transaction:
            get = transaction.get
            found = [None if address is None else get(address) for address in addresses]
            records = [record for record in found if record is not None]
            shape = self._layout(transaction, view, HEADER.unpack_from(records[0])[2]) if records else None
            if shape is not None and not shape.encoded:
                block = _numbers(found, records, shape, wanted)
                if block is not None:
                    return block
            shapes = {record: self._layout(transaction, view, HEADER.unpack_from(record)[2]) for record in records}
        event, known = (np.full(len(found), MISSING, np.int64) for _ in range(2))
        encoded: list[list[bytes]] = [[b""] * len(found) for _ in wanted]
        for place, record in enumerate(found):
            if record is not None:
                event[place], known[place], _ = HEADER.unpack_from(record)
                kept = shapes[record].raw(record)
                for column, name in enumerate(wanted):
                    encoded[column][place] = kept.get(name, b"")
        return Block(event, known, None, encoded)

    def newest(self, view: str, columns: tuple[str, ...], key: Key) -> Newest | None:
        """Event time, known-at and values of the row of a key, however old or new it is; None without one."""
        with self._environment.begin() as transaction:
            record = transaction.get(address_of(view, key))
            if record is None:
                return None
            event, known, layout = HEADER.unpack_from(record)
            values = self._layout(transaction, view, layout).pick(columns, record)
        return Newest(moment_of(event), moment_of(known), values)

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

    def _put(self, views: Mapping[str, Rows], marks: Mapping[str, Mark]) -> dict[str, Counts]:
        encoded = {view: records_of(view, rows) for view, rows in views.items()}
        environment = self._environment
        try:
            with environment.begin(write=True) as transaction:
                counts = {view: _put(transaction, view, records) for view, records in encoded.items()}
                for view, mark in marks.items():
                    transaction.put(_MARK + view.encode(), packed_mark(mark))
            if self._durable:
                # the data was synced by the commit; this is for the page that makes it the newest
                environment.sync(True)
        except lmdb.MapFullError:
            raise DependencyDown(f"online store {self.folder}", f"more than {MAP_BYTES >> 30} GiB in it") from None
        except lmdb.Error as error:
            raise DependencyDown(f"online store {self.folder}", str(error)) from None
        return counts

    def _answer(self, transaction: Any, ask: Ask, moment: int) -> ViewRead:
        record = None if None in ask.key else transaction.get(address_of(ask.view, ask.key))
        if record is None:
            return nothing(ask)
        event, known, layout = HEADER.unpack_from(record)
        if event > moment or known > moment:
            return nothing(ask)
        return answer(ask, event, known, self._layout(transaction, ask.view, layout).pick(ask.columns, record), moment)

    def _layout(self, transaction: Any, view: str, number: int) -> Layout:
        found = self._layouts.get((view, number))
        if found is None:
            text = transaction.get(_LAYOUT + view.encode() + b"\0" + number.to_bytes(8, "little"))
            found = self._layouts[view, number] = Layout.told(text.decode() if text else "")
        return found


@lru_cache(maxsize=256)
def _places(have: tuple[str, ...], wanted: tuple[str, ...]) -> list[int]:
    return [have.index(name) for name in wanted]


def _numbers(found: list[bytes | None], records: list[bytes], shape: Layout, columns: tuple[str, ...]) -> Block | None:
    """The rows when all of them have the layout of the first, and its numbers are what is wanted; None otherwise."""
    dtype = packed_dtype(len(shape.numbers))
    data = b"".join(records)
    if len(data) != dtype.itemsize * len(records) or not set(columns) <= set(shape.numbers):
        return None
    packed = np.frombuffer(data, dtype)
    if len(records) > 1 and (packed["layout"] != packed["layout"][0]).any():
        return None
    values = packed["values"].T
    if columns != shape.numbers:
        values = values[_places(shape.numbers, columns)]
    if len(records) == len(found):
        return Block(packed["event"], packed["known"], values)
    there = [record is not None for record in found]
    event, known = (np.full(len(found), MISSING, np.int64) for _ in range(2))
    event[there], known[there] = packed["event"], packed["known"]
    numbers = np.full((len(columns), len(found)), np.nan)
    numbers[:, there] = values
    return Block(event, known, numbers)


def _put(transaction: Any, view: str, rows: Records) -> Counts:
    """Write the rows that are newer than what is there."""
    if rows.records:
        transaction.put(_LAYOUT + view.encode() + b"\0" + rows.layout, rows.text.encode())
    written = same = 0
    get, put, unpack = transaction.get, transaction.put, HEADER.unpack_from
    for address, event, known, record in rows.records:
        there = get(address)
        if there is not None:
            if there == record:
                same += 1
                continue
            old_event, old_known, _ = unpack(there)
            if (old_event, old_known) > (event, known):
                continue
        put(address, record)
        written += 1
    return Counts(written, rows.given - written - same, same)


@dataclass
class _Held:
    """One open environment of a process, the file it is on, and how many stores use it."""

    environment: Any
    file: tuple[int, int]
    users: int


# LMDB must not be opened twice in one process, so stores on the same folder share one environment.
_open: dict[str, _Held] = {}
_guard = threading.Lock()


def _forked() -> None:
    """In a child: what was inherited is not to be used here, and in the way of opening our own."""
    global _guard
    _guard = threading.Lock()
    for held in _open.values():
        held.environment.close()
    _open.clear()


os.register_at_fork(after_in_child=_forked)


def _file_of(folder: Path) -> tuple[int, int] | None:
    """Device and inode of the store's file, None when it is not there: a folder deleted and made anew is another."""
    try:
        found = (folder / "data.mdb").stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _opened(folder: Path) -> Any:
    place = os.path.realpath(folder)
    with _guard:
        held = _open.get(place)
        if held is None or held.file != _file_of(folder):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                # no idle reader slots: a child that closes what it inherited would take them from its parent
                environment = lmdb.open(
                    str(folder), map_size=MAP_BYTES, metasync=False, max_readers=1024, max_spare_txns=0
                )
            except (lmdb.Error, OSError) as error:
                raise DependencyDown(f"online store {folder}", str(error)) from None
            environment.reader_check()
            held = _open[place] = _Held(environment, _file_of(folder) or (0, 0), 0)
        held.users += 1
        return held.environment


def _let_go(folder: Path, environment: Any) -> None:
    place = os.path.realpath(folder)
    with _guard:
        held = _open.get(place)
        if held is None or held.environment is not environment:
            return
        held.users -= 1
        if held.users == 0:
            environment.close()
            del _open[place]
