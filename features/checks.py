"""Row checks of a frame against its event contract: what fails is set apart with a reason, nothing is dropped."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from contracts.errors import InputInvalid, nearest
from contracts.events import EventField, event_contract
from features.frames import DTYPES, pc

AHEAD = timedelta(days=1)
EARLIEST, LATEST = np.datetime64("1970-01-01", "us"), np.datetime64("2200-01-01", "us")
UNUSUAL = 10.0
UNUSUAL_MIN_ROWS = 8
_CONTROL = r"[\x00-\x1f\x7f]"
_TIME_WANTED = "a time with a zone, like 2026-01-31T00:00:00Z"


@dataclass(frozen=True)
class Checked:
    """`good`: canonical rows that passed. `bad`: the others' values as text, with `reason`; `rule`: per bad row, the
    first rule that it broke, without the value (what a receipt counts)."""

    good: pd.DataFrame
    bad: pd.DataFrame
    rule: tuple[str, ...]


@dataclass(frozen=True)
class Fault:
    """One rule of one field and the rows that break it. `rows`: boolean mask over the frame's rows."""

    field: str
    wanted: str
    rows: np.ndarray

    @property
    def rule(self) -> str:
        """The rule in words, without a value."""
        return f"{self.field}: wanted {self.wanted}"


def check(kind: str, frame: pd.DataFrame) -> Checked:
    """Split `frame` into canonical rows and refused rows; their numbers add up to the frame's.

    Checked: columns, types, missing values, ranges, lengths, choices, finite numbers, control characters, times with
    zone between 1970 and 2200, and event_time at most a day after known_at (a clock may be off by that much).

    Args:
        kind: an event kind.
        frame: any frame whose columns are fields of that kind; absent optional fields count as missing.

    Raises:
        UnknownName: no such kind.
        InputInvalid: a column that the contract does not have; names the nearest.
    """
    contract = event_contract(kind)
    for column in frame.columns:
        if column not in contract.names:
            close = nearest(str(column), contract.names)
            hint = f"did you mean {close!r}?" if close else ""
            wanted = f"columns of {kind}: {', '.join(contract.names)}"
            raise InputInvalid(f"events of kind {kind}", wanted, f"column {column!r}", hint=hint)
    frame = frame.reset_index(drop=True)
    columns: dict[str, Any] = {}
    faults: list[Fault] = []
    for field in contract.fields:
        given = frame[field.name] if field.name in frame else pd.Series([None] * len(frame), dtype=object)
        columns[field.name], found = check_field(field, given)
        faults += found
    faults += _sequence_faults(columns)
    typed = pd.DataFrame(columns, copy=False)
    failed = np.zeros(len(frame), dtype=bool)
    for fault in faults:
        failed |= fault.rows
    if not failed.any():
        return Checked(typed, text_frame(kind, frame.iloc[:0], []), ())
    reasons, rules = explain(faults, frame, np.flatnonzero(failed))
    good = typed[~failed].reset_index(drop=True)
    return Checked(good, text_frame(kind, frame[failed], reasons), tuple(rules))


def check_field(field: EventField, given: pd.Series[Any]) -> tuple[pd.Series[Any], list[Fault]]:
    """One field's values in canonical dtype (missing where they do not fit), and the rules that they break."""
    values, wrong = _TYPED[field.type](given)
    faults = []
    if wrong is not None and wrong.any():
        faults.append(Fault(field.name, _TYPE_WORDS[field.type], wrong))
    gone = values.isna().to_numpy()
    if field.type == "text":
        text_faults, blank = _text_faults(field, values)
        faults += text_faults
        gone = gone | blank
    elif field.type in ("number", "integer"):
        faults += _range_faults(field, values)
    elif field.type == "time":
        stamps = values.to_numpy(dtype="datetime64[us]")
        outside = (stamps < EARLIEST) | (stamps >= LATEST)
        if outside.any():
            faults.append(Fault(field.name, "a time between 1970 and 2200", outside))
    if field.required:
        missing = gone if wrong is None else gone & ~wrong
        if missing.any():
            faults.append(Fault(field.name, "a value", missing))
    return values, faults


def explain(faults: list[Fault], frame: pd.DataFrame, rows: np.ndarray) -> tuple[list[str], list[str]]:
    """For each row number in `rows`: the reason (all broken rules with the values) and the first broken rule."""
    reasons: dict[int, list[str]] = {int(row): [] for row in rows}
    rules: dict[int, str] = {}
    for fault in faults:
        given = frame[fault.field].to_numpy(dtype=object) if fault.field in frame else None
        for row in np.flatnonzero(fault.rows).tolist():
            value = shown(None if given is None else given[row])
            reasons[row].append(f"{fault.rule}, got {value}")
            rules.setdefault(row, fault.rule)
    return ["; ".join(reasons[int(row)]) for row in rows], [rules[int(row)] for row in rows]


def text_frame(kind: str, frame: pd.DataFrame, reasons: list[str]) -> pd.DataFrame:
    """A quarantine frame: `reason` and every field of the kind with what stood there, as text (None where nothing)."""
    columns: dict[str, Any] = {"reason": np.array(reasons, dtype=object)}
    for name in event_contract(kind).names:
        if name in frame:
            columns[name] = np.array([as_text(value) for value in frame[name].to_numpy(dtype=object)], dtype=object)
        else:
            columns[name] = np.full(len(frame), None, dtype=object)
    return pd.DataFrame(columns)


def as_text(value: Any) -> str | None:
    """A value as text that can be stored: None for a missing one, lone surrogates escaped."""
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shown(value: Any) -> str:
    """A value as it stands in a reason: quoted text, at most 80 characters, `nothing` for a missing one."""
    text = as_text(value)
    if text is None:
        return "nothing"
    return (ascii(text) if re.search(_CONTROL, text) else repr(text))[:80] if isinstance(value, str) else text[:80]


def flags(kind: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Business checks that keep the row: quantities of ten times or more what the series usually has.

    Args:
        kind: demand or order_line; other kinds have no business check.
        frame: canonical events, history included: usual is the median of the positive quantities of (sku, location).

    Returns:
        event_id, flag: one row a flagged event. Series with fewer than 8 positive quantities are not judged.
    """
    if kind not in ("demand", "order_line") or frame.empty:
        return pd.DataFrame({"event_id": pd.Series(dtype=object), "flag": pd.Series(dtype=object)})
    sold = frame.loc[frame["quantity"] > 0, ["event_id", "sku", "location", "quantity"]]
    series = sold.groupby(["sku", "location"], sort=False)["quantity"]
    usual, rows = series.transform("median"), series.transform("size")
    odd = sold[(rows >= UNUSUAL_MIN_ROWS) & (sold["quantity"] >= UNUSUAL * usual)]
    words = [
        f"quantity: {quantity:g} is {quantity / middle:.0f} times the usual {middle:g}"
        for quantity, middle in zip(odd["quantity"], usual[odd.index], strict=True)
    ]
    return pd.DataFrame({"event_id": odd["event_id"].to_numpy(), "flag": np.array(words, dtype=object)})


def _text_faults(field: EventField, values: pd.Series[Any]) -> tuple[list[Fault], np.ndarray]:
    """Faults of a text column, and which texts are blank."""
    faults: list[Fault] = []
    texts = pa.array(values, type=pa.string(), from_pandas=True)

    def rows(found: Any) -> np.ndarray:
        return np.asarray(pc.fill_null(found, False).to_numpy(zero_copy_only=False), dtype=bool)

    def add(wanted: str, found: np.ndarray) -> None:
        if found.any():
            faults.append(Fault(field.name, wanted, found))

    blank = rows(pc.equal(pc.binary_length(pc.utf8_trim_whitespace(texts)), 0))
    add("text without control characters", rows(pc.match_substring_regex(texts, _CONTROL)))
    if field.max_length is not None:
        add(f"at most {field.max_length} characters", rows(pc.greater(pc.utf8_length(texts), field.max_length)))
    if field.choices:
        known = pc.is_in(texts, value_set=pa.array(field.choices))
        add(f"one of {', '.join(field.choices)}", rows(pc.and_(pc.is_valid(texts), pc.invert(known))) & ~blank)
    if field.name == "target_date":
        days = pd.to_datetime(values.where(~blank), format="%Y-%m-%d", errors="coerce", exact=True)
        shaped = rows(pc.match_substring_regex(texts, r"^\d{4}-\d{2}-\d{2}$"))
        add("a day like 2026-01-31", rows(texts.is_valid()) & ~blank & (days.isna().to_numpy() | ~shaped))
    return faults, blank


def _range_faults(field: EventField, values: pd.Series[Any]) -> list[Fault]:
    numbers = values.to_numpy(dtype="float64", na_value=np.nan)
    found = [
        ("a finite number", np.isinf(numbers)),
        (f"at least {field.minimum:g}" if field.minimum is not None else "", _below(numbers, field.minimum)),
        (f"at most {field.maximum:.12g}" if field.maximum is not None else "", _above(numbers, field.maximum)),
    ]
    return [Fault(field.name, wanted, rows) for wanted, rows in found if rows.any()]


def _below(numbers: np.ndarray, minimum: float | None) -> np.ndarray:
    none = np.zeros(len(numbers), dtype=bool)
    return none if minimum is None else np.isfinite(numbers) & (numbers < minimum)


def _above(numbers: np.ndarray, maximum: float | None) -> np.ndarray:
    none = np.zeros(len(numbers), dtype=bool)
    return none if maximum is None else np.isfinite(numbers) & (numbers > maximum)


def _sequence_faults(columns: dict[str, Any]) -> list[Fault]:
    happened = columns["event_time"].to_numpy(dtype="datetime64[us]")
    known = columns["known_at"].to_numpy(dtype="datetime64[us]")
    early = happened > known + np.timedelta64(AHEAD)
    return [Fault("event_time", "a time at most a day after known_at", early)] if early.any() else []


def _each(
    given: pd.Series[Any], kind: str, fits: Callable[[Any], Any], dtype: str
) -> tuple[pd.Series[Any], np.ndarray]:
    """Value by value: `fits` gives the canonical value or raises ValueError, which marks the row as wrong."""
    values = given.to_numpy(dtype=object)
    out: list[Any] = [None] * len(values)
    wrong = np.zeros(len(values), dtype=bool)
    for row, value in enumerate(values):
        if as_text(value) is None:
            continue
        try:
            out[row] = fits(value)
        except (ValueError, OverflowError):
            wrong[row] = True
    return pd.Series(out, dtype=dtype), wrong


def _as_text(given: pd.Series[Any]) -> tuple[pd.Series[Any], np.ndarray | None]:
    def fits(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError
        value.encode("utf-8")
        return value

    if pd.api.types.infer_dtype(given, skipna=True) == "string":
        try:
            texts = pa.array(given, type=pa.string(), from_pandas=True)
        except UnicodeEncodeError:
            return _each(given, "text", fits, "object")
        return (given if not texts.null_count else pd.Series(texts.to_pandas(), dtype=object)), None
    return _each(given, "text", fits, "object")


def _as_number(given: pd.Series[Any]) -> tuple[pd.Series[Any], np.ndarray | None]:
    def fits(value: Any) -> float:
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, Decimal, np.number)):
            raise ValueError
        return float(value)

    if _plain_number(given):
        return given.astype("float64"), None
    return _each(given, "number", fits, "float64")


def _as_integer(given: pd.Series[Any]) -> tuple[pd.Series[Any], np.ndarray | None]:
    def fits(value: Any) -> int:
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
            raise ValueError
        if value != int(value) or not -(2**63) <= int(value) < 2**63:
            raise ValueError
        return int(value)

    if pd.api.types.is_signed_integer_dtype(given.dtype):
        return given.astype("Int64"), None
    return _each(given, "integer", fits, "Int64")


def _as_boolean(given: pd.Series[Any]) -> tuple[pd.Series[Any], np.ndarray | None]:
    def fits(value: Any) -> bool:
        if not isinstance(value, (bool, np.bool_)):
            raise ValueError
        return bool(value)

    if pd.api.types.is_bool_dtype(given.dtype):
        return given.astype("boolean"), None
    return _each(given, "boolean", fits, "boolean")


def _as_time(given: pd.Series[Any]) -> tuple[pd.Series[Any], np.ndarray | None]:
    def fits(value: Any) -> datetime:
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise ValueError
        return value.astimezone(UTC)

    if isinstance(given.dtype, pd.DatetimeTZDtype):
        return given.dt.tz_convert("UTC").astype(DTYPES["time"]), None
    return _each(given, "time", fits, DTYPES["time"])


def _plain_number(given: pd.Series[Any]) -> bool:
    numeric = pd.api.types.is_numeric_dtype(given.dtype) and not pd.api.types.is_bool_dtype(given.dtype)
    return bool(numeric and not pd.api.types.is_complex_dtype(given.dtype))


_TYPED = {"text": _as_text, "number": _as_number, "integer": _as_integer, "boolean": _as_boolean, "time": _as_time}
_TYPE_WORDS = {
    "text": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "time": _TIME_WANTED,
}
