"""Fault 13: gate figures that are NaN, missing, of no rows, or of other data are inconclusive, never a pass."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.evaluation import Evaluation
from contracts.rollout import Outcome
from registry.gate import gate
from tests.registry.rig import START, evaluation, policy

NOW = START + timedelta(days=21)

GOOD = evaluation(rows=120)
BAD = [float("nan"), float("inf"), float("-inf"), -1.0]


def _spoil(column: str, value: float, rows: slice) -> Evaluation:
    losses = GOOD.losses.copy()
    losses.loc[losses.index[rows], column] = value
    return replace(GOOD, losses=losses)


def test_the_unspoilt_evaluation_passes() -> None:
    """What the other tests spoil would pass as it is."""
    assert gate(GOOD, policy(), has_champion=True, now=NOW).outcome is Outcome.PASS


@given(
    column=st.sampled_from(["candidate", "incumbent"]),
    value=st.sampled_from(BAD),
    first=st.integers(0, 119),
    count=st.integers(1, 120),
)
@settings(max_examples=80, deadline=None)
def test_one_loss_that_is_no_number_is_enough(column: str, value: float, first: int, count: int) -> None:
    """However many and wherever, unusable losses of candidate or incumbent never pass."""
    assert gate(_spoil(column, value, slice(first, first + count)), policy(), has_champion=True, now=NOW).outcome is (
        Outcome.INCONCLUSIVE
    )


@given(st.dictionaries(st.sampled_from(["ece", "coverage", "bias"]), st.sampled_from([*BAD, None, "0.01"])))
@settings(max_examples=40, deadline=None)
def test_calibration_that_is_no_number_never_passes(calibration: dict[str, float]) -> None:
    """Any mapping without a usable figure for what the policy asks is no pass."""
    assert (
        gate(replace(GOOD, calibration=calibration), policy(), has_champion=True, now=NOW).outcome is not Outcome.PASS
    )


@pytest.mark.parametrize("rows", [0, 1, 99])
def test_too_few_rows_never_pass(rows: int) -> None:
    """Nothing, one row and one too few are inconclusive."""
    assert gate(evaluation(rows=rows), policy(), has_champion=True, now=NOW).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("column", ["row_id", "as_of", "candidate", "incumbent", "champion", "segment_origin"])
def test_a_missing_column_never_passes(column: str) -> None:
    """Each column the verdict rests on is needed."""
    short = replace(GOOD, losses=GOOD.losses.drop(columns=column))
    assert gate(short, policy(), has_champion=True, now=NOW).outcome is Outcome.INCONCLUSIVE


def test_other_data_than_it_says_never_passes() -> None:
    """Another metric, another number of rows and a row scored twice are inconclusive."""
    twice = GOOD.losses.assign(row_id="r1")
    for spoilt in (
        replace(GOOD, loss="log_loss"),
        replace(GOOD, dataset={"hash": "d", "rows": 7}),
        replace(GOOD, losses=twice),
        _spoil("champion", float("nan"), slice(0, 60)),
        _spoil("incumbent", 0.0, slice(None)),
        replace(GOOD, losses=GOOD.losses.assign(champion=np.nan)),
    ):
        assert gate(spoilt, policy(), has_champion=True, now=NOW).outcome is Outcome.INCONCLUSIVE
