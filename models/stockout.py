"""The stock-out rule beside the forecasts: how likely the shelf runs empty, and how much to order now. Pure.

The order that is placed now, before the demand of step 1, is there before the demand of step L + 1 when its lead time
is L; the next chance to order comes `review` steps later. Until that later order is there, steps 1 .. L + review have
to be served: the protection interval. Demand over it, its paths and their dependence: see `demand_paths`. The lead time
varies independently of demand; what is on order already is taken to come when it is expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import InputInvalid
from models.demand_paths import PATHS, Knots, StepDemand, knots_of, path_ranks
from models.lead_time import LeadTime
from models.order_terms import Rules, Terms, numbers, rules_of
from models.stockout_words import reason

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_CHUNK = 64
# Sums of decimal fractions end a hair off: a shelf that is exactly emptied is not out of stock.
_HAIR = 1e-9


@dataclass(frozen=True)
class Stock:
    """What is there and what is coming.

    Attributes:
        on_hand: units, net of what is owed to customers already (so it may be negative), (n,).
        on_order: units that are there before the demand of step 1, 2, ..., (n, m), >= 0; None for nothing on order.
    """

    on_hand: Floats
    on_order: Floats | None = None


@dataclass(frozen=True)
class Advice:
    """The rule's answers for n series, arrays (n,), units where not said otherwise.

    Attributes:
        keys: the series. probability: of a stock-out within the protection interval when nothing is ordered.
        short: expected units that meet an empty shelf in it (where they stay owed: owed at the worst moment).
        reorder_point: stock and orders that would do: the service level's quantile of demand over the interval.
        need: what is missing for the service level, >= 0. order: the recommendation; 0 is none.
        service: probability of no stock-out with the order, from its arrival until the next one's.
        short_after: as `short`, with the order; what is short before it arrives is in it.
        inputs: what the answers rest on, name -> (n,). about: assumptions, plain values.
        reasons: the recommendation in words.
    """

    keys: tuple[str, ...]
    probability: Floats
    short: Floats
    reorder_point: Floats
    need: Floats
    order: Floats
    service: Floats
    short_after: Floats
    inputs: Mapping[str, Floats]
    about: Mapping[str, Any]
    reasons: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One plain record a series, with its inputs and reason; an unlimited maximum is None."""
        return [
            {
                "key": key,
                "stockout_probability": float(self.probability[i]),
                "expected_short": float(self.short[i]),
                "reorder_point": float(self.reorder_point[i]),
                "need": float(self.need[i]),
                "order": float(self.order[i]),
                "service_after_order": float(self.service[i]),
                "expected_short_after_order": float(self.short_after[i]),
                "reason": self.reasons[i],
                "inputs": {k: float(v[i]) if np.isfinite(v[i]) else None for k, v in self.inputs.items()},
            }
            for i, key in enumerate(self.keys)
        ]


@dataclass(frozen=True)
class _Walked:
    """Paths of some series, (c, PATHS): most units missing before the order is there and after, and total demand."""

    before: Floats
    after: Floats
    total: Floats
    hair: Floats


def advise(
    demand: StepDemand,
    stock: Stock,
    lead_time: LeadTime,
    terms: Terms,
    *,
    correlation: float = 0.0,
    season: int | None = None,
    keys: tuple[str, ...] | None = None,
) -> Advice:
    """Stock-out probability, expected shortage and order of each series.

    Args:
        demand: the forecast; step 1 is the period that begins now. stock, lead_time, terms: of the same series.
        correlation: of neighbouring steps in [0, 1], see `demand_paths`; `step_correlation` measures it on a backtest.
        season: None refuses an interval that goes on after the last step; a number lets the last `season` steps
            repeat, and the answer says so.
        keys: names for answers and errors; `series 0`, ... when None.

    Returns:
        The same inputs give the same answer to the bit, in whatever batch. More stock never raises the probability, a
        higher service level never lowers the order, a longer lead time never lowers the reorder point.

    Raises:
        InputInvalid: a figure is missing, out of range or of another length, or the interval goes on after the
            forecast; names the field and the series. UnknownName: `terms.unmet`.
    """
    count, steps = demand.quantiles.shape[:2]
    names = keys if keys is not None else tuple(f"series {i}" for i in range(count))
    if len(names) != count:
        raise InputInvalid("keys", f"{count} names, one a series of the forecast", f"{len(names)}")
    if not 0.0 <= correlation <= 1.0:
        raise InputInvalid("correlation", "a number from 0 to 1", f"{correlation:g}")
    rules = rules_of(terms, names)
    last = _interval(lead_time, rules.review, count)
    demand = _reaching(demand, last, season, names)
    hand = numbers("on_hand", stock.on_hand, names, low=-np.inf)
    coming = _coming(stock, demand.quantiles.shape[1], names)
    found = _answers(demand, hand, coming, lead_time, rules, float(correlation), last)
    soon = coming[np.arange(count), last - 1]
    inputs = {
        "on_hand": hand,
        "on_order": soon,
        "on_order_later": coming[:, -1] - soon,
        "lead_time_mean": np.array(np.broadcast_to(lead_time.mean, (count,))),
        "lead_time_longest": np.array(np.broadcast_to(lead_time.longest, (count,)), dtype=np.float64),
        "interval": last.astype(np.float64),
        "interval_demand": found.pop("interval_demand"),
        "steps_repeated": np.maximum(last - steps, 0).astype(np.float64),
        **rules.given(),
    }
    told = {**found, **inputs}
    return Advice(
        keys=names,
        **found,
        inputs=inputs,
        about=_about(rules, float(correlation), season),
        reasons=tuple(reason({k: float(v[i]) for k, v in told.items()}, rules.review) for i in range(count)),
    )


def _answers(
    demand: StepDemand, hand: Floats, coming: Floats, lead_time: LeadTime, rules: Rules, correlation: float, last: Ints
) -> dict[str, Floats]:
    """All figures that come from walking the paths, name -> (n,), a few series at a time."""
    knots, ranks = knots_of(demand), path_ranks(int(last.max(initial=1)), correlation)
    chance, pieces = (ranks[0] + 0.5) / PATHS, []
    for start in range(0, max(len(hand), 1), _CHUNK):
        part = slice(start, min(start + _CHUNK, len(hand)))
        whose = lead_time if len(lead_time.shares) == 1 else LeadTime(lead_time.shares[part])
        lead = np.broadcast_to(whose.at(chance), (part.stop - start, PATHS))
        walked = _walk(knots, part, hand[part], coming[part], lead, rules.review, ranks)
        pieces.append(_decided(walked, rules, part))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _walk(
    knots: Knots, part: slice, hand: Floats, coming: Floats, lead: Ints, review: int, ranks: tuple[Ints, ...]
) -> _Walked:
    """Demand step by step along each path, against what is there by then."""
    shape = (len(hand), PATHS)
    asked, total = np.zeros(shape), np.zeros(shape)
    before, after = np.array(np.broadcast_to(-hand[:, None], shape)), np.full(shape, -np.inf)
    for step in range(1, int(lead.max(initial=0)) + review + 1):
        asked = asked + knots.at(part, step - 1, ranks[step])
        missing = asked - (hand + coming[:, step - 1])[:, None]
        early = step <= lead
        np.maximum(before, missing, out=before, where=early)
        late = ~early & (step <= lead + review)
        np.maximum(after, missing, out=after, where=late)
        np.copyto(total, asked, where=early | late)
    hair = _HAIR * (1.0 + np.abs(hand) + coming[:, -1])
    return _Walked(before, after, total, hair[:, None])


def _decided(walked: _Walked, rules: Rules, part: slice) -> dict[str, Floats]:
    owed = np.maximum(walked.before, 0.0)
    worst = np.maximum(walked.before, walked.after)
    wanted = walked.after - owed if rules.unmet == "lost" else walked.after
    need = _quantile(wanted, rules.service[part])
    # At a service level of 0 an order is worth nothing, however surely the shelf runs empty.
    need = np.where((need > walked.hair[:, 0]) & (rules.service[part] > 0), need, 0.0)
    order = rules.order(need, part)
    left = np.maximum(walked.before, walked.after - order[:, None])
    return {
        "probability": (worst > walked.hair).mean(axis=1),
        "short": np.maximum(worst, 0.0).mean(axis=1),
        "reorder_point": _quantile(walked.total, rules.service[part]),
        "need": need,
        "order": order,
        "service": (wanted <= order[:, None] + walked.hair).mean(axis=1),
        "short_after": np.maximum(left, 0.0).mean(axis=1),
        "interval_demand": walked.total.mean(axis=1),
    }


def _quantile(paths: Floats, level: Floats) -> Floats:
    """The smallest value that at least `level` of each row's paths do not pass, (c,)."""
    place = np.maximum(np.ceil(level * PATHS - _HAIR).astype(np.int64) - 1, 0)
    return np.asarray(np.sort(paths, axis=1)[np.arange(len(paths)), place], dtype=np.float64)


def _interval(lead_time: LeadTime, review: int, count: int) -> Ints:
    """Last step of each series' longest protection interval, (n,)."""
    if len(lead_time.shares) not in (1, count):
        raise InputInvalid("lead time shares", f"1 row, or {count}, one a series", f"{len(lead_time.shares)}")
    return np.array(np.broadcast_to(lead_time.longest, (count,))) + review


def _reaching(demand: StepDemand, last: Ints, season: int | None, keys: tuple[str, ...]) -> StepDemand:
    """The forecast, long enough for every interval."""
    steps = demand.quantiles.shape[1]
    if int(last.max(initial=0)) <= steps:
        return demand
    at = int(np.argmax(last > steps))
    if season is None:
        hint = "forecast further ahead, or say which last steps repeat (season)"
        raise InputInvalid(f"forecast of {keys[at]}", f"{last[at]} steps: lead time and review", f"{steps}", hint=hint)
    if not 1 <= season <= steps:
        raise InputInvalid("season", f"1 to {steps}, the steps of the forecast", f"{season}")
    return demand.lengthened(int(last.max()), season)


def _coming(stock: Stock, steps: int, keys: tuple[str, ...]) -> Floats:
    """Units that have come by each step, (n, at least `steps`)."""
    if stock.on_order is None:
        return np.zeros((len(keys), steps))
    table = np.asarray(stock.on_order, dtype=np.float64)
    if table.ndim != 2 or len(table) != len(keys):
        raise InputInvalid("on_order", f"a table ({len(keys)} series, steps)", f"the shape {table.shape}")
    bad = ~(np.isfinite(table) & (table >= 0))
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise InputInvalid(
            f"on_order of {keys[row]}, step {column + 1}", "units of at least 0", f"{table[row, column]:g}"
        )
    return np.cumsum(np.pad(table, ((0, 0), (0, max(steps - table.shape[1], 0)))), axis=1)


def _about(rules: Rules, correlation: float, season: int | None) -> dict[str, Any]:
    kind = {0.0: "independent steps", 1.0: "steps that are high or low together"}.get(correlation)
    return {
        "paths": PATHS,
        "correlation": correlation,
        "dependence": kind or f"neighbouring steps correlated by {correlation:g}, fading with distance",
        "lead_time": "independent of demand",
        "review": rules.review,
        "unmet": rules.unmet,
        "season_repeated": season,
    }
