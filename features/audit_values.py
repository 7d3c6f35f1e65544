"""What a join must find of each kind of view, in plain Python from landed events: slow, and independent of the build.

Nothing of the builders is used here, so that a mistake there cannot hide itself. A `Cut` says which events count; any
other cut than the honest one is for finding out which mistake explains a wrong value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import fmean, pstdev
from typing import Any

from contracts.declarations import (
    AttributeHistory,
    DemandHistory,
    OutcomeRates,
    PriceHistory,
    PromotionPlan,
    SignalLatest,
    View,
    view_columns,
)

Event = Mapping[str, Any]
Key = tuple[str | None, ...]
NAN = math.nan
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LONGEST_DELAY = 1e7
MINUTE_MS = 60_000
# An outcome ages in eighths of a half-life since the epoch and weighs nothing after eight of them.
EIGHTHS, HALVINGS = 8, 8


@dataclass(frozen=True)
class Cut:
    """Which events count at a moment.

    `known`: only those known by it; `begun`: only those that had happened by it; `plus`: ids that count whatever their
    times; `minus`: ids that do not count.
    """

    known: bool = True
    begun: bool = True
    plus: frozenset[str] = frozenset()
    minus: frozenset[str] = frozenset()

    def counts(self, event: Event, moment: datetime, *, before: bool) -> bool:
        """Whether an event counts at a moment; `before`: it must have happened strictly before it."""
        if event["event_id"] in self.plus:
            return True
        begun = begins(event) < moment if before else begins(event) <= moment
        known = event["known_at"] <= moment
        return event["event_id"] not in self.minus and (begun or not self.begun) and (known or not self.known)


HONEST = Cut()


def begins(event: Event) -> datetime:
    """When what an event says begins to hold: an attribute's valid_from, any other event's event_time."""
    since: datetime = event.get("valid_from") or event["event_time"]
    return since


@dataclass(frozen=True)
class Reading:
    """A view's row: its event_time, its values in the order of `view_columns`, and the events behind them."""

    event_time: datetime
    values: tuple[float, ...]
    events: tuple[Event, ...]


def event_fields(view: View) -> tuple[str, ...]:
    """Fields of the view's events that hold its join keys, in the order of `join_keys`."""
    if isinstance(view, SignalLatest):
        return ("site",)
    if isinstance(view, AttributeHistory):
        return ("entity_id",)
    return (*view.keys, "target_date") if isinstance(view, PromotionPlan) else tuple(view.keys)


def tick_of(view: View, as_of: datetime) -> datetime:
    """The newest tick at or before a moment; the moment itself for views without ticks."""
    tick = getattr(view, "tick", None)
    return as_of if tick is None else EPOCH + (as_of - EPOCH) // tick * tick


def read_view(
    view: View,
    events: Sequence[Event],
    key: Key,
    as_of: datetime,
    *,
    cut: Cut = HONEST,
    shift: int = 0,
    ttl: timedelta | None = None,
) -> Reading | None:
    """The row of a view that a point-in-time join finds for a key at a moment.

    Args:
        view: the declaration.
        events: landed versions in the order of landing: event_id, event_time, known_at (UTC) and the kind's fields,
            None where missing. Everything that can matter for the key; more does no harm.
        key: parts in the order of `join_keys`.
        as_of: the moment of the decision, with a zone.
        cut: which events count.
        shift: ticks by which the row is taken later (or, negative, earlier) than it should.
        ttl: instead of the view's.

    Returns:
        the row; None when there is none, or none within the ttl (its edge included).
    """
    limit = view.ttl if ttl is None else ttl
    if any(part is None for part in key):
        return None
    if isinstance(view, SignalLatest):
        return _signals(view, events, key, as_of, cut, limit)
    if isinstance(view, PromotionPlan):
        return _plan(view, events, key, as_of, cut, limit)
    if isinstance(view, AttributeHistory):
        return _attributes(view, events, key, as_of, cut, limit)
    return _newest_tick(view, events, key, as_of, cut, shift, limit)


def _newest_tick(
    view: DemandHistory | PriceHistory | OutcomeRates,
    events: Sequence[Event],
    key: Key,
    as_of: datetime,
    cut: Cut,
    shift: int,
    ttl: timedelta,
) -> Reading | None:
    tick = tick_of(view, as_of) + shift * view.tick
    while as_of - tick <= ttl:
        found = _at_tick(view, events, key, tick, cut)
        if found is not None:
            return found
        tick -= view.tick
        if tick < EPOCH:
            return None
    return None


def _at_tick(
    view: DemandHistory | PriceHistory | OutcomeRates, events: Sequence[Event], key: Key, tick: datetime, cut: Cut
) -> Reading | None:
    counted = [event for event in events if cut.counts(event, tick, before=True)]
    if isinstance(view, OutcomeRates):
        if not any(_key(event, view.keys) == key for event in counted):
            return None
        oldest = tick - max([*view.windows, *(HALVINGS * days for days in view.half_lives)]) * DAY
        newest = [event for event in _newest(counted, ["shipment_id"]) if event["known_at"] > oldest]
        mine = [event for event in newest if _key(event, view.keys) == key]
        return Reading(tick, tuple(_rates(view, mine, tick)), tuple(mine))
    mine = [event for event in counted if _key(event, view.keys) == key]
    mine = _newest(mine, ["sku", "location", "event_time"])
    values = _demand(view, mine, tick) if isinstance(view, DemandHistory) else _prices(view, mine, tick)
    return None if values is None else Reading(tick, tuple(values), tuple(mine))


def _key(event: Event, fields: Iterable[str]) -> Key:
    return tuple(event[field] for field in fields)


def _newest(events: Iterable[Event], natural: Sequence[str]) -> list[Event]:
    """The version of each natural key that became known last; of several, the one that landed last."""
    newest: dict[Any, Event] = {}
    for event in events:
        name = _key(event, natural)
        if name not in newest or event["known_at"] >= newest[name]["known_at"]:
            newest[name] = event
    return list(newest.values())


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else NAN


def _rates(view: OutcomeRates, events: Sequence[Event], tick: datetime) -> Iterator[float]:
    for days in view.windows:
        inside = [event for event in events if event["known_at"] > tick - days * DAY]
        # delays count in whole milliseconds, and none beyond 19 years
        delays = [_milliseconds(event["delay_minutes"]) for event in inside if event["delay_minutes"] is not None]
        yield _mean([float(event["late"]) for event in inside])
        yield sum(delays) / len(delays) / MINUTE_MS if delays else NAN
        yield float(len(inside))
    for days in view.half_lives:
        eighth = days * DAY / EIGHTHS
        ages = [(tick - EPOCH) // eighth - (event["known_at"] - EPOCH) // eighth for event in events]
        # weights are whole millionths (of 2 to the 20th), so that their sums are exact
        weights = [round(2 ** (20 - age / EIGHTHS)) / 2**20 if age < EIGHTHS * HALVINGS else 0.0 for age in ages]
        late = sum(held * float(event["late"]) for held, event in zip(weights, events, strict=True))
        yield late / sum(weights) if sum(weights) else NAN
        yield sum(weights)


def _milliseconds(minutes: float) -> int:
    return round(min(max(minutes, -LONGEST_DELAY), LONGEST_DELAY) * MINUTE_MS)


def _periods(events: Iterable[Event], tick: datetime, length: timedelta, field: str) -> dict[int, float]:
    """Value of each known period by how many periods before the tick it is (1: the last one)."""
    now = (tick - EPOCH) // length
    found: dict[int, list[float]] = {}
    for event in events:
        if not event["closed"] and not event["stocked_out"] and event[field] is not None:
            found.setdefault(now - (event["event_time"] - EPOCH) // length, []).append(event[field])
    return {ago: sum(values) if field == "quantity" else fmean(values) for ago, values in found.items()}


def _demand(view: DemandHistory, events: Sequence[Event], tick: datetime) -> list[float] | None:
    known = _periods(events, tick, view.tick, "quantity")
    if not known:
        return None
    a_day = DAY / view.tick
    found = [known.get(ago, NAN) for ago in range(1, view.lags + 1)]
    for window in view.windows:
        inside = [value for ago, value in known.items() if ago <= window]
        found += [_mean(inside), pstdev(inside) if inside else NAN, _mean([float(value == 0) for value in inside])]
    reach = max(1, round(7 * view.season_cycles * a_day))
    for day in range(7):
        found.append(
            _mean([v for ago, v in known.items() if ago <= reach and (tick - ago * view.tick).weekday() == day])
        )
    return [*found, *_levels(known, a_day)]


def _levels(known: Mapping[int, float], a_day: float) -> tuple[float, float, float, float]:
    """days_since_sale, history_days, scale and naive_rmse; see DemandHistory."""
    recent = _mean([value for ago, value in known.items() if ago <= max(1, round(56 * a_day))])
    long_run = 0.2 * _mean(list(known.values()))
    level = long_run if math.isnan(recent) else max(recent, long_run)
    scale = (level if level > 0 else 1.0) * a_day
    steps = [(known[ago] - known[ago + 1]) ** 2 for ago in known if ago + 1 in known]
    rmse = math.sqrt(_mean(steps)) if steps else 0.0
    sales = [ago for ago, value in known.items() if value > 0]
    return min(sales) / a_day if sales else NAN, max(known) / a_day, scale, rmse if rmse > 0 else scale


def _prices(view: PriceHistory, events: Sequence[Event], tick: datetime) -> list[float] | None:
    price, discount = (
        {ago: value for ago, value in _periods(events, tick, view.tick, field).items() if ago <= view.window}
        for field in ("price", "discount")
    )
    if not price and not discount:
        return None
    last, middle = price[min(price)] if price else NAN, _mean(list(price.values()))
    return [last, last / middle if middle > 0 else NAN, _mean(list(discount.values()))]


def _signals(
    view: SignalLatest, events: Sequence[Event], key: Key, as_of: datetime, cut: Cut, ttl: timedelta
) -> Reading | None:
    usable = [
        event
        for event in events
        if event["site"] == key[0] and event["name"] in view.names and cut.counts(event, as_of, before=False)
    ]
    if not usable:
        return None
    shown = max(event["event_time"] for event in usable)
    newest = {event["name"]: event for event in sorted(usable, key=_age)}
    used = {name: event for name, event in newest.items() if event["event_time"] >= shown - view.ttl}
    if as_of - shown > ttl:
        return None
    values = tuple(_number(used[name]["value"]) if name in used else NAN for name in view.names)
    return Reading(shown, values, tuple(used.values()))


def _plan(
    view: PromotionPlan, events: Sequence[Event], key: Key, as_of: datetime, cut: Cut, ttl: timedelta
) -> Reading | None:
    usable = [
        event for event in events if _key(event, event_fields(view)) == key and cut.counts(event, as_of, before=False)
    ]
    if not usable:
        return None
    newest = sorted(usable, key=_age)[-1]
    if as_of - newest["event_time"] > ttl:
        return None
    return Reading(newest["event_time"], tuple(_number(newest[field]) for field in view_columns(view)), (newest,))


def _attributes(
    view: AttributeHistory, events: Sequence[Event], key: Key, as_of: datetime, cut: Cut, ttl: timedelta
) -> Reading | None:
    mine = [e for e in events if (e["entity"], e["entity_id"]) == (view.entity, key[0]) and e["name"] in view.names]
    # the row is as old as the last change of state, so the states before it are gone through too
    ends = (e["valid_to"] for e in mine if e["valid_to"] is not None)
    moments = {moment for e in mine for moment in (begins(e), e["known_at"])} | set(ends)
    changed, before = as_of, _state(view, mine, as_of, cut)
    for moment in sorted((moment for moment in moments if moment <= as_of), reverse=True):
        state = _state(view, mine, moment, cut)
        if state.keys() != before.keys() or any(state[name]["value"] != before[name]["value"] for name in state):
            break
        changed = moment
    if as_of - changed > ttl:
        return None
    values = tuple(_number(before[name]["value"]) if name in before else NAN for name in view.names)
    return Reading(changed, values, tuple(before.values()))


def _state(view: AttributeHistory, events: Sequence[Event], moment: datetime, cut: Cut) -> dict[str, Event]:
    """The version of each attribute that holds at a moment: of the newest known ones, that of the latest beginning."""
    seen = [event for event in events if cut.counts(event, moment, before=False)]
    newest = _newest(seen, ["name", "valid_from"])
    holding = [event for event in newest if event["valid_to"] is None or event["valid_to"] > moment]
    return {event["name"]: event for event in sorted(holding, key=begins)}


def _age(event: Event) -> tuple[datetime, datetime]:
    """Order of readings from the oldest to the newest; sorting keeps the order of landing among equals."""
    return event["event_time"], event["known_at"]


def _number(value: Any) -> float:
    return NAN if value is None else float(value)
