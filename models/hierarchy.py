"""Totals by category and region that agree with their parts, by hierarchicalforecast (extra `hier`).

A series' own forecast and that of its region come from different looks at the past and do not add up. Reconciliation
moves both, each by as much as it is uncertain (Wickramasuriya, Athanasopoulos and Hyndman 2019: minimum trace). The
library is imported when it is needed; its dependency qpsolvers is LGPL, so that it stays out of the plain installation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from contracts.errors import DependencyDown, InputInvalid, NotEnoughData, UnknownName
from models.panel import Panel, PanelForecast

Floats = NDArray[np.float64]
Method = Literal["mint_shrink", "wls_struct", "bottom_up"]
TotalForecasts = Mapping[str, Floats] | Callable[[Panel, int], PanelForecast] | None

TOTAL = "total"
MOST_SERIES = 5000
FEWEST_RESIDUALS = 8


@dataclass(frozen=True)
class Hierarchy:
    """Which series make up which total.

    Attributes:
        nodes: names: `total`, then `attribute=value` by attribute, then the panel's keys.
        sums: 1 where a series (column) is part of a node (row), (nodes, n).
        groups: how many of the nodes are totals.
    """

    nodes: tuple[str, ...]
    sums: Floats
    groups: int


@dataclass(frozen=True)
class Reconciled:
    """Forecasts of all nodes, h steps ahead, that add up.

    Attributes:
        hierarchy: the nodes. mean: units, (nodes, h), >= 0; a total is the sum of its series to 1e-6 of itself.
        quantiles: units, (nodes, h, q), rising along the last axis, >= 0; they do not add up, nor should they.
        levels: the q levels. about: method, where quantiles and residuals come from, what was clipped.
    """

    hierarchy: Hierarchy
    mean: Floats
    quantiles: Floats
    levels: tuple[float, ...]
    about: Mapping[str, Any]

    def of(self, node: str) -> tuple[Floats, Floats]:
        """Mean (h,) and quantiles (h, q) of a node.

        Raises:
            UnknownName: no such node.
        """
        if node not in self.hierarchy.nodes:
            raise UnknownName("node", node, self.hierarchy.nodes)
        at = self.hierarchy.nodes.index(node)
        return self.mean[at], self.quantiles[at]


def hierarchy_of(panel: Panel, by: Sequence[str]) -> Hierarchy:
    """The grand total, a total for each value of each static attribute (`unknown` where not given), and the series.

    Raises:
        UnknownName: the panel has no such attribute. InputInvalid: none is named, or a series is named as a total is.
    """
    if not by:
        raise InputInvalid("by", "at least one static attribute", "none")
    names, rows = [TOTAL], [np.ones(len(panel.keys))]
    for attribute in by:
        if attribute not in panel.static:
            raise UnknownName("static attribute", attribute, panel.static)
        values = np.array(["unknown" if value is None else str(value) for value in panel.static[attribute]])
        for value in np.unique(values):
            names.append(f"{attribute}={value}")
            rows.append((values == value).astype(np.float64))
    both = set(names) & set(panel.keys)
    if both:
        raise InputInvalid(f"series {min(both)}", "a key that no total has", "the name of a total")
    return Hierarchy((*names, *panel.keys), np.vstack([*rows, np.eye(len(panel.keys))]), len(names))


def total_panel(panel: Panel, hierarchy: Hierarchy) -> Panel:
    """The totals as a panel of their own, for whoever forecasts them.

    Demand is the sum of what is known (a closed or unreported series counts as nothing), NaN where nothing is;
    covariates known in advance are the mean over the series.
    """
    sums = hierarchy.sums[: hierarchy.groups]
    return Panel(
        keys=hierarchy.nodes[: hierarchy.groups],
        frequency=panel.frequency,
        first=panel.first,
        demand=_summed(sums, panel.demand),
        ahead={name: _summed(sums, values, mean=True) for name, values in panel.ahead.items()},
    )


def reconcile(
    panel: Panel,
    forecast: PanelForecast,
    by: Sequence[str],
    total_forecasts: TotalForecasts = None,
    method: Method = "mint_shrink",
    *,
    residuals: Floats | None = None,
    season: int = 1,
) -> Reconciled:
    """Means of all levels that add up, never negative, and quantiles around them.

    Args:
        panel: the series. forecast: of those series. by: static attributes that make totals.
        total_forecasts: the totals' own forecasts: node -> mean (h,) of every total, or a function of (panel of the
            totals, horizon); None adds up the series', which `bottom_up` does anyhow.
        method: `mint_shrink` weighs by a shrunk covariance of residuals, `wls_struct` by the number of series in a
            node, `bottom_up` keeps the series as they are.
        residuals: errors of past forecasts of every node, (nodes, periods), NaN where unknown; differences of demand
            at lag `season` when None.

    Never negative: series below zero are set to zero and the others scaled so that the grand total stays as it was.
    Quantiles: a forecast's own, scaled around the coherent mean; for totals without any, the residuals' quantiles
    around it.

    Raises:
        DependencyDown: the extra is not installed. InputInvalid: shapes differ, a mean is missing or negative, more
            than 5,000 series for one weighing. NotEnoughData: fewer than 8 residuals. UnknownName: method, attribute.
    """
    if method not in get_args(Method):
        raise UnknownName("method", str(method), get_args(Method))
    hierarchy = hierarchy_of(panel, by)
    series = _checked(forecast.mean, (len(panel.keys), -1), "forecast means")
    horizon = series.shape[1]
    totals = _totals(panel, hierarchy, total_forecasts, series, forecast.levels)
    errors = _errors(panel, hierarchy, residuals, season)
    base = np.vstack([totals.mean, series])
    fresh = series if method == "bottom_up" else _weighed(hierarchy, base, errors, method)
    parts, clipped = _not_negative(fresh)
    mean = hierarchy.sums @ parts
    groups, own = hierarchy.groups, bool(totals.levels)
    if own:
        around = _scaled(totals.quantiles, totals.mean, mean[:groups])
    else:
        around = _around(mean[:groups], errors[:groups], forecast.levels)
    about = {
        "method": method,
        "by": list(by),
        "horizon": horizon,
        "total_quantiles": "their own, scaled" if own else "residuals around the coherent mean",
        "residuals": "given" if residuals is not None else f"differences of demand at lag {season}",
        "clipped_at_zero": clipped,
    }
    spread = np.concatenate([around, _scaled(forecast.quantiles, series, parts)])
    return Reconciled(hierarchy, mean, spread, forecast.levels, about)


def coherence(reconciled: Reconciled) -> float:
    """The largest gap between a total and the sum of its series, as a share of the total (or of one unit)."""
    mean, own = reconciled.mean, reconciled.hierarchy
    gap = np.abs(own.sums @ mean[own.groups :] - mean)
    return float((gap / np.maximum(mean, 1.0)).max(initial=0.0))


def _totals(
    panel: Panel, hierarchy: Hierarchy, given: TotalForecasts, series: Floats, levels: tuple[float, ...]
) -> PanelForecast:
    """The totals' base forecasts, with their own quantiles where a function made them."""
    names, shape = hierarchy.nodes[: hierarchy.groups], (hierarchy.groups, series.shape[1])
    none = np.empty((*shape, 0))
    if given is None:
        return PanelForecast(hierarchy.sums[: hierarchy.groups] @ series, none, ())
    if callable(given):
        made = given(total_panel(panel, hierarchy), shape[1])
        if made.levels and made.levels != levels:
            raise InputInvalid("total forecasts", f"quantiles at {levels}", f"at {made.levels}")
        return PanelForecast(_checked(made.mean, shape, "total forecasts"), made.quantiles, made.levels)
    absent = [name for name in names if name not in given]
    if absent:
        raise InputInvalid("total forecasts", f"a forecast of {absent[0]}", f"only {', '.join(map(str, given))[:200]}")
    means = [_checked(np.asarray(given[name])[None, :], (1, shape[1]), f"total forecast {name}")[0] for name in names]
    return PanelForecast(np.vstack(means), none, ())


def _checked(values: Any, shape: tuple[int, int], what: str) -> Floats:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != shape[0] or shape[1] not in (-1, table.shape[1]):
        raise InputInvalid(what, f"a table {shape}".replace("-1", "h"), f"the shape {table.shape}")
    bad = ~(np.isfinite(table) & (table >= 0))
    if bad.any():
        row, step = (int(i) for i in np.argwhere(bad)[0])
        raise InputInvalid(f"{what}, row {row}, step {step + 1}", "units of at least 0", f"{table[row, step]:g}")
    return table


def _errors(panel: Panel, hierarchy: Hierarchy, given: Floats | None, season: int) -> Floats:
    """Residuals of every node, (nodes, periods), in periods where the totals have one."""
    if given is None:
        if not 1 <= season < panel.periods:
            raise InputInvalid("season", f"a lag from 1 to {panel.periods - 1}", f"{season}")
        demand = _summed(hierarchy.sums, panel.demand)
        given = demand[:, season:] - demand[:, :-season]
    table = np.asarray(given, dtype=np.float64)
    if table.ndim != 2 or len(table) != len(hierarchy.nodes):
        raise InputInvalid("residuals", f"a table ({len(hierarchy.nodes)} nodes, periods)", f"the shape {table.shape}")
    known = table[:, np.isfinite(table[: hierarchy.groups]).all(axis=0)]
    if known.shape[1] < FEWEST_RESIDUALS:
        raise NotEnoughData("residuals of every total", FEWEST_RESIDUALS, known.shape[1])
    return known


def _weighed(hierarchy: Hierarchy, base: Floats, errors: Floats, method: Method) -> Floats:
    """Reconciled means of the series, (n, h), which may be negative."""
    if hierarchy.sums.shape[1] > MOST_SERIES:
        hint = "use bottom_up, or reconcile each region apart"
        raise InputInvalid(method, f"at most {MOST_SERIES} series", f"{hierarchy.sums.shape[1]}", hint=hint)
    try:
        from hierarchicalforecast.methods import MinTrace
    except ImportError as error:
        raise DependencyDown("hierarchicalforecast", f"{error}; install the extra: seatrial[hier]") from None
    # A series without an error in a period tells nothing there; 0 keeps the covariance positive definite.
    seen = np.nan_to_num(errors)
    try:
        weigher = MinTrace(method=method, nonnegative=False)
        weigher.fit(S=hierarchy.sums, y_hat=base, y_insample=seen, y_hat_insample=np.zeros_like(seen))
    except Exception as error:
        # The library raises bare Exceptions for singular weights.
        hint = "wls_struct and bottom_up need no residuals"
        raise InputInvalid(f"residuals for {method}", "errors that vary", str(error)[:200], hint=hint) from error
    return np.asarray(weigher.P @ base, dtype=np.float64)


def _not_negative(series: Floats) -> tuple[Floats, int]:
    """The series with nothing below zero and the same total a step, and how many figures were clipped."""
    below = series < 0
    kept = np.where(below, 0.0, series)
    before, after = np.maximum(series.sum(axis=0), 0.0), kept.sum(axis=0)
    factor = np.divide(before, after, out=np.ones_like(after), where=after > 0)
    return np.asarray(np.where(below.any(axis=0), kept * factor, kept), dtype=np.float64), int(below.sum())


def _scaled(quantiles: Floats, base: Floats, coherent: Floats) -> Floats:
    """Quantiles moved with their mean: by the same factor, or by the difference where the old mean is 0."""
    factor = np.divide(coherent, base, out=np.ones_like(base), where=base > 0)
    shift = np.where(base > 0, 0.0, coherent - base)
    return np.asarray(np.maximum(quantiles * factor[..., None] + shift[..., None], 0.0), dtype=np.float64)


def _around(mean: Floats, errors: Floats, levels: Sequence[float]) -> Floats:
    """Quantiles of past errors, centred, around each mean, (nodes, h, q)."""
    centred = errors - errors.mean(axis=1, keepdims=True)
    spread = np.quantile(centred, np.asarray(levels), axis=1).T
    return np.asarray(np.maximum(mean[..., None] + spread[:, None, :], 0.0), dtype=np.float64)


def _summed(sums: Floats, values: Floats, *, mean: bool = False) -> Floats:
    """Sums (or means) of the known values of each node's series, (nodes, periods); NaN where none is known."""
    known = np.isfinite(values)
    count = sums @ known.astype(np.float64)
    total = sums @ np.where(known, values, 0.0)
    if mean:
        total = total / np.maximum(count, 1.0)
    return np.asarray(np.where(count > 0, total, np.nan), dtype=np.float64)
