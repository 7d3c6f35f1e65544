"""The point-in-time kernel against a reference that looks at every row."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contracts.errors import InputInvalid, TimeInvalid
from features.asof import AsofIndex

START = pd.Timestamp("2026-01-01", tz="UTC")
LETTERS = st.sampled_from(["a", "a", "a", "", "ab", None])
SECONDS = st.integers(0, 6)
SOURCE_ROW = st.tuples(LETTERS, LETTERS, st.none() | SECONDS, st.none() | SECONDS)
QUESTION = st.tuples(LETTERS, LETTERS, SECONDS)


def at(seconds: list[int | None]) -> pd.Series:
    """Times as many seconds after the start; None is missing."""
    offsets = pd.Series(pd.to_timedelta(pd.Series(seconds, dtype="float64"), unit="s"))
    return (START + offsets).astype("datetime64[us, UTC]")


def reference(rows, questions, ttl, cut):
    """Place of the newest usable row for each question, found by looking at every row."""
    found = []
    for key, key2, asked in questions:
        best, best_rank = -1, None
        for place, (k, k2, event, known) in enumerate(rows):
            known = known if cut else event
            if k is None or k2 is None or (k, k2) != (key, key2) or event is None or known is None:
                continue
            if event > asked or known > asked or (ttl and asked - event > ttl):
                continue
            rank = (event, known, place)
            if best_rank is None or rank > best_rank:
                best, best_rank = place, rank
        found.append(best)
    return found


@settings(max_examples=400, deadline=None)
@given(st.lists(SOURCE_ROW, max_size=25), st.lists(QUESTION, max_size=10), st.none() | st.integers(1, 4), st.booleans())
@example([("a", "b", 1, 1), ("a", "b", 1, 1)], [("a", "b", 1)], None, True)
@example([("a", "b", 5, 3), ("a", "b", 5, 2)], [("a", "b", 6)], None, True)
@example([("a", "b", 5, 5), ("a", "b", 1, 6)], [("a", "b", 6)], None, True)
@example([("a", "b", 1, 1)], [("a", "b", 3), ("a", "b", 4)], 2, True)
def test_the_kernel_agrees_with_looking_at_every_row(rows, questions, ttl, cut):
    """Ties, late rows, corrections, missing parts and the edge of the time to live all come out as by brute force."""
    source = pd.DataFrame([row[:2] for row in rows], columns=["k", "k2"], dtype=object)
    known = at([row[3] for row in rows]) if cut else None
    index = AsofIndex.build(source, at([row[2] for row in rows]), known)
    asked = pd.DataFrame([question[:2] for question in questions], columns=["k", "k2"], dtype=object)
    limit = timedelta(seconds=ttl) if ttl else None
    found = index.lookup(asked, at([question[2] for question in questions]), limit)
    assert found.tolist() == reference(rows, questions, ttl, cut)


def test_keys_are_told_apart_however_their_parts_join():
    """("1", "11") and ("11", "1") are two keys, and so are ("a b", "") and ("a", "b")."""
    keys = pd.DataFrame({"k": ["1", "11", "a b", "a"], "k2": ["11", "1", "", "b"]})
    index = AsofIndex.build(keys, at([0, 0, 0, 0]), None)
    assert index.lookup(keys, at([1, 1, 1, 1])).tolist() == [0, 1, 2, 3]


def test_many_key_columns_with_many_values_do_not_overflow():
    """Seven columns of a thousand values would overflow 64 bits as a plain product; every row finds itself."""
    rng = np.random.default_rng(7)
    keys = pd.DataFrame({f"k{i}": rng.permutation(1000).astype(str) for i in range(7)})
    index = AsofIndex.build(keys, at([0] * 1000), None)
    assert index.lookup(keys, at([1] * 1000)).tolist() == list(range(1000))


def test_a_correction_is_unseen_until_it_is_known():
    """The value restated at second 5 is not found at second 4, and is at second 5."""
    keys = pd.DataFrame({"k": ["a", "a"]})
    index = AsofIndex.build(keys, at([1, 1]), at([1, 5]))
    assert index.lookup(pd.DataFrame({"k": ["a", "a"]}), at([4, 5])).tolist() == [0, 1]


def test_foreign_zones_mean_the_same_moment():
    """Times in Berlin against a source in UTC are compared as moments."""
    index = AsofIndex.build(pd.DataFrame({"k": ["a"]}), at([0]), None)
    berlin = pd.Series([START - timedelta(seconds=1), START]).dt.tz_convert("Europe/Berlin")
    assert index.lookup(pd.DataFrame({"k": ["a", "a"]}), berlin).tolist() == [-1, 0]


def test_nanoseconds_never_open_a_door_to_the_future():
    """A row 300 ns after the question stays unseen although both lie in the same microsecond."""
    late = pd.Series([START + pd.Timedelta(500, "ns")])
    index = AsofIndex.build(pd.DataFrame({"k": ["a"]}), late, None)
    assert index.lookup(pd.DataFrame({"k": ["a"]}), pd.Series([START + pd.Timedelta(200, "ns")])).tolist() == [-1]


@pytest.mark.parametrize("place", ["event_time", "known_at", "as_of"])
def test_times_without_a_zone_are_refused(place):
    """A naive time is refused by name wherever it comes in."""
    naive, aware = pd.Series([pd.Timestamp("2026-01-01")]), at([0])
    times = {name: naive if name == place else aware for name in ("event_time", "known_at", "as_of")}
    keys = pd.DataFrame({"k": ["a"]})
    with pytest.raises(TimeInvalid, match=place):
        AsofIndex.build(keys, times["event_time"], times["known_at"]).lookup(keys, times["as_of"])


def test_a_missing_moment_is_refused():
    """A question without a moment has no answer and is refused, not answered with the newest row."""
    index = AsofIndex.build(pd.DataFrame({"k": ["a"]}), at([0]), None)
    with pytest.raises(TimeInvalid, match="1 rows without a time"):
        index.lookup(pd.DataFrame({"k": ["a", "a"]}), at([1, None]))


def test_numbers_do_not_match_text():
    """A numeric key against text keys is an error that names the column, not a silent miss."""
    index = AsofIndex.build(pd.DataFrame({"k": ["1"]}), at([0]), None)
    with pytest.raises(InputInvalid, match="join key 'k'"):
        index.lookup(pd.DataFrame({"k": [1]}), at([1]))
