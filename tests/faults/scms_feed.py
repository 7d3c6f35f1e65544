"""A feed made of real deliveries (SCMS): its mapping, two years that landed, and the quarter that comes next."""

from __future__ import annotations

import functools
import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from contracts.mapping import EventsFile, load_mapping
from features.importer import ingest, stage
from features.landing import Landing, Receipt

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2016, 1, 1, tzinfo=UTC)
KINDS = ("shipment", "outcome")
MAPPING = """
source_system: deliveries
batch: 730d
inputs: {deliveries: {}}
events:
  - kind: shipment
    columns:
      event_id: {from: id}
      event_time: {from: ordered}
      known_at: {from: ordered}
      shipment_id: {from: id}
      carrier: {from: vendor}
      supplier: {from: vendor}
      origin: {from: site}
      destination: {from: country}
      mode: {from: mode}
      category: {from: group}
      promised_at: {from: promised}
      quantity: {from: units}
      weight_kg: {from: kg}
      value: {from: value}
  - kind: outcome
    columns:
      event_id: {from: id}
      event_time: {from: delivered}
      known_at: {from: learned}
      shipment_id: {from: id}
      carrier: {from: vendor}
      supplier: {from: vendor}
      destination: {from: country}
      mode: {from: mode}
      delay_minutes: {from: delay}
      late: {from: late}
"""


@functools.cache
def deliveries() -> pd.DataFrame:
    """Every delivery ordered from 2010 to March 2012, one row each, all cells as text."""
    folder = Path(os.environ.get("SEATRIAL_DATA", ROOT.parent / "shared" / "data"))
    file = folder / "scms_delivery_history" / "SCMS_Delivery_History_Dataset.csv"
    if not file.exists():
        pytest.skip(f"no {file}: set SEATRIAL_DATA to the folder with the real data")
    events = stage(load_mapping(ROOT / "examples" / "scms" / "deliveries.yaml"), file).events
    both = events["shipment"].merge(events["outcome"], on="event_id", suffixes=("", "_done"))
    both = both[(both["event_time"] >= "2010-01-01") & (both["event_time"] < "2012-04-01")]
    feed = pd.DataFrame(
        {
            "id": both["event_id"],
            "ordered": both["event_time"].map(lambda time: time.isoformat()),
            "vendor": both["carrier"],
            "site": both["origin"],
            "country": both["destination"],
            "mode": both["mode"].fillna(""),
            "group": both["category"],
            "promised": both["promised_at"].dt.strftime("%Y-%m-%d"),
            "delivered": both["event_time_done"].dt.strftime("%Y-%m-%d"),
            "learned": both["known_at_done"].map(lambda time: time.isoformat()),
            "units": both["quantity"].map("{:.0f}".format),
            "kg": both["weight_kg"].map("{:g}".format).replace("nan", ""),
            "value": both["value"].map("{:.2f}".format),
            "delay": both["delay_minutes"].map("{:.0f}".format),
            "late": both["late"].map({True: "yes", False: "no"}),
        }
    )
    return feed.reset_index(drop=True)


def landed_before() -> pd.DataFrame:
    """Orders of 2010 and 2011."""
    return deliveries()[deliveries()["ordered"] < "2012"].reset_index(drop=True)


def next_quarter() -> pd.DataFrame:
    """Orders of the first quarter of 2012: the feed that the tests break."""
    return deliveries()[deliveries()["ordered"] >= "2012"].reset_index(drop=True)


def written(feed: pd.DataFrame) -> bytes:
    """The feed as its file's bytes."""
    return feed.to_csv(index=False).encode()


def mapped(folder: Path) -> EventsFile:
    """The feed's mapping."""
    file = folder / "deliveries.yaml"
    file.write_text(MAPPING)
    return load_mapping(file)


def take(folder: Path, data: bytes, landing: Landing, name: str = "deliveries.csv") -> list[Receipt]:
    """Write the file and ingest it."""
    file = folder / name
    file.write_bytes(data)
    return ingest(mapped(folder), file, landing, now=NOW)


def tree(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
