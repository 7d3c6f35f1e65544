"""One recipe for a panel's demand: global boosters, statistical challengers where they earn a share, honest intervals.

Source: rolling-origin trials on eight real sets (daily, weekly, monthly); docs/forecast.md has what it does today.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from contracts.errors import InputInvalid, NotEnoughData
from models.calibration import tidy
from models.panel import Panel, PanelForecast
from models.panel_columns import PanelColumns
from models.panel_corrections import PanelCorrections, ask_rows, learn_corrections, member_rows, spread
from models.panel_fallback import fallback_forecast, stand_in
from models.panel_training import Family, PanelFit, fit_family

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
# Of the median in the point forecast; the rest is the mean's.
MEDIAN_SHARE = 0.5


def forecast_panel(
    panel: Panel,
    horizon: int,
    *,
    levels: Sequence[float] = LEVELS,
    seed: int = 7,
    country: str | None = None,
    workers: int = 1,
) -> PanelForecast:
    """Forecast every series of a panel.

    Args:
        panel: demand and what is known ahead; covariates beyond what is given count as unknown. horizon: steps.
        levels: quantiles, rising, with the median among them. seed: of the sampling of rows and of the boosters.
        country: ISO 3166 code whose holidays count (daily panels). workers: processes for statistical fits.

    Returns:
        mean, point, quantiles; `how` says `model` or which fallback answered for a series; `about` what was decided.
        The same inputs give the same figures.

    Raises:
        InputInvalid: the horizon is below 1, levels are not rising within (0, 1) or lack the median.
        NotEnoughData: nothing is known of any series.
    """
    levels = tuple(levels)
    if horizon < 1:
        raise InputInvalid("horizon", "at least 1 step", str(horizon))
    if list(levels) != sorted(set(levels)) or 0.5 not in levels or not 0 < levels[0] <= levels[-1] < 1:
        raise InputInvalid("levels", "rising, strictly between 0 and 1, with 0.5 among them", str(levels))
    if not np.isfinite(panel.demand).any():
        raise NotEnoughData("periods with a known demand", 1, 0)
    columns = PanelColumns(panel, horizon, country)
    plan = PanelFit(levels=levels, seed=seed)
    try:
        found = learn_corrections(columns, horizon, plan, workers)
        family = fit_family(columns, horizon, panel.periods, replace(plan, rounds=found.rounds))
    except NotEnoughData as error:
        return fallback_forecast(columns, horizon, levels, str(error))
    return _forecast(columns, horizon, family, found, workers)


def _forecast(
    columns: PanelColumns, horizon: int, family: Family, found: PanelCorrections, workers: int
) -> PanelForecast:
    panel, levels = columns.panel, family.levels
    rows = ask_rows(columns, family, found.rule, horizon, [panel.periods], np.arange(len(panel.keys)))
    members = member_rows(columns, found.blend.members(), rows, horizon, workers)
    mean = np.maximum(found.blend.apply(rows.mean, members, rows.segment), 0.0)
    table = tidy(rows.quantiles + found.move * (mean - rows.mean)[:, None])
    table = spread(found, table, rows, levels)
    mean = mean * found.level
    shape = (len(panel.keys), horizon)
    point = (1 - MEDIAN_SHARE) * mean + MEDIAN_SHARE * table[:, levels.index(0.5)]
    made = PanelForecast(
        mean=mean.reshape(shape),
        quantiles=table.reshape((*shape, len(levels))),
        levels=levels,
        how=("model",) * len(panel.keys),
        point=point.reshape(shape),
        about=_about(found, family),
    )
    return stand_in(columns, made)


def _about(found: PanelCorrections, family: Family) -> dict[str, Any]:
    return {
        "rows": family.rows,
        "columns": list(family.names),
        "rounds": asdict(found.rounds),
        "blend": found.blend.model_dump(mode="json"),
        "level": found.level,
        "quantiles_follow_blend": found.move,
        "intervals": "shifted" if found.shift else "stretched" if found.stretch else "the boosters' own",
    }
