"""How rows look in the embedded store: bytes of keys and records, and the layout that says which column is where."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from contracts.errors import InputInvalid
from features.online_rows import NUMBER_TAG, Key, Part, Rows, best_rows, number_of, refused_key

HEADER = struct.Struct("<qqQ")
_LENGTH = struct.Struct("<I")
_NUMBER = struct.Struct("<d")
_LONG = b"\xff"
_LONGEST = 500
# bytes that never occur in UTF-8, so that 5 and "5" are different keys
_WHOLE, _RAW = b"\xf8", b"\xf9"
_ENCODED = "\t"


@dataclass(frozen=True)
class Layout:
    """Columns of one record shape: numbers first, eight bytes each, then encoded values with their lengths."""

    numbers: tuple[str, ...]
    encoded: tuple[str, ...]
    values: struct.Struct

    @classmethod
    def told(cls, text: str) -> Layout:
        """The layout that a text says: a name a line, those of encoded values with a tab in front."""
        names = text.split("\n") if text else []
        numbers = tuple(name for name in names if not name.startswith(_ENCODED))
        encoded = tuple(name[1:] for name in names if name.startswith(_ENCODED))
        return cls(numbers, encoded, struct.Struct(f"<{len(numbers)}d"))

    def pick(self, columns: tuple[str, ...], record: bytes) -> dict[str, float | None]:
        """Numbers of a record, None where unknown.

        Raises:
            InputInvalid: a column that holds no numbers.
        """
        values = self.values.unpack_from(record, HEADER.size)
        if columns == self.numbers:
            return {name: None if value != value else value for name, value in zip(columns, values, strict=True)}
        have: dict[str, float | None] = dict(zip(self.numbers, values, strict=True))
        raw = self.raw(record) if self.encoded else {}
        have |= {name: number_of(raw[name], name) for name in columns if name in raw}
        return {name: None if (value := have.get(name)) is None or value != value else value for name in columns}

    def raw(self, record: bytes) -> dict[str, bytes]:
        """The encoded values of a record, those of numbers among them."""
        at, found = HEADER.size, {}
        for name in self.numbers:
            value = record[at : at + _NUMBER.size]
            number = _NUMBER.unpack(value)[0]
            found[name] = NUMBER_TAG + value if number == number else b""
            at += _NUMBER.size
        for name in self.encoded:
            size = _LENGTH.unpack_from(record, at)[0]
            at += _LENGTH.size
            found[name] = bytes(record[at : at + size])
            at += size
        return found


@dataclass(frozen=True)
class Records:
    """Rows of one write as they are kept: the best row of each key, in order of key bytes."""

    layout: bytes
    text: str
    given: int
    records: list[tuple[bytes, int, int, bytes]]


def packed_dtype(columns: int) -> np.dtype[Any]:
    """A record of numbers only."""
    return np.dtype([("event", "<i8"), ("known", "<i8"), ("layout", "<u8"), ("values", "<f8", (columns,))])


def address_of(view: str, key: Iterable[Part]) -> bytes:
    """Bytes under which a row is kept: view and parts divided by NUL, a digest when that is too long for LMDB."""
    parts = tuple(key)
    address = b"\0".join((view.encode(), *(_bytes(view, part) for part in parts)))
    if address.count(b"\0") != len(parts):
        raise InputInvalid(f"key of view {view}", "text without NUL", repr(parts))
    if len(address) > _LONGEST:
        return view.encode() + b"\0" + _LONG + blake2b(address, digest_size=32).digest()
    return address


def _bytes(view: str, part: Any) -> bytes:
    if isinstance(part, str):
        return part.encode()
    if isinstance(part, bytes):
        return _RAW + part.hex().encode()
    if isinstance(part, int) and not isinstance(part, bool):
        return _WHOLE + str(part).encode()
    raise refused_key(view, part)


def addresses_of(view: str, keys: Sequence[Key | None]) -> list[Any]:
    """The address of each key; None stays None."""
    try:
        texts = ["\0".join((view, *key)) for key in keys]  # type: ignore[misc]
    except TypeError:
        return [None if key is None else address_of(view, key) for key in keys]
    plain = [text.encode() for text in texts]
    parts = len(keys[0] or ()) if keys else 0
    if "".join(texts).count("\0") != parts * len(keys) or max(map(len, plain), default=0) > _LONGEST:
        return [None if key is None else address_of(view, key) for key in keys]
    return plain


def records_of(view: str, rows: Rows) -> Records:
    """Rows as they are kept.

    Raises:
        InputInvalid: a key that cannot be kept.
    """
    text = "\n".join((*rows.columns, *(_ENCODED + name for name in rows.encoded)))
    layout = blake2b(text.encode(), digest_size=8).digest()
    packed = np.zeros(len(rows.event), packed_dtype(len(rows.columns)))
    packed["event"], packed["known"], packed["values"] = rows.event, rows.known, rows.numbers
    # one NaN only, so that equal rows have equal bytes
    packed["values"][np.isnan(rows.numbers)] = np.nan
    packed["layout"] = int.from_bytes(layout, "little")
    data, size = packed.tobytes(), packed.dtype.itemsize
    best = sorted(best_rows(rows, addresses_of(view, rows.keys)).items())
    events, knowns = rows.event.tolist(), rows.known.tolist()
    records = [(key, events[row], knowns[row], data[row * size : (row + 1) * size]) for key, row in best]
    if rows.encoded:
        tails = [_tail([values[row] for values in rows.encoded.values()]) for _, row in best]
        records = [(*record[:3], record[3] + tail) for record, tail in zip(records, tails, strict=True)]
    return Records(layout, text, len(rows.event), records)


def _tail(values: Sequence[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(value)) + value for value in values)
