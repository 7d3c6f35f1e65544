"""Feast's answer to an online read, made column by column: the bytes of its message at once, not a message a value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from features.asof import MICROSECOND
from features.online_rows import NUMBER_TAG, Block

PRESENT, NOT_FOUND, OUTSIDE_MAX_AGE = 1, 3, 4
Bytes = npt.NDArray[np.uint8]
_VALUE, _STATUSES, _STAMP, _RESULT, _METADATA, _NAMES = b"\x0a", b"\x12", b"\x1a", b"\x12", b"\x0a", b"\x0a"
_WIDE = 11  # bytes of a number: field and length, tag, eight bytes
_SECOND = 1_000_000


def statuses(block: Block, moment: int, ttl: timedelta | None) -> Bytes:
    """Feast's status of each row at a moment (microseconds), by the rule of `online_rows.status_of`."""
    found = np.full(len(block.event), PRESENT, np.uint8)
    if ttl:
        found[block.event < moment - ttl // MICROSECOND] = OUTSIDE_MAX_AGE
    found[(block.event > moment) | (block.known > moment)] = NOT_FOUND
    return found


def results(block: Block, status: Bytes) -> bytes:
    """The `results` of a GetOnlineFeaturesResponse for the columns of one view, in order.

    A value that is missing or past its ttl is null, with its status; a row past its ttl keeps its event time.

    Args:
        block: the rows, one a row of the answer.
        status: of each row, see `statuses`.
    """
    shared = _field(_STATUSES, status.tobytes()) + _stamps(block, status)
    present = status == PRESENT
    if block.numbers is not None:
        contents: Iterable[bytes] = _packed_numbers(block.numbers, present)
    else:
        contents = (_packed_values(values, present.tolist()) for values in block.encoded)
    return b"".join([_RESULT + _varint(len(content) + len(shared)) + content + shared for content in contents])


def given(values: Sequence[bytes]) -> bytes:
    """A `results` entry for values that came with the request, encoded: present, without event times."""
    content = b"".join([_value_of(len(value)) + value for value in values])
    statuses_and_stamps = _field(_STATUSES, b"\x01" * len(values)) + (_STAMP + b"\0") * len(values)
    return _field(_RESULT, content + statuses_and_stamps)


@lru_cache(maxsize=1024)
def _value_of(size: int) -> bytes:
    return _VALUE + _varint(size)


@lru_cache(maxsize=256)
def named(names: tuple[str, ...]) -> bytes:
    """The `metadata` of a GetOnlineFeaturesResponse: names of its results, in order."""
    return _field(_METADATA, _field(_NAMES, b"".join(_field(_NAMES, name.encode()) for name in names)))


def text_values(texts: Sequence[str]) -> list[bytes]:
    """Texts as encoded values."""
    return [_text_of(len(data)) + data for data in [text.encode() for text in texts]]


@lru_cache(maxsize=1024)
def _text_of(size: int) -> bytes:
    return b"\x12" + _varint(size)


def whole_value(number: int) -> bytes:
    """A whole number of 64 bits as an encoded value."""
    return b"\x20" + _varint(number)


def _packed_numbers(numbers: npt.NDArray[np.float64], present: Bytes) -> list[bytes]:
    """The repeated Value of each row of a (columns, rows) array; what is NaN or not present is an empty Value."""
    count, rows = numbers.shape
    cells = np.empty((count, rows, _WIDE), np.uint8)
    cells[..., 0], cells[..., 1], cells[..., 2] = _VALUE[0], _WIDE - 2, NUMBER_TAG[0]
    cells[..., 3:] = np.ascontiguousarray(numbers).view(np.uint8).reshape(count, rows, 8)
    there = (numbers == numbers) & present
    if there.all():
        data, size = cells.tobytes(), rows * _WIDE
        return [data[at : at + size] for at in range(0, count * size, size)]
    cells[..., 1] *= there
    keep = np.empty(cells.shape, bool)
    keep[..., :2], keep[..., 2:] = True, there[..., None]
    data = cells[keep].tobytes()
    ends = np.cumsum(2 * rows + (_WIDE - 2) * there.sum(axis=1)).tolist()
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _packed_values(values: Sequence[bytes], present: Sequence[bool]) -> bytes:
    return b"".join(
        [
            _VALUE + _varint(len(value)) + value if there else b"\x0a\0"
            for value, there in zip(values, present, strict=True)
        ]
    )


def _stamps(block: Block, status: Bytes) -> bytes:
    events, said_of = block.event.tolist(), status.tolist()
    if len(set(events)) == 1 and NOT_FOUND not in said_of:
        return _field(_STAMP, stamp_of(events[0])) * len(events)
    found, last, text = [], None, b""
    for event, said in zip(events, said_of, strict=True):
        if said == NOT_FOUND:
            found.append(_STAMP + b"\0")
            continue
        if event != last:
            last, text = event, _field(_STAMP, stamp_of(event))
        found.append(text)
    return b"".join(found)


def stamp_of(microseconds: int) -> bytes:
    """The bytes of a protobuf Timestamp; nanoseconds are never negative."""
    seconds, rest = divmod(microseconds, _SECOND)
    found = b"\x08" + _varint(seconds) if seconds else b""
    return found + b"\x10" + _varint(rest * 1000) if rest else found


def microseconds_of(stamp: bytes) -> int:
    """Microseconds of a protobuf Timestamp, rounded down."""
    values, at = {0x08: 0, 0x10: 0}, 0
    while at < len(stamp):
        tag, whole, shift = stamp[at], 0, 0
        at += 1
        while True:
            byte = stamp[at]
            whole |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not byte & 0x80:
                break
        values[tag] = whole - (1 << 64) if whole >> 63 else whole
    return values[0x08] * _SECOND + values[0x10] // 1000


def _varint(value: int) -> bytes:
    if 0 <= value < 0x80:
        return _SMALL[value]
    value, found = value & (1 << 64) - 1, bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


_SMALL = tuple(bytes([value]) for value in range(0x80))
