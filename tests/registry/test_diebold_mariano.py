"""The Diebold-Mariano test against other people's implementations of its parts."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from registry.diebold_mariano import diebold_mariano


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=40).filter(lambda values: np.std(values) > 1e-3))
@settings(max_examples=60, deadline=None)
def test_without_lags_it_is_the_one_sample_t_test(values: list[float]) -> None:
    """The small-sample correction at horizon one turns n into n - 1: SciPy's t-test, statistic and p-value."""
    statistic, p_value = stats.ttest_1samp(values, 0.0)
    found = diebold_mariano(np.array(values), lags=0)
    assert found.statistic == pytest.approx(statistic, abs=1e-9)
    assert found.p_value == pytest.approx(p_value, abs=1e-9)


@pytest.mark.parametrize(("size", "lags"), [(7, 1), (20, 4), (43, 6), (120, 9)])
def test_with_lags_it_is_a_hac_regression_on_a_constant(size: int, lags: int) -> None:
    """statsmodels' Newey-West standard error of the mean, times the correction written out from the paper."""
    rng = np.random.default_rng(size)
    differences = np.convolve(rng.standard_normal(size + 3), np.ones(4) / 4, "valid") + 0.2
    fitted = sm.OLS(differences, np.ones(size)).fit(cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": False})
    h = lags + 1
    factor = np.sqrt((size + 1 - 2 * h + (1 / size) * h * (h - 1)) / size)
    wanted = float(fitted.tvalues[0]) * factor
    found = diebold_mariano(differences, lags=lags)
    assert found.statistic == pytest.approx(wanted)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(wanted), size - 1))


@pytest.mark.parametrize("values", [[], [1.0], [0.0] * 9, [0.3] * 9])
def test_where_it_has_no_meaning_it_says_nothing(values: list[float]) -> None:
    """One day, or differences without any spread: NaN, no test."""
    found = diebold_mariano(np.array(values), lags=2)
    assert np.isnan(found.statistic)
    assert np.isnan(found.p_value)
