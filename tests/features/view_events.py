"""Small canonical event frames, and what each view's rows must be, in plain Python."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from statistics import fmean, pstdev
from typing import Any

import pandas as pd

from contracts.declarations import DemandHistory, OutcomeRates, PriceHistory, SignalLatest
from contracts.events import event_contract
from features.frames import DTYPES

ORIGIN = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NAN = math.nan


def at(hours: float) -> datetime:
    return ORIGIN + timedelta(hours=hours)


def events(kind: str, rows: Iterable[dict[str, Any]], first_id: int = 0) -> pd.DataFrame:
    """A canonical frame; fields that a row leaves out are missing."""
    rows = [{"event_id": f"e{first_id + n}", "source_system": "test", **row} for n, row in enumerate(rows)]
    contract = event_contract(kind)
    columns = {field.name: [row.get(field.name) for row in rows] for field in contract.fields}
    return pd.DataFrame(
        {field.name: pd.Series(columns[field.name], dtype=DTYPES[field.type]) for field in contract.fields}
    )


def known_versions(rows: Sequence[dict[str, Any]], key: Sequence[str], tick: datetime) -> list[dict[str, Any]]:
    """The newest version of each natural key among the events before a tick that were known by it."""
    newest: dict[Any, dict[str, Any]] = {}
    for row in rows:
        if row["event_time"] < tick and row["known_at"] <= tick:
            name = tuple(row[part] for part in key)
            if name not in newest or row["known_at"] >= newest[name]["known_at"]:
                newest[name] = row
    return list(newest.values())


def mean(values: Sequence[float]) -> float:
    return fmean(values) if values else NAN


def outcome_values(
    view: OutcomeRates, rows: Sequence[dict[str, Any]], key: tuple[str, ...], tick: datetime
) -> list[float]:
    """Values of an outcome_rates row."""
    mine = [row for row in known_versions(rows, ["shipment_id"], tick) if tuple(row[part] for part in view.keys) == key]
    found: list[float] = []
    for days in view.windows:
        inside = [row for row in mine if row["known_at"] > tick - timedelta(days=days)]
        delays = [row["delay_minutes"] for row in inside if row.get("delay_minutes") is not None]
        found += [mean([float(row["late"]) for row in inside]), mean(delays), float(len(inside))]
    for half_life in view.half_lives:
        weights = [decayed_weight(half_life, row["known_at"], tick) for row in mine]
        late = sum(held for held, row in zip(weights, mine, strict=True) if row["late"])
        found += [late / sum(weights) if sum(weights) else NAN, sum(weights)]
    return found


def decayed_weight(half_life: int, known_at: datetime, tick: datetime) -> float:
    """What an outcome weighs at a tick: age in eighths of a half-life since the epoch, in millionths, none after 64."""
    eighth, zero = timedelta(days=half_life) / 8, datetime(1970, 1, 1, tzinfo=UTC)
    age = (tick - zero) // eighth - (known_at - zero) // eighth
    return round(2.0 ** (-age / 8) * 2**20) / 2**20 if age < 64 else 0.0


def periods(
    rows: Sequence[dict[str, Any]], key: tuple[str, ...], keys: Sequence[str], tick: datetime, field: str
) -> dict[int, float]:
    """Value of each day (days before the tick, 1 = the last) that is known, open and not stocked out."""
    found: dict[int, list[float]] = {}
    for row in known_versions(rows, ["sku", "location", "event_time"], tick):
        if tuple(row[part] for part in keys) != key or row.get("closed") or row.get("stocked_out"):
            continue
        if row.get(field) is not None:
            found.setdefault(math.ceil((tick - row["event_time"]) / DAY), []).append(row[field])
    return {ago: sum(values) if field == "quantity" else fmean(values) for ago, values in found.items()}


def demand_values(
    view: DemandHistory, rows: Sequence[dict[str, Any]], key: tuple[str, ...], tick: datetime
) -> list[float] | None:
    """Values of a demand_history row; None without history."""
    known = periods(rows, key, view.keys, tick, "quantity")
    if not known:
        return None
    found = [known.get(ago, NAN) for ago in range(1, view.lags + 1)]
    for window in view.windows:
        inside = [value for ago, value in known.items() if ago <= window]
        found += [mean(inside), pstdev(inside) if inside else NAN, mean([float(value == 0) for value in inside])]
    for day in range(7):
        inside = [
            v for ago, v in known.items() if ago <= 7 * view.season_cycles and (tick - ago * DAY).weekday() == day
        ]
        found.append(mean(inside))
    recent = mean([value for ago, value in known.items() if ago <= 56])
    scale = max(0.0 if math.isnan(recent) else recent, 0.2 * mean(list(known.values()))) or 1.0
    steps = [(known[ago] - known[ago + 1]) ** 2 for ago in known if ago + 1 in known]
    sales = [ago for ago, value in known.items() if value > 0]
    rmse = math.sqrt(mean(steps)) if steps else 0.0
    found += [float(min(sales)) if sales else NAN, float(max(known)), scale, rmse or scale]
    for share in view.smoothing:
        level = NAN
        for ago in sorted(known, reverse=True):
            level = known[ago] if math.isnan(level) else level + share / 100 * (known[ago] - level)
        found.append(level)
    if view.last_year:
        found += [known.get(364 - ahead, NAN) for ahead in range(view.last_year)]
        found.append(mean([value for ago, value in known.items() if 364 < ago <= 364 + 56]))
    return found


def price_values(
    view: PriceHistory, rows: Sequence[dict[str, Any]], key: tuple[str, ...], tick: datetime
) -> list[float] | None:
    """Values of a price_history row; None when the window has neither price nor discount."""
    price, discount = (
        {ago: value for ago, value in periods(rows, key, view.keys, tick, field).items() if ago <= view.window}
        for field in ("price", "discount")
    )
    if not price and not discount:
        return None
    last = price[min(price)] if price else NAN
    middle = mean(list(price.values()))
    return [last, last / middle if middle > 0 else NAN, mean(list(discount.values()))]


def signal_values(
    view: SignalLatest, rows: Sequence[dict[str, Any]], site: str, moment: datetime
) -> tuple[datetime, list[float]] | None:
    """event_time and values that an as-of reader must find for a site at a moment."""
    usable = [
        row
        for row in rows
        if row["site"] == site and row["name"] in view.names and max(row["event_time"], row["known_at"]) <= moment
    ]
    if not usable:
        return None
    newest = max(row["event_time"] for row in usable)
    found = []
    for name in view.names:
        mine = sorted(
            (row["event_time"], row["known_at"], n, row["value"]) for n, row in enumerate(usable) if row["name"] == name
        )
        found.append(mine[-1][3] if mine and mine[-1][0] >= newest - view.ttl else NAN)
    return newest, found
