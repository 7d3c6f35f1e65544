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


@dataclass(frozen=True)
class KeyCoder:
    """Codes of composite keys: one vocabulary a column, folded into one dense code.

    Args:
        names: key columns, in order.
        vocabularies: distinct values of each column.
        folds: for each column after the first, the sorted codes (code so far * size of the vocabulary + column's code)
            that occur; a place in it is the code so far. Being dense, no product of cardinalities can overflow.
    """

    names: tuple[str, ...]
    vocabularies: tuple[pa.Array, ...]
    folds: tuple[Int64, ...]

    @classmethod
    def learn(cls, keys: Keys) -> tuple[KeyCoder, Int64]:
        """A coder of all distinct keys in `keys`, and each row's code (-1 where a part of the key is missing)."""
        names = tuple(str(name) for name in _names(keys))
        vocabularies: list[pa.Array] = []
        folds: list[Int64] = []
        codes = np.zeros(len(keys), np.int64)
        for place, name in enumerate(names):
            coded = _column(keys, name).dictionary_encode()
            vocabularies.append(coded.dictionary)
            part = _filled(coded.indices)
            if place == 0:
                codes = part
                continue
            wide = np.where((codes < 0) | (part < 0), -1, codes * max(len(coded.dictionary), 1) + part)
            fold = np.unique(wide[wide >= 0])
            folds.append(fold)
            codes = np.where(wide < 0, -1, np.searchsorted(fold, wide))
        return cls(names, tuple(vocabularies), tuple(folds)), codes

    def codes(self, keys: Keys) -> Int64:
        """Code of each row's key; -1 where it was never seen or a part of it is missing.

        Raises:
            InputInvalid: a key column is missing, or of another type than what was learnt (text against numbers).
        """
        codes = np.zeros(len(keys), np.int64)
        for place, (name, vocabulary) in enumerate(zip(self.names, self.vocabularies, strict=True)):
            wanted = _alike(_column(keys, name), vocabulary.type, name)
            part = _filled(pc.index_in(wanted, value_set=vocabulary))  # pyright: ignore[reportAttributeAccessIssue]
            if place == 0:
                codes = part
                continue
            wide = np.where((codes < 0) | (part < 0), -1, codes * max(len(vocabulary), 1) + part)
            codes = _find(self.folds[place - 1], wide)
        return codes


@dataclass(frozen=True)
class AsofIndex:
    """Rows of one source, ready for "which row was the newest known one at this moment?".

    A row becomes usable at max(event_time, known_at). Rows are sorted by key and that moment, and a row is dropped when
    a row of its key with a later event_time was usable before it: it can never be the newest. What remains has
    event times that do not fall with the moment of becoming usable, so that one binary search finds the answer,
    however many corrections there are. Equal event times: the latest known_at wins, then the last row.

    `moments`: the distinct moments; `ordered`: code * len(moments) + place of the moment, ascending; `codes`,
    `event_us`, `positions`: key code, event time (microseconds since the epoch) and place in the source, same order.
    """

    coder: KeyCoder
    moments: Int64
    ordered: Int64
    codes: Int64
    event_us: Int64
    positions: Int64

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
        usable = np.flatnonzero((codes >= 0) & (event != NEVER) & (known != NEVER))
        codes, event, known = codes[usable], event[usable], known[usable]
        moments, place = np.unique(np.maximum(event, known), return_inverse=True)
        ordered = codes * max(len(moments), 1) + place
        order = _order(ordered, event, known)
        ordered, codes, event = ordered[order], codes[order], event[order]
        kept = np.flatnonzero(_newest_so_far(codes, event))
        return cls(coder, moments, ordered[kept], codes[kept], event[kept], usable[order[kept]])

    def lookup(self, keys: Keys, as_of: Any, ttl: timedelta | None = None) -> Int64:
        """Place in the source of the newest row known at each moment.

        Args:
            keys: the join keys of each question.
            as_of: moment of each question, with a zone.
            ttl: a row is usable while as_of - event_time <= ttl; None or zero: for ever.

        Returns:
            One place a question, in their order; -1 where there is no row.

        Raises:
            TimeInvalid: a moment without a zone, or missing.
            InputInvalid: a key column is missing or of another type than the source's, or the lengths differ.
        """
        codes = self.coder.codes(keys)
        moment = microseconds(as_of, "as_of")
        if len(moment) != len(codes):
            raise InputInvalid("as-of lookup", f"{len(codes)} moments, one a key", str(len(moment)))
        if (moment == NEVER).any():
            raise TimeInvalid("as_of", f"{int((moment == NEVER).sum())} rows without a time")
        if not len(self.ordered):
            return np.full(len(codes), -1, np.int64)
        place = np.searchsorted(self.moments, moment, side="right") - 1
        asked = np.where(codes < 0, -1, codes * len(self.moments) + place)
        found = np.searchsorted(self.ordered, asked, side="right") - 1
        safe = np.maximum(found, 0)
        good = (found >= 0) & (codes >= 0) & (place >= 0) & (self.codes[safe] == codes)
        if ttl:
            good &= moment - self.event_us[safe] <= ttl // MICROSECOND
        return np.where(good, self.positions[safe], -1)


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


def _order(ordered: Int64, event: Int64, known: Int64) -> Int64:
    """Order by `ordered`, then event, then known, then place; the last two sorts are done only where they matter."""
    order = np.argsort(ordered, kind="stable")
    tied = np.flatnonzero(ordered[order[1:]] == ordered[order[:-1]])
    if len(tied):
        before, after = order[tied], order[tied + 1]
        later = (event[after] > event[before]) | ((event[after] == event[before]) & (known[after] >= known[before]))
        if not later.all():
            return np.lexsort((known, event, ordered))
    return order


def _newest_so_far(codes: Int64, event: Int64) -> npt.NDArray[np.bool_]:
    """Whether each row's event time is the newest of its key up to its place (rows sorted by key)."""
    if not len(codes):
        return np.zeros(0, np.bool_)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    falls = event[1:] < event[:-1]
    falls[starts[1:] - 1] = False
    if not falls.any():
        return np.ones(len(codes), np.bool_)
    distinct, rank = np.unique(event, return_inverse=True)
    climbing = rank + np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(codes)))) * len(distinct)
    return climbing >= np.maximum.accumulate(climbing)


def _find(known: Int64, wanted: Int64) -> Int64:
    """Place of each wanted code among the ascending known ones, -1 where it is not there."""
    if not len(known):
        return np.full(len(wanted), -1, np.int64)
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[place] == wanted, place, -1)


def _names(keys: Keys) -> list[str]:
    return [str(name) for name in (keys.column_names if isinstance(keys, pa.Table) else keys.columns)]


def _column(keys: Keys, name: str) -> pa.Array:
    if name not in _names(keys):
        raise InputInvalid("as-of keys", f"a column {name!r}", f"columns {', '.join(_names(keys))}")
    column = keys[name]
    try:
        plain = pa.array(column, from_pandas=True) if isinstance(column, pd.Series) else column.combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise InputInvalid("as-of keys", f"one type in column {name!r}", "a mixture") from None
    if isinstance(plain, pa.ChunkedArray):
        plain = plain.combine_chunks()
    if pa.types.is_dictionary(plain.type):
        plain = plain.dictionary_decode()
    is_text = pa.types.is_string(plain.type) or pa.types.is_string_view(plain.type)
    return plain.cast(pa.large_string()) if is_text else plain


def _alike(column: pa.Array, wanted: pa.DataType, name: str) -> pa.Array:
    """`column` in the vocabulary's type; text never turns into numbers or back."""
    if column.type == wanted:
        return column
    both_whole = pa.types.is_integer(column.type) and pa.types.is_integer(wanted)
    if pa.types.is_null(column.type) or pa.types.is_null(wanted) or both_whole:
        return column.cast(wanted) if not pa.types.is_null(wanted) else pa.nulls(len(column))
    raise InputInvalid(f"join key {name!r}", f"{wanted} like the source's", str(column.type))


def _filled(column: Any, missing: int = -1) -> Int64:
    """An integer Arrow column as int64, with `missing` for nulls."""
    return np.asarray(pc.fill_null(column.cast(pa.int64()), missing).to_numpy(zero_copy_only=False), np.int64)
