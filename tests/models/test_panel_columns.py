"""Columns of a panel's rows: nothing of the future, and what they say they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from models.panel import Panel, period_numbers
from models.panel_columns import SCALE, PanelColumns
from models.panel_history import PanelHistory

HORIZON = 9


def small_panel(frequency: str = "day", zeros: float = 0.0, periods: int = 420) -> Panel:
    """Nine series with a week, a trend, a promotion known ahead, unknown periods and, if wanted, many zeros."""
    random = np.random.default_rng(5)
    count, ahead = 9, periods + HORIZON
    promotion = (random.random((count, ahead)) < 0.2).astype(float)
    level = random.gamma(2.0, 20.0, (count, 1)) * (1 + 0.3 * np.sin(2 * np.pi * np.arange(periods) / 7))
    demand = random.poisson(level * (1 + 0.5 * promotion[:, :periods])).astype(float)
    demand[random.random(demand.shape) < zeros] = 0.0
    demand[random.random(demand.shape) < 0.1] = np.nan
    demand[3, :200] = np.nan
    kinds = np.array(["a", "b", "a", None, "b", "a", "a", "b", "a"], dtype=object)
    first = int(period_numbers(np.datetime64("2020-01-01"), "day"))
    return Panel(
        keys=tuple(f"s{i}" for i in range(count)),
        frequency=frequency,  # type: ignore[arg-type]
        first=first,
        demand=demand,
        ahead={"promotion": promotion, "price": random.random((count, ahead))},
        static={"kind": kinds},
    )


def rows(count: int, periods: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows at random places: series, origin, step."""
    random = np.random.default_rng(1)
    return random.integers(0, 9, count), random.integers(1, periods + 1, count), random.integers(1, HORIZON + 1, count)


@pytest.mark.parametrize("zeros", [0.0, 0.6])
@pytest.mark.parametrize("frequency", ["day", "month"])
def test_no_column_sees_its_origins_future(frequency: str, zeros: float) -> None:
    """A row's columns are the same to the last bit whether or not the panel goes on after the row's origin."""
    panel = small_panel(frequency, zeros)
    whole = PanelColumns(panel, HORIZON, "DE")
    for origin in (5, 60, 299, 400):
        cut = PanelColumns(panel.until(origin, HORIZON), HORIZON, "DE")
        series = np.repeat(np.arange(9), HORIZON)
        step = np.tile(np.arange(1, HORIZON + 1), 9)
        at = np.full(len(series), origin)
        full, seen = whole.rows(series, at, step), cut.rows(series, at, step)
        assert list(full) == list(seen)
        for name in full:
            np.testing.assert_array_equal(full[name], seen[name], err_msg=f"{name} at {origin}")


def test_columns_are_what_their_names_say() -> None:
    """Window means, season means, last year and the same-flag mean equal their definitions, row by row."""
    panel = small_panel()
    found = PanelColumns(panel, HORIZON, None).rows(*rows(200, panel.periods))
    promotion = panel.ahead["promotion"]
    for place, (i, t, k) in enumerate(zip(*rows(200, panel.periods), strict=True)):
        past, target = panel.demand[i, :t], t + k - 1
        scale = found[SCALE][place]
        assert found["mean_28"][place] * scale == pytest.approx(mean(past[-28:]), nan_ok=True)
        same = [past[p] if p >= 0 else np.nan for p in range(target % 7, t, 7)][::-1]
        assert found["season_mean_4"][place] * scale == pytest.approx(mean(np.array(same[:4])), nan_ok=True)
        flagged = [past[p] for p in range(target % 7, t, 7) if promotion[i, p] == promotion[i, target]]
        recent = flagged[::-1] if len(same) <= 12 else None
        if recent is not None:
            assert found["promotion__same_season"][place] * scale == pytest.approx(mean(np.array(recent)), nan_ok=True)
        year = panel.demand[i, target - 364] if target >= 364 else np.nan
        assert found["last_year"][place] * scale == pytest.approx(year, nan_ok=True)


def mean(values: NDArray[np.float64]) -> float:
    """Mean of the known ones."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def test_a_closed_site_keeps_a_scale() -> None:
    """After weeks of nothing the scale is a fifth of the long-run mean, not next to nothing."""
    demand = np.concatenate([np.full(300, 100.0), np.zeros(80)])[None, :]
    panel = replace(small_panel(), keys=("s0",), demand=demand, ahead={}, static={})
    scale = PanelHistory(panel, HORIZON).scale(np.array([0]), np.array([380]))
    assert 0.2 * demand.mean() <= scale[0] < 0.3 * demand.mean()
