"""Measures of forecasts and of risks: pure functions of arrays, lower is better unless said otherwise.

error = forecast - actual, so a positive bias is an over-forecast. Arrays are float64 of one length n; quantiles (n, q).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.policy import LossName

Floats = NDArray[np.float64]

# Paired losses are cut here before sequential evidence, which needs bounded differences.
LOSS_BOUND: dict[LossName, float] = {"brier": 1.0, "log_loss": 5.0, "rmsse": 9.0, "wql": 3.0}
SMALLEST_SCALE = 1e-6
CLOSEST_TO_CERTAIN = 1e-6
LEAST_ERROR_SHARE = 0.1


def _floats(values: Any) -> Floats:
    return np.asarray(values, dtype=np.float64)


def wape(actual: Floats, forecast: Floats) -> float:
    """Weighted absolute percentage error.

    Args:
        actual, forecast: units, (n,).

    Returns:
        sum|forecast - actual| / sum(actual), a fraction in [0, inf); NaN when nothing was sold. Do not judge
        intermittent demand by it: a forecast near zero wins.
    """
    total = float(_floats(actual).sum())
    return float(np.abs(_floats(forecast) - _floats(actual)).sum() / total) if total > 0 else float("nan")


def bias(actual: Floats, forecast: Floats) -> float:
    """Relative bias of the total.

    Args:
        actual, forecast: units, (n,).

    Returns:
        sum(forecast - actual) / sum(actual); **positive is an over-forecast**, 0.1 is 10% too much; NaN when nothing
        was sold.
    """
    total = float(_floats(actual).sum())
    return float((_floats(forecast) - _floats(actual)).sum() / total) if total > 0 else float("nan")


def rmsse(actual: Floats, forecast: Floats, naive_rmse: Floats) -> float:
    """Root mean squared scaled error.

    Args:
        actual, forecast: units, (n,).
        naive_rmse: root mean square of one-day differences over each row's known history, > 0, (n,).

    Returns:
        sqrt(mean(((forecast - actual) / naive_rmse)^2)) in [0, inf); 1 is as good as yesterday's value was in history.

    Source: Hyndman and Koehler 2006; the M5 competition's RMSSE, pooled over rows.
    """
    return float(np.sqrt(np.mean(_squared_scaled(actual, forecast, naive_rmse)))) if len(actual) else float("nan")


def _squared_scaled(actual: Floats, forecast: Floats, naive_rmse: Floats) -> Floats:
    scaled: Floats = (_floats(forecast) - _floats(actual)) / np.maximum(_floats(naive_rmse), SMALLEST_SCALE)
    return scaled * scaled


def pinball(actual: Floats, quantile: Floats, level: float) -> Floats:
    """Pinball loss of one quantile forecast, row by row.

    Args:
        actual, quantile: units, (n,).
        level: the quantile's level in (0, 1).

    Returns:
        (n,) units, >= 0: level * (actual - quantile) when the actual is above, else (1 - level) * (quantile - actual).
    """
    gap: Floats = _floats(actual) - _floats(quantile)
    return np.maximum(level * gap, (level - 1.0) * gap)


def wql(actual: Floats, quantiles: Floats, levels: Sequence[float]) -> float:
    """Weighted quantile loss over all rows and levels.

    Args:
        actual: units, (n,).
        quantiles: units, (n, q), one column a level.
        levels: q levels in (0, 1).

    Returns:
        mean over levels of 2 * sum(pinball) / sum(actual), in [0, inf); NaN when nothing was sold.

    Source: Gasthaus et al. 2019; the weighted quantile loss of GluonTS.
    """
    total = float(_floats(actual).sum())
    if total <= 0:
        return float("nan")
    table = _floats(quantiles)
    return float(np.mean([2.0 * pinball(actual, table[:, i], q).sum() / total for i, q in enumerate(levels)]))


def coverage(actual: Floats, lower: Floats, upper: Floats) -> float:
    """Share of actuals inside [lower, upper], ends included.

    Returns:
        a share in [0, 1]; NaN without rows. Neither high nor low is good: it is to match the interval's nominal share,
        and on intermittent demand, where an end often sits on a frequent value, it lies above.
    """
    inside = (_floats(actual) >= _floats(lower)) & (_floats(actual) <= _floats(upper))
    return float(inside.mean()) if len(inside) else float("nan")


def brier(actual: Floats, probability: Floats) -> float:
    """Brier score: mean squared difference of probability and outcome (0 or 1); in [0, 1]; NaN without rows."""
    return float(np.mean((_floats(probability) - _floats(actual)) ** 2)) if len(actual) else float("nan")


def log_loss(actual: Floats, probability: Floats) -> float:
    """Mean negative log likelihood in nats, in [0, 13.9]: probabilities are kept 1e-6 away from certainty."""
    return float(np.mean(_log_losses(actual, probability))) if len(actual) else float("nan")


def _log_losses(actual: Floats, probability: Floats) -> Floats:
    p = np.clip(_floats(probability), CLOSEST_TO_CERTAIN, 1.0 - CLOSEST_TO_CERTAIN)
    y = _floats(actual)
    losses: Floats = -(y * np.log(p) + (1.0 - y) * np.log1p(-p))
    return losses


def auc(actual: Floats, probability: Floats) -> float:
    """Area under the ROC curve: the chance that a random late row scores above a random on-time row, ties half.

    Returns:
        in [0, 1], higher is better, 0.5 is a coin; NaN when only one outcome occurs.

    Source: Mann and Whitney 1947, by midranks.
    """
    late = _floats(actual) > 0.5
    n_late = int(late.sum())
    n_other = len(late) - n_late
    if not n_late or not n_other:
        return float("nan")
    _, place, count = np.unique(_floats(probability), return_inverse=True, return_counts=True)
    midrank = np.cumsum(count) - (count - 1) / 2.0
    return float((midrank[place][late].sum() - n_late * (n_late + 1) / 2.0) / (n_late * n_other))


def ece(actual: Floats, probability: Floats, bins: int = 10) -> float:
    """Expected calibration error over equal-width bins of probability.

    Returns:
        sum over bins of (share of rows) * |late share - mean probability|, in [0, 1]; NaN without rows.

    Source: Naeini, Cooper and Hauskrecht 2015, with equal-width bins.
    """
    p, y = _floats(probability), _floats(actual)
    if not len(p):
        return float("nan")
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    gap = np.bincount(place, weights=y - p, minlength=bins)
    return float(np.abs(gap).sum() / len(p))


def error_unit(naive_rmse: Floats, scale: Floats) -> Floats:
    """What a forecast's error is divided by: `naive_rmse`, but at least a tenth of the series' level.

    A series that hardly ever changed has next to no naive error; without the floor one move of it outweighs all others.
    """
    return np.asarray(np.fmax(_floats(naive_rmse), LEAST_ERROR_SHARE * _floats(scale)), dtype=np.float64)


def forecast_losses(
    loss: LossName,
    actual: Floats,
    mean: Floats,
    quantiles: Floats,
    levels: Sequence[float],
    naive_rmse: Floats,
    scale: Floats,
) -> Floats:
    """Loss of each forecast row, such that rows of all series weigh alike.

    Args:
        loss: rmsse or wql.
        actual, mean: units, (n,). quantiles: units, (n, q), one column for each of `levels`.
        naive_rmse: RMSSE's scale of the row's series as known at the cutoff, units, (n,).
        scale: level of the row's series as known at the cutoff, units a day, (n,).

    Returns:
        (n,), >= 0. rmsse: the squared error over `error_unit`, so RMSSE = sqrt(mean). wql: mean over levels of
        2 * pinball / scale. NaN where an input is NaN.

    Raises:
        ValueError: `loss` is none of a forecast.
    """
    if loss == "rmsse":
        return _squared_scaled(actual, mean, error_unit(naive_rmse, scale))
    if loss == "wql":
        table = _floats(quantiles)
        total = sum((2.0 * pinball(actual, table[:, i], q) for i, q in enumerate(levels)), np.zeros(len(table)))
        return total / len(levels) / np.maximum(_floats(scale), SMALLEST_SCALE)
    raise ValueError(f"a forecast's loss is rmsse or wql, not {loss}")


def risk_losses(loss: LossName, actual: Floats, probability: Floats) -> Floats:
    """Loss of each risk row.

    Args:
        loss: brier or log_loss.
        actual: 1 late, 0 on time, (n,). probability: of being late, (n,).

    Returns:
        (n,), >= 0: squared difference, or negative log likelihood in nats. NaN where an input is NaN.

    Raises:
        ValueError: `loss` is none of a risk.
    """
    if loss == "brier":
        return (_floats(probability) - _floats(actual)) ** 2
    if loss == "log_loss":
        return _log_losses(actual, probability)
    raise ValueError(f"a risk's loss is brier or log_loss, not {loss}")


def headline(loss: LossName, losses: Floats) -> float:
    """The figure people know, from row losses: sqrt(mean) for rmsse, otherwise the mean; NaN without finite rows."""
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        return float("nan")
    return float(np.sqrt(finite.mean()) if loss == "rmsse" else finite.mean())
