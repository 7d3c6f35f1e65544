"""Outcomes posted to the service land once, whenever and however often they are taken in."""

from datetime import UTC, datetime
from pathlib import Path

from contracts.settings import Settings
from contracts.times import SetClock
from lifecycle.posted import land_posted
from lifecycle.workspace import Workspace
from serving.outcomes import OutcomeLog, outcome_event
from serving.requests import OutcomeItem

NOW = datetime(2026, 3, 2, tzinfo=UTC)


def posted(log: OutcomeLog, shipment: str, *, late: bool) -> None:
    item = OutcomeItem(shipment_id=shipment, late=late, delay_minutes=31.0, occurred_at="2026-03-01T10:00:00Z")
    log.append(outcome_event(item, {}, NOW, "report-1"))


def test_posted_outcomes_land_once_and_only_once(tmp_path: Path) -> None:
    """What was posted lands; taking it in again, or after more was posted, lands only what is new."""
    ws = Workspace(Settings(home=tmp_path), SetClock(NOW))
    assert land_posted(ws) == 0
    log = OutcomeLog(ws.settings.decisions)
    posted(log, "S1", late=True)
    assert land_posted(ws) == 1
    assert land_posted(ws) == 0
    posted(log, "S2", late=False)
    assert land_posted(ws) == 1
    landed = ws.landing.read("outcome").set_index("shipment_id")
    assert landed["late"].to_dict() == {"S1": True, "S2": False}
    assert set(landed["known_at"]) == {NOW}
