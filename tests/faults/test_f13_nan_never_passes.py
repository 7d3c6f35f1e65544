"""Fault 13: gate figures that are NaN, missing, of no rows, stale, or of other data are inconclusive, never a pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.evaluation import Evaluation
from contracts.policy import Policy
from contracts.rollout import Outcome, Verdict
from registry.gate import gate
from tests.registry.rig import START, evaluation, policy

NOW = START + timedelta(days=21)
POLICY: Policy = policy(
    gate={
        "metric": "brier",
        "min_rows": 100,
        "segments": {"by": ["origin"], "min_rows": 50},
        "calibration": {"ece_max": 0.08},
        "predict": {"p99_ms": 10, "memory_mb": 100},
        "stability": {"noise": 0.01, "max_change": 0.1},
        "max_data_age": "14d",
    }
)
GOOD: Evaluation = replace(
    evaluation(rows=120),
    predict={"p99_ms": 0.5, "memory_mb": 1.0},
    stability={"noise": 0.01, "change": 0.02},
)
NO_NUMBERS = [float("nan"), float("inf"), float("-inf"), -1.0]
COLUMNS = ["row_id", "as_of", "candidate", "incumbent", "champion", "segment_origin"]
NOTED = ["leakage_audit", "sources", "hash_by_side"]
# What no figure, fact or table should ever be.
RUBBISH = st.sampled_from([*NO_NUMBERS, None, "0.01", "", [], {}, ["x"], {"x": 1}, True, "safe for automation"])


def judged(found: Evaluation, **how: Any) -> Verdict:
    return gate(found, POLICY, **({"has_champion": True, "now": NOW} | how))


def with_losses(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Evaluation:
    return replace(GOOD, losses=change(GOOD.losses.copy()))


def test_the_unspoilt_evaluation_passes() -> None:
    """What the other tests spoil would pass as it is, by every criterion that there is."""
    found = judged(GOOD)
    assert found.outcome is Outcome.PASS
    assert len(found.criteria) == 12


@given(
    column=st.sampled_from(["candidate", "incumbent", "champion"]),
    value=st.sampled_from(NO_NUMBERS),
    first=st.integers(0, 119),
    count=st.integers(1, 120),
)
@settings(max_examples=80, deadline=None)
def test_one_loss_that_is_no_number_is_enough(column: str, value: float, first: int, count: int) -> None:
    """However many and wherever: never a pass, save a champion that may have learnt from some rows (NaN there)."""

    def spoil(losses: pd.DataFrame) -> pd.DataFrame:
        losses.loc[losses.index[first : first + count], column] = value
        return losses

    found = judged(with_losses(spoil))
    left = 120 - min(count, 120 - first)
    if column == "champion" and np.isnan(value) and left >= POLICY.gate.min_rows:
        assert found.outcome is not Outcome.FAIL
    else:
        assert found.outcome is Outcome.INCONCLUSIVE


@given(column=st.sampled_from(["candidate", "incumbent", "champion"]), value=st.sampled_from([None, "many", "", "nan"]))
@settings(max_examples=12, deadline=None)
def test_losses_that_are_texts_never_pass(column: str, value: str | None) -> None:
    """A table that was read wrongly is no table of losses."""
    found = judged(with_losses(lambda losses: losses.assign(**{column: np.array([value] * 120, dtype=object)})))
    assert found.outcome is Outcome.INCONCLUSIVE


@given(
    figures=st.sampled_from(["calibration", "predict", "stability"]),
    value=st.dictionaries(st.sampled_from(["ece", "p99_ms", "memory_mb", "noise", "change"]), RUBBISH),
)
@settings(max_examples=80, deadline=None)
def test_figures_that_are_no_numbers_never_pass(figures: str, value: dict[str, Any]) -> None:
    """Any mapping without a usable figure for what the policy bounds is no pass."""
    assert judged(replace(GOOD, **{figures: value})).outcome is not Outcome.PASS


@given(name=st.sampled_from(NOTED), value=RUBBISH)
@settings(max_examples=80, deadline=None)
def test_what_was_not_noted_properly_never_passes(name: str, value: object) -> None:
    """Audit, sources and hashes: anything that is not what a training notes leaves the gate open."""
    assert judged(replace(GOOD, dataset=GOOD.dataset | {name: value})).outcome is Outcome.INCONCLUSIVE


@given(name=st.sampled_from(["cells", "rows", "differing"]), value=RUBBISH)
@settings(max_examples=40, deadline=None)
def test_an_audit_without_counts_never_passes(name: str, value: object) -> None:
    """Each count is needed, as a whole number."""
    audit = GOOD.dataset["leakage_audit"] | {name: value}
    assert judged(replace(GOOD, dataset=GOOD.dataset | {"leakage_audit": audit})).outcome is not Outcome.PASS


@given(side=st.sampled_from(["candidate", "incumbent", "champion"]), value=RUBBISH)
@settings(max_examples=40, deadline=None)
def test_another_dataset_on_either_side_never_passes(side: str, value: object) -> None:
    """A hash that differs, or that is none."""
    hashes = GOOD.dataset["hash_by_side"] | {side: value}
    assert judged(replace(GOOD, dataset=GOOD.dataset | {"hash_by_side": hashes})).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("rows", [0, 1, 99])
def test_too_few_rows_never_pass(rows: int) -> None:
    """Nothing, one row and one too few are inconclusive."""
    few = evaluation(rows=rows)
    assert judged(replace(GOOD, losses=few.losses, dataset=few.dataset)).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_never_passes(column: str) -> None:
    """Each column the verdict rests on is needed."""
    assert judged(with_losses(lambda losses: losses.drop(columns=column))).outcome is Outcome.INCONCLUSIVE


@given(st.timedeltas(timedelta(days=15), timedelta(days=9000)), st.booleans())
@settings(max_examples=30, deadline=None)
def test_stale_rows_and_rows_to_come_never_pass(distance: timedelta, later: bool) -> None:
    """The newest row is older than allowed, or of a time that is still to come."""
    newest = GOOD.losses["as_of"].max().to_pydatetime()
    now = newest + distance if later else newest - min(distance, timedelta(days=700))
    assert judged(GOOD, now=now).outcome is Outcome.INCONCLUSIVE


def test_other_data_than_it_says_never_passes() -> None:
    """Another metric, number of rows or noise, a row scored twice or without id or time, a rival without loss."""
    for spoilt in (
        replace(GOOD, loss="log_loss"),
        replace(GOOD, dataset=GOOD.dataset | {"rows": 7}),
        replace(GOOD, dataset=GOOD.dataset | {"rows": None}),
        replace(GOOD, stability=GOOD.stability | {"noise": 0.5}),
        with_losses(lambda losses: losses.assign(row_id="r1")),
        with_losses(lambda losses: losses.assign(row_id=losses["row_id"].where(losses.index > 0))),
        with_losses(lambda losses: losses.assign(as_of=losses["as_of"].where(losses.index > 0))),
        with_losses(lambda losses: losses.assign(as_of=losses["as_of"].dt.tz_localize(None))),
        with_losses(lambda losses: losses.assign(as_of="2026-01-01")),
        with_losses(lambda losses: losses.assign(as_of=losses["as_of"].min())),
        with_losses(lambda losses: losses.assign(incumbent=0.0)),
        with_losses(lambda losses: losses.assign(champion=np.nan)),
        with_losses(lambda losses: losses.assign(champion=0.0)),
    ):
        assert judged(spoilt).outcome is Outcome.INCONCLUSIVE
