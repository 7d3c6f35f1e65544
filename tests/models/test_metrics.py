"""Measures against independent oracles: scikit-learn and utilsforecast."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from utilsforecast import losses as uf

from models import metrics

RNG = np.random.default_rng(1)
Y = RNG.poisson(6, 400).astype(float)
F = np.maximum(Y + RNG.normal(0, 2, 400), 0)
LATE = (RNG.uniform(size=400) < 0.3).astype(float)
P = np.round(np.clip(0.3 + 0.3 * (LATE - 0.3) + RNG.normal(0, 0.15, 400), 0.01, 0.99), 2)


def test_bias_is_positive_for_an_over_forecast() -> None:
    """Ten percent too much is +0.1, ten percent too little is -0.1."""
    assert metrics.bias(Y, Y * 1.1) == pytest.approx(0.1)
    assert metrics.bias(Y, Y * 0.9) == pytest.approx(-0.1)


def test_wape_and_pinball_agree_with_other_implementations() -> None:
    """WAPE is utilsforecast's ND; pinball is scikit-learn's and utilsforecast's quantile loss."""
    frame = pd.DataFrame({"unique_id": "a", "ds": range(len(Y)), "y": Y, "m": F})
    assert metrics.wape(Y, F) == pytest.approx(float(uf.nd(frame, ["m"])["m"].iloc[0]))
    assert metrics.pinball(Y, F, 0.8).mean() == pytest.approx(sk.mean_pinball_loss(Y, F, alpha=0.8))
    mine = metrics.pinball(Y, F, 0.8).mean()
    assert mine == pytest.approx(float(uf.quantile_loss(frame, {"m": "m"}, q=0.8)["m"].iloc[0]))


def test_rmsse_agrees_with_utilsforecast() -> None:
    """On one series scaled by the naive error of its own history."""
    history = RNG.poisson(6, 200).astype(float)
    unit = np.full(len(Y), np.sqrt(np.mean(np.diff(history) ** 2)))
    past = pd.DataFrame({"unique_id": "a", "ds": range(200), "y": history})
    frame = pd.DataFrame({"unique_id": "a", "ds": range(200, 200 + len(Y)), "y": Y, "m": F})
    want = float(uf.rmsse(frame, ["m"], seasonality=1, train_df=past)["m"].iloc[0])
    assert metrics.rmsse(Y, F, unit) == pytest.approx(want)


def test_wql_is_two_mean_pinballs_over_demand() -> None:
    """The weighted quantile loss by scikit-learn's pinball losses."""
    levels, table = (0.1, 0.5, 0.9), np.stack([F * 0.6, F, F * 1.5], axis=1)
    want = np.mean([2 * sk.mean_pinball_loss(Y, table[:, i], alpha=q) for i, q in enumerate(levels)]) / Y.mean()
    assert metrics.wql(Y, table, levels) == pytest.approx(want)


def test_risk_measures_agree_with_scikit_learn() -> None:
    """Brier score, log loss and AUC with ties."""
    assert metrics.brier(LATE, P) == pytest.approx(sk.brier_score_loss(LATE, P))
    assert metrics.log_loss(LATE, P) == pytest.approx(sk.log_loss(LATE, P))
    assert metrics.auc(LATE, P) == pytest.approx(sk.roc_auc_score(LATE, P))


def test_ece_agrees_with_the_calibration_curve() -> None:
    """The row-weighted gap of scikit-learn's uniform calibration curve, at probabilities off the bins' edges."""
    p = P + 0.0013
    seen, said = calibration_curve(LATE, p, n_bins=10, strategy="uniform")
    weight = np.histogram(p, bins=np.linspace(0, 1, 11))[0]
    want = (np.abs(seen - said) * weight[weight > 0]).sum() / len(p)
    assert metrics.ece(LATE, p) == pytest.approx(want)


def test_coverage_counts_the_ends() -> None:
    """An actual on an end lies inside."""
    assert metrics.coverage(np.array([1.0, 2.0, 3.0, 4.0]), np.full(4, 2.0), np.full(4, 3.0)) == 0.5


def test_measures_without_meaning_are_nan() -> None:
    """No demand, no rows or one outcome only gives NaN, never a figure that could pass."""
    zero = np.zeros(3)
    assert np.isnan([metrics.wape(zero, zero), metrics.bias(zero, zero), metrics.auc(zero, zero)]).all()
    assert np.isnan([metrics.brier(zero[:0], zero[:0]), metrics.ece(zero[:0], zero[:0])]).all()


@pytest.mark.parametrize("loss", ["rmsse", "wql"])
def test_row_losses_add_up_to_the_headline(loss: str) -> None:
    """Mean row loss is RMSSE squared, and the scaled quantile loss."""
    unit, levels, table = np.full(len(Y), 3.0), (0.5,), F[:, None]
    rows = metrics.forecast_losses(loss, Y, F, table, levels, unit, unit)  # type: ignore[arg-type]
    want = metrics.rmsse(Y, F, unit) if loss == "rmsse" else 2 * sk.mean_pinball_loss(Y, F, alpha=0.5) / 3.0
    assert metrics.headline(loss, rows) == pytest.approx(want)  # type: ignore[arg-type]


def test_a_series_that_never_moved_does_not_outweigh_all_others() -> None:
    """Its naive error of nearly zero is replaced by a tenth of its level."""
    one = np.ones(1)
    assert metrics.forecast_losses("rmsse", 10 * one, 11 * one, 11 * one[:, None], (0.5,), 1e-9 * one, 10 * one) == 1.0


def test_a_loss_of_the_other_kind_is_refused() -> None:
    """Brier is no forecast loss, RMSSE no risk loss."""
    with pytest.raises(ValueError, match="rmsse or wql"):
        metrics.forecast_losses("brier", Y, F, F[:, None], (0.5,), Y, Y)
    with pytest.raises(ValueError, match="brier or log_loss"):
        metrics.risk_losses("rmsse", LATE, P)
