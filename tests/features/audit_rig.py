"""Training sets made the production way from small landed events, for auditing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from contracts.declarations import Declarations
from contracts.settings import Settings
from features.build import build
from features.feast_store import FeatureRepo
from features.gold import GoldStore
from features.landing import Landing
from tests.features.view_events import DAY, HOUR, ORIGIN, at, events

Rows = list[dict[str, Any]]
UNTIL = ORIGIN + 20 * DAY
DECLARED = Declarations.model_validate(
    {
        "views": {
            "demand": {"kind": "demand_history", "ttl": "3d", "lags": 7, "windows": [3, 7], "season_cycles": 2},
            "prices": {"kind": "price_history", "ttl": "7d", "window": 5},
            "plan": {"kind": "promotion_plan", "ttl": "5d", "fields": ["display", "mailer"]},
            "carriers": {"kind": "outcome_rates", "keys": ["carrier"], "ttl": "36h", "windows": [1, 3]},
            "lanes": {"kind": "outcome_rates", "keys": ["origin", "destination"], "ttl": "24h", "windows": [2]},
            "weather": {"kind": "signal_latest", "ttl": "12h", "names": ["wind", "rain"]},
            "terms": {"kind": "attribute_history", "entity": "carrier", "keys": ["carrier"], "names": ["fee", "fleet"]},
        },
        "services": {
            "sales": {"views": ["demand", "prices", "plan"], "facts": [{"kind": "calendar", "country": "US"}]},
            "risk": {
                "views": ["carriers", "lanes", "weather", "terms"],
                "facts": [
                    {"kind": "schedule", "zone": "America/New_York"},
                    {"kind": "given", "categories": ["carrier"]},
                ],
            },
        },
    }
)


def some_events(seed: int) -> dict[str, Rows]:
    """Events of every kind with late ones, corrections, gaps and ties, in the order in which they became known."""
    rng = np.random.default_rng(seed)
    kinds = ("demand", "outcome", "price_promotion", "external_signal", "attribute")
    found: dict[str, Rows] = {kind: [] for kind in kinds}

    def known(begun: datetime, hours: Sequence[float]) -> datetime:
        return begun + float(rng.choice(np.array(hours))) * HOUR

    for sku, location, day in [(s, x, d) for s in "ab" for x in "xy" for d in range(19)]:
        for _ in range(int(rng.choice([0, 1, 1, 1, 2]))):
            begun = ORIGIN + day * DAY
            row = {"sku": sku, "location": location, "event_time": begun, "period": "day"}
            row |= {"quantity": float(rng.integers(0, 9)), "price": [None, 1.5, 2.0][rng.integers(3)], "discount": 0.1}
            row |= {"closed": bool(rng.random() < 0.1), "known_at": known(begun, [24, 24, 24, 30, 24 * 4])}
            found["demand"].append(row)
    for number in range(120):
        begun = at(float(rng.integers(0, 24 * 19)))
        row = {"shipment_id": f"s{number % 90}", "carrier": "ABC"[rng.integers(3)], "origin": "op"[rng.integers(2)]}
        row |= {"destination": "d", "late": bool(rng.random() < 0.4), "delay_minutes": float(rng.normal(5, 20))}
        found["outcome"].append(row | {"event_time": begun, "known_at": known(begun, [0, 0, 1, 6, 30])})
    for number in range(60):
        begun = at(float(rng.integers(0, 24 * 15)))
        row = {"sku": "ab"[number % 2], "location": "x", "target_date": f"2024-01-{rng.integers(5, 20):02d}"}
        row |= {"display": float(rng.random()), "mailer": None}
        found["price_promotion"].append(row | {"event_time": begun, "known_at": known(begun, [0, 0, 10])})
    for number in range(300):
        begun = at(float(rng.integers(0, 24 * 19)))
        row = {"site": "op"[number % 2], "name": ["wind", "rain", "snow"][rng.integers(3)]}
        row |= {"value": float(rng.normal()), "event_time": begun, "known_at": known(begun, [0, 1, 20])}
        found["external_signal"].append(row)
    for carrier, name, week in [(c, n, w) for c in "AB" for n in ("fee", "fleet") for w in range(3)]:
        begun = ORIGIN + 6 * week * DAY
        row = {"entity": "carrier", "entity_id": carrier, "name": name, "value": float(rng.integers(1, 9))}
        row |= {"valid_from": begun, "valid_to": begun + int(rng.integers(3, 7)) * DAY}
        recorded = known(begun, [-30, 0, 5, 40])
        found["attribute"].append(row | {"event_time": recorded, "known_at": recorded})
    return {kind: sorted(rows, key=lambda row: row["known_at"]) for kind, rows in found.items()}


def landed(folder: Path, found: Mapping[str, Rows]) -> Landing:
    """A landing zone with these events."""
    landing = Landing(folder / "lake")
    for kind, rows in found.items():
        receipt = landing.append(kind, events(kind, rows), source="test")
        assert receipt.quarantined == 0, receipt.reasons
    return landing


def training_set(folder: Path, landing: Landing, service: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the features of a service: built, applied and joined as in a workspace."""
    settings = Settings(home=folder)
    gold = GoldStore(settings.lake / "gold", durable=False)
    build(DECLARED, landing, gold, UNTIL, views=DECLARED.services[service].views)
    repo = FeatureRepo(settings, DECLARED, gold=gold)
    repo.apply()
    return repo.training_set(service, rows)


def sales_rows(moments: Iterable[datetime]) -> pd.DataFrame:
    """A row a series and moment, for the next day; and a series that nobody ever saw."""
    series = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("new", "x")]
    asked = [(sku, location, moment) for moment in moments for sku, location in series]
    frame = pd.DataFrame(asked, columns=["sku", "location", "as_of"])
    frame["target_date"] = [f"{moment + DAY:%Y-%m-%d}" for moment in frame["as_of"]]
    return _numbered(frame)


def risk_rows(moments: Iterable[datetime]) -> pd.DataFrame:
    """A row a carrier, lane and moment, with its schedule."""
    lanes = [("A", "o", "d"), ("B", "p", "d"), ("C", "o", "d"), ("Z", "q", "d")]
    asked = [(*lane, moment) for moment in moments for lane in lanes]
    frame = pd.DataFrame(asked, columns=["carrier", "origin", "destination", "as_of"])
    frame["scheduled_at"] = frame["as_of"] + pd.Timedelta(hours=2)
    frame["promised_at"] = frame["as_of"] + pd.Timedelta(hours=5.5)
    return _numbered(frame)


def _numbered(frame: pd.DataFrame) -> pd.DataFrame:
    frame.insert(0, "row_id", [f"r{number}" for number in range(len(frame))])
    frame["as_of"] = pd.DatetimeIndex(frame["as_of"]).as_unit("us")
    return frame
