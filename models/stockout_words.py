"""A recommendation in plain words, from its figures. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from models.order_terms import HIGHEST_SERVICE


def reason(told: Mapping[str, float], review: int) -> str:
    """Why that much is ordered, or nothing.

    Args:
        told: figures of one series: probability, need, order, service, on_hand, on_order, on_order_later, interval,
            lead_time_mean, lead_time_longest, interval_demand, steps_repeated, service_level, order_minimum,
            order_multiple, order_maximum, and the two costs where they make the service level.
        review: periods until the next chance to order.
    """
    parts = [_verdict(told), _risk(told, review), _level(told)]
    if told["order"] > 0:
        parts.append(_limits(told))
    if told["on_order_later"] > 0:
        parts.append(f"{_units(told['on_order_later'])} more on order come after the interval and do not help in it")
    if told["steps_repeated"] > 0:
        parts.append(f"the forecast ends {told['steps_repeated']:.0f} periods early: its last season is repeated")
    return "; ".join(part for part in parts if part)


def _verdict(told: Mapping[str, float]) -> str:
    return f"order {_units(told['order'])}" if told["order"] > 0 else "order nothing"


def _risk(told: Mapping[str, float], review: int) -> str:
    coming = f" and {_units(told['on_order'])} on order in time" if told["on_order"] > 0 else ""
    lead = f"{told['lead_time_mean']:.3g}"
    if told["lead_time_longest"] > told["lead_time_mean"]:
        lead += f" on average, at most {told['lead_time_longest']:.0f}"
    return (
        f"with {_units(told['on_hand'])} on hand{coming} "
        f"the shelf runs empty with probability {told['probability']:.1%} "
        f"before a later order could help (lead time {lead}, review {review}; "
        f"{_units(told['interval_demand'])} expected to be asked for)"
    )


def _level(told: Mapping[str, float]) -> str:
    level = f"{told['service_level']:.4g}"
    if "shortage_cost" in told:
        costs = f"a unit short costs {told['shortage_cost']:g}, one left over {told['holding_cost']:g}"
        if told["shortage_cost"] == 0:
            return f"{costs}: nothing is worth stocking"
        capped = ", the most that a forecast's tail supports" if told["service_level"] >= HIGHEST_SERVICE else ""
        level += f" ({costs}{capped})"
    if told["need"] > 0:
        return f"{_units(told['need'])} are missing for a service level of {level}"
    return f"that is enough for a service level of {level}"


def _limits(told: Mapping[str, float]) -> str:
    order, need = told["order"], told["need"]
    if order < need * (1 - 1e-9):
        return f"the maximum of {_units(told['order_maximum'])} allows no more: it reaches {told['service']:.1%}"
    if told["order_minimum"] > need:
        return f"the order minimum is {_units(told['order_minimum'])}: {_units(order - need)} above the need"
    if told["order_multiple"] > 0 and order > need * (1 + 1e-9):
        return f"rounded up to a multiple of {_units(told['order_multiple'])}"
    return ""


def _units(amount: float) -> str:
    return f"{amount:,.0f}" if abs(amount) >= 1000 else f"{amount:.4g}"
