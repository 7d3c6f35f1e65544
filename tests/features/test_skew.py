"""Training-serving skew, the comparison: what differs, by how much, and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from features.skew import Seen, Stored, compare, likely_cause

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TTL = timedelta(hours=36)


def frame(rate: list[float | None], carrier: list[str | None]) -> pd.DataFrame:
    moments = pd.DatetimeIndex([NOON + n * HOUR for n in range(len(rate))]).as_unit("us")
    columns = {"row_id": [f"d{n}" for n in range(len(rate))], "as_of": moments}
    return pd.DataFrame(columns | {"rate": np.array(rate, dtype=float), "carrier": carrier})


def test_the_same_to_the_last_bit_is_no_skew() -> None:
    """Equal and both-missing values do not differ; the next float does."""
    served = frame([0.1, None, 0.3], ["A", None, "C"])
    rate, carrier = compare(served, served.copy(), ["rate", "carrier"], pure=True)
    assert (rate.differing, carrier.differing, rate.share, rate.cause) == (0, 0, 0.0, "")
    beside = served.assign(rate=np.nextafter(served["rate"], 1))
    (rate,) = compare(served, beside, ["rate"], pure=True)
    assert (rate.differing, rate.rows) == (2, 3)


def test_share_largest_difference_and_causes_are_reported() -> None:
    """A lost value and two others: share, largest difference of numbers, commonest cause and newest examples."""
    served = frame([0.5, None, 0.9, 0.7], ["A", "B", "C", "D"])
    offline = frame([0.1, 0.2, 0.8, 0.7], ["A", "B", "C", "X"])

    def cause(row: int, _feature: str) -> tuple[str, str]:
        return ("missing online row", "not there") if row == 1 else ("ttl", "too old")

    (rate,) = compare(served, offline, ["rate"], pure=False, cause=cause)
    assert (rate.share, rate.largest, rate.cause) == (0.75, pytest.approx(0.4), "ttl")
    assert rate.causes == {"ttl": 2, "missing online row": 1}
    assert [(one.row_id, one.served, one.offline) for one in rate.examples[:2]] == [("d2", 0.9, 0.8), ("d1", None, 0.2)]
    (carrier,) = compare(served, offline, ["carrier"], pure=True)
    assert (carrier.differing, carrier.cause, carrier.largest) == (1, "pure fact differs", 0.0)


@pytest.mark.parametrize(
    ("seen", "stored", "wanted", "words"),
    [
        (Seen("present", NOON), None, "rebuilt gold row", "does not have any more"),
        (Seen("missing"), Stored(NOON, NOON), "missing online row", "materialise"),
        (Seen("present", NOON - 6 * HOUR), Stored(NOON, NOON), "materialisation lag", "6:00:00 older"),
        (Seen("stale", NOON - 60 * HOUR), Stored(NOON, NOON), "materialisation lag", "was not online yet"),
        (Seen("stale", NOON), Stored(NOON, NOON), "ttl", "1 day, 12:00:00"),
        (Seen("present", NOON), Stored(NOON, NOON), "rebuilt gold row", "other values"),
        (Seen("present", NOON), Stored(NOON - HOUR, NOON), "rebuilt gold row", "does not have any more"),
        (Seen("present", NOON), Stored(NOON, NOON, ("e7",)), "late-landed row", "e7"),
        (Seen("missing"), Stored(NOON, NOON, ("e7",)), "late-landed row", "out of order"),
    ],
)
def test_each_cause_is_told_from_the_others(seen: Seen, stored: Stored | None, wanted: str, words: str) -> None:
    """How the view stood online and what the offline join finds now say what happened."""
    cause, said = likely_cause(seen, stored, TTL)
    assert cause == wanted
    assert words in said
