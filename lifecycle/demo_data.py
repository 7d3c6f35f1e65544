"""Where a rehearsal's data lies, and which requests it makes of the handler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from contracts.errors import DependencyDown, NotEnoughData
from contracts.rehearsal import Voyage
from contracts.times import iso
from lifecycle.loop import Ask

Asks = Callable[[datetime, datetime], Sequence[Ask]]
SHIPMENT_TEXTS = ("shipment_id", "carrier", "supplier", "origin", "destination", "mode", "category")
SHIPMENT_TIMES = ("promised_at", "scheduled_at")
SHIPMENT_NUMBERS = ("distance_km", "quantity", "weight_kg", "value")


def data_folder(voyage: Voyage) -> Path:
    """Folder of the voyage's data; a package is located, never imported.

    Raises:
        DependencyDown: the package is not installed, or the folder is not there.
    """
    if voyage.path is not None:
        folder = voyage.path
    else:
        spec = find_spec(voyage.package or "")
        if spec is None or not spec.submodule_search_locations:
            raise DependencyDown(f"package {voyage.package}", "not installed; install the extra: seatrial[demo]")
        folder = Path(spec.submodule_search_locations[0]) / voyage.folder
    if not folder.exists():
        raise DependencyDown(str(folder), "no such file or folder")
    return folder


def place_in_unit(text: str) -> float:
    """A fixed pseudo-random place in [0, 1) of a text: the same on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


def shipment_asks(shipments: pd.DataFrame, per_day: int) -> Asks:
    """Requests to score a fixed sample of shipments, each at its own decision time.

    Args:
        shipments: canonical shipment events.
        per_day: about how many a day.

    Raises:
        NotEnoughData: no shipments.
    """
    if shipments.empty:
        raise NotEnoughData("shipments to score", 1, 0)
    days = max((shipments["event_time"].max() - shipments["event_time"].min()) / timedelta(days=1), 1.0)
    share = per_day / (len(shipments) / days)
    chosen = shipments[[place_in_unit(text) < share for text in shipments["shipment_id"]]]
    chosen = chosen.sort_values(["event_time", "shipment_id"], kind="stable").reset_index(drop=True)
    times = chosen["event_time"].dt.tz_convert(None).to_numpy()

    def asks(start: datetime, end: datetime) -> list[Ask]:
        low, high = (np.datetime64(at.replace(tzinfo=None)) for at in (start, end))
        span = chosen.iloc[np.searchsorted(times, low) : np.searchsorted(times, high)]
        return [_shipment_ask({str(name): value for name, value in row.items()}) for row in span.to_dict("records")]

    return asks


def _shipment_ask(row: dict[str, Any]) -> Ask:
    at = row["event_time"].to_pydatetime()
    return Ask(at, {"request_id": f"ship-{row['shipment_id']}", "items": [shipment_item(row)]})


def shipment_item(row: dict[str, Any]) -> dict[str, Any]:
    """One shipment event as an item of a score request; missing fields are left out."""
    item: dict[str, Any] = {}
    for name in SHIPMENT_TEXTS:
        if isinstance(row.get(name), str):
            item[name] = row[name]
    for name in SHIPMENT_TIMES:
        if pd.notna(row.get(name)):
            item[name] = iso(row[name].to_pydatetime())
    for name in SHIPMENT_NUMBERS:
        if pd.notna(row.get(name)):
            item[name] = float(row[name])
    return item


def series_asks(demand: pd.DataFrame, every: int) -> Asks:
    """Requests for a forecast of each series once in `every` days, spread evenly over the days.

    Args:
        demand: canonical demand events.
        every: days between two forecasts of the same series.

    Raises:
        NotEnoughData: no series.
    """
    if demand.empty:
        raise NotEnoughData("series to forecast", 1, 0)
    series = demand[["sku", "location"]].drop_duplicates().sort_values(["sku", "location"])
    turns: dict[int, list[dict[str, str]]] = {turn: [] for turn in range(every)}
    for sku, location in series.itertuples(index=False):
        turns[int(place_in_unit(f"{sku}|{location}") * every)].append({"sku": sku, "location": location})

    def asks(start: datetime, _end: datetime) -> list[Ask]:
        items = turns[start.toordinal() % every]
        return [Ask(start, {"request_id": f"plan-{start:%Y-%m-%d}", "items": items})] if items else []

    return asks
