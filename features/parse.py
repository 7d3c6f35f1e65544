"""Parsing of one source column into one canonical field, cell by cell, with the reason where a cell does not parse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from contracts.events import EventField
from contracts.mapping import Column
from features.checks import shown
from features.frames import ARROW_TYPES, pc

_NUMBER = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"
_DAY = r"^\d{4}-\d{2}-\d{2}$"
_ZONED = r":.*(?:Z|[+-]\d{2}(?::?\d{2})?)$"
_FALSE = ("0", "false", "no", "n")
_TIME_OF_DAY = ("%H", "%I", "%M", "%S", "%p", "%s", "%X", "%c")
_ISO_WANTED = "a time with a zone, like 2026-01-31T00:00:00Z"


@dataclass(frozen=True)
class Parsed:
    """`values`: in the field's Arrow type, null where nothing stood or nothing parsed. `raw`: what stood there, as
    text. `bad`: boolean mask of cells that are there but do not parse; `wanted`: in words, what would have; `rule`:
    its name in the contract."""

    values: pa.Array
    raw: pa.Array
    bad: np.ndarray
    wanted: str
    rule: str = "logicalType"

    def reason(self, field: str, row: int) -> str:
        """Why the cell of `row` was refused."""
        return f"{field}: wanted {self.wanted}, got {shown(self.raw[row].as_py())} [{self.rule}]"


def parse_column(rows: pa.Table, spec: Column, field: EventField) -> Parsed:
    """One field of every row.

    A `fallback` is used for each row where this column gives nothing or does not parse; where the fallback has
    nothing either, a cell that did not parse stays refused with its own reason.

    Args:
        rows: the source's rows; text, numbers, booleans, dates or timestamps.
        spec: where the field comes from and how it is written; its column names are in `rows`.
        field: the canonical field.
    """
    first = _parse_one(rows, spec, field)
    if spec.fallback is None:
        return first
    second = parse_column(rows, spec.fallback, field)
    values = pc.coalesce(first.values, second.values)
    found = np.asarray(second.values.is_valid().to_numpy(zero_copy_only=False), dtype=bool)
    own, theirs = first.bad & ~found, second.bad & ~first.bad & first.values.is_null().to_numpy(zero_copy_only=False)
    raw = pc.if_else(pa.array(theirs), second.raw, first.raw) if theirs.any() else first.raw
    told = first if not theirs.any() or own.any() else second
    return Parsed(values, raw, own | theirs, told.wanted, told.rule)


def columns_of(spec: Column) -> tuple[str, ...]:
    """Source columns that a column spec names, its fallbacks' included."""
    own = (spec.source,) if spec.source is not None else (spec.join or ())
    return (*own, *(columns_of(spec.fallback) if spec.fallback is not None else ()))


def _parse_one(rows: pa.Table, spec: Column, field: EventField) -> Parsed:
    source = _source(rows, spec)
    raw = _text_of(source)
    if pa.types.is_string(source.type):
        source = pc.utf8_trim_whitespace(source)
        gone = pc.is_in(source, value_set=pa.array(spec.missing, pa.string()))
        source = pc.if_else(gone, pa.scalar(None, pa.string()), source)
    refused = np.zeros(len(source), dtype=bool)
    if spec.map is not None:
        source, refused = _mapped(source, spec)
    values, wanted = _PARSERS[field.type](source, spec)
    if field.type == "time":
        values = _shifted(values, spec)
    here = _mask(source.is_valid())
    bad = (here & _mask(values.is_null())) | refused
    if refused.any():
        return Parsed(values, raw, bad, "one of " + ", ".join(spec.map or ()), "enum")
    return Parsed(values, raw, bad, wanted)


def _source(rows: pa.Table, spec: Column) -> pa.Array:
    """The cells that a spec names, before any parsing; no dictionaries, no chunks, short strings."""
    if spec.source is not None:
        return _flat(rows.column(spec.source))
    if spec.join is not None:
        parts = [_text_of(_flat(rows.column(name))) for name in spec.join]
        return pc.binary_join_element_wise(*parts, spec.separator)
    return pa.repeat(pa.scalar(spec.value), rows.num_rows)


def _flat(column: pa.ChunkedArray) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_large_string(kind):
        kind = pa.string()
    if pa.types.is_decimal(kind):
        kind = pa.float64()
    if kind != column.type:
        column = column.cast(kind)
    flat = column.combine_chunks()
    if isinstance(flat, pa.ChunkedArray):
        flat = pa.concat_arrays(flat.chunks) if flat.num_chunks else pa.array([], kind)
    return pc.if_else(pc.is_nan(flat), pa.scalar(None, kind), flat) if pa.types.is_floating(kind) else flat


def _text_of(cells: pa.Array) -> pa.Array:
    """Cells as text: whole floating-point numbers without their .0, times in ISO 8601."""
    kind = cells.type
    if pa.types.is_string(kind):
        return cells
    if pa.types.is_floating(kind):
        whole = pc.and_(pc.equal(cells, pc.floor(cells)), pc.less(pc.abs(cells), 1e15))
        integers = pc.if_else(whole, cells, 0.0).cast(pa.int64()).cast(pa.string())
        return pc.if_else(whole, integers, cells.cast(pa.string()))
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        return pa.array([None if cell is None else str(cell) for cell in cells.to_pylist()], pa.string())
    return cells.cast(pa.string())


def _mapped(cells: pa.Array, spec: Column) -> tuple[pa.Array, np.ndarray]:
    """Texts replaced by the spec's map, and which texts a strict map does not know."""
    assert spec.map is not None
    texts = _text_of(cells)
    names = pa.array([str(name) for name in spec.map], pa.string())
    place = pc.index_in(texts, value_set=names)
    values = [None if value is None else str(value) for value in spec.map.values()]
    replaced = pc.take(pa.array(values, pa.string()), place)
    known = _mask(place.is_valid())
    out = pc.if_else(pa.array(known), replaced, texts)
    refused = ~known & _mask(texts.is_valid()) if spec.strict_map else np.zeros(len(texts), dtype=bool)
    return out, refused


def _as_text(cells: pa.Array, spec: Column) -> tuple[pa.Array, str]:
    return _text_of(cells), "text"


def _as_number(cells: pa.Array, spec: Column) -> tuple[pa.Array, str]:
    wanted = "a number" if spec.decimal == "." else "a number with a decimal comma"
    if pa.types.is_string(cells.type):
        if spec.decimal == ",":
            dotted = pc.match_substring(cells, ".")
            cells = pc.if_else(dotted, "", pc.replace_substring(cells, ",", "."))
        fits = pc.match_substring_regex(cells, _NUMBER)
        numbers = pc.if_else(fits, cells, pa.scalar(None, pa.string())).cast(pa.float64())
    elif pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type):
        numbers = cells.cast(pa.float64(), safe=False)
    else:
        numbers = pa.nulls(len(cells), pa.float64())
    return (numbers if spec.scale is None else pc.multiply(numbers, spec.scale)), wanted


def _as_integer(cells: pa.Array, spec: Column) -> tuple[pa.Array, str]:
    if pa.types.is_integer(cells.type) and spec.scale is None:
        fits = pc.less_equal(cells, 2**63 - 1)
        return pc.if_else(fits, cells, pa.scalar(None, cells.type)).cast(pa.int64()), "a whole number"
    numbers, _ = _as_number(cells, spec)
    whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), 2.0**53))
    return pc.if_else(whole, numbers, pa.scalar(None, pa.float64())).cast(pa.int64()), "a whole number"


def _as_boolean(cells: pa.Array, spec: Column) -> tuple[pa.Array, str]:
    """With texts of one's own for true, every other text means false; with the usual ones, so must be false's."""
    if pa.types.is_boolean(cells.type):
        return cells, "yes or no"
    texts = pc.utf8_lower(_text_of(cells))
    yes = pc.is_in(texts, value_set=pa.array([text.lower() for text in spec.true], pa.string()))
    if spec.true != Column.model_fields["true"].default:
        return pc.if_else(texts.is_valid(), yes, pa.scalar(None, pa.bool_())), "yes or no"
    known = pc.or_(yes, pc.is_in(texts, value_set=pa.array(_FALSE)))
    return pc.if_else(known, yes, pa.scalar(None, pa.bool_())), "yes or no, like 1 or 0, true or false"


def _as_time(cells: pa.Array, spec: Column) -> tuple[pa.Array, str]:
    kind = cells.type
    if pa.types.is_date(kind):
        return cells.cast(pa.timestamp("us")).cast(ARROW_TYPES["time"]), _ISO_WANTED
    if pa.types.is_timestamp(kind):
        return _typed_time(cells, spec)
    texts = _text_of(cells)
    unique = pc.dictionary_encode(texts)
    distinct = pd.Series(unique.dictionary.to_pandas(), dtype=object)
    formats = (spec.format,) if isinstance(spec.format, str) else spec.format
    times = _by_format(distinct, formats, spec.zone) if formats else _by_iso(distinct, spec.zone)
    wanted = f"a time like {' or '.join(formats)}" if formats else _ISO_WANTED
    return pc.take(_stamps(times), unique.indices), wanted


def _typed_time(cells: pa.Array, spec: Column) -> tuple[pa.Array, str]:
    """Timestamps: with a zone as they are; without one in the mapping's zone, or refused unless all are whole days."""
    if cells.type.tz is not None:
        return cells.cast(ARROW_TYPES["time"], safe=False), _ISO_WANTED
    naive = cells.cast(pa.timestamp("us"), safe=False)
    if spec.zone is not None:
        series = pd.Series(naive.to_pandas(date_as_object=False)).astype("datetime64[us]")
        return _stamps(_in_zone(series, spec.zone)), f"a time that exists once in {spec.zone}"
    days_only = pc.all(pc.equal(naive, pc.floor_temporal(naive, unit="day"))).as_py()
    if days_only is not False:
        return naive.cast(ARROW_TYPES["time"]), _ISO_WANTED
    return pa.nulls(len(cells), ARROW_TYPES["time"]), _ISO_WANTED


def _by_format(texts: pd.Series[Any], formats: tuple[str, ...], zone: str | None) -> pd.Series[Any]:
    """Times by strptime formats, tried in order; a format without time of day and zone means the day's start in UTC."""
    out = pd.Series(pd.NaT, index=texts.index, dtype="datetime64[us, UTC]")
    for form in formats:
        open_rows = out.isna() & texts.notna()
        if not open_rows.any():
            break
        zoned = "%z" in form
        times = pd.to_datetime(texts[open_rows], format=form, errors="coerce", exact=True, utc=zoned)
        if zoned:
            found = times
        elif zone is not None:
            found = _in_zone(times, zone)
        elif any(part in form for part in _TIME_OF_DAY):
            continue
        else:
            found = times.dt.tz_localize("UTC")
        out.loc[open_rows] = found.astype(out.dtype)
    return out


def _by_iso(texts: pd.Series[Any], zone: str | None) -> pd.Series[Any]:
    """ISO 8601 times; without a zone only when the mapping gives one, or when it is a bare day (its start in UTC)."""
    out = pd.Series(pd.NaT, index=texts.index, dtype="datetime64[us, UTC]")
    given = texts.fillna("")
    day = given.str.match(_DAY)
    zoned = given.str.contains(_ZONED)
    if zoned.any():
        times = pd.to_datetime(texts[zoned], format="ISO8601", errors="coerce", utc=True)
        out.loc[zoned] = times.astype(out.dtype)
    naive = ~zoned & texts.notna() if zone is not None else day
    if naive.any():
        times = pd.to_datetime(texts[naive], format="ISO8601", errors="coerce").astype("datetime64[us]")
        out.loc[naive] = (_in_zone(times, zone) if zone else times.dt.tz_localize("UTC")).astype(out.dtype)
    return out


def _in_zone(times: pd.Series[Any], zone: str) -> pd.Series[Any]:
    """Naive local times as UTC; a moment that the zone skips or has twice is not a time."""
    local: pd.Series[Any] = times.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    moved: pd.Series[Any] = local.dt.tz_convert("UTC")
    return moved


def _stamps(times: pd.Series[Any]) -> pa.Array:
    return pa.array(times.astype("datetime64[us, UTC]"), type=ARROW_TYPES["time"], from_pandas=True)


def _shifted(times: pa.Array, spec: Column) -> pa.Array:
    for delta, move in ((spec.plus, pc.add), (spec.minus, pc.subtract)):
        if delta is not None:
            times = move(times, pa.scalar(delta, pa.duration("us")))
    return times.cast(ARROW_TYPES["time"])


def _mask(found: pa.Array) -> np.ndarray:
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=bool)


_PARSERS = {
    "text": _as_text,
    "number": _as_number,
    "integer": _as_integer,
    "boolean": _as_boolean,
    "time": _as_time,
}
