"""The point-in-time kernel: for each (key, moment) the newest row that had happened and was known by then."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import InputInvalid, TimeInvalid

Int64 = npt.NDArray[np.int64]
Keys: TypeAlias = Any  # a pandas DataFrame or an Arrow table, one column a join key
NEVER = np.iinfo(np.int64).min
MICROSECOND = timedelta(microseconds=1)
_WIDEST = 1 << 62
_WORTH_SORTING = 10_000


@dataclass(frozen=True)
class KeyCoder:
    """Codes of composite keys: one vocabulary a column, folded into one dense code.

    Args:
        names: key columns, in order.
        vocabularies: distinct values of each column.
        folds: for each column after the first, the sorted codes (code so far * size of the vocabulary + column's code)
            that occur; a place in it is the code so far. Being dense, no product of cardinalities can overflow.
        size: number of distinct keys.
    """

    names: tuple[str, ...]
    vocabularies: tuple[pa.Array, ...]
    folds: tuple[Int64, ...]
    size: int

    @classmethod
    def learn(cls, keys: Keys) -> tuple[KeyCoder, Int64]:
        """A coder of all distinct keys in `keys`, and each row's code (-1 where a part of the key is missing)."""
        names = tuple(_names(keys))
        vocabularies: list[pa.Array] = []
        folds: list[Int64] = []
        codes, size = np.zeros(len(keys), np.int64), 1
        for place, name in enumerate(names):
            coded = encoded(keys, name)
            vocabularies.append(coded.dictionary)
            part = _filled(coded.indices)
            if place == 0:
                codes, size = part, len(coded.dictionary)
                continue
            wide = np.where((codes < 0) | (part < 0), -1, codes * max(len(coded.dictionary), 1) + part)
            fold, dense = np.unique(wide, return_inverse=True)
            missing = int(len(fold) > 0 and fold[0] < 0)
            folds.append(fold[missing:])
            codes, size = dense.astype(np.int64) - missing, len(fold) - missing
        return cls(names, tuple(vocabularies), tuple(folds), size), codes

    def codes(self, keys: Keys) -> Int64:
        """Code of each row's key; -1 where it was never seen or a part of it is missing.

        Raises:
            InputInvalid: a key column is missing, or of another type than what was learnt (text against numbers).
        """
        codes = np.zeros(len(keys), np.int64)
        for place, (name, vocabulary) in enumerate(zip(self.names, self.vocabularies, strict=True)):
            asked = encoded(keys, name)
            wanted = _alike(asked.dictionary, vocabulary.type, name)
            known = _filled(pc.index_in(wanted, value_set=vocabulary))  # pyright: ignore[reportAttributeAccessIssue]
            part = np.append(known, -1)[_filled(asked.indices)]  # a missing value's index is -1: the appended one
            if place == 0:
                codes = part
                continue
            wide = np.where((codes < 0) | (part < 0), -1, codes * max(len(vocabulary), 1) + part)
            codes = _find(self.folds[place - 1], wide)
        return codes


@dataclass(frozen=True)
class Timeline:
    """Moments as small whole numbers: microseconds since `first`, or the place among `moments` where that would not
    fit into 64 bits beside the key's code."""

    first: int
    size: int
    moments: Int64 | None = None

    @classmethod
    def over(cls, usable: Int64, event: Int64, keys: int) -> Timeline:
        """A timeline for rows with these event times and these moments of becoming usable, under `keys` keys."""
        if not len(usable):
            return cls(0, 1)
        first, last = int(event.min()), int(usable.max())
        if (last - first + 1) * max(keys, 1) < _WIDEST:
            return cls(first, last - first + 1)
        moments = np.unique(np.append(usable, event))
        return cls(first, len(moments), moments)

    def number(self, known: Int64) -> Int64:
        """Number of each moment that the timeline was made over."""
        return known - self.first if self.moments is None else np.searchsorted(self.moments, known)

    def place(self, moment: Int64) -> Int64:
        """Number of each moment, of the last one before it when it has none; -1 before all, the last after all."""
        if self.moments is None:
            return np.clip(moment, self.first - 1, self.first + self.size - 1) - self.first
        return np.searchsorted(self.moments, moment, side="right") - 1


@dataclass(frozen=True)
class AsofIndex:
    """Rows of one source, ready for "which row was the newest known one at this moment?".

    A row becomes usable at max(event_time, known_at). Rows are sorted by key and that moment, and a row is dropped when
    a row of its key with a later event_time was usable before it: it can never be the newest. What remains has
    event times that do not fall with the moment of becoming usable, so that one binary search finds the answer,
    however many corrections there are. Equal event times: the latest known_at wins, then the last row.

    `ordered`: code * timeline.size + place of the moment, ascending; `event_us`, `known_us`: times (microseconds since
    the epoch) in that order; `positions`: place in the source, or None when the source itself is kept in that order.
    """

    coder: KeyCoder
    timeline: Timeline
    ordered: Int64
    event_us: Int64
    known_us: Int64
    positions: Int64 | None = None

    @classmethod
    def build(cls, keys: Keys, event_time: Any, known_at: Any | None) -> AsofIndex:
        """Index a source.

        Args:
            keys: one column a join key; a row with a missing part is never found.
            event_time: times with a zone, one a row; a row without one is never found.
            known_at: times with a zone, one a row; a row without one is never found. None: every row was known when it
                happened.

        Raises:
            TimeInvalid: a time without a zone.
            InputInvalid: the columns differ in length.
        """
        coder, codes = KeyCoder.learn(keys)
        event = microseconds(event_time, "event_time", round_up=True)
        known = event if known_at is None else microseconds(known_at, "known_at", round_up=True)
        if not len(codes) == len(event) == len(known):
            raise InputInvalid("as-of source", f"{len(codes)} times, one a key", f"{len(event)} and {len(known)}")
        able = (codes >= 0) & (event != NEVER) & (known != NEVER)
        rows = None if able.all() else np.flatnonzero(able)
        if rows is not None:
            codes, event, known = codes[rows], event[rows], known[rows]
        usable = event if known is event else np.maximum(event, known)
        timeline = Timeline.over(usable, event, coder.size)
        ordered = codes * timeline.size + timeline.number(usable)
        order = _order(ordered, event, known)
        ordered, event_us = ordered[order], event[order]
        kept = _newest_so_far(codes[order], event_us, timeline)
        if kept is not None:
            ordered, event_us, order = ordered[kept], event_us[kept], order[kept]
        return cls(coder, timeline, ordered, event_us, known[order], order if rows is None else rows[order])

    def find(self, keys: Keys, moment: Int64, ttl: timedelta | None = None) -> Int64:
        """Place in the index's own order of the newest row known at each moment.

        Args:
            keys: the join keys of each question.
            moment: microseconds since the epoch, one a question.
            ttl: a row is usable while moment - event_time <= ttl; None or zero: for ever.

        Returns:
            One place a question, in their order; -1 where there is no row.
        """
        codes = self.coder.codes(keys)
        if not len(self.ordered):
            return np.full(len(codes), -1, np.int64)
        place = self.timeline.place(moment)
        start = codes * self.timeline.size
        found = _last_at_or_before(self.ordered, start + place)
        safe = np.maximum(found, 0)
        good = (found >= 0) & (codes >= 0) & (place >= 0) & (self.ordered[safe] >= start)
        if ttl:
            good &= moment - self.event_us[safe] <= ttl // MICROSECOND
        return np.where(good, safe, -1)

    def lookup(self, keys: Keys, as_of: Any, ttl: timedelta | None = None) -> Int64:
        """Place in the source of the newest row known at each moment; -1 where there is no row.

        Args:
            keys, ttl: as in `find`.
            as_of: moment of each question, with a zone.

        Raises:
            TimeInvalid: a moment without a zone, or missing.
            InputInvalid: a key column is missing or of another type than the source's, or the lengths differ.
        """
        moment = asked_moments(as_of, len(keys))
        found = self.find(keys, moment, ttl)
        if self.positions is None or not len(self.positions):
            return found
        return np.where(found >= 0, self.positions[found], -1)


def asked_moments(as_of: Any, rows: int) -> Int64:
    """The questions' moments in microseconds since the epoch.

    Raises:
        TimeInvalid: a moment without a zone, or missing.
        InputInvalid: not one a row.
    """
    moment = microseconds(as_of, "as_of")
    if len(moment) != rows:
        raise InputInvalid("as-of lookup", f"{rows} moments, one a key", str(len(moment)))
    if (moment == NEVER).any():
        raise TimeInvalid("as_of", f"{int((moment == NEVER).sum())} rows without a time")
    return moment


def microseconds(times: Any, what: str, *, round_up: bool = False) -> Int64:
    """Whole microseconds since the epoch, in UTC.

    Args:
        times: a series, index or Arrow column of times with a zone.
        what: the column's name, for the error.
        round_up: how to treat finer times: up (for the source's, never too early) or down (for the question's).

    Returns:
        int64; `NEVER` where the time is missing.

    Raises:
        TimeInvalid: the times have no zone, or are no times.
    """
    if isinstance(times, (pa.Array, pa.ChunkedArray)):
        if pa.types.is_null(times.type):
            return np.full(len(times), NEVER, np.int64)
        if not pa.types.is_timestamp(times.type) or times.type.tz is None:
            raise TimeInvalid(what, str(times.type))
        unit, plain = times.type.unit, _filled(times.cast(pa.int64()), NEVER)
    else:
        index = pd.DatetimeIndex(times) if isinstance(times, list) else pd.Index(times)
        if not isinstance(index, pd.DatetimeIndex) or index.tz is None:
            raise TimeInvalid(what, str(index.dtype))
        unit, plain = index.unit, index.tz_convert(None).to_numpy().view(np.int64)
    if unit == "us":
        return plain
    missing = plain == NEVER
    if unit == "ns":
        scaled = -(-plain // 1000) if round_up else plain // 1000
    else:
        scaled = plain * (1000 if unit == "ms" else 1_000_000)
    return np.where(missing, NEVER, scaled)


def encoded(keys: Keys, name: str) -> Any:
    """A key column as one Arrow dictionary array of distinct values.

    Raises:
        InputInvalid: no such column, or values of several types in it.
    """
    if name not in _names(keys):
        raise InputInvalid("as-of keys", f"a column {name!r}", f"columns {', '.join(_names(keys))}")
    column = keys[name]
    try:
        flat = pa.array(column, from_pandas=True) if isinstance(column, pd.Series) else column
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise InputInvalid("as-of keys", f"one type in column {name!r}", "a mixture") from None
    if isinstance(flat, pa.ChunkedArray):
        flat = flat.unify_dictionaries() if pa.types.is_dictionary(flat.type) else flat
        flat = flat.chunk(0) if flat.num_chunks == 1 else flat.combine_chunks()
    if not pa.types.is_dictionary(flat.type):
        flat = flat.dictionary_encode()
    values = flat.dictionary
    if pa.types.is_string(values.type) or pa.types.is_string_view(values.type):
        values = values.cast(pa.large_string())
    if values.null_count or len(values.unique()) != len(values):
        return values.take(flat.indices).dictionary_encode()
    return pa.DictionaryArray.from_arrays(flat.indices, values)


def _order(ordered: Int64, event: Int64, known: Int64) -> Int64:
    """Order by `ordered`, then event, then known, then place; only ties in the first are sorted by the others."""
    order = np.argsort(ordered)
    placed = ordered[order]
    same = placed[1:] == placed[:-1]
    if not same.any():
        return order
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    rows = order[tied]
    order[tied] = rows[np.lexsort((rows, known[rows], event[rows], placed[tied]))]
    return order


def _newest_so_far(codes: Int64, event: Int64, timeline: Timeline) -> Int64 | None:
    """Rows whose event time is the newest of its key up to their place (rows sorted by key); None: all of them."""
    falls = (event[1:] < event[:-1]) & (codes[1:] == codes[:-1])
    if not falls.any():
        return None
    climbing = codes * timeline.size + timeline.number(event)
    return np.flatnonzero(climbing >= np.maximum.accumulate(climbing))


def _last_at_or_before(ascending: Int64, asked: Int64) -> Int64:
    """Place of the last value <= each asked one, -1 before all; many are asked in order, which is kind to the cache."""
    if len(asked) < _WORTH_SORTING:
        return np.searchsorted(ascending, asked, side="right") - 1
    order = np.argsort(asked)
    found = np.empty(len(asked), np.int64)
    found[order] = np.searchsorted(ascending, asked[order], side="right") - 1
    return found


def _find(known: Int64, wanted: Int64) -> Int64:
    """Place of each wanted code among the ascending known ones, -1 where it is not there."""
    if not len(known):
        return np.full(len(wanted), -1, np.int64)
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[place] == wanted, place, -1)


def _names(keys: Keys) -> list[str]:
    return [str(name) for name in (keys.column_names if isinstance(keys, pa.Table) else keys.columns)]


def _alike(values: pa.Array, wanted: pa.DataType, name: str) -> pa.Array:
    """`values` in the vocabulary's type; text never turns into numbers or back."""
    if values.type == wanted:
        return values
    both_whole = pa.types.is_integer(values.type) and pa.types.is_integer(wanted)
    if pa.types.is_null(values.type) or pa.types.is_null(wanted) or both_whole:
        return values.cast(wanted) if not pa.types.is_null(wanted) else pa.nulls(len(values))
    raise InputInvalid(f"join key {name!r}", f"{wanted} like the source's", str(values.type))


def _filled(column: Any, missing: int = -1) -> Int64:
    """An integer Arrow column as int64, with `missing` for nulls."""
    whole = column if column.type == pa.int64() else column.cast(pa.int64())
    whole = pc.fill_null(whole, missing) if whole.null_count else whole
    return np.asarray(whole.to_numpy() if isinstance(whole, pa.ChunkedArray) else whole.to_numpy(zero_copy_only=False))
