"""Whether a demo made a workspace, and when its history ends."""

from __future__ import annotations

import json
from datetime import datetime

from contracts.settings import Settings
from contracts.times import parse_time

MARKER = "demo-state.json"


def demo_end(settings: Settings) -> datetime | None:
    """When the history of this workspace's finished demo ends; None when no demo made the workspace."""
    marker = settings.home / MARKER
    state = json.loads(marker.read_text()) if marker.exists() else {}
    return parse_time(state["end"]) if state.get("complete") else None
