"""What a candidate risk model would have answered at each rolling origin, corrected only by earlier origins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.declarations import Declarations
from contracts.policy import Policy
from models import metrics
from models.backtest import Progress, fold_models, policy_folds
from models.design import FrameColumns
from models.kept_fits import Keep, fit_now
from models.risk import RiskModel, Scores, Weights
from models.risk_calibration import METHODS, RiskCalibration, learn

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# Weights are whole eighths; so many rows count as much as the wish to stay near the default.
STEPS = 8
PRIOR_PULL = 200.0
# What a correction gains in a period scatters by about this share of the loss from one period to the next (measured
# on three histories): what it gained in a few says little of the next one.
GAIN_SCATTER = 0.03


@dataclass(frozen=True)
class RiskBacktest:
    """Probabilities of all scored rows, (n,), with the members' weights and the calibration for the final fit."""

    rows: pd.DataFrame
    fold: Ints
    origins: tuple[datetime, ...]
    probability: Floats
    weights: Weights
    calibration: RiskCalibration


def backtest_risk(
    policy: Policy,
    rows: pd.DataFrame,
    declarations: Declarations,
    now: datetime,
    params: dict[str, Any] | None = None,
    progress: Progress | None = None,
    keep: Keep = fit_now,
) -> RiskBacktest:
    """Probabilities at every rolling origin; weights and calibration of an origin come from the origins before it.

    Raises:
        NotEnoughData: no origin has enough rows, or only one outcome.
    """
    plan = policy_folds(policy, rows, now)
    models = fold_models(policy, rows, declarations, plan, params, progress, keep)
    scored = rows.iloc[np.concatenate([fold.score for fold in plan])]
    number = np.concatenate([np.full(len(fold.score), k) for k, fold in enumerate(plan)])
    fitted = [(model, fold) for model, fold in zip(models, plan, strict=True) if isinstance(model, RiskModel)]
    scores = joined([model.scores(FrameColumns(rows.iloc[fold.score])) for model, fold in fitted])
    actual = scored["label"].to_numpy(dtype=np.float64)
    mixed = np.empty(len(actual))
    for k in range(int(number.max()) + 1):
        earlier, here = number < k, number == k
        mixed[here] = scores.at(here).blend(choose_weights(actual[earlier], scores.at(earlier)))
    weights = choose_weights(actual, scores)
    method, probability = choose_calibration(actual, mixed, number)
    calibration = learn(method, scores.blend(weights), actual, number)
    return RiskBacktest(scored, number, tuple(f.origin for f in plan), probability, weights, calibration)


def joined(parts: list[Scores]) -> Scores:
    """Scores of several origins one after the other; the rule's only where every origin has one."""
    rules = [part.rule for part in parts if part.rule is not None]
    return Scores(
        np.concatenate([part.trees for part in parts]),
        np.concatenate([part.linear for part in parts]),
        np.concatenate(rules) if len(rules) == len(parts) else None,
    )


def default_weights(scores: Scores) -> Weights:
    """The weights before anything is known, without the rule where there is none."""
    return Weights() if scores.rule is not None else Weights(2 / 3, 1 / 3, 0.0)


def choose_weights(actual: Floats, scores: Scores) -> Weights:
    """The weights with the least log loss on these rows, drawn to the default where rows are few.

    Args:
        actual: 1 late, 0 on time, (n,). scores: of the same rows.

    Returns:
        the default or a point of a grid of eighths: log loss plus 200 / n times the squared distance to the default is
        least there.
    """
    default = default_weights(scores)
    if not len(actual):
        return default
    identity = RiskCalibration()

    def cost(weights: Weights) -> float:
        away = sum((a - b) ** 2 for a, b in zip(weights, default, strict=True))
        return metrics.log_loss(actual, identity.apply(scores.blend(weights))) + PRIOR_PULL / len(actual) * away

    return min([default, *_grid(scores.rule is not None)], key=cost)


def _grid(rule: bool) -> Iterator[Weights]:
    for trees in range(STEPS + 1):
        for linear in range(STEPS + 1 - trees):
            rest = STEPS - trees - linear
            if rule or not rest:
                yield Weights(trees / STEPS, linear / STEPS, rest / STEPS)


def choose_calibration(actual: Floats, score: Floats, number: Ints) -> tuple[str, Floats]:
    """The method that, learnt on earlier origins, had the least log loss on later ones, and its probabilities.

    Args:
        actual: 1 late, 0 on time, (n,). score: log odds, (n,). number: of each row's origin, from 0.

    Returns:
        identity unless another's mean gain over b later origins exceeds twice its standard error, 0.03 / sqrt(b) of
        the loss or more where it scatters more; rows of the first origin are never recalibrated.
    """
    identity = RiskCalibration().apply(score)
    later = np.unique(number[number > 0])
    best, chosen, most = "identity", identity, 0.0
    for method in METHODS:
        mapped = identity.copy()
        for k in later:
            earlier, here = number < k, number == k
            mapped[here] = learn(method, score[earlier], actual[earlier], number[earlier]).apply(score[here])
        gains = [1 - _loss(actual, mapped, number == k) / _loss(actual, identity, number == k) for k in later]
        if gains and _sure(np.array(gains)) > most:
            best, chosen, most = method, mapped, _sure(np.array(gains))
    return best, chosen


def _sure(gains: Floats) -> float:
    """What a mean gain surely is: two standard errors below it."""
    scatter = max(GAIN_SCATTER, float(gains.std(ddof=1)) if len(gains) > 1 else 0.0)
    return float(gains.mean() - 2 * scatter / np.sqrt(len(gains)))


def _loss(actual: Floats, probability: Floats, use: NDArray[np.bool_]) -> float:
    return metrics.log_loss(actual[use], probability[use])
