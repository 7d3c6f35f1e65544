"""Labels of a model's kind from the landing, each landed row once."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import pandas as pd

from contracts.policy import Kind

_SOURCES: dict[Kind, str] = {"forecast": "demand", "risk": "outcome"}


class Landed(Protocol):
    """What is needed of `features.landing.Landing`."""

    def read(self, kind: str, *, known_by: datetime | None = None) -> pd.DataFrame:
        """Every landed version of a kind in landing order; only ever longer."""
        ...


class LandedLabels:
    """Reads what was landed since the last call; what is not known yet waits in the label book.

    Every version is given, not only the newest, so that corrections and contradictions can be told apart.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self._rows = 0

    def new(self, landing: Landed) -> pd.DataFrame:
        """Label rows landed since the last call, see `LabelBook.update`.

        A risk's label is the outcome event's `late`; a forecast's is the quantity of a daily demand event, NaN when the
        location was closed or out of stock: then demand was not seen.
        """
        landed = landing.read(_SOURCES[self.kind])
        fresh = landed.iloc[self._rows :]
        self._rows = len(landed)
        return fresh[["shipment_id", "late", "known_at"]] if self.kind == "risk" else _daily(fresh)


def _daily(events: pd.DataFrame) -> pd.DataFrame:
    days = events[(events["period"] == "day").to_numpy(dtype=bool)]
    unseen = days["closed"].fillna(False).astype(bool) | days["stocked_out"].fillna(False).astype(bool)
    return pd.DataFrame(
        {
            "sku": days["sku"],
            "location": days["location"],
            "target_date": days["event_time"].dt.strftime("%Y-%m-%d"),
            "quantity": days["quantity"].mask(unseen),
            "known_at": days["known_at"],
        }
    )
