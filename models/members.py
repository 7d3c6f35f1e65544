"""Statistical members that a served forecast can blend in: plain functions of the columns that the model sees. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.design import DAYS, Columns, DesignSpec, target_weekday
from models.incumbent import floats, lag_values
from models.segments import SegmentRule

Floats = NDArray[np.float64]
MEMBERS = ("seasonal_window_average", "window_average", "seasonal_naive", "smoothed")
# The window whose mean, deviation and zero share say what a series is like: the longest one up to this.
LONGEST_WINDOW = 90


def window_of(spec: DesignSpec) -> int:
    """Days of the window that segments and the window average look at."""
    prefix = f"{spec.history}__mean_"
    windows = [int(name.removeprefix(prefix)) for name in spec.sources if name.startswith(prefix)]
    return max((w for w in windows if w <= LONGEST_WINDOW), default=min(windows))


def member_values(spec: DesignSpec, columns: Columns, names: tuple[str, ...] = MEMBERS) -> Mapping[str, Floats]:
    """What each member forecasts for each row, units, NaN where it does not know.

    Args:
        spec: the model's recipe. columns: name -> n values. names: of MEMBERS; those that the columns do not allow are
            left out.
    """
    history = spec.history
    found: dict[str, Floats] = {}
    for name in names:
        if name == "seasonal_window_average":
            table = np.stack([floats(columns, f"{history}__season_mean_{day}") for day in range(DAYS)])
            found[name] = table[target_weekday(columns), np.arange(table.shape[1])]
        elif name == "window_average":
            found[name] = floats(columns, f"{history}__mean_{window_of(spec)}")
        elif name == "seasonal_naive":
            found[name] = lag_values(columns, history, floats(columns, "step").astype(np.int64))[0]
        elif name == "smoothed":
            levels = [source for source in spec.sources if source.startswith(f"{history}__level_")]
            if levels:
                found[name] = floats(columns, levels[0])
    return found


def row_segments(spec: DesignSpec, rule: SegmentRule, columns: Columns) -> NDArray[np.object_]:
    """The segment of each row's series as known at its cutoff."""
    window = window_of(spec)
    level, deviation, zeros = (
        floats(columns, f"{spec.history}__{what}_{window}") for what in ("mean", "std", "zero_share")
    )
    return rule.name(level, deviation, zeros)
