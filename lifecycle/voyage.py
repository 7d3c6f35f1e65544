"""One voyage of a rehearsal: stage, learn, live through the days, check over HTTP, score."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from contracts.decisions import DecisionRecord
from contracts.mapping import load_mapping
from contracts.policy import Policy
from contracts.rehearsal import Rehearsal, Voyage
from contracts.times import SetClock
from lifecycle.demo_data import Asks, data_folder, series_asks, shipment_asks
from lifecycle.demo_results import Voyaged
from lifecycle.http_check import HttpCheck, compare, running_service
from lifecycle.live_scores import LiveRows, forecast_rows, forecast_scores, risk_rows, risk_scores
from lifecycle.loop import Loop
from lifecycle.progress import Progress
from lifecycle.workspace import Workspace


def sail(
    ws: Workspace, clock: SetClock, voyage: Voyage, rehearsal: Rehearsal, folder: Path, progress: Progress
) -> Voyaged:
    """One voyage: stage its data, learn, live through the days, check the service over HTTP, and score."""
    from features.importer import stage

    policy = ws.policy(voyage.model)
    progress(f"reading {voyage.mapping}", 0.0)
    staged = stage(load_mapping(folder / voyage.mapping), data_folder(voyage))
    loop = Loop(ws, policy, staged, clock, tick=voyage.tick, progress=progress)
    loop.learn(voyage.learn_until)
    asks = _asks(voyage, staged.events, policy)
    loop.run(voyage.live_until, asks)
    progress("the service over HTTP", 0.0)
    http = _over_http(ws, policy, loop.story.records, rehearsal.http_requests, clock.now())
    rows, scores = _scores(ws, policy, loop.story.records, clock.now())
    outcomes = int(rows.frame["decision_id"].nunique()) if len(rows.frame) else 0
    return Voyaged(policy, loop.story, rows, scores, http, outcomes)


def _asks(voyage: Voyage, events: dict[str, Any], policy: Policy) -> Asks:
    if policy.kind == "forecast":
        return series_asks(events["demand"], voyage.ask_every)
    return shipment_asks(events["shipment"], voyage.per_day)


def _over_http(ws: Workspace, policy: Policy, records: list[DecisionRecord], count: int, now: datetime) -> HttpCheck:
    requests = [{"items": [_item(record)]} for record in records[-count:]]
    with running_service(ws.settings, now) as address:
        key = ws.settings.key.get_secret_value()
        return compare(address, policy.model, policy.kind, ws.handler, requests, key=key)


def _item(record: DecisionRecord) -> dict[str, Any]:
    """The request item behind a record; the horizon stands beside the items, not in them."""
    return {name: value for name, value in record.request.items() if name != "horizon" and value is not None}


def _scores(
    ws: Workspace, policy: Policy, records: list[DecisionRecord], now: datetime
) -> tuple[LiveRows, dict[str, float]]:
    from features.population import demand_labels

    if policy.kind == "forecast":
        rows = forecast_rows(records, demand_labels(ws.landing, known_by=now), policy, ws.declarations)
        return rows, forecast_scores(rows, policy.training.quantiles)
    rows = risk_rows(records, ws.landing.latest("outcome", known_by=now), policy, ws.declarations)
    return rows, risk_scores(rows)
