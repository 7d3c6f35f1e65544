"""The demo: real history replayed day by day through every stage, then checked, summed up and reported."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

from contracts.canonical import content_hash
from contracts.errors import UsageError
from contracts.mapping import load_mapping
from contracts.rehearsal import load_rehearsal
from contracts.settings import Settings
from contracts.times import SetClock, iso
from lifecycle.demo_data import data_folder
from lifecycle.demo_results import Demo
from lifecycle.demo_state import MARKER
from lifecycle.fleet import sail_all
from lifecycle.progress import Progress, quiet
from lifecycle.skew import skew_of
from lifecycle.workspace import Workspace

SKEW_DECISIONS = 300  # of each model


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
    """Hash of what decides how a demo goes: rehearsal, mappings, declarations, policies, code, and the data's files."""
    rehearsal = load_rehearsal(rehearsal_file)
    mappings = [load_mapping(rehearsal_file.parent / voyage.mapping) for voyage in rehearsal.voyages]
    return content_hash(
        {
            "rehearsal": rehearsal.model_dump(mode="json"),
            "mappings": [mapping.model_dump(mode="json") for mapping in mappings],
            "declarations": ws.declarations.model_dump(mode="json"),
            "policies": {model: policy.hash for model, policy in ws.policies.items()},
            "code": ws.revision,
            "data": [_files(data_folder(voyage)) for voyage in rehearsal.voyages],
        }
    )


def _files(folder: Path) -> list[list[str | int]]:
    """Names and sizes of the data files: another edition of the data is another demo."""
    paths = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    return [[path.name, path.stat().st_size] for path in paths]


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
        for voyage in demo.voyages:
            model = voyage.policy.model
            progress(f"skew of {model}", 0.0)
            demo.skews[model] = skew_of(ws, voyage.policy, sample=SKEW_DECISIONS)
        demo.duration_s = time.monotonic() - started
        progress("report", 0.0)
        write_report(ws, demo)
    done = {"identity": identity, "complete": True, "end": iso(ws.clock.now())}
    (settings.home / MARKER).write_text(json.dumps(done))
    return demo.summary(), True


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
