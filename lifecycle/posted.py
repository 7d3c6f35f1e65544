"""Outcomes that were posted to the service, from its log into the landing."""

from __future__ import annotations

import pandas as pd

from contracts.events import event_contract
from lifecycle.workspace import Workspace
from serving.outcomes import SOURCE
from serving.segments import SegmentReader


def land_posted(ws: Workspace) -> int:
    """Land every posted outcome that has not landed yet; safe to repeat and to interrupt.

    Returns:
        how many landed; those that break the contract are in quarantine with their reason.
    """
    posted, _ = SegmentReader(ws.settings.decisions, "outcomes").read({})
    if not posted:
        return 0
    landed = set(ws.landing.read("outcome")["event_id"])
    names = event_contract("outcome").names
    fresh = [{name: event.get(name) for name in names} for event in posted if event["event_id"] not in landed]
    if not fresh:
        return 0
    frame = pd.DataFrame(fresh, columns=list(names))
    for name in ("event_time", "known_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True).astype("datetime64[us, UTC]")
    return ws.landing.append("outcome", frame, source=SOURCE).landed
