"""The online store in Redis, for many servers: Feast's own data layout, behind a guard that runs inside Redis.

Feast keeps a hash a key, shared by all views with the same join keys: a field a feature, named by a hash of view and
feature, and the row's event time in `_ts:<view>`. Beside it we keep `_known:<view>`: when the row became known, the
layout of its columns, and the event time it belongs to, so that a row that Feast's own client wrote over it is told.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import mmh3
import numpy as np
import pandas as pd
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from contracts.decisions import ViewRead
from contracts.errors import ConfigInvalid, DependencyDown, UnknownName
from features.online_response import microseconds_of, stamp_of
from features.online_rows import (
    MISSING,
    Ask,
    Block,
    Counts,
    Int32,
    Key,
    Mark,
    Newest,
    Part,
    Rows,
    UnixTime,
    Views,
    answer,
    best_rows,
    encoded_numbers,
    instant,
    mark_of,
    moment_of,
    nothing,
    number_of,
    packed_mark,
    refused_key,
    rows_of,
)

TIMEOUT_S = 1.0
_BATCH = 500
_KNOWN = struct.Struct("<qqQ")
# One row: put unless a newer one is there. KEYS: the row's hash, the view's layouts. ARGV: field of the event time,
# field of known-at, event and known-at in microseconds, event time and known-at as they are kept, the layout,
# then fields and values. 1: written, 0: an older row, 2: there already.
_GUARD = """
local function micros(stamp)
  local found, at = {[8] = 0, [16] = 0}, 1
  while at <= #stamp do
    local tag, value, scale, read = stamp:byte(at), 0, 1, 0
    local flipped = 0
    repeat
      at = at + 1
      read = read + 1
      local byte = stamp:byte(at)
      value = value + (byte % 128) * scale
      if read < 10 then flipped = flipped + (127 - byte % 128) * scale end
      scale = scale * 128
    until byte < 128
    -- ten bytes are a negative number; counted from its complement it stays exact
    if read == 10 then value = -flipped - 1 end
    found[tag] = value
    at = at + 1
  end
  return found[8] * 1000000 + math.floor(found[16] / 1000)
end
local kept = redis.call('HMGET', KEYS[1], ARGV[1], ARGV[2])
local layout = ARGV[7]
if kept[1] then
  local event, known = micros(kept[1]), nil
  if kept[2] and #kept[2] == 24 and struct.unpack('<i8', kept[2]:sub(1, 8)) == event then
    known = struct.unpack('<i8', kept[2]:sub(9, 16))
  else
    known = event
  end
  local new_event, new_known = tonumber(ARGV[3]), tonumber(ARGV[4])
  if event > new_event or (event == new_event and known > new_known) then return 0 end
  local names, same = {}, kept[2] == ARGV[6]
  if same then
    for place = 8, #ARGV, 2 do names[#names + 1] = ARGV[place] end
    local values = redis.call('HMGET', KEYS[1], unpack(names))
    for place = 1, #names do
      if values[place] ~= ARGV[7 + 2 * place] then same = false break end
    end
    if same then return 2 end
  elseif kept[2] and #kept[2] == 24 and kept[2]:sub(17) ~= layout then
    -- columns that the row does not have any more must not stay beside the new ones
    local fields = redis.call('HGET', KEYS[2], kept[2]:sub(17))
    if fields then
      for place = 1, #fields, 4 do redis.call('HDEL', KEYS[1], fields:sub(place, place + 3)) end
    end
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[5], ARGV[2], ARGV[6], unpack(ARGV, 8))
return 1
"""


class RedisOnline:
    """Newest rows by view and key in Redis, by the guard of `online.OnlineStore`: any number of readers and writers.

    Each row is put by one script inside Redis, so that writers on many machines cannot undo each other. A server that
    does not answer within its timeouts is DependencyDown; a write that was cut off may have put some of its rows, each
    of them whole, and doing it again puts the others.
    """

    def __init__(self, url: str, project: str, keys: Mapping[str, Sequence[str]]) -> None:
        """Args:
        url: redis://, rediss:// or unix://; `?socket_timeout=2` sets how long a call may take (seconds, 1 by itself).
        project: Feast's project, a part of every key.
        keys: join keys of each view, in the order in which questions give them.

        Raises:
            ConfigInvalid: no such address.
        """
        self._project, self._names = project, {view: tuple(names) for view, names in keys.items()}
        self._where = f"online store {_shown(url)}"
        try:
            self._client = Redis.from_url(
                url,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise ConfigInvalid("online_url", "url", "redis://host:port/db", str(error)) from None
        self._script = self._client.register_script(_GUARD)

    def write(self, view: str, keys: Sequence[str], frame: pd.DataFrame) -> int:
        """Put rows in place of older ones; see `OnlineStore.write`."""
        return self.write_views({view: (keys, frame)})[view].written

    def write_views(self, views: Views, marks: Mapping[str, Mark] | None = None) -> dict[str, Counts]:
        """Rows of several views, then their marks: after a crash between them the rows are put once more, to no effect.

        Raises:
            InputInvalid, TimeInvalid: as in `OnlineStore.write`; nothing is written.
            DependencyDown: Redis does not answer.
        """
        found = {view: rows_of(view, keys, frame) for view, (keys, frame) in views.items()}
        counts = {view: self.put(view, rows) for view, rows in found.items()}
        if marks:
            with self._calls():
                packed = {view: packed_mark(mark) for view, mark in marks.items()}
                self._client.hset(self._own("marks"), mapping=packed)
        return counts

    def put(self, view: str, rows: Rows) -> Counts:
        """Put rows in place of older ones, encoded values among them; row by row.

        Raises:
            InputInvalid: a key that cannot be kept.
            DependencyDown: Redis does not answer; rows put so far stay.
        """
        self._names.setdefault(view, rows.names)
        addresses = [self._address(view, rows.names, key) for key in rows.keys]
        best = list(best_rows(rows, addresses).items())
        columns = (*rows.columns, *rows.encoded)
        fields = [_field(view, name) for name in columns]
        layout = struct.pack("<Q", mmh3.hash64(b"".join(fields), signed=False)[0])
        known_field, stamp_field, layouts = f"_known:{view}", f"_ts:{view}", self._own(f"layouts:{view}")
        tally = [0, 0, 0]
        with self._calls():
            self._client.hset(layouts, layout, b"".join(fields))  # type: ignore[arg-type]
            for start in range(0, len(best), _BATCH):
                some = best[start : start + _BATCH]
                places = [place for _, place in some]
                values = [encoded_numbers(rows.numbers[places, column]) for column in range(len(rows.columns))]
                values += [[encoded[place] for place in places] for encoded in rows.encoded.values()]
                pipeline = self._client.pipeline(transaction=False)
                for (address, place), row in zip(some, zip(*values, strict=True), strict=True):
                    event, known = int(rows.event[place]), int(rows.known[place])
                    kept = _KNOWN.pack(event, known, 0)[:16] + layout
                    flat = [part for pair in zip(fields, row, strict=True) for part in pair]
                    arguments = [stamp_field, known_field, event, known, stamp_of(event), kept, layout, *flat]
                    self._script(keys=[address, layouts], args=arguments, client=pipeline)
                for outcome in pipeline.execute():
                    tally[outcome] += 1
        return Counts(tally[1], len(rows.event) - tally[1] - tally[2], tally[2])

    def mark(self, view: str) -> Mark | None:
        """What was last remembered with a view, or None."""
        with self._calls():
            found: Any = self._client.hget(self._own("marks"), view)
        return mark_of(found) if found else None

    def read(self, view: str, columns: tuple[str, ...], key: Key, as_of: datetime, ttl: timedelta) -> ViewRead:
        """The newest row of one key; see `OnlineStore.read`."""
        return self.read_many((Ask(view, columns, key, ttl),), as_of)[0]

    def read_many(self, asks: Iterable[Ask], as_of: datetime) -> list[ViewRead]:
        """Answers to several questions from one consistent state of the store, in their order.

        Raises:
            UnknownName: a view whose join keys are not known.
            DependencyDown: Redis does not answer.
        """
        moment, asked = instant(as_of), list(asks)
        wanted = [
            None if None in ask.key else (self._address(ask.view, self._join_keys(ask.view), ask.key), ask)
            for ask in asked
        ]
        replies = iter(self._fetch([(address, ask.view, ask.columns) for address, ask in filter(None, wanted)]))
        found = []
        for ask, question in zip(asked, wanted, strict=True):
            row = None if question is None else _row(next(replies))
            if row is None or row[0] > moment or row[1] > moment:
                found.append(nothing(ask))
                continue
            values = {name: number_of(raw, name) for name, raw in zip(ask.columns, row[2], strict=True)}
            found.append(answer(ask, row[0], row[1], values, moment))
        return found

    def block(self, view: str, names: Sequence[str], keys: Sequence[Key | None], columns: Sequence[str]) -> Block:
        """The rows of many keys of one view from one consistent state, column by column; see `OnlineStore.block`."""
        self._names.setdefault(view, tuple(names))
        there = [place for place, key in enumerate(keys) if key is not None]
        wanted = [(self._address(view, names, keys[place] or ()), view, tuple(columns)) for place in there]
        event, known = (np.full(len(keys), MISSING, np.int64) for _ in range(2))
        raw: list[Sequence[bytes]] = [(b"",) * len(columns)] * len(keys)
        for place, reply in zip(there, self._fetch(wanted), strict=True):
            row = _row(reply)
            if row is not None:
                event[place], known[place], raw[place] = row
        return Block(event, known, None, list(zip(*raw, strict=True)) if raw else [()] * len(columns))

    def newest(self, view: str, columns: tuple[str, ...], key: Key) -> Newest | None:
        """Event time, known-at and values of the row of a key, however old or new it is; None without one."""
        row = _row(self._fetch([(self._address(view, self._join_keys(view), key), view, columns)])[0])
        if row is None:
            return None
        values = {name: number_of(raw, name) for name, raw in zip(columns, row[2], strict=True)}
        return Newest(moment_of(row[0]), moment_of(row[1]), values)

    def forget(self, view: str) -> int:
        """Take away all rows of a view and its mark; returns the number of rows. It looks at every key of the project
        with the view's join keys."""
        known, stamp, gone = f"_known:{view}", f"_ts:{view}", 0
        pattern = _escaped(_key_names(tuple(self._join_keys(view)))) + b"*" + _escaped(self._project.encode())
        with self._calls():
            layouts: Any = self._client.hvals(self._own(f"layouts:{view}"))
            fields = {text[at : at + 4] for text in layouts for at in range(0, len(text), 4)}
            addresses = list(self._client.scan_iter(pattern, count=1000))
            for start in range(0, len(addresses), _BATCH):
                pipeline = self._client.pipeline(transaction=False)
                for address in addresses[start : start + _BATCH]:
                    pipeline.hdel(address, stamp)
                    pipeline.hdel(address, known, *fields)
                gone += sum(pipeline.execute()[::2])
            self._client.hdel(self._own("marks"), view)
            self._client.delete(self._own(f"layouts:{view}"))
        return gone

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def _fetch(self, wanted: Sequence[tuple[bytes, str, tuple[str, ...]]]) -> list[list[Any]]:
        """Event time, known-at and values of each (address, view, columns), from one state."""
        if not wanted:
            return []
        with self._calls():
            pipeline = self._client.pipeline(transaction=len(wanted) > 1)
            for address, view, columns in wanted:
                pipeline.hmget(address, _fields(view, columns))  # type: ignore[arg-type]
            return pipeline.execute()

    def _join_keys(self, view: str) -> tuple[str, ...]:
        if view not in self._names:
            raise UnknownName("feature view", view, self._names)
        return self._names[view]

    def _address(self, view: str, names: Sequence[str], key: Sequence[Part]) -> bytes:
        parts = [part for _, part in sorted(zip(names, key, strict=True))]
        return _key_names(tuple(names)) + b"".join(_bytes(view, part) for part in parts) + self._project.encode()

    def _own(self, what: str) -> str:
        return f"seatrial:{self._project}:{what}"

    @contextmanager
    def _calls(self) -> Iterator[None]:
        try:
            yield
        except RedisError as error:
            raise DependencyDown(self._where, str(error) or type(error).__name__) from None


@lru_cache(maxsize=4096)
def _fields(view: str, columns: tuple[str, ...]) -> tuple[Any, ...]:
    return (f"_ts:{view}", f"_known:{view}", *(_field(view, name) for name in columns))


def _field(view: str, column: str) -> bytes:
    """Feast's name of a feature's field: murmur3 of view and feature, little endian."""
    return struct.pack("<I", mmh3.hash(f"{view}:{column}", signed=False))


@lru_cache(maxsize=1024)
def _key_names(names: tuple[str, ...]) -> bytes:
    """Begin of Feast's key, version 3: number of join keys and their names, sorted."""
    texts = [name.encode() for name in sorted(names)]
    return struct.pack("<I", len(texts)) + b"".join(struct.pack("<II", 2, len(text)) + text for text in texts)


def _bytes(view: str, part: Any) -> bytes:
    """A key's value with Feast's type number in front."""
    if isinstance(part, str):
        kind, data = 2, part.encode()
    elif isinstance(part, bytes):
        kind, data = 1, part
    elif isinstance(part, UnixTime):
        kind, data = 8, struct.pack("<q", part)
    elif isinstance(part, Int32):
        kind, data = 3, struct.pack("<i", part)
    elif isinstance(part, int) and not isinstance(part, bool):
        kind, data = 4, struct.pack("<q", part)
    else:
        raise refused_key(view, part)
    return struct.pack("<II", kind, len(data)) + data


def _row(reply: Sequence[Any]) -> tuple[int, int, list[bytes]] | None:
    """Event time and known-at in microseconds, and encoded values; a row of Feast's own is known when it happened."""
    stamp, kept, *values = reply
    if stamp is None:
        return None
    event = known = microseconds_of(stamp)
    if kept is not None and len(kept) == _KNOWN.size:
        belongs, learnt, _ = _KNOWN.unpack(kept)
        known = learnt if belongs == event else event
    return event, known, [value or b"" for value in values]


def _escaped(data: bytes) -> bytes:
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]\\^-" else bytes([byte]) for byte in data)


def _shown(url: str) -> str:
    """An address without its password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
