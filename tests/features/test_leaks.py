"""Leaks that no join can see: found when planted, silent on honest features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.leaks import Suspect, separation, suspects, within_correlation
from features.no_future import delete_the_future
from tests.features.audit_rig import DECLARED, UNTIL, landed, sales_rows, training_set
from tests.features.view_events import DAY, HOUR, ORIGIN

ROWS = 1200
RNG = np.random.default_rng(5)
LATE = (RNG.random(ROWS) < 0.2).astype(float)
SERIES = np.repeat([f"s{number}" for number in range(30)], ROWS // 30)
LEVEL = np.exp(np.repeat(RNG.normal(3, 2, 30), ROWS // 30))
SALES = RNG.poisson(LEVEL).astype(float)


def only(features: dict[str, object], label: np.ndarray, **more: object) -> Suspect | None:
    found = suspects(features, label, **more)  # type: ignore[arg-type]
    return found[0] if found else None


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda label: label, "is the label"),
        (lambda label: 3 - 2 * label, "is the label times -2 plus 3"),
        (lambda label: np.log1p(label), "is a rising recoding"),
        (lambda label: -(label**3), "is a falling recoding"),
        (lambda label: np.floor(label / 20), "is a rising recoding"),
    ],
)
def test_a_column_made_from_the_label_is_found(made: object, words: str) -> None:
    """The label itself, an affine function and any monotone recoding of a number are called by what they are."""
    column = made(SALES)  # type: ignore[operator]
    one = only({"x": column}, SALES, groups=SERIES)
    assert one is not None
    assert (one.column, one.kind) == ("x", "label_derived")
    assert one.words.startswith(words)


def test_a_recoded_class_is_found() -> None:
    """A 0/1 label in other numbers, or as text, is found."""
    one = only({"x": np.where(LATE > 0, 7.0, 3.0)}, LATE)
    assert one is not None
    assert one.kind == "label_derived"
    one = only({"x": np.where(LATE > 0, "late", "fine").astype(object)}, LATE)
    assert one is not None
    assert (one.kind, one.score) == ("implausible", 1.0)


def test_a_column_that_is_missing_as_the_label_says_is_found() -> None:
    """Filled in for one class only: what is in it does not matter."""
    value = RNG.normal(size=ROWS)
    for label in (LATE, np.where(LATE > 0, SALES + 1, 0.0)):
        one = only({"x": np.where(LATE > 0, value, np.nan)}, label)
        assert one is not None
        assert one.kind == "missingness"


def test_a_noisy_copy_of_the_label_is_implausible() -> None:
    """A column with the label in it under a little noise separates too well."""
    one = only({"x": LATE + RNG.normal(0, 0.2, ROWS)}, LATE)
    assert one is not None
    assert one.kind == "implausible"
    assert one.score >= 0.98
    assert only({"x": LATE + RNG.normal(0, 0.2, ROWS)}, LATE, threshold=1.0) is None
    noisy = SALES * RNG.uniform(0.99, 1.01, ROWS)
    one = only({"x": noisy}, SALES, groups=SERIES)
    assert one is not None
    assert one.kind == "implausible"


def test_honest_features_are_left_alone() -> None:
    """A good rate, a category, a series' own level (rank correlation 0.97 with its sales), a constant, an empty one."""
    risk = {
        "rate": LATE * 0.4 + RNG.random(ROWS),
        "carrier": RNG.choice(np.array(["A", "B", "C"], dtype=object), ROWS),
        "id": np.array([f"id{number}" for number in range(ROWS)], dtype=object),
        "constant": np.ones(ROWS),
        "nothing": np.full(ROWS, np.nan),
        "gaps": np.where(RNG.random(ROWS) < 0.3, np.nan, RNG.random(ROWS)),
        "flag_of_one_row": (np.arange(ROWS) == int(np.argmax(LATE))).astype(float),
    }
    assert suspects(risk, LATE) == ()
    sales = {
        "level": LEVEL,
        "lag": RNG.poisson(LEVEL).astype(float),
        "top": np.isclose(SALES, SALES.max()).astype(float),
    }
    assert suspects(sales, SALES, groups=SERIES) == ()
    assert within_correlation(LEVEL, SALES, np.zeros(ROWS, dtype=np.int64)) > 0.97


def test_too_few_rows_say_nothing() -> None:
    """Below the minimum of rows, or of rows in a class, chance separates well: no finding."""
    assert suspects({"x": LATE[:150]}, LATE[:150]) == ()
    rare = np.zeros(ROWS)
    rare[:10] = 1
    assert suspects({"x": rare}, rare) == ()
    unknown = np.where(np.arange(ROWS) < 1100, np.nan, LATE)
    assert suspects({"x": LATE}, unknown) == ()


def test_separation_is_the_share_of_ordered_pairs() -> None:
    """AUC by counting pairs: ties are half, and the direction does not matter."""
    score, target = np.array([1.0, 2.0, 2.0, 5.0]), np.array([0.0, 0.0, 1.0, 1.0])
    pairs = [1.0 if s > t else 0.5 if s == t else 0.0 for s in score[2:] for t in score[:2]]
    assert separation(score, target) == np.mean(pairs) == separation(-score, target)


def daily(day: int, units: float) -> dict[str, object]:
    begun = ORIGIN + day * DAY
    fixed = {"sku": "a", "location": "x", "period": "day", "event_time": begun, "known_at": begun + 24 * HOUR}
    return fixed | {"quantity": units}


def test_deleting_the_future_changes_nothing_that_is_honest(tmp_path: Path) -> None:
    """The production path on what was known then gives the same values; a value of the future comes out different."""
    landing = landed(tmp_path, {"demand": [daily(day, 10.0 + day) for day in range(19)]})
    rows = sales_rows([ORIGIN + day * DAY for day in range(5, 15)])
    made = training_set(tmp_path, landing, "sales", rows)
    found = delete_the_future(DECLARED, "sales", landing, made, moments=3)
    assert found.changes == ()
    assert (len(found.moments), found.cells) == (3, found.rows * (29 + 7))
    assert all(moment < UNTIL for moment in found.moments)
    newest = found.moments[-1]
    spoilt = made.copy()
    row = spoilt.index[(spoilt["as_of"] == newest) & (spoilt["sku"] == "a") & (spoilt["location"] == "x")][0]
    spoilt.loc[row, "demand__mean_3"] += 1.0
    (one,) = delete_the_future(DECLARED, "sales", landing, spoilt, moments=3).changes
    assert (one.row_id, one.column, one.as_of) == (spoilt["row_id"][row], "demand__mean_3", newest)
    assert one.given == pytest.approx(one.without + 1.0)


def test_a_training_set_in_memory_is_not_changed(tmp_path: Path) -> None:
    """Auditing leaves the caller's rows as they were."""
    landing = landed(tmp_path, {"demand": [daily(day, 1.0) for day in range(10)]})
    made = training_set(tmp_path, landing, "sales", sales_rows([ORIGIN + 8 * DAY]))
    before = made.copy(deep=True)
    delete_the_future(DECLARED, "sales", landing, made, moments=1)
    pd.testing.assert_frame_equal(made, before)
