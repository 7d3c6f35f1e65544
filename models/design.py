"""From named columns to the matrix that a model sees: one path for training and serving, one row or many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from contracts.declarations import (
    Declarations,
    DemandHistory,
    GivenFacts,
    OutcomeRates,
    PriceHistory,
    fact_columns,
    view_columns,
)
from contracts.errors import InputInvalid, UnknownName
from contracts.policy import Kind
from contracts.yaml_file import Strict
from models.incumbent import history_view, lag_values, pooled_rate, rate_views
from models.rate_pool import RatePool, learn_pool, pool_sources

Floats = NDArray[np.float64]
Columns = Mapping[str, Any]
How = Literal[
    "as_is",
    "by_scale",
    "capped",
    "category",
    "log_scale",
    "season_mean",
    "season_lag",
    "last_year",
    "last_year_ratio",
    "pooled_rate",
    "pool_step",
]

DAYS = 7
# A level smaller than this share of the panel's counts as this: dividing by less blows up what closed sites weigh.
SCALE_FLOOR_SHARE = 0.05
SMALLEST_FLOOR = 1e-3
# With less than a year of rows, a time of year is a date in disguise: the model would always meet values never seen.
YEARLY = frozenset({"month", "week", "schedule_month"})
A_YEAR = pd.Timedelta(days=365)


class DesignColumn(Strict):
    """One column of the matrix: made `how` from `sources`; `value` is a cap (capped) or a week (season_lag)."""

    name: str
    how: How
    sources: tuple[str, ...]
    value: float = 0.0


class DesignSpec(Strict):
    """How a matrix is made from columns: plain data, saved with the model.

    `categories`: column -> known values in order of code; an unknown value gets the next code, a missing one NaN.
    `history`: prefix of the demand_history columns, empty for a risk. `scale_floor`: smallest scale, units a day.
    `pools`: late rates drawn to those of coarser keys; the columns made `pool_step` are their steps, in order. `rates`:
    what `pooled_rate` is made of, in models of format 1.
    """

    kind: Kind
    columns: tuple[DesignColumn, ...]
    categories: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    rates: tuple[tuple[str, str], ...] = ()
    pools: dict[str, RatePool] = Field(default_factory=dict)
    history: str = ""
    scale_floor: float = SMALLEST_FLOOR

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the matrix's columns, in order."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Every column that must be given, in a fixed order without repeats."""
        return tuple(dict.fromkeys(source for column in self.columns for source in column.sources))

    @cached_property
    def places(self) -> dict[str, NDArray[np.int64]]:
        """Matrix positions of the columns of each `how`."""
        hows = dict.fromkeys(column.how for column in self.columns)
        return {h: np.array([i for i, c in enumerate(self.columns) if c.how == h]) for h in hows}

    @cached_property
    def rule_places(self) -> tuple[int, ...]:
        """Matrix positions of the last step of each pool: the finest key's late rate, drawn to all coarser ones."""
        ends = np.cumsum([len(pool.sources) for pool in self.pools.values()], dtype=np.int64)
        return tuple(int(self.places["pool_step"][end - 1]) for end in ends)

    @cached_property
    def codes(self) -> dict[str, dict[str, float]]:
        """Category column -> value -> code."""
        return {name: {v: float(i) for i, v in enumerate(values)} for name, values in self.categories.items()}


class FrameColumns(Mapping[str, Any]):
    """A training frame seen as columns, so that training and serving go the same way."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def __getitem__(self, name: str) -> Any:
        return self._frame[name].to_numpy()

    def __contains__(self, name: object) -> bool:
        return name in self._frame.columns

    def __iter__(self) -> Iterator[str]:
        return iter(str(name) for name in self._frame.columns)

    def __len__(self) -> int:
        return self._frame.shape[1]


def design_spec(kind: Kind, declarations: Declarations, service: str, rows: pd.DataFrame) -> DesignSpec:
    """The recipe of a model's matrix: from what the service declares, with category codes and scale floor from `rows`.

    Args:
        kind: forecast or risk.
        declarations: views and services.
        service: the feature service.
        rows: training rows (labels known); category values and the panel's level are taken from here.

    Raises:
        UnknownName: no such service.
        InputInvalid: a declared column is not in `rows`, or a forecast has no history view.
    """
    if service not in declarations.services:
        raise UnknownName("feature service", service, declarations.services)
    forecast = kind == "forecast"
    history = history_view(declarations, service) if forecast else ""
    columns = [c for view in declarations.services[service].views for c in _view_columns(declarations, view, history)]
    categories: dict[str, tuple[str, ...]] = {}
    for facts in declarations.services[service].facts:
        given = set(facts.categories) if isinstance(facts, GivenFacts) else set()
        for name in fact_columns(facts):
            how: How = "category" if name in given else "as_is"
            columns += [DesignColumn(name=name, how=how, sources=(name,))]
        for name in sorted(given):
            categories[name] = tuple(sorted({str(v) for v in rows[name].dropna().unique()}))
    pools = {} if forecast else _pools(declarations, service, rows)
    columns += [column for name, pool in pools.items() for column in _pool_columns(name, pool)]
    short = bool(rows["as_of"].max() - rows["as_of"].min() < A_YEAR)
    columns = [c for c in columns if _worth_having(c, rows) and not (short and c.name in YEARLY)]
    spec = DesignSpec(kind=kind, columns=tuple(columns), categories=categories, pools=pools, history=history)
    if forecast:
        level = float(np.nanmean(rows[f"{history}__scale"].to_numpy(dtype=np.float64)))
        floor = max(SCALE_FLOOR_SHARE * level, SMALLEST_FLOOR) if np.isfinite(level) else SMALLEST_FLOOR
        spec = spec.model_copy(update={"scale_floor": floor})
    return spec


def _worth_having(column: DesignColumn, rows: pd.DataFrame) -> bool:
    missing = [name for name in column.sources if name not in rows.columns and name != "target_date"]
    if missing:
        raise InputInvalid("training rows", f"a column {missing[0]}", "none of that name")
    return column.how != "as_is" or bool(rows[column.name].notna().any())


def _view_columns(declarations: Declarations, name: str, history: str) -> list[DesignColumn]:
    view = declarations.views[name]
    if name == history and isinstance(view, DemandHistory):
        return _history_columns(name, view)
    if isinstance(view, OutcomeRates):
        # Counts grow with the business, and one bad day rules a mean delay: both made models worse, see docs/risk.md.
        return [_as_is(f"{name}__late_rate_{days}") for days in view.windows]
    skipped = {"price_last"} if isinstance(view, PriceHistory) else set()
    return [_as_is(f"{name}__{column}") for column in view_columns(view) if column not in skipped]


def _pools(declarations: Declarations, service: str, rows: pd.DataFrame) -> dict[str, RatePool]:
    label = rows["label"].to_numpy(dtype=np.float64)
    sources = pool_sources(rate_views(declarations, service))
    for name in (column for pairs in sources.values() for pair in pairs for column in pair):
        if name not in rows.columns:
            raise InputInvalid("training rows", f"a column {name}", "none of that name")
    return {name: learn_pool(FrameColumns(rows), label, pairs) for name, pairs in sources.items()}


def _pool_columns(name: str, pool: RatePool) -> list[DesignColumn]:
    """One column a step: the view's rate drawn to those of the steps before."""
    columns = []
    for step, (rate, _) in enumerate(pool.sources):
        used = tuple(column for pair in pool.sources[: step + 1] for column in pair)
        view, days = rate.rsplit("__", 1)[0], rate.rsplit("_", 1)[1]
        columns.append(DesignColumn(name=f"{view}__pooled_{name}_{days}", how="pool_step", sources=used))
    return columns


def _as_is(source: str) -> DesignColumn:
    return DesignColumn(name=source, how="as_is", sources=(source,))


def _history_columns(name: str, view: DemandHistory) -> list[DesignColumn]:
    """Levels relative to the series' scale, the same weekday's values, and the step ahead."""
    scale = f"{name}__scale"
    levels = [f"lag_{lag}" for lag in range(1, view.lags + 1)]
    levels += [f"{what}_{window}" for window in view.windows for what in ("mean", "std")] + ["naive_rmse"]
    plain = [f"zero_share_{window}" for window in view.windows] + ["days_since_sale"]
    columns = [DesignColumn(name=f"{name}__{c}", how="by_scale", sources=(f"{name}__{c}", scale)) for c in levels]
    columns += [_as_is(f"{name}__{column}") for column in plain]
    # Days of history grow without end, so that a model would only ever see new values: they stop mattering when full.
    columns.append(
        DesignColumn(name="history_full", how="capped", sources=(f"{name}__history_days",), value=max(view.windows))
    )
    columns.append(DesignColumn(name="log_scale", how="log_scale", sources=(scale,)))
    seasons = tuple(f"{name}__season_mean_{day}" for day in range(DAYS))
    columns.append(DesignColumn(name="season_mean", how="season_mean", sources=(*seasons, scale, "target_date")))
    lags = tuple(f"{name}__lag_{lag}" for lag in range(1, view.lags + 1))
    for week in range(view.lags // DAYS):
        columns.append(
            DesignColumn(name=f"season_lag_{week + 1}", how="season_lag", sources=(*lags, scale, "step"), value=week)
        )
    levels = [f"level_{share}" for share in view.smoothing]
    columns += [DesignColumn(name=f"{name}__{c}", how="by_scale", sources=(f"{name}__{c}", scale)) for c in levels]
    if view.last_year:
        year = tuple(f"{name}__last_year_{ahead}" for ahead in range(1, view.last_year + 1))
        then = f"{name}__last_year_level"
        columns.append(DesignColumn(name="last_year", how="last_year", sources=(*year, scale, "step")))
        columns.append(DesignColumn(name="last_year_ratio", how="last_year_ratio", sources=(*year, then, "step")))
    return [*columns, _as_is("step")]


def _array(columns: Columns, name: str) -> Any:
    try:
        return columns[name]
    except KeyError:
        raise InputInvalid("columns", f"a column {name}", f"{len(list(columns))} others") from None


def scale_of(spec: DesignSpec, columns: Columns) -> Floats:
    """The level that a forecast's target is divided by, units a day, (n,), >= spec.scale_floor; NaN where unknown."""
    return np.maximum(np.asarray(_array(columns, f"{spec.history}__scale"), dtype=np.float64), spec.scale_floor)


def target_weekday(columns: Columns) -> NDArray[np.int64]:
    """Weekday of each row's target date, 0 = Monday, from `target_date` (YYYY-MM-DD), else from the fact `weekday`."""
    if "target_date" in columns:
        days = np.asarray(columns["target_date"]).astype("datetime64[D]").astype(np.int64)
        return np.asarray((days + 3) % DAYS, dtype=np.int64)
    return np.asarray(_array(columns, "weekday"), dtype=np.float64).astype(np.int64)


def design_matrix(spec: DesignSpec, columns: Columns) -> Floats:
    """The matrix that the model's boosters see.

    Args:
        spec: the model's recipe.
        columns: name -> array of n values (numbers, None or NaN as missing; text for categories and target_date).

    Returns:
        (n, p) float64 in the order of `spec.names`, NaN as missing; a row is the same to the last bit whether it comes
        alone or in a batch.

    Raises:
        InputInvalid: a needed column is missing.
    """
    first = spec.columns[0].sources[0]
    out = np.empty((len(_array(columns, first)), len(spec.columns)))
    for place, column in enumerate(spec.columns):
        if column.how in ("as_is", "by_scale"):
            out[:, place] = _array(columns, column.sources[0])
        elif column.how == "capped":
            out[:, place] = np.minimum(np.asarray(_array(columns, column.sources[0]), dtype=np.float64), column.value)
        elif column.how == "category":
            out[:, place] = _codes(spec.codes[column.name], _array(columns, column.name))
        elif column.how == "pooled_rate":
            out[:, place] = pooled_rate(columns, spec.rates)
    if spec.pools:
        steps = [step for pool in spec.pools.values() for step in pool.steps(columns)]
        for place, values in zip(spec.places["pool_step"], steps, strict=True):
            out[:, place] = values
    if spec.history:
        _history_values(spec, columns, out)
    return out


def _history_values(spec: DesignSpec, columns: Columns, out: Floats) -> None:
    scale = scale_of(spec, columns)
    places = spec.places
    step = np.asarray(_array(columns, "step"), dtype=np.int64)
    for place, values in zip(places.get("season_lag", ()), lag_values(columns, spec.history, step), strict=False):
        out[:, place] = values / scale
    seasons = np.stack([_array(columns, f"{spec.history}__season_mean_{day}") for day in range(DAYS)])
    season = seasons[target_weekday(columns), np.arange(len(step))]
    out[:, places["season_mean"][0]] = season.astype(np.float64) / scale
    out[:, places["log_scale"][0]] = np.log(scale)
    if "last_year" in places:
        value, then = _last_year(spec, columns, step)
        out[:, places["last_year"][0]] = value / scale
        out[:, places["last_year_ratio"][0]] = value / then
    out[:, places["by_scale"]] /= scale[:, None]


def _last_year(spec: DesignSpec, columns: Columns, step: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Each row's value a year before its target, NaN beyond the steps that are kept; and the level then, NaN at 0."""
    names = spec.columns[int(spec.places["last_year"][0])].sources[:-2]
    table = np.stack([np.asarray(_array(columns, name), dtype=np.float64) for name in names])
    rows = np.arange(len(step))
    value = np.where(step <= len(names), table[np.minimum(step, len(names)) - 1, rows], np.nan)
    then = np.asarray(_array(columns, f"{spec.history}__last_year_level"), dtype=np.float64)
    return value, np.where(then > 0, then, np.nan)


def _codes(table: Mapping[str, float], values: Any) -> Floats:
    unknown = float(len(table))
    return np.fromiter(
        (np.nan if v is None or v != v else table.get(str(v), unknown) for v in values), np.float64, len(values)
    )
