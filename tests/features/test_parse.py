"""Parsing of source columns: every cell becomes a value, a missing value, or a refusal with its words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from contracts.events import EventField, FieldType
from contracts.mapping import Column
from features.parse import Parsed, parse_column


def parse(cells: list[Any], type_: FieldType, **spec: Any) -> Parsed:
    rows = pa.table({"cell": pa.array(cells), "other": pa.array(["2020-01-02"] * len(cells))})
    column = Column.model_validate({"from": "cell"} | spec)
    return parse_column(rows, column, EventField("field", type_, required=False))


def test_numbers_in_text() -> None:
    """Plain and scientific notation are numbers; words, hexadecimals, thousands marks and infinities are not."""
    parsed = parse([" 12 ", "-1.5", "1e3", ".5", "", "NA", "twelve", "0x10", "1,234", "inf", "1_0"], "number")
    assert parsed.values.to_pylist() == [12.0, -1.5, 1000.0, 0.5, *[None] * 7]
    assert parsed.bad.tolist() == [False] * 6 + [True] * 5
    assert parsed.reason("quantity", 6) == "quantity: wanted a number, got 'twelve' [logicalType]"


def test_decimal_commas_and_scale() -> None:
    """With a decimal comma 1,5 is one and a half and 1.5 is refused; scale multiplies."""
    parsed = parse(["1,5", "2", "1.5"], "number", decimal=",", scale=10)
    assert parsed.values.to_pylist() == [15.0, 20.0, None]
    assert parsed.reason("x", 2) == "x: wanted a number with a decimal comma, got '1.5' [logicalType]"


def test_whole_numbers() -> None:
    """Whole numbers may be written as 3.0; 3.5 and words are refused."""
    parsed = parse(["3", "3.0", "3.5", "x"], "integer")
    assert parsed.values.to_pylist() == [3, 3, None, None]
    assert parsed.bad.tolist() == [False, False, True, True]


def test_float_ids_become_text_without_point() -> None:
    """An id column that a reader made floating-point gives 17850, not 17850.0; NaN is missing."""
    assert parse([17850.0, float("nan"), 1.25], "text").values.to_pylist() == ["17850", None, "1.25"]


def test_formats_are_tried_in_order_and_words_are_refused() -> None:
    """Each cell takes the first format that fits; a format without time of day means the day's start in UTC."""
    parsed = parse(["2-Jun-06", "11/13/06", "Date Not Captured"], "time", format=["%d-%b-%y", "%m/%d/%y"])
    days = [datetime(2006, 6, 2, tzinfo=UTC), datetime(2006, 11, 13, tzinfo=UTC), None]
    assert parsed.values.to_pylist() == days
    assert parsed.reason("known_at", 2) == (
        "known_at: wanted a time like %d-%b-%y or %m/%d/%y, got 'Date Not Captured' [logicalType]"
    )


def test_iso_times_need_a_zone() -> None:
    """Offsets and Z are honoured, a bare day is its start in UTC, a time of day without zone is refused."""
    cells = ["2026-01-31T02:00:00+02:00", "2026-01-31T00:00:00Z", "2026-01-31", "2026-01-31 10:00", "soon"]
    parsed = parse(cells, "time")
    assert parsed.values.to_pylist() == [datetime(2026, 1, 31, tzinfo=UTC)] * 3 + [None, None]
    assert parsed.bad.tolist() == [False, False, False, True, True]


def test_local_times_that_do_not_exist_once_are_refused() -> None:
    """In the mapping's zone the hour that spring skips and the one that autumn has twice are refused."""
    cells = ["2026-03-29 01:30", "2026-10-25 01:30", "2026-07-01 12:00"]
    parsed = parse(cells, "time", zone="Europe/London")
    assert parsed.values.to_pylist() == [None, None, datetime(2026, 7, 1, 11, tzinfo=UTC)]
    typed = parse([datetime.fromisoformat(cell) for cell in cells], "time", zone="Europe/London")
    assert typed.values.equals(parsed.values)


def test_naive_timestamps_without_zone_are_refused_unless_days() -> None:
    """A naive timestamp column is taken without a zone only when all of it are whole days."""
    assert parse([datetime(2026, 1, 1)], "time").values.to_pylist() == [datetime(2026, 1, 1, tzinfo=UTC)]  # noqa: DTZ001
    assert parse([datetime(2026, 1, 1, 5)], "time").bad.tolist() == [True]  # noqa: DTZ001


def test_plus_and_minus_move_times() -> None:
    """plus and minus are added after parsing."""
    assert parse(["2026-01-31"], "time", plus="1d").values.to_pylist() == [datetime(2026, 2, 1, tzinfo=UTC)]
    assert parse(["2026-01-31"], "time", minus="12h").values.to_pylist() == [datetime(2026, 1, 30, 12, tzinfo=UTC)]


def test_a_fallback_serves_missing_and_unreadable_cells() -> None:
    """Where the first column gives nothing or does not parse, the fallback's value is taken and nothing is refused."""
    spec = {"format": "%m/%d/%y", "fallback": {"from": "other", "minus": "1d"}}
    parsed = parse(["1/5/20", "N/A - From RDC", None], "time", **spec)
    assert [value.day for value in parsed.values.to_pylist()] == [5, 1, 1]
    assert not parsed.bad.any()


def test_a_fallback_that_has_nothing_leaves_the_first_reason() -> None:
    """A cell that does not parse, with a fallback that does not either, is refused in its own words."""
    parsed = parse(["x", ""], "number", fallback={"from": "other"})
    assert parsed.bad.tolist() == [True, True]
    assert parsed.reason("n", 0) == "n: wanted a number, got 'x' [logicalType]"
    assert parsed.reason("n", 1) == "n: wanted a number, got '2020-01-02' [logicalType]"


def test_maps_replace_and_strict_maps_refuse() -> None:
    """A map replaces texts; a strict one refuses what it does not know, in words that list what it knows."""
    assert parse(["A", "B"], "text", map={"A": "air"}).values.to_pylist() == ["air", "B"]
    strict = parse(["A", "B", None], "text", map={"A": "air"}, strict_map=True)
    assert strict.bad.tolist() == [False, True, False]
    assert strict.reason("mode", 1) == "mode: wanted one of A, got 'B' [enum]"


def test_booleans() -> None:
    """The usual words are read; others are refused, unless the mapping names its own words for true."""
    assert parse(["Yes", "0", "maybe", ""], "boolean").values.to_pylist() == [True, False, None, None]
    assert parse(["Yes", "0", "maybe", ""], "boolean").bad.tolist() == [False, False, True, False]
    assert parse(["Late", "On time", ""], "boolean", true=["late"]).values.to_pylist() == [True, False, None]


@pytest.mark.parametrize("type_", ["text", "number", "integer", "boolean", "time"])
def test_an_empty_or_all_null_column_parses_to_nothing(type_: FieldType) -> None:
    """Columns without rows or without values give missing values and refuse nothing."""
    for cells in ([], [None, None]):
        parsed = parse(cells, type_)
        assert parsed.values.to_pylist() == cells
        assert not parsed.bad.any()
