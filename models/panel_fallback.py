"""Who answers when the boosters cannot: seasonal naive, the level of a group, and says so by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.calibration import tidy
from models.panel import Floats, Ints, PanelForecast
from models.panel_columns import PanelColumns, mean_of, season_values
from models.panel_training import grid

# A series with fewer known periods than this is new: its group speaks for it.
NEW_PERIODS = 1
FEWEST_ERRORS = 20
GROUP_PERIODS = 8


def fallback_forecast(columns: PanelColumns, horizon: int, levels: tuple[float, ...], why: str) -> PanelForecast:
    """A panel with too few rows for a model: the same season's last value, with its own past errors as intervals.

    Returns:
        `how` is `seasonal_naive`, `window_average` where no same season is known, or as `stand_in` says.
    """
    panel, history = columns.panel, columns.history
    count = len(panel.keys)
    series, origin, step = grid(count, horizon, [panel.periods])
    naive = mean_of(season_values(history, series, origin, step, 1))
    level = history.mean(series, origin, history.rhythm.scale)
    mean = np.where(np.isfinite(naive), naive, level)
    errors = _past_errors(columns, horizon)
    table = mean[:, None] + history.scale(series, origin)[:, None] * np.quantile(errors, levels)[None, :]
    table = tidy(table)
    mean = mean.reshape(count, horizon)
    seasonal = np.asarray(np.isfinite(naive).reshape(count, horizon).all(axis=1))
    return stand_in(
        columns,
        PanelForecast(
            mean=mean,
            quantiles=table.reshape(count, horizon, len(levels)),
            levels=levels,
            how=tuple("seasonal_naive" if own else "window_average" for own in seasonal.tolist()),
            point=mean,
            about={"fallback": why},
        ),
    )


def _past_errors(columns: PanelColumns, horizon: int) -> Floats:
    """Errors of the same rule at every past origin, in units of each level; a wide guess while there are few."""
    panel, history = columns.panel, columns.history
    origins = range(max(1, panel.periods - 2 * history.rhythm.year), panel.periods)
    series, origin, step = grid(len(panel.keys), min(horizon, history.rhythm.season), list(origins))
    actual = history.at(series, origin + step - 1)
    naive = mean_of(season_values(history, series, origin, step, 1))
    naive = np.where(np.isfinite(naive), naive, history.mean(series, origin, history.rhythm.scale))
    errors = (actual - naive) / history.scale(series, origin)
    errors = errors[np.isfinite(errors)]
    return errors if len(errors) >= FEWEST_ERRORS else np.linspace(-1.0, 2.0, 31)


def stand_in(columns: PanelColumns, made: PanelForecast) -> PanelForecast:
    """Answers for series of which nothing is known: those of their nearest group; and a name where nothing ever sold.

    The groups of a new series are those with the same value of all static attributes, then of the first one, then the
    panel. Its figures are the mean over the group's series (of those that began within the panel, their first
    periods, where there are enough), its quantiles those of the group's own recent demand.
    """
    panel, history = columns.panel, columns.history
    known = history.count[:, -1]
    how = list(made.how)
    for place in np.flatnonzero((known > 0) & (history.total[:, -1] == 0)):
        how[place] = "all_zero" if made.how[place] == "model" else made.how[place]
    new = np.flatnonzero(known < NEW_PERIODS)
    if not len(new):
        return replace(made, how=tuple(how))
    mean, table = made.mean.copy(), made.quantiles.copy()
    point = made.mean.copy() if made.point is None else made.point.copy()
    old = np.flatnonzero(known >= NEW_PERIODS)
    for place in new:
        group, name = _group(columns, int(place), old)
        mean[place] = np.nanmean(mean[group], axis=0)
        recent = panel.demand[group][:, -GROUP_PERIODS:]
        recent = recent[np.isfinite(recent)]
        spread = np.quantile(recent, made.levels) if len(recent) else np.zeros(len(made.levels))
        table[place] = spread[None, :]
        point[place] = mean[place]
        how[place] = name
    return replace(made, mean=mean, quantiles=table, point=point, how=tuple(how))


def _group(columns: PanelColumns, place: int, old: Ints) -> tuple[Ints, str]:
    """Known series to speak for a new one, and what that is called."""
    static = columns.panel.static
    names = list(static)
    for depth in range(len(names), 0, -1):
        same = np.ones(len(old), dtype=bool)
        for name in names[:depth]:
            same &= np.array([value == static[name][place] for value in static[name][old]])
        if same.any():
            return old[same], f"level of {', '.join(names[:depth])}"
    return old, "level of the panel"
