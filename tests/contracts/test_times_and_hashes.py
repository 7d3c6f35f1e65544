"""Times are aware UTC; hashes are the same for the same value."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.canonical import canonical_json, content_hash
from contracts.errors import SeatrialError, TimeInvalid, UnknownName
from contracts.times import SetClock, iso, parse_duration, parse_time, utc, write_duration


def test_a_time_without_zone_is_refused() -> None:
    """Naive times are refused by name, as values and as texts."""
    with pytest.raises(TimeInvalid, match="as_of"):
        utc(datetime(2026, 1, 1), "as_of")  # noqa: DTZ001
    with pytest.raises(TimeInvalid):
        parse_time("2026-01-01T10:00:00")


def test_zones_become_utc() -> None:
    """A time in another zone is the same moment in UTC, written one way."""
    assert iso(datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == "2026-01-01T00:00:00.000000Z"


@given(st.integers(min_value=1, max_value=10**6))
def test_durations_round_trip(seconds: int) -> None:
    """What is written for a duration reads back as the same duration."""
    value = timedelta(seconds=seconds)
    assert parse_duration(write_duration(value)) == value


def test_a_set_clock_never_goes_back() -> None:
    """A clock for rehearsals goes forward only."""
    clock = SetClock(datetime(2026, 1, 2, tzinfo=UTC))
    clock.set(datetime(2026, 1, 3, tzinfo=UTC))
    with pytest.raises(TimeInvalid):
        clock.set(datetime(2026, 1, 2, tzinfo=UTC))


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.floats(allow_nan=False), st.integers(), st.none())))
def test_hash_does_not_depend_on_key_order(value: dict[str, object]) -> None:
    """The same mapping in another order has the same hash."""
    assert content_hash(value) == content_hash(dict(reversed(list(value.items()))))


def test_what_is_no_number_is_null_in_canonical_json() -> None:
    """NaN and infinities have no JSON and become null."""
    assert canonical_json([float("nan"), float("inf"), 0.1]) == "[null,null,0.1]"


def test_unknown_name_suggests_the_nearest() -> None:
    """A misspelt name comes with the one that was meant; every error knows its exit code."""
    error = UnknownName("model", "demnad", ["demand", "late_delivery"])
    assert "did you mean 'demand'?" in str(error)
    assert isinstance(error, SeatrialError)
    assert error.exit_code == 2
