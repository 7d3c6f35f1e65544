"""Who is asked about: the entity rows (with labels) of a training set, from the landed events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from contracts.errors import TimeInvalid
from contracts.times import iso, utc
from features.event_log import Events, Ints, instant, microseconds, stamps
from features.view_rows import MICROSECOND_DAY

_NAT = np.iinfo(np.int64).min


def shipment_population(landing: Events, *, since: datetime, until: datetime, known_by: datetime) -> pd.DataFrame:
    """One row a shipment whose decision moment (event_time of its first known version) lies in [since, until).

    The row shows the shipment as it was known at that moment: its newest version with known_at at or before it, or the
    first one to become known when there is none. The label is that of the newest outcome known by `known_by`.

    Args:
        landing: where shipments and outcomes landed.
        since: inclusive, with a zone.
        until: exclusive, with a zone.
        known_by: nothing that became known later is looked at.

    Returns:
        row_id (the shipment_id), as_of, the columns of the shipment contract, label (1.0 late, 0.0 not, NaN unknown),
        label_known_at (NaT while unknown), delay_minutes; ordered by as_of, then row_id.
    """
    versions = landing.read("shipment", known_by=known_by).sort_values("known_at", kind="stable")
    first = versions.drop_duplicates("shipment_id").set_index("shipment_id")["event_time"]
    decided = versions["shipment_id"].map(first).astype(versions["event_time"].dtype)
    # versions known in time come last and win; among the others only the first one may stand in
    in_time = versions["known_at"] <= decided
    stand_in = ~versions["shipment_id"].isin(versions["shipment_id"][in_time])
    shown = pd.concat(
        [
            versions[in_time].drop_duplicates("shipment_id", keep="last"),
            versions[stand_in].drop_duplicates("shipment_id", keep="first"),
        ]
    )
    rows = shown.assign(row_id=shown["shipment_id"], as_of=decided.loc[shown.index])
    rows = rows[(rows["as_of"] >= utc(since, "since")) & (rows["as_of"] < utc(until, "until"))]
    outcome = landing.latest("outcome", known_by)[["shipment_id", "late", "delay_minutes", "known_at"]]
    outcome = outcome.rename(columns={"known_at": "label_known_at", "late": "label"})
    rows = rows.merge(outcome, on="shipment_id", how="left", validate="one_to_one")
    rows["label"] = rows["label"].to_numpy(dtype=np.float64, na_value=np.nan)
    rows = rows.sort_values(["as_of", "row_id"], kind="stable").reset_index(drop=True)
    columns = ["row_id", "as_of", *versions.columns, "label", "label_known_at", "delay_minutes"]
    return rows[columns]


def demand_labels(landing: Events, known_by: datetime) -> pd.DataFrame:
    """What was really asked for on each day, as known by a moment.

    Returns:
        sku, location, target_date (text), quantity (the day's total; NaN when the day was closed or stocked out: known
        to have no label), known_at (when the newest version behind it became known).
    """
    events = landing.latest("demand", known_by)
    cut = events["closed"].fillna(False).to_numpy(dtype=bool) | events["stocked_out"].fillna(False).to_numpy(dtype=bool)
    labels = pd.DataFrame(
        {
            "sku": events["sku"],
            "location": events["location"],
            "target_date": microseconds(events["event_time"]) // MICROSECOND_DAY,
            "quantity": events["quantity"].where(~cut),
            "known_at": events["known_at"],
        }
    )
    keys = ["sku", "location", "target_date"]
    if labels.duplicated(keys).any():
        groups = labels.groupby(keys, sort=False, as_index=False)
        labels = groups.agg(quantity=("quantity", lambda part: part.sum(min_count=1)), known_at=("known_at", "max"))
    labels["target_date"] = _dates(labels["target_date"].to_numpy(dtype=np.int64))
    return labels.sort_values(keys, kind="stable").reset_index(drop=True)


def demand_population(
    landing: Events, *, cutoffs: Sequence[datetime], horizon: int, known_by: datetime
) -> pd.DataFrame:
    """One row a series, cutoff and step ahead; step 1 is the day that begins at the cutoff.

    Only series with an event before the cutoff that was known by it.

    Args:
        landing: where demand landed.
        cutoffs: first moments of days in UTC.
        horizon: number of steps, at least 1.
        known_by: nothing that became known later is looked at.

    Returns:
        row_id (sku|location|cutoff date|step), as_of (the cutoff), sku, location, step (int64), target_date (text),
        label (units that day; NaN when not known, closed or stocked out), label_known_at (NaT when not known; set for
        closed and stocked-out days); ordered by cutoff, sku, location, step.

    Raises:
        TimeInvalid: a cutoff is not the first moment of a day in UTC.
    """
    days = np.array([_day(cutoff) for cutoff in cutoffs], dtype=np.int64)
    versions = landing.read("demand", known_by=known_by)
    usable = np.maximum(microseconds(versions["event_time"]) + 1, microseconds(versions["known_at"]))
    begins = pd.Series(usable).groupby([versions["sku"].to_numpy(), versions["location"].to_numpy()]).min()
    there = begins.to_numpy()[None, :] <= days[:, None] * MICROSECOND_DAY
    cutoff, series = np.nonzero(there)
    steps = np.tile(np.arange(1, horizon + 1), len(cutoff))
    cutoff, series = np.repeat(days[cutoff], horizon), np.repeat(series, horizon)
    quantity, known = _labels_at(demand_labels(landing, known_by), begins.index, series, cutoff + steps - 1)
    sku = begins.index.get_level_values(0).to_numpy(dtype=object)[series]
    location = begins.index.get_level_values(1).to_numpy(dtype=object)[series]
    parts = zip(sku, location, _dates(cutoff), steps.tolist(), strict=True)
    return pd.DataFrame(
        {
            "row_id": np.array([f"{a}|{b}|{c}|{d}" for a, b, c, d in parts], dtype=object),
            "as_of": stamps(cutoff * MICROSECOND_DAY),
            "sku": sku,
            "location": location,
            "step": steps.astype(np.int64),
            "target_date": _dates(cutoff + steps - 1),
            "label": quantity,
            "label_known_at": stamps(known),
        }
    )


def _labels_at(labels: pd.DataFrame, index: pd.Index, series: Ints, days: Ints) -> tuple[Any, Ints]:
    """Quantity and known_at (microseconds) of each (series, day); NaN and not-a-time where there is no label."""
    if not len(labels) or not len(series):
        return np.full(len(series), np.nan), np.full(len(series), _NAT)
    held = index.get_indexer(pd.MultiIndex.from_frame(labels[["sku", "location"]]))
    dates = labels["target_date"].to_numpy(dtype="U10").astype("M8[D]").astype(np.int64)
    low, high = int(dates.min()), int(dates.max())
    quantity = np.full((len(index), high - low + 1), np.nan)
    known = np.full(quantity.shape, _NAT)
    quantity[held, dates - low] = labels["quantity"]
    known[held, dates - low] = microseconds(labels["known_at"])
    inside = (days >= low) & (days <= high)
    at = np.where(inside, days - low, 0)
    return np.where(inside, quantity[series, at], np.nan), np.where(inside, known[series, at], _NAT)


def _day(cutoff: datetime) -> int:
    day, rest = divmod(instant(utc(cutoff, "cutoff")), MICROSECOND_DAY)
    if rest:
        raise TimeInvalid("cutoff", iso(cutoff), "the first moment of a day in UTC")
    return day


def _dates(days: Ints) -> Any:
    return np.datetime_as_string(days.astype("M8[D]"), unit="D").astype(object)
