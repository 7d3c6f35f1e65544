"""Corrections learnt on the backtest."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from models.calibration import learn_shift, third_of, thirds, tidy
from models.risk_backtest import choose_calibration
from models.risk_calibration import learn_isotonic, learn_platt, sigmoid

RNG = np.random.default_rng(8)
SCORE = RNG.normal(-1, 1.5, 20_000)
LEVELS = (0.1, 0.5, 0.9)


def drawn(slope: float, intercept: float) -> np.ndarray:
    return (RNG.uniform(size=len(SCORE)) < sigmoid(slope * SCORE + intercept)).astype(float)


def test_platt_is_logistic_regression_shrunk_to_identity() -> None:
    """Scikit-learn's unpenalised slope and intercept, drawn a little towards (1, 0)."""
    late = drawn(0.5, 0.3)
    found, want = learn_platt(SCORE, late), LogisticRegression(C=np.inf).fit(SCORE[:, None], late)
    share = len(SCORE) / (len(SCORE) + 2000)
    assert found.slope == pytest.approx(1 + share * (want.coef_[0, 0] - 1), abs=1e-3)
    assert found.intercept == pytest.approx(share * want.intercept_[0], abs=1e-3)


def test_platt_never_turns_the_order_round() -> None:
    """A score that points the wrong way gets no negative slope."""
    assert learn_platt(SCORE[:3000], drawn(-1.0, 0.0)[:3000]).slope >= 0


def test_isotonic_equals_scikit_learn() -> None:
    """The step function itself, before it is drawn to identity."""
    score, late = SCORE[:500], drawn(0.5, 0.3)[:500]
    found, p = learn_isotonic(score, late), sigmoid(score)
    want = IsotonicRegression().fit(p, late).predict(p)
    assert np.interp(p, found.x, found.y) == pytest.approx(want)


def test_recalibration_is_adopted_only_when_it_wins_later() -> None:
    """Right odds stay as they are; odds twice too sure are put right on later blocks."""
    number = np.repeat([0, 1], len(SCORE) // 2)
    assert choose_calibration(drawn(1.0, 0.0), SCORE, number)[0] == "identity"
    method, probability = choose_calibration(drawn(0.4, 0.0), SCORE, number)
    assert method in ("platt", "isotonic")
    assert (probability[:100] == sigmoid(SCORE[:100])).all()


def test_a_shift_gives_quantiles_their_share() -> None:
    """Intervals half as wide as they should be cover 80% again, in each third of the horizon."""
    n = 30_000
    step, actual = RNG.integers(1, 15, n), RNG.normal(100, 10, n)
    raw = np.tile(100 + 10 * 0.8 * np.array([-1.2816, 0, 1.2816]), (n, 1))
    shifted = tidy(learn_shift(actual, raw, step, LEVELS, 14).apply(raw, step))
    for third in range(3):
        use = third_of(step, thirds(14)) == third
        inside = (actual >= shifted[:, 0]) & (actual <= shifted[:, 2])
        assert inside[use].mean() == pytest.approx(0.8, abs=0.02)


def test_thirds_of_any_horizon() -> None:
    """Last steps of each third; a horizon of one has one part."""
    assert thirds(14) == (5, 10, 14)
    assert thirds(1) == (1,)
    assert third_of(np.array([1, 5, 6, 14, 20]), (5, 10, 14)).tolist() == [0, 0, 1, 2, 2]
