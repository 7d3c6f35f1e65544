"""The demo: real history replayed day by day through every stage, then checked, summed up and reported."""

from __future__ import annotations

import json
import random
import shutil
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from contracts.canonical import content_hash
from contracts.decisions import DecisionRecord
from contracts.errors import UsageError
from contracts.mapping import load_mapping
from contracts.policy import Policy
from contracts.rehearsal import Rehearsal, Voyage, load_rehearsal
from contracts.rollout import Move
from contracts.settings import Settings
from contracts.times import SetClock
from lifecycle.demo_data import Asks, data_folder, series_asks, shipment_asks
from lifecycle.fleet import sail_all
from lifecycle.http_check import HttpCheck, compare, running_service
from lifecycle.live_scores import LiveRows, forecast_rows, forecast_scores, risk_rows, risk_scores
from lifecycle.loop import Loop, Story
from lifecycle.pipeline import Progress, quiet
from lifecycle.workspace import Workspace

MARKER = "demo-state.json"


@dataclass(frozen=True)
class Voyaged:
    """One voyage's end: its story, scores and the rows behind them, and what HTTP answered."""

    policy: Policy
    story: Story
    rows: LiveRows
    scores: dict[str, float]
    http: HttpCheck
    outcomes: int


@dataclass
class Demo:
    """Everything a finished demo knows."""

    title: str
    voyages: list[Voyaged] = field(default_factory=list)
    replayed: int = 0
    mismatches: list[str] = field(default_factory=list)
    duration_s: float = 0.0

    def summary(self) -> dict[str, Any]:
        """The figures of `.seatrial/reports/demo.json`."""
        stories = [voyage.story for voyage in self.voyages]

        def total(move: Move) -> int:
            return sum(story.count(move) for story in stories)

        return {
            "title": self.title,
            "decisions": sum(len(story.records) for story in stories),
            "outcomes": sum(voyage.outcomes for voyage in self.voyages),
            "events_landed": sum(story.landed for story in stories),
            "events_quarantined": sum(story.quarantined for story in stories),
            "trainings": sum(len(story.trials) for story in stories),
            "retrains": sum(story.retrains for story in stories),
            "promotions": total(Move.PROMOTE),
            "rejections": total(Move.REJECT),
            "rollbacks": total(Move.ROLL_BACK),
            "holds": total(Move.HOLD),
            "row_guarantee_violations": sum(story.guarantee_violations for story in stories),
            "replayed": self.replayed,
            "replay_mismatches": len(self.mismatches),
            "http_compared": sum(voyage.http.compared for voyage in self.voyages),
            "http_different": sum(len(voyage.http.different) for voyage in self.voyages),
            "metrics": {voyage.policy.model: voyage.scores for voyage in self.voyages},
            "by_model": {voyage.policy.model: _by_model(voyage) for voyage in self.voyages},
            "duration_s": round(self.duration_s, 1),
        }


def _by_model(voyage: Voyaged) -> dict[str, Any]:
    story = voyage.story
    return {
        "decisions": len(story.records),
        "trainings": len(story.trials),
        "promotions": story.count(Move.PROMOTE),
        "rejections": story.count(Move.REJECT),
        "rollbacks": story.count(Move.ROLL_BACK),
        "windows": len(story.windows),
        "violations": sum(window.violation for window in story.windows),
        "incumbent_rung": sum(record.answer.rung == "incumbent" for record in story.records),
        "refusals": sum(record.answer.rung == "refuse" for record in story.records),
    }


def finished(settings: Settings, identity: str) -> dict[str, Any] | None:
    """The summary of a finished demo in this workspace made with the same inputs, None when there is none."""
    marker = settings.home / MARKER
    report = settings.reports / "demo.json"
    if not marker.exists() or not report.exists():
        return None
    state = json.loads(marker.read_text())
    if state.get("complete") and state.get("identity") == identity:
        summary: dict[str, Any] = json.loads(report.read_text())
        return summary
    return None


def make_room(settings: Settings, identity: str, *, fresh: bool) -> None:
    """An empty workspace with the demo's mark on it.

    A workspace that a demo left unfinished is started clean; a finished one only with `fresh`.

    Raises:
        UsageError: the workspace holds something that no demo made, or a finished demo of other inputs.
    """
    home, marker = settings.home, settings.home / MARKER
    if home.exists() and any(home.iterdir()):
        if not marker.exists():
            raise UsageError(f"{home} is a workspace that no demo made; name another one: SEATRIAL_HOME=.seatrial-demo")
        complete = json.loads(marker.read_text()).get("complete", False)
        if complete and not fresh:
            raise UsageError(f"{home} holds a finished demo of other policies, data or code; start clean with --fresh")
        shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps({"identity": identity, "complete": False}))


def identity_of(ws: Workspace, rehearsal_file: Path) -> str:
    """Hash of everything that decides what a demo does: rehearsal, mappings, declarations, policies, code."""
    rehearsal = load_rehearsal(rehearsal_file)
    mappings = [load_mapping(rehearsal_file.parent / voyage.mapping) for voyage in rehearsal.voyages]
    return content_hash(
        {
            "rehearsal": rehearsal.model_dump(mode="json"),
            "mappings": [mapping.model_dump(mode="json") for mapping in mappings],
            "declarations": ws.declarations.model_dump(mode="json"),
            "policies": {model: policy.hash for model, policy in ws.policies.items()},
            "code": ws.revision,
        }
    )


def run_demo(
    settings: Settings, rehearsal_file: Path, *, fresh: bool = False, progress: Progress = quiet
) -> tuple[dict[str, Any], bool]:
    """Run the rehearsal, or give back the summary of the one that already ran here.

    Args:
        settings: where the workspace is.
        rehearsal_file: the rehearsal.
        fresh: start clean even when it already ran.
        progress: told (stage, share of the stage done).

    Returns:
        the summary, and whether this call ran it.

    Raises:
        UsageError, DependencyDown, ConfigInvalid.
    """
    from lifecycle.demo_report import write_report

    started = time.monotonic()
    rehearsal = load_rehearsal(rehearsal_file)
    ws = Workspace(settings, SetClock(max(voyage.live_until for voyage in rehearsal.voyages)))
    identity = identity_of(ws, rehearsal_file)
    before = None if fresh else finished(settings, identity)
    if before is not None:
        return before, False
    make_room(settings, identity, fresh=fresh)
    demo = Demo(rehearsal.title)
    with ws.closing():
        demo.voyages += sail_all(settings, rehearsal, rehearsal_file.parent, progress)
        progress("replay", 0.0)
        demo.replayed, demo.mismatches = replay_sample(ws, demo, rehearsal.replays, progress)
        demo.duration_s = time.monotonic() - started
        progress("report", 0.0)
        write_report(ws, demo)
    (settings.home / MARKER).write_text(json.dumps({"identity": identity, "complete": True}))
    return demo.summary(), True


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
        return compare(address, policy.model, policy.kind, ws.handler, requests)


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


def replay_sample(ws: Workspace, demo: Demo, count: int, progress: Progress) -> tuple[int, list[str]]:
    """Replay a seeded sample of all decisions, read back from the log by their ids.

    Returns:
        how many were replayed, and the ids of those that did not come out the same to the last bit.
    """
    from serving.wiring import replay_in

    everything = [record.decision_id for voyage in demo.voyages for record in voyage.story.records]
    chosen = random.Random(20).sample(everything, min(count, len(everything)))
    mismatches = []
    for number, decision_id in enumerate(chosen):
        result = replay_in(ws.settings, ws.handler.decision(decision_id))
        if not result.same:
            mismatches.append(decision_id)
        progress("replay", (number + 1) / len(chosen))
    return len(chosen), mismatches
