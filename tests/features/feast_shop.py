"""A small Feast repository with values and keys of many types, on whatever online store a test names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig, ValueType
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
VALUES: dict[str, Any] = {
    "price": Float64,
    "share": Float32,
    "stock": Int64,
    "rank": Int32,
    "open": Bool,
    "label": String,
    "raw": Bytes,
    "sizes": Array(Int64),
}


def shop_store(folder: Path, online: dict[str, Any], *, engine: bool = True) -> FeatureStore:
    """An applied repository: view `shelf` by item (int64) and shop (text), view `lane` by lane (int32), ttl a day."""
    (folder / "gold").mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "project": "shop",
        "provider": "local",
        "registry": str(folder / "registry.db"),
        "offline_store": {"type": "features.asof_offline_store.AsofOfflineStore"},
        "online_store": online,
        "entity_key_serialization_version": 3,
    }
    if engine:
        config["batch_engine"] = {"type": "features.arrow_engine.ArrowComputeEngine"}
    store = FeatureStore(config=RepoConfig(**config))
    times = {"timestamp_field": "event_time", "created_timestamp_column": "known_at"}
    item, shop = (
        Entity(name="item", join_keys=["item"], value_type=ValueType.INT64),
        Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING),
    )
    lane = Entity(name="lane", join_keys=["lane"], value_type=ValueType.INT32)
    source = FileSource(name="shelf_file", path=str(folder / "gold" / "shelf.parquet"), **times)
    pushed = PushSource(name="shelf_push", batch_source=source)
    lanes = FileSource(name="lane_file", path=str(folder / "gold" / "lane.parquet"), **times)
    fields = [Field(name=name, dtype=dtype) for name, dtype in VALUES.items()]
    keys = [Field(name="item", dtype=Int64), Field(name="shop", dtype=String)]
    shelf = FeatureView(
        name="shelf", entities=[item, shop], ttl=timedelta(days=1), schema=[*keys, *fields], source=pushed
    )
    rate = FeatureView(
        name="lane_rate",
        entities=[lane],
        ttl=timedelta(0),
        schema=[Field(name="lane", dtype=Int32), Field(name="late", dtype=Float64)],
        source=lanes,
    )
    store.apply([item, shop, lane, source, pushed, lanes, shelf, rate])
    return store


def shelf_rows(*items: int, event: datetime = NOW - HOUR, price: float | None = None) -> pd.DataFrame:
    """One row an item in shop `s`, with a value of each type that follows from the item."""
    stamp = pd.Timestamp(event).as_unit("us")
    return pd.DataFrame(
        {
            "item": list(items),
            "shop": "s",
            "event_time": stamp,
            "known_at": stamp,
            "price": [float(item) / 8 if price is None else price for item in items],
            "share": [0.25] * len(items),
            "stock": [item - 2**40 for item in items],
            "rank": pd.array([-item for item in items], dtype="Int32"),
            "open": [item % 2 == 0 for item in items],
            "label": [f"näme {item}" for item in items],
            "raw": [bytes([item, 0, 255]) for item in items],
            "sizes": [[item, 7] for item in items],
        }
    )


def read_shelf(store: FeatureStore, *items: int, names: tuple[str, ...] = tuple(VALUES)) -> Any:
    """Feast's answer for items of shop `s`."""
    return store.get_online_features(
        [f"shelf:{name}" for name in names], [{"item": item, "shop": "s"} for item in items]
    )
