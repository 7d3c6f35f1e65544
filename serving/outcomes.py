"""Outcomes as canonical events, taken once each, in a log of their own from which the landing is fed."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from contracts.canonical import content_hash
from contracts.times import iso
from serving.requests import OutcomeItem
from serving.segments import SegmentLog

SHARED = ("carrier", "supplier", "origin", "destination", "mode", "category")
SOURCE = "seatrial.serving"


def outcome_event(item: OutcomeItem, shipment: Mapping[str, Any], now: datetime, request_id: str) -> dict[str, Any]:
    """A canonical `outcome` event (contracts/events/outcome.odcs.yaml), times as ISO text.

    Args:
        item: what was reported.
        shipment: the decision's request when the report named a decision, else empty.
        now: when we learned it.
        request_id: ties the events of one report together.

    Returns:
        the event; its id follows from shipment, time and result, so that the same report again is the same event.
    """
    shipment_id = item.shipment_id or shipment["shipment_id"]
    said = [shipment_id, iso(item.occurred_at), item.late, item.delay_minutes]
    fields = {name: getattr(item, name) or shipment.get(name) for name in SHARED}
    return {
        "event_id": f"outcome-{content_hash(said)[:32]}",
        "event_time": iso(item.occurred_at),
        "known_at": iso(now),
        "shipment_id": shipment_id,
        **fields,
        "delay_minutes": item.delay_minutes,
        "late": item.late,
        "source_system": SOURCE,
        "correlation_id": request_id,
    }


class OutcomeLog:
    """The outcome stream; an event id is written once, whichever process saw it first."""

    def __init__(self, folder: Path) -> None:
        self.segments = SegmentLog(folder, "outcomes")
        self._known: set[str] = set()
        self._offsets: dict[str, int] = {}
        self._lock = threading.Lock()

    def append(self, event: Mapping[str, Any]) -> bool:
        """Write one event; False when it was there already.

        Raises:
            DependencyDown: the log cannot be written.
        """
        with self._lock:
            for segment, key, _, end in self.segments.lines(self._offsets):
                self._known.add(key)
                self._offsets[segment] = end
            name = str(event["event_id"])
            if name in self._known:
                return False
            segment, end = self.segments.append(event, key=name)
            self._offsets[segment] = end
            self._known.add(name)
            return True
