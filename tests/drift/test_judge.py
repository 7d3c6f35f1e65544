"""The judge: broken data, drift, performance against the incumbent, and not enough data."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from contracts.monitoring import Health
from contracts.policy import Policy
from drift.judge import ColumnStats, LossStats, WindowStats, judge

START = datetime(2026, 3, 1, tzinfo=UTC)
FINE = ColumnStats("lane_rates__late_rate_30", present=True, psi=0.02)
GOOD = LossStats(500, 0.15, 0.18, reference_loss=0.15, reference_incumbent=0.18, log_error=0.02, ece=0.03)
WINDOW = WindowStats(
    "late_delivery", "v1", START, START + timedelta(days=14), 500, GOOD, (FINE,), 2000, START - timedelta(days=1)
)


def test_a_window_like_the_reference_is_ok(risk_policy: Policy) -> None:
    """Enough of everything and nothing seen is ok, without a finding."""
    verdict = judge(WINDOW, risk_policy)
    assert verdict.health is Health.OK
    assert verdict.findings == ()
    assert (verdict.rows, verdict.matured, verdict.loss) == (500, 500, 0.15)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 0, "columns": ()},
        {"rows": 299},
        {"reference_rows": 0},
        {"reference_rows": 299},
        {"reference_end": START},
        {"losses": LossStats(0)},
        {"losses": replace(GOOD, rows=299)},
        {"losses": replace(GOOD, reference_loss=None)},
        {"columns": ()},
        {"columns": (replace(FINE, psi=None),)},
    ],
)
def test_too_little_is_never_ok(risk_policy: Policy, change: dict[str, object]) -> None:
    """Empty, tiny, overlapping or unmatured: not enough data, with a finding that says what is missing."""
    verdict = judge(replace(WINDOW, **change), risk_policy)  # type: ignore[arg-type]
    assert verdict.health is Health.NOT_ENOUGH
    assert {finding.kind for finding in verdict.findings} == {"not_enough_data"}
    assert not verdict.violation


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (ColumnStats("x", present=False), "missing"),
        (ColumnStats("x", present=True, null_share=1.0, reference_null_share=0.4), "all values are missing"),
        (ColumnStats("x", present=True, null_share=0.7, reference_null_share=0.1), "70% missing, 10% before"),
        (ColumnStats("x", present=True, invalid_share=0.2), "not of the reference's type"),
    ],
)
def test_broken_columns_outweigh_everything(risk_policy: Policy, column: ColumnStats, words: str) -> None:
    """A missing, all-null, half-null or wrongly typed column is broken data, even when performance is bad too."""
    bad = replace(GOOD, loss=0.4)
    verdict = judge(replace(WINDOW, columns=(FINE, column), losses=bad), risk_policy)
    assert verdict.health is Health.BROKEN
    assert words in verdict.findings[0].words
    assert not verdict.violation


def test_nulls_as_before_and_optional_views_are_not_broken(risk_policy: Policy) -> None:
    """A column that was mostly missing in training may be so now; a promotion plan may be empty."""
    sparse = ColumnStats("x", present=True, null_share=0.85, reference_null_share=0.8)
    plan = ColumnStats("promotion_plan__mailer", present=True, null_share=1.0, reference_null_share=0.2, optional=True)
    assert judge(replace(WINDOW, columns=(FINE, sparse, plan)), risk_policy).health is Health.OK


def test_stale_views_and_answers_from_lower_rungs_are_broken_data(risk_policy: Policy) -> None:
    """A feed that stands still, or a model that hardly answers, is broken data."""
    assert judge(replace(WINDOW, stale=(("lane_rates", 0.8),)), risk_policy).health is Health.BROKEN
    assert judge(replace(WINDOW, fallback_share=0.6), risk_policy).health is Health.BROKEN


def test_broken_data_needs_a_few_rows(risk_policy: Policy) -> None:
    """Five rows without a value are few rows, not a broken feed."""
    empty = ColumnStats("x", present=True, null_share=1.0)
    assert judge(replace(WINDOW, rows=5, columns=(empty,)), risk_policy).health is Health.NOT_ENOUGH


def test_a_hard_window_for_everybody_is_no_degradation(risk_policy: Policy) -> None:
    """Loss twice the gate's, but the incumbent suffers alike: ok, and the figure stands in the verdict."""
    verdict = judge(replace(WINDOW, losses=replace(GOOD, loss=0.30, incumbent=0.36)), risk_policy)
    assert verdict.health is Health.OK
    assert verdict.loss == 0.30


def test_lost_skill_is_degradation_even_in_an_easy_window(risk_policy: Policy) -> None:
    """Loss lower than the gate's but as high as the incumbent's: the model has lost its edge."""
    verdict = judge(replace(WINDOW, losses=replace(GOOD, loss=0.12, incumbent=0.12)), risk_policy)
    assert verdict.health is Health.DEGRADED
    assert verdict.violation
    assert verdict.findings[0].value == pytest.approx(0.18 / 0.15)


def test_a_noisy_window_is_no_violation(risk_policy: Policy) -> None:
    """Over the bound but within two standard errors of the gate's figure: nothing is sure."""
    noisy = replace(GOOD, loss=0.18, incumbent=0.18, log_error=0.15)
    assert judge(replace(WINDOW, losses=noisy), risk_policy).health is Health.OK


def test_without_an_incumbent_the_gates_own_loss_counts(risk_policy: Policy) -> None:
    """Where the rule knew nothing, the loss is held against the gate's loss."""
    alone = replace(GOOD, incumbent=None, loss=0.2)
    assert judge(replace(WINDOW, losses=alone), risk_policy).health is Health.DEGRADED


def test_psi_counts_only_over_limit_noise_and_the_references_own_swings(risk_policy: Policy) -> None:
    """PSI .5 is drift; not where the reference's own windows lay as far apart, nor where few rows explain it."""
    far = replace(FINE, psi=0.5)
    assert judge(replace(WINDOW, columns=(far,)), risk_policy).health is Health.DRIFT
    assert judge(replace(WINDOW, columns=(replace(far, natural_psi=0.6),)), risk_policy).health is Health.OK
    few = risk_policy.model_copy(update={"drift": risk_policy.drift.model_copy(update={"min_rows": 30})})
    small = replace(WINDOW, rows=30, columns=(far,), losses=replace(GOOD, rows=300))
    assert judge(small, few).health is Health.OK


def test_calibration_out_of_range_is_drift(risk_policy: Policy, demand_policy: Policy) -> None:
    """ECE over its limit plus what chance gives, or coverage outside its range, is a calibration finding."""
    assert judge(replace(WINDOW, losses=replace(GOOD, ece=0.2, ece_noise=0.05)), risk_policy).health is Health.DRIFT
    assert judge(replace(WINDOW, losses=replace(GOOD, ece=0.1, ece_noise=0.05)), risk_policy).health is Health.OK
    verdict = judge(replace(WINDOW, losses=replace(GOOD, ece=None, coverage=0.4)), demand_policy)
    assert verdict.findings[0].subject == "coverage"
