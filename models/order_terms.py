"""What an order has to keep to: service level or costs, minimum, multiple, maximum. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from contracts.errors import InputInvalid, UnknownName

Floats = NDArray[np.float64]
Unmet = Literal["backordered", "lost"]

HIGHEST_SERVICE = 0.999
SMALLEST_MULTIPLE = 1e-6
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Terms:
    """What an order has to keep to. Numbers, or (n,) each.

    Attributes:
        service_level: probability of no stock-out that the order is to reach, 0 .. 0.999; or None, and then
        shortage_cost, holding_cost: of one unit short and of one unit left over, per protection interval, >= 0: their
            critical ratio shortage / (shortage + holding) is the service level, at most 0.999.
        minimum, multiple, maximum: of an order, units; a multiple of 0 allows any amount.
        review: whole periods until the next chance to order, >= 1.
        unmet: what becomes of demand that meets an empty shelf before the order is there: `backordered` is still owed
            when it comes, `lost` is not.

    Source: the newsvendor's critical ratio; the order-up-to rule under periodic review (Silver, Pyke and Thomas).
    """

    service_level: Any = None
    shortage_cost: Any = None
    holding_cost: Any = None
    minimum: Any = 0.0
    multiple: Any = 1.0
    maximum: Any = np.inf
    review: int = 1
    unmet: Unmet = "backordered"


@dataclass(frozen=True)
class Rules:
    """Terms as checked arrays of n series; `costs` holds the two costs where they make the service level."""

    service: Floats
    costs: tuple[Floats, Floats] | None
    minimum: Floats
    multiple: Floats
    maximum: Floats
    review: int
    unmet: Unmet

    def order(self, need: Floats, part: slice) -> Floats:
        """The smallest allowed order that covers the need, or the largest allowed one; 0 where nothing is needed."""
        multiple, minimum, maximum = self.multiple[part], self.minimum[part], self.maximum[part]
        wanted = _up(np.maximum(need, minimum), multiple)
        allowed = np.minimum(wanted, _down(maximum, multiple))
        return np.asarray(np.where(need > 0, allowed, 0.0), dtype=np.float64)

    def given(self) -> dict[str, Floats]:
        """The figures that an answer repeats."""
        costs = {} if self.costs is None else {"shortage_cost": self.costs[0], "holding_cost": self.costs[1]}
        own = {"order_minimum": self.minimum, "order_multiple": self.multiple, "order_maximum": self.maximum}
        return {"service_level": self.service, **costs, **own}


def rules_of(terms: Terms, keys: tuple[str, ...]) -> Rules:
    """Checked terms, one of each for every series.

    Raises:
        InputInvalid: a figure is missing or out of range, both or neither of service level and costs are given, both
            costs are 0, or no multiple lies between minimum and maximum; names field and series. UnknownName: `unmet`.
    """
    if terms.unmet not in get_args(Unmet):
        raise UnknownName("way of unmet demand", str(terms.unmet), get_args(Unmet))
    if not 1 <= terms.review <= 3660:
        raise InputInvalid("review", "whole periods from 1 to 3660", f"{terms.review}")
    service, costs = _service(terms, keys)
    rules = Rules(
        service,
        costs,
        numbers("order_minimum", terms.minimum, keys),
        numbers("order_multiple", terms.multiple, keys),
        numbers("order_maximum", terms.maximum, keys, infinite=True),
        int(terms.review),
        terms.unmet,
    )
    fine = (rules.multiple > 0) & (rules.multiple < SMALLEST_MULTIPLE)
    if fine.any():
        at = int(np.argmax(fine))
        wanted = f"0 for any amount, or at least {SMALLEST_MULTIPLE:g}"
        raise InputInvalid(f"order_multiple of {keys[at]}", wanted, f"{rules.multiple[at]:g}")
    least = _up(np.maximum(rules.minimum, rules.multiple), rules.multiple)
    none = (least > rules.maximum) | (rules.maximum <= 0)
    if none.any():
        at = int(np.argmax(none))
        wanted = f"an allowed order: minimum {rules.minimum[at]:g} in multiples of {rules.multiple[at]:g}"
        raise InputInvalid(f"order_maximum of {keys[at]}", wanted, f"at most {rules.maximum[at]:g}")
    return rules


def critical_ratio(shortage_cost: Floats, holding_cost: Floats) -> Floats:
    """The service level that costs least: shortage / (shortage + holding), in [0, 1]; NaN where both are 0."""
    total = shortage_cost + holding_cost
    return np.divide(shortage_cost, total, out=np.full_like(total, np.nan), where=total > 0)


def _service(terms: Terms, keys: tuple[str, ...]) -> tuple[Floats, tuple[Floats, Floats] | None]:
    costs = (terms.shortage_cost, terms.holding_cost)
    if (terms.service_level is None) == any(cost is None for cost in costs):
        wanted = "either service_level or both of shortage_cost and holding_cost"
        raise InputInvalid("terms", wanted, "both" if terms.service_level is not None else "neither")
    if terms.service_level is not None:
        hint = "the forecast's tail says no more than that"
        return numbers("service_level", terms.service_level, keys, high=HIGHEST_SERVICE, hint=hint), None
    shortage, holding = numbers("shortage_cost", costs[0], keys), numbers("holding_cost", costs[1], keys)
    ratio = critical_ratio(shortage, holding)
    if np.isnan(ratio).any():
        at = int(np.argmax(np.isnan(ratio)))
        raise InputInvalid(f"shortage_cost and holding_cost of {keys[at]}", "at least one above 0", "0 and 0")
    return np.minimum(ratio, HIGHEST_SERVICE), (shortage, holding)


def numbers(
    field: str,
    values: Any,
    keys: tuple[str, ...],
    *,
    low: float = 0.0,
    high: float = np.inf,
    infinite: bool = False,
    hint: str = "",
) -> Floats:
    """One checked number a series, (n,); a single one counts for all.

    Raises:
        InputInvalid: a number is missing or out of range, or there are more or fewer; names the field and the series.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim > 1 or (given.ndim == 1 and len(given) != len(keys)):
        raise InputInvalid(field, f"one number, or {len(keys)}, one a series", f"the shape {given.shape}")
    table = np.array(np.broadcast_to(given, (len(keys),)))
    bad = ~((table >= low) & (table <= high)) | (np.isinf(table) & (not infinite))
    if bad.any():
        at = int(np.argmax(bad))
        span = " ".join(
            [*([f"of at least {low:g}"] if low > -np.inf else []), *([f"up to {high:g}"] if high < np.inf else [])]
        )
        raise InputInvalid(f"{field} of {keys[at]}", f"a number {span}".strip(), f"{table[at]:g}", hint=hint)
    return table


def _up(amount: Floats, multiple: Floats) -> Floats:
    step = np.where(multiple > 0, multiple, 1.0)
    return np.asarray(np.where(multiple > 0, np.ceil(amount / step - _ROUNDING) * step, amount), dtype=np.float64)


def _down(amount: Floats, multiple: Floats) -> Floats:
    step = np.where(multiple > 0, multiple, 1.0)
    return np.asarray(np.where(multiple > 0, np.floor(amount / step + _ROUNDING) * step, amount), dtype=np.float64)
