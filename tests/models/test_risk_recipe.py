"""The risk recipe: pooled rates, known signs, weights and calibration that need evidence, reasons, plain files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contracts.declarations import Declarations
from contracts.errors import UnknownName
from contracts.policy import Policy
from models.backtest import fit_rows
from models.design import FrameColumns, design_spec
from models.load import load_model
from models.rate_pool import RatePool, learn_pool
from models.risk import RiskModel, Scores, Weights
from models.risk_backtest import backtest_risk, choose_calibration, choose_weights, default_weights
from models.risk_calibration import learn, sigmoid

NOW = datetime(2026, 6, 1, tzinfo=UTC)
RNG = np.random.default_rng(12)
SOURCES = (("coarse__late_rate_30", "coarse__n_30"), ("fine__late_rate_30", "fine__n_30"))


def keyed(n: int, spread: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Rows of sparse keys whose true rates scatter so much about a common .2, with three outcomes known of each."""
    true = np.clip(0.2 + spread * RNG.normal(size=n), 0.01, 0.99)
    seen = RNG.binomial(3, true) / 3.0
    columns = {"coarse__late_rate_30": np.full(n, 0.2), "coarse__n_30": np.full(n, 1e5)}
    columns |= {"fine__late_rate_30": seen, "fine__n_30": np.full(n, 3.0)}
    return columns, (RNG.uniform(size=n) < true).astype(float)


def test_sparse_keys_are_drawn_as_much_as_they_are_alike() -> None:
    """Keys that are all alike get a heavy prior; keys that differ widely a light one; few labels the rule's twenty."""
    alike, differing = (learn_pool(*keyed(20_000, spread), SOURCES) for spread in (0.0, 0.4))
    assert alike.weights[1] >= 160
    assert differing.weights[1] <= 5
    assert learn_pool(*keyed(200, 0.4), SOURCES).weights == (20.0, 20.0)


def test_a_pooled_rate_of_an_unknown_key_is_the_coarser_one() -> None:
    """n outcomes count n against the prior's weight; none leave the step before as it is."""
    pool = RatePool(sources=SOURCES, weights=(10.0, 10.0), prior=0.2)
    columns = {"coarse__late_rate_30": np.array([0.6, np.nan]), "coarse__n_30": np.array([10.0, np.nan])}
    columns |= {"fine__late_rate_30": np.array([np.nan, 1.0]), "fine__n_30": np.array([0.0, 30.0])}
    coarse, fine = pool.steps(columns)
    assert coarse == pytest.approx([0.4, 0.2])
    assert fine == pytest.approx([0.4, (30 + 10 * 0.2) / 40])


def scores(n: int, rule: bool = True) -> tuple[np.ndarray, Scores]:
    """Outcomes that the regression knows exactly and the trees not at all."""
    truth = RNG.normal(-1, 1, n)
    noise = RNG.normal(-1, 1, n)
    label = (RNG.uniform(size=n) < sigmoid(truth)).astype(float)
    return label, Scores(noise, truth, noise if rule else None)


def test_few_rows_cannot_pick_a_fluke() -> None:
    """Thirty rows hardly move the weights; thirty thousand find the member that knows; none is the default."""
    label, members = scores(30_000)
    few = choose_weights(label[:30], members.at(np.arange(30)))
    assert max(abs(a - b) for a, b in zip(few, Weights(), strict=True)) <= 0.1
    assert choose_weights(label, members).linear >= 0.75
    assert choose_weights(label[:0], members.at(np.arange(0))) == Weights()


def test_without_a_rate_the_rule_has_no_weight() -> None:
    """A service without rate views leaves two members."""
    label, members = scores(2000, rule=False)
    assert default_weights(members).rule == 0 == choose_weights(label, members).rule


def test_a_small_gain_in_few_periods_is_not_adopted() -> None:
    """A base rate that was a little higher in two later periods is not corrected for; one three times as high is."""
    number = np.repeat([0, 1, 2], 4000)
    score = RNG.normal(-2, 1, len(number))
    little, much = ((RNG.uniform(size=len(score)) < sigmoid(score + by)).astype(float) for by in (0.15, 1.5))
    assert choose_calibration(little, score, number)[0] == "identity"
    assert choose_calibration(much, score, number)[0] in ("platt", "shift")


def test_a_shift_of_the_prior_follows_the_newest_origin() -> None:
    """The mean probability becomes nearly the late share of the newest origin, whatever the older ones say."""
    number = np.repeat([0, 1], 20_000)
    score = np.full(len(number), -1.0)
    label = np.r_[np.zeros(20_000), (RNG.uniform(size=20_000) < 0.5).astype(float)]
    found = learn("shift", score, label, number)
    assert found.slope == 1.0
    assert found.apply(score).mean() == pytest.approx(0.5, abs=0.03)
    assert learn("isotonic", score[:4000], label[:4000], number[:4000]).method == "identity"


def fitted(policy: Policy, rows: pd.DataFrame, declarations: Declarations) -> RiskModel:
    """The rows' model, which is a risk."""
    model = fit_rows(policy, rows, declarations)
    assert isinstance(model, RiskModel)
    return model


@pytest.fixture(scope="module")
def risk_model(risk_policy: Policy, declarations: Declarations, risk: pd.DataFrame) -> RiskModel:
    """A model of the quick policy."""
    return fitted(risk_policy, risk, declarations)


def test_known_signs_hold(risk_policy: Policy, declarations: Declarations, risk: pd.DataFrame) -> None:
    """With a declared sign the probability never moves the other way, whatever else a row says."""
    signs = {"late_rate": 1, "lead_hours": -1, "wind_speed": -1}
    training = risk_policy.training.model_copy(update={"monotone": signs})
    policy = risk_policy.model_copy(update={"training": training})
    model = fitted(policy, risk, declarations)
    some = risk.iloc[:60]
    for name, sign, grid in (
        ("carrier_rates__late_rate_30", 1, np.linspace(0, 1, 9)),
        ("origin_weather__wind_speed", -1, np.linspace(0, 40, 9)),
    ):
        answers = np.stack([model.predict(FrameColumns(some.assign(**{name: value}))) for value in grid])
        assert (sign * np.diff(answers, axis=0) >= -1e-12).all()


def test_an_unknown_sign_names_the_nearest_column(
    risk_policy: Policy, declarations: Declarations, risk: pd.DataFrame
) -> None:
    """A sign of no column is refused."""
    training = risk_policy.training.model_copy(update={"monotone": {"late_rates": 1}})
    with pytest.raises(UnknownName, match="late_rate"):
        fit_rows(risk_policy.model_copy(update={"training": training}), risk, declarations)


def test_counts_and_mean_delays_are_no_columns(declarations: Declarations, risk: pd.DataFrame) -> None:
    """The matrix has rates and pooled rates; counts only enter through the pools."""
    spec = design_spec("risk", declarations, "late_delivery_v1", risk)
    assert not [name for name in spec.names if "__n_" in name or "delay_mean" in name]
    assert "carrier_lane_rates__n_30" in spec.sources
    assert [spec.names[place] for place in spec.rule_places] == ["carrier_lane_rates__pooled_window_30"]


def test_a_saved_model_answers_to_the_last_bit(risk_model: RiskModel, risk: pd.DataFrame, tmp_path: Path) -> None:
    """Weights, pools and calibration are in the files; a row alone is what it is among others."""
    risk_model.save(tmp_path)
    again = load_model(tmp_path)
    assert isinstance(again, RiskModel)
    assert again.weights == risk_model.weights
    rows = risk.iloc[:300]
    answers = risk_model.predict(FrameColumns(rows))
    assert (again.predict(FrameColumns(rows)) == answers).all()
    alone = [float(again.predict(FrameColumns(rows.iloc[[place]]))[0]) for place in range(0, 300, 30)]
    assert alone == answers[::30].tolist()


def test_the_rule_can_be_a_reason(risk_model: RiskModel, risk: pd.DataFrame) -> None:
    """When the rule has all the weight, the pooled rate is the one reason."""
    rule = risk_model.with_info({}, Weights(0.0, 0.0, 1.0), risk_model.calibration)
    (words,) = set(rule.reasons(FrameColumns(risk.iloc[[0]])))
    assert len(words) == 1
    assert words[0].startswith("the pooled late rate = ")


def test_a_backtest_learns_weights_that_add_up(
    risk_policy: Policy, declarations: Declarations, risk: pd.DataFrame
) -> None:
    """Weights are shares, and the first origin is answered with the default."""
    found = backtest_risk(risk_policy, risk, declarations, NOW)
    assert sum(found.weights) == pytest.approx(1.0)
    assert min(found.weights) >= 0
    assert np.isfinite(found.probability).all()
