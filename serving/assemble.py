"""From a request and the features as read to the columns that models see: one path for live answers and replay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from contracts.decisions import ViewRead
from contracts.declarations import AttributeHistory, Declarations, DemandHistory, PromotionPlan, View, view_columns
from contracts.errors import InputInvalid, UnknownName
from contracts.policy import Kind
from contracts.times import parse_time
from features.facts import fact_values
from features.online_rows import Ask

Columns = dict[str, np.ndarray[Any, Any]]
TIMES = ("promised_at", "scheduled_at")
NUMBERS = ("distance_km", "quantity", "weight_kg", "value")
TEXTS = ("sku", "location", "shipment_id", "carrier", "supplier", "origin", "destination", "mode", "category")
# How far past its ttl a demand history may still feed the incumbent rule: one season more than the models allow.
STALE_SEASON = timedelta(days=7)


class OnlineReader(Protocol):
    """What is needed of an online store: the newest rows of several views and keys as of one moment."""

    def read_many(self, asks: Iterable[Ask], as_of: datetime) -> list[ViewRead]:
        """Rows with their ages and statuses, in order."""
        ...


@dataclass(frozen=True)
class Plan:
    """A feature service resolved once: its views in order with their columns, and which of them matter how."""

    service: str
    views: tuple[tuple[str, View, tuple[str, ...]], ...]
    optional: frozenset[str]
    standing: frozenset[str]
    history: str


def plan_for(declarations: Declarations, service: str) -> Plan:
    """The plan of one feature service.

    Raises:
        UnknownName: no such service.
    """
    if service not in declarations.services:
        raise UnknownName("feature service", service, declarations.services)
    named = [(name, declarations.views[name]) for name in declarations.services[service].views]
    views = tuple((name, view, view_columns(view)) for name, view in named)
    return Plan(
        service=service,
        views=views,
        optional=frozenset(name for name, view, _ in views if isinstance(view, PromotionPlan)),
        standing=frozenset(name for name, view, _ in views if isinstance(view, AttributeHistory)),
        history=next((name for name, view, _ in views if isinstance(view, DemandHistory)), ""),
    )


@lru_cache(maxsize=512)
def target_dates(day: str, horizon: int) -> tuple[str, ...]:
    """The `horizon` dates that begin with `day` (YYYY-MM-DD); step 1 is the day itself."""
    first = np.datetime64(day, "D")
    return tuple(str(first + ahead) for ahead in range(horizon))


def read_views(
    online: OnlineReader, plan: Plan, item: Mapping[str, Any], as_of: datetime, horizon: int
) -> tuple[ViewRead, ...]:
    """Every view of the plan for one item, in the plan's order; a promotion plan gives one read a target date."""
    asks: list[Ask] = []
    for name, view, columns in plan.views:
        key = tuple(_text(item, part) for part in view.keys)
        if isinstance(view, PromotionPlan):
            asks += [Ask(name, columns, (*key, date), view.ttl) for date in target_dates(_day(as_of), horizon)]
        else:
            asks.append(Ask(name, columns, key, view.ttl))
    return tuple(online.read_many(asks, as_of))


def _text(item: Mapping[str, Any], name: str) -> Any:
    """A field's text, or None when it was not given: a store knows no row for that."""
    value = item.get(name)
    return value if isinstance(value, str) else None


def columns_for(
    kind: Kind,
    item: Mapping[str, Any],
    views: Sequence[ViewRead],
    service: str,
    declarations: Declarations,
    as_of: datetime,
    horizon: int,
    *,
    plan: Plan | None = None,
    use_stale: bool = False,
) -> Columns:
    """The columns of one decision, named as in a training set.

    Args:
        kind: forecast gives one row a step ahead, risk one row.
        item: the request's fields as they stand in the record (times as ISO text).
        views: as read for this item, see `read_views`.
        service: the feature service.
        declarations: views and services.
        as_of: the decision's time.
        horizon: steps ahead; ignored for a risk.
        plan: `plan_for(declarations, service)` when the caller has it.
        use_stale: take values beyond their ttl too; models never do, as they never saw any in training.

    Returns:
        `<view>__<column>` float64, facts, request fields, and for forecasts `target_date` (text) and `step` (int64,
        counted from the history's own tick, so that lags keep their weekday when the newest tick is late).

    Raises:
        InputInvalid: the views are not those of the service.
    """
    resolved = plan or plan_for(declarations, service)
    rows = horizon if kind == "forecast" else 1
    columns = _request_columns(kind, item, as_of, rows)
    place = 0
    for name, view, names in resolved.views:
        count = rows if isinstance(view, PromotionPlan) and kind == "forecast" else 1
        reads = views[place : place + count]
        if len(reads) < count or any(read.view != name for read in reads):
            raise InputInvalid(f"views of {service}", f"{count} of {name}", "others")
        place += count
        _view_values(columns, name, names, reads, rows, use_stale)
        if name == resolved.history and kind == "forecast":
            columns["step"] = _steps(reads[0], as_of, rows)
    columns.update(fact_values(declarations.services[service].facts, columns))
    return columns


def _request_columns(kind: Kind, item: Mapping[str, Any], as_of: datetime, rows: int) -> Columns:
    columns: Columns = {"as_of": np.full(rows, _naive(as_of))}
    if kind == "forecast":
        columns["step"] = np.arange(1, rows + 1, dtype=np.int64)
        columns["target_date"] = np.array(target_dates(_day(as_of), rows))
    for name in TEXTS:
        columns[name] = np.array([item.get(name)] * rows, dtype=object)
    if kind == "risk":
        for name in TIMES:
            text = item.get(name)
            columns[name] = np.full(rows, _naive(parse_time(text)) if text else np.datetime64("NaT", "us"))
        for name in NUMBERS:
            value = item.get(name)
            columns[name] = np.full(rows, np.nan if value is None else float(value))
    return columns


def _view_values(
    columns: Columns, view: str, names: Sequence[str], reads: Sequence[ViewRead], rows: int, use_stale: bool
) -> None:
    table = np.full((len(names), len(reads)), np.nan)
    for place, read in enumerate(reads):
        if read.status == "present" or (use_stale and read.status == "stale"):
            values = read.values
            table[:, place] = [np.nan if (value := values.get(name)) is None else value for name in names]
    table[~np.isfinite(table)] = np.nan
    if len(reads) != rows:
        table = np.repeat(table, rows, axis=1)
    for place, name in enumerate(names):
        columns[f"{view}__{name}"] = table[place]


def _steps(history: ViewRead, as_of: datetime, rows: int) -> np.ndarray[Any, Any]:
    first = 1
    if history.event_time is not None:
        first += (as_of.astimezone(UTC).date() - history.event_time.astimezone(UTC).date()).days
    return np.arange(first, first + rows, dtype=np.int64)


def history_failure(plan: Plan, views: Sequence[ViewRead], *, rule: bool) -> str:
    """Why nothing can be answered from these features, "code: words", or an empty text.

    A forecast needs its history; a risk needs at least one view that is within its ttl: an answer from none at all
    would be the model's guess about nobody.

    Args:
        plan: the service's plan.
        views: as read.
        rule: True for the incumbent rule, which may look one season past the ttl.
    """
    if not plan.history:
        if not views or any(view.status == "present" for view in views):
            return ""
        known = any(view.status == "stale" for view in views)
        return (
            "stale: every feature view is older than its ttl" if known else "cold_start: no feature view knows this key"
        )
    read = next(view for view in views if view.view == plan.history)
    if read.status == "missing":
        return f"cold_start: {plan.history} knows nothing of this key"
    if read.status == "present":
        return ""
    ttl = next(view.ttl for name, view, _ in plan.views if name == plan.history)
    if rule and read.age_s is not None and timedelta(seconds=read.age_s) <= ttl + STALE_SEASON:
        return ""
    return f"stale: {plan.history} is {(read.age_s or 0.0) / 3600:.1f} h old, older than its ttl"


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat()


def _naive(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")
