"""Statistical forecasts of a panel by statsforecast: one series at a time, in this process, in several, or by Fugue.

These methods know no gaps. A series begins at its first known period; an unknown period inside it (closed, out of
stock, never reported) takes the value of the last period of the same season, known or filled; before a whole season
has gone by, or in a season that was never known (a shop that never opens on Sundays), the mean of the series' known
periods. It is not taken as zero: that would lower every level by the share of closed days.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contracts.errors import InputInvalid, UnknownName
from models.panel import Frequency, Panel, PanelForecast

if TYPE_CHECKING:
    from features.fugue_engine import Engine

Floats = NDArray[np.float64]

SEASON: dict[Frequency, int] = {"day": 7, "week": 52, "month": 12}
WINDOW: dict[Frequency, int] = {"day": 56, "week": 26, "month": 12}
CYCLES: dict[Frequency, int] = {"day": 4, "week": 2, "month": 2}
FEWEST_KNOWN = 2
MANY_ZEROS = 0.3
LARGEST = 5.0  # a mean above this many times the series' largest period is taken for a failed fit
SMOOTHING = 0.1  # of TSB: demand size and probability
ORIGINS: dict[Frequency, int] = {"day": 4, "week": 6, "month": 8}  # whose residuals make empirical quantiles
FEWEST_RESIDUALS = 8
SERIES_A_TASK = 32
_FRAME = pa.schema([("task", pa.int64()), ("body", pa.binary())])


@dataclass(frozen=True)
class _History:
    """What a model is made for: `season` and `window` in periods, `cycles` in seasons, `length` periods of history."""

    season: int
    window: int
    cycles: int
    length: int


def _mstl(sf: Any, history: _History) -> Any:
    # The year on daily data costs ten times as much and needs more than two of them.
    long_enough = history.length >= 2 * history.season + 2
    return sf.MSTL(history.season) if long_enough else None


MODELS: Mapping[str, Callable[[Any, _History], Any]] = {
    "seasonal_naive": lambda sf, h: sf.SeasonalNaive(h.season if h.length >= h.season else 1),
    "historic_average": lambda sf, h: sf.HistoricAverage(),
    "window_average": lambda sf, h: sf.WindowAverage(min(h.window, h.length)),
    "seasonal_window_average": lambda sf, h: (
        sf.SeasonalWindowAverage(h.season, min(h.cycles, h.length // h.season)) if h.length >= h.season else None
    ),
    "auto_ets": lambda sf, h: sf.AutoETS(h.season),
    "auto_theta": lambda sf, h: sf.AutoTheta(h.season),
    "dynamic_optimized_theta": lambda sf, h: sf.DynamicOptimizedTheta(h.season),
    "mstl": _mstl,
    "croston_sba": lambda sf, h: sf.CrostonSBA(),
    "imapa": lambda sf, h: sf.IMAPA(),
    "tsb": lambda sf, h: sf.TSB(SMOOTHING, SMOOTHING),
    "ses": lambda sf, h: sf.SimpleExponentialSmoothingOptimized(),
}
"""Name -> a model of statsforecast for such a history, or None where it is too short.

`seasonal_naive` is the last value where there is no whole season; averages shrink their windows to what there is.
"""

_OWN_INTERVALS = frozenset(
    ("seasonal_naive", "historic_average", "auto_ets", "auto_theta", "dynamic_optimized_theta", "mstl")
)


@dataclass(frozen=True)
class _Work:
    """What is asked for each series. `levels` is empty when only means are."""

    frequency: Frequency
    horizon: int
    names: tuple[str, ...]
    levels: tuple[float, ...]


def challengers(panel: Panel) -> tuple[str, ...]:
    """The statistical models whose average is worth a share of a forecast of such a panel, by rule.

    Source: trials on eight real sets; over 30% of known periods without demand count as intermittent.
    """
    known = np.isfinite(panel.demand)
    if known.any() and float((panel.demand[known] == 0).mean()) > MANY_ZEROS:
        return ("imapa", "window_average")
    if panel.frequency == "day":
        return ("dynamic_optimized_theta", "mstl", "seasonal_window_average")
    if panel.frequency == "week":
        return ("mstl",) if panel.periods >= 2 * SEASON["week"] + 2 else ("seasonal_naive",)
    return ("dynamic_optimized_theta", "imapa")


def statistical_means(
    panel: Panel, horizon: int, names: Sequence[str], *, workers: int = 1, engine: Engine | None = None
) -> dict[str, Floats]:
    """Mean forecasts of each series by each model.

    Args:
        panel: the history; gaps are filled as this module's head says.
        horizon: periods ahead.
        names: of MODELS.
        workers: processes on this machine, of one thread each.
        engine: a Fugue engine instead, over whose workers the series are spread.

    Returns:
        name -> (n, horizon) units, >= 0. A series with fewer than two known periods, too short for the model, or whose
        fit failed or ran away, is NaN throughout: nothing stands in for it silently. The numbers do not depend on
        `workers` or `engine`.

    Raises:
        UnknownName: no such model. InputInvalid: the horizon is below 1.
        DependencyDown: the engine's package is not installed, or it does not start.
    """
    found = _forecasts(panel, _work(panel, horizon, names, ()), workers, engine)
    return {name: found[:, place, :, 0] for place, name in enumerate(names)}


def statistical_forecast(
    panel: Panel,
    horizon: int,
    name: str,
    levels: Sequence[float],
    *,
    workers: int = 1,
    engine: Engine | None = None,
) -> PanelForecast:
    """Mean and quantiles of each series by one model.

    Quantiles are the model's own prediction interval where it has one; otherwise the forecast plus the empirical
    quantiles of its residuals from earlier origins of the same series (of the history around the forecast, where those
    are fewer than eight). They rise with the level and are >= 0.

    Args:
        panel, horizon, workers, engine: as of `statistical_means`.
        name: of MODELS.
        levels: of the quantiles, in (0, 1), rising.

    Returns:
        the forecast; NaN throughout for a series that the model cannot fit, whose `how` is `none`.

    Raises:
        as `statistical_means`; InputInvalid: a level is outside (0, 1), or they do not rise.
    """
    if not levels or min(levels) <= 0 or max(levels) >= 1 or list(levels) != sorted(set(levels)):
        raise InputInvalid("levels", "rising numbers in (0, 1)", str(list(levels)))
    found = _forecasts(panel, _work(panel, horizon, (name,), tuple(levels)), workers, engine)[:, 0]
    how = tuple(name if answered else "none" for answered in np.isfinite(found[:, 0, 0]))
    return PanelForecast(mean=found[:, :, 0], quantiles=found[:, :, 1:], levels=tuple(levels), how=how)


def filled(demand: Floats, season: int) -> list[Floats]:
    """Each series from its first known period on, without gaps; empty where fewer than two periods are known.

    Args:
        demand: units, (n, T), NaN where unknown. season: periods of a season.

    Returns:
        n arrays of at most T units; how gaps are filled is told in this module's head.
    """
    known = np.isfinite(demand)
    count = known.sum(axis=1)
    mean = np.divide(np.where(known, demand, 0.0).sum(axis=1), count, out=np.zeros(len(demand)), where=count > 0)
    periods = demand.shape[1]
    seasons = -(-periods // season)
    padded = np.pad(demand, ((0, 0), (0, seasons * season - periods)), constant_values=np.nan)
    cube = padded.reshape(len(demand), seasons, season)
    at = np.where(np.isfinite(cube), np.arange(seasons)[None, :, None], -1)
    last = np.maximum.accumulate(at, axis=1)
    values = np.take_along_axis(cube, np.maximum(last, 0), axis=1)
    values = np.where(last >= 0, values, mean[:, None, None]).reshape(padded.shape)[:, :periods]
    start = known.argmax(axis=1)
    return [np.ascontiguousarray(values[i, start[i] :] if count[i] >= FEWEST_KNOWN else []) for i in range(len(demand))]


def _work(panel: Panel, horizon: int, names: Sequence[str], levels: tuple[float, ...]) -> _Work:
    if horizon < 1:
        raise InputInvalid("horizon", "at least 1 period", str(horizon))
    for name in names:
        if name not in MODELS:
            raise UnknownName("statistical model", name, MODELS)
    return _Work(panel.frequency, horizon, tuple(names), levels)


def _forecasts(panel: Panel, work: _Work, workers: int, engine: Engine | None) -> Floats:
    """(n, names, horizon, 1 + levels)"""
    series = filled(panel.demand, SEASON[panel.frequency])
    batches = [series[at : at + SERIES_A_TASK] for at in range(0, len(series), SERIES_A_TASK)]
    with warnings.catch_warnings():  # of fits that end badly: their answer is looked at instead
        warnings.simplefilter("ignore")
        if engine is not None:
            answers = _on_engine(engine, batches, work)
        elif workers > 1 and len(batches) > 1:
            pool = ProcessPoolExecutor(min(workers, len(batches)), get_context("spawn"), initializer=_alone)
            with pool:
                answers = list(pool.map(_fit_batch, batches, [work] * len(batches)))
        else:
            answers = [_fit_batch(batch, work) for batch in batches]
    shape = (0, len(work.names), work.horizon, 1 + len(work.levels))
    return np.concatenate([np.empty(shape), *answers])


def _alone() -> None:
    """A worker's process: one thread, and no warnings of fits."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.simplefilter("ignore")


def _on_engine(engine: Engine, batches: Sequence[Sequence[Floats]], work: _Work) -> list[Floats]:
    """Every batch's answer, in their order."""
    from fugue.workflow.api import transform

    from features.fugue_engine import ready

    if not batches:
        return []
    frame = _tasks([(task, _packed(batch)) for task, batch in enumerate(batches)])
    with ready(engine) as running:
        answers = transform(
            frame,
            _fit_tasks,
            schema="task:long,body:bytes",
            params={"work": work},
            partition={"num": len(batches)},
            engine=running,
            as_fugue=True,
        ).as_arrow()
    bodies = dict(zip(answers["task"].to_pylist(), answers["body"].to_pylist(), strict=True))
    shape = (-1, len(work.names), work.horizon, 1 + len(work.levels))
    return [np.frombuffer(bodies[task], dtype=np.float64).reshape(shape) for task in range(len(batches))]


def _fit_tasks(tasks: pa.Table, work: _Work) -> pa.Table:
    """Runs where the engine's workers are."""
    bodies = zip(tasks["task"].to_pylist(), tasks["body"].to_pylist(), strict=True)
    return _tasks([(task, _fit_batch(_unpacked(body), work).tobytes()) for task, body in bodies])


def _tasks(rows: Sequence[tuple[int, bytes]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [(), ()]
    return pa.table([pa.array(column, kind.type) for column, kind in zip(columns, _FRAME, strict=True)], schema=_FRAME)


def _packed(batch: Sequence[Floats]) -> bytes:
    """Series behind each other, after their number and lengths."""
    lengths = np.array([len(batch), *map(len, batch)], dtype=np.int64)
    return lengths.tobytes() + b"".join(values.tobytes() for values in batch)


def _unpacked(body: bytes) -> list[Floats]:
    count = int(np.frombuffer(body, dtype=np.int64, count=1)[0])
    lengths = np.frombuffer(body, dtype=np.int64, offset=8, count=count)
    values = np.frombuffer(body, dtype=np.float64, offset=8 * (count + 1)).copy()
    return np.split(values, np.cumsum(lengths)[:-1])


def _fit_batch(batch: Sequence[Floats], work: _Work) -> Floats:
    """(series, names, horizon, 1 + levels): mean, then quantiles; NaN where a model cannot answer."""
    found = np.full((len(batch), len(work.names), work.horizon, 1 + len(work.levels)), np.nan)
    for place, values in enumerate(batch):
        if not len(values):
            continue
        for number, name in enumerate(work.names):
            answer = _answer(name, values, work)
            if answer is not None:
                found[place, number] = answer
    return found


def _answer(name: str, values: Floats, work: _Work) -> Floats | None:
    """(horizon, 1 + levels) of one series by one model, behind the guard rails; None when it cannot answer."""
    own = name in _OWN_INTERVALS
    raw = _fit(name, values, work.frequency, work.horizon, work.levels if own else ())
    if raw is None:
        return None
    mean = np.maximum(raw["mean"], 0.0)
    if not np.isfinite(mean).all() or mean.max() > LARGEST * max(float(values.max()), 1.0):
        return None
    if not work.levels:
        return mean[:, None]
    table = _own_quantiles(raw, work.levels) if own else mean[:, None] + _residual_quantiles(name, values, mean, work)
    table = np.where(np.isfinite(table), table, mean[:, None])
    table = np.clip(np.sort(table, axis=1), 0.0, LARGEST * max(float(values.max()), 1.0))
    return np.column_stack([mean, table])


def _fit(
    name: str, values: Floats, frequency: Frequency, horizon: int, levels: Sequence[float]
) -> dict[str, Floats] | None:
    """What statsforecast answers; None when it cannot."""
    from statsforecast import models as sf

    history = _History(SEASON[frequency], WINDOW[frequency], CYCLES[frequency], len(values))
    model = MODELS[name](sf, history)
    if model is None:
        return None
    interval = {"level": sorted({_share(level) for level in levels if level != 0.5})} if levels else {}
    try:
        with np.errstate(all="ignore"):
            found = model.forecast(y=values.copy(), h=horizon, **interval)
    except Exception:  # whatever a fit dies of: this series has no answer by this model, the others have
        return None
    return {key: np.asarray(value, dtype=np.float64) for key, value in found.items()}


def _share(level: float) -> float | int:
    """Per cent of the central interval that ends at the quantile."""
    share = round(abs(1.0 - 2.0 * level) * 100.0, 6)
    return int(share) if share == int(share) else share


def _own_quantiles(raw: Mapping[str, Floats], levels: Sequence[float]) -> Floats:
    columns = [
        raw["mean"] if level == 0.5 else raw[f"{'lo' if level < 0.5 else 'hi'}-{_share(level)}"] for level in levels
    ]
    return np.column_stack(columns)


def _residual_quantiles(name: str, values: Floats, mean: Floats, work: _Work) -> Floats:
    """Empirical quantiles of actual - forecast, all steps of earlier origins together, (1, levels)."""
    pieces = []
    for number in range(1, ORIGINS[work.frequency] + 1):
        cut = len(values) - number * work.horizon
        if cut < max(FEWEST_KNOWN, WINDOW[work.frequency] // 2):
            break
        before = _fit(name, values[:cut], work.frequency, work.horizon, ())
        if before is not None:
            gap = values[cut : cut + work.horizon] - np.maximum(before["mean"], 0.0)
            pieces.append(gap[np.isfinite(gap)])
    residuals = np.concatenate(pieces) if pieces else np.empty(0)
    if len(residuals) < FEWEST_RESIDUALS:
        residuals = values - float(mean.mean())
    return np.quantile(residuals, work.levels)[None, :]
