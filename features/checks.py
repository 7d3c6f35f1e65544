"""Row checks of a frame against its event contract: what fails is set apart with a reason, nothing is dropped.

A reason names the field, what was wanted, what came, and the contract's rule in brackets:
`quantity: wanted at least 0, got -2 [minimum]`. Checks of whole deliveries, and those that only flag, are in
`features.odcs_checks`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from contracts.errors import InputInvalid, nearest
from contracts.events import EventField, QualityRule, event_contract
from contracts.times import utc
from features.frames import DTYPES, pc

AHEAD = timedelta(days=1)
EARLIEST, LATEST = np.datetime64("1970-01-01", "us"), np.datetime64("2200-01-01", "us")
LINE = "source_line"
_CONTROL = r"[\x00-\x1f\x7f]"
_TIME_WANTED = "a time with a zone, like 2026-01-31T00:00:00Z"


@dataclass(frozen=True)
class Checked:
    """`good`: canonical rows that passed. `bad`: the others' values as text, with `reason`; `rule`: per bad row, the
    first rule that it broke, without the value (what a receipt counts); `broken`: contract rule (`quantity.minimum`) ->
    rows that break it."""

    good: pd.DataFrame
    bad: pd.DataFrame
    rule: tuple[str, ...]
    broken: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """One rule of one field and the rows that break it. `id`: the rule's name in the contract; `rows`: boolean mask
    over the frame's rows."""

    field: str
    id: str
    wanted: str
    rows: np.ndarray

    @property
    def rule(self) -> str:
        """The rule in words, without a value."""
        return f"{self.field}: wanted {self.wanted}"


def check(kind: str, frame: pd.DataFrame, *, now: datetime | None = None) -> Checked:
    """Split `frame` into canonical rows and refused rows; their numbers add up to the frame's.

    Checked: columns, types, missing values, ranges, lengths, choices, patterns, finite numbers, control characters,
    times with zone between 1970 and 2200, and event_time at most a day after known_at (a clock may be off so much).

    Args:
        kind: an event kind.
        frame: any frame whose columns are fields of that kind; absent optional fields count as missing. A further
            column `source_line`, the row's line in its file, goes into the reasons.
        now: when given, known_at may be at most a day after it: nobody knows tomorrow's events.

    Raises:
        UnknownName: no such kind.
        InputInvalid: a column that the contract does not have; names the nearest.
    """
    contract = event_contract(kind)
    for column in frame.columns:
        if column not in contract.names and column != LINE:
            close = nearest(str(column), contract.names)
            hint = f"did you mean {close!r}?" if close else ""
            wanted = f"columns of {kind}: {', '.join(contract.names)}"
            raise InputInvalid(f"events of kind {kind}", wanted, f"column {column!r}", hint=hint)
    frame = frame.reset_index(drop=True)
    columns: dict[str, Any] = {}
    faults: list[Fault] = []
    for item in contract.fields:
        given = frame[item.name] if item.name in frame else pd.Series([None] * len(frame), dtype=object)
        columns[item.name], found = check_field(item, given, contract.rules_of("notLike", item.name))
        faults += found
    faults += _sequence_faults(columns, now)
    typed = pd.DataFrame(columns, copy=False)
    failed = np.zeros(len(frame), dtype=bool)
    for fault in faults:
        failed |= fault.rows
    if not failed.any():
        return Checked(typed, text_frame(kind, frame.iloc[:0], []), ())
    reasons, rules = explain(faults, frame, np.flatnonzero(failed))
    good = typed[~failed].reset_index(drop=True)
    broken = {f"{fault.field}.{fault.id}": int(fault.rows.sum()) for fault in faults}
    return Checked(good, text_frame(kind, frame[failed], reasons), tuple(rules), broken)


def check_field(
    field: EventField, given: pd.Series[Any], unlike: tuple[QualityRule, ...] = ()
) -> tuple[pd.Series[Any], list[Fault]]:
    """One field's values in canonical dtype (missing where they do not fit), and the rules that they break.

    Args:
        field: the field.
        given: its values.
        unlike: rules whose `pattern` (RE2) no text may match.
    """
    values, wrong = _TYPED[field.type](given)
    faults = []
    if wrong is not None and wrong.any():
        faults.append(Fault(field.name, "logicalType", _TYPE_WORDS[field.type], wrong))
    gone = values.isna().to_numpy()
    if field.type == "text":
        text_faults, blank = _text_faults(field, values, unlike)
        faults += text_faults
        gone = gone | blank
    elif field.type in ("number", "integer"):
        faults += _range_faults(field, values)
    elif field.type == "time":
        stamps = values.to_numpy(dtype="datetime64[us]")
        outside = (stamps < EARLIEST) | (stamps >= LATEST)
        if outside.any():
            faults.append(Fault(field.name, "range", "a time between 1970 and 2200", outside))
    if field.required:
        missing = gone if wrong is None else gone & ~wrong
        if missing.any():
            faults.append(Fault(field.name, "required", "a value", missing))
    return values, faults


def explain(faults: list[Fault], frame: pd.DataFrame, rows: np.ndarray) -> tuple[list[str], list[str]]:
    """For each row number in `rows`: the reason (all broken rules with the values) and the first broken rule."""
    reasons: dict[int, list[str]] = {int(row): [] for row in rows}
    rules: dict[int, str] = {}
    for fault in faults:
        given = frame[fault.field].to_numpy(dtype=object) if fault.field in frame else None
        for row in np.flatnonzero(fault.rows).tolist():
            value = shown(None if given is None else given[row])
            reasons[row].append(f"{fault.rule}, got {value} [{fault.id}]")
            rules.setdefault(row, fault.rule)
    return ["; ".join(reasons[int(row)]) for row in rows], [rules[int(row)] for row in rows]


def text_frame(kind: str, frame: pd.DataFrame, reasons: list[str]) -> pd.DataFrame:
    """A quarantine frame: `reason` and every field of the kind with what stood there, as text (None where nothing).

    Where `frame` has the rows' lines in their file (`source_line`), the reasons end with them.
    """
    if LINE in frame:
        reasons = with_lines(reasons, frame[LINE].tolist())
    columns: dict[str, Any] = {"reason": np.array(reasons, dtype=object)}
    for name in event_contract(kind).names:
        if name in frame:
            columns[name] = np.array([as_text(value) for value in frame[name].to_numpy(dtype=object)], dtype=object)
        else:
            columns[name] = np.full(len(frame), None, dtype=object)
    return pd.DataFrame(columns)


def with_lines(reasons: list[str], lines: list[int]) -> list[str]:
    """Reasons that end with the row's line in its file; a line of 0 is not known."""
    pairs = zip(reasons, lines, strict=True)
    return [f"{reason}; line {line}" if line else reason for reason, line in pairs]


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


def _text_faults(
    field: EventField, values: pd.Series[Any], unlike: tuple[QualityRule, ...]
) -> tuple[list[Fault], np.ndarray]:
    """Faults of a text column, and which texts are blank."""
    faults: list[Fault] = []
    texts = pa.array(values, type=pa.string(), from_pandas=True)

    def rows(found: Any) -> np.ndarray:
        return np.asarray(pc.fill_null(found, False).to_numpy(zero_copy_only=False), dtype=bool)

    def add(rule: str, wanted: str, found: np.ndarray) -> None:
        if found.any():
            faults.append(Fault(field.name, rule, wanted, found))

    blank = rows(pc.equal(pc.binary_length(pc.utf8_trim_whitespace(texts)), 0))
    add("characters", "text without control characters", rows(pc.match_substring_regex(texts, _CONTROL)))
    if field.max_length is not None:
        long = rows(pc.greater(pc.utf8_length(texts), field.max_length))
        add("maxLength", f"at most {field.max_length} characters", long)
    if field.choices:
        known = pc.is_in(texts, value_set=pa.array(field.choices))
        add("enum", f"one of {', '.join(field.choices)}", rows(pc.and_(pc.is_valid(texts), pc.invert(known))) & ~blank)
    for rule in unlike:
        add(rule.id, str(rule.options["wanted"]), rows(pc.match_substring_regex(texts, rule.options["pattern"])))
    if field.name == "target_date":
        days = pd.to_datetime(values.where(~blank), format="%Y-%m-%d", errors="coerce", exact=True)
        shaped = rows(pc.match_substring_regex(texts, r"^\d{4}-\d{2}-\d{2}$"))
        add("day", "a day like 2026-01-31", rows(texts.is_valid()) & ~blank & (days.isna().to_numpy() | ~shaped))
    return faults, blank


def _range_faults(field: EventField, values: pd.Series[Any]) -> list[Fault]:
    numbers = values.to_numpy(dtype="float64", na_value=np.nan)
    least, most = (None if limit is None else f"{limit:.12g}" for limit in (field.minimum, field.maximum))
    found = [
        ("logicalType", "a finite number", np.isinf(numbers)),
        ("minimum", f"at least {least}", _below(numbers, field.minimum)),
        ("maximum", f"at most {most}", _above(numbers, field.maximum)),
    ]
    return [Fault(field.name, rule, wanted, rows) for rule, wanted, rows in found if rows.any()]


def _below(numbers: np.ndarray, minimum: float | None) -> np.ndarray:
    none = np.zeros(len(numbers), dtype=bool)
    return none if minimum is None else np.isfinite(numbers) & (numbers < minimum)


def _above(numbers: np.ndarray, maximum: float | None) -> np.ndarray:
    none = np.zeros(len(numbers), dtype=bool)
    return none if maximum is None else np.isfinite(numbers) & (numbers > maximum)


def _sequence_faults(columns: dict[str, Any], now: datetime | None) -> list[Fault]:
    happened = columns["event_time"].to_numpy(dtype="datetime64[us]")
    known = columns["known_at"].to_numpy(dtype="datetime64[us]")
    early = happened > known + np.timedelta64(AHEAD)
    faults = [Fault("event_time", "order", "a time at most a day after known_at", early)]
    if now is not None:
        latest = (utc(now, "now") + AHEAD).replace(tzinfo=None)
        words = f"a time before {latest:%Y-%m-%dT%H:%MZ} (at most a day ahead of the clock)"
        faults.append(Fault("known_at", "future", words, known > np.datetime64(latest, "us")))
    return [fault for fault in faults if fault.rows.any()]


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
