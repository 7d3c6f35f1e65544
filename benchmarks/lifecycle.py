"""What the lifecycle costs, on the workspace that `make demo` left: point-in-time join, decisions, replay.

Rivals do the same work in the same run, alternating (A B A B ...); medians are printed and ratios are what to quote.
Run: `make bench` (after `make demo`); writes its section of docs/benchmarks.md.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import write_section
from contracts.decisions import DecisionRecord
from contracts.declarations import join_keys, view_columns
from contracts.settings import Settings
from contracts.times import SetClock
from lifecycle.demo_state import demo_end
from lifecycle.workspace import Workspace

ROUNDS = 5
JOIN_ROWS = 40_000
DECISIONS = 400
OUTPUT = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """(wall seconds, CPU seconds) of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def alternating(ours: Callable[[], object], rival: Callable[[], object]) -> list[tuple[float, float]]:
    """Medians (wall, CPU) of ours and of the rival, run in turn after one round that is not counted."""
    runs: list[list[tuple[float, float]]] = [[], []]
    for number in range(ROUNDS + 1):
        for place, work in enumerate((ours, rival)):
            taken = timed(work)
            if number:
                runs[place].append(taken)
    return [(statistics.median(w for w, _ in side), statistics.median(c for _, c in side)) for side in runs]


def borrowed_workspace(home: Path, folder: Path) -> Workspace:
    """A workspace in `folder` that reads the demo's stores and models and writes logs of its own."""
    for name in ("lake", "artifacts", "serving", "online", "ledger.db", "mlflow.db"):
        (folder / name).symlink_to((home / name).absolute())
    end = demo_end(Settings(home=home))
    if end is None:
        sys.exit(f"{home} holds no finished demo; run `make demo` first")
    return Workspace(Settings(home=folder), SetClock(end - timedelta(days=3660)))


def point_in_time_join(ws: Workspace) -> list[str]:
    """Our store through Feast's API against pandas.merge_asof, view by view, on the same rows with equal answers."""
    from features.population import shipment_population

    policy = ws.policy("late_delivery")
    events = ws.landing.read("shipment")
    until = events["event_time"].max().to_pydatetime()
    rows = shipment_population(ws.landing, since=events["event_time"].min(), until=until, known_by=until)
    rows = rows.sample(min(JOIN_ROWS, len(rows)), random_state=1).sort_values("as_of").reset_index(drop=True)
    views = {name: ws.declarations.views[name] for name in ws.declarations.services[policy.features].views}
    gold = {name: ws.gold.read(name) for name in views}

    def ours() -> pd.DataFrame:
        return ws.feast.training_set(policy.features, rows)

    def rival() -> pd.DataFrame:
        found = rows
        for name, view in views.items():
            keys, columns = list(join_keys(view)), list(view_columns(view))
            right = gold[name].sort_values("known_at")[[*keys, "known_at", *columns]]
            right = right.rename(columns={column: f"{name}__{column}" for column in columns})
            found = pd.merge_asof(found, right, left_on="as_of", right_on="known_at", by=keys, suffixes=("", "_right"))
            found = found.drop(columns=[c for c in found.columns if c.endswith("_right")])
        return found

    began = time.perf_counter()
    first = ours()
    index = time.perf_counter() - began
    second = rival()
    columns = [name for name in first.columns if "__" in name]
    inside = first[columns].notna().to_numpy()  # pandas knows no ttl here: where ours is too old to use, it has a value
    equal = bool(np.array_equal(first[columns].to_numpy()[inside], second[columns].to_numpy()[inside]))
    (wall, cpu), (rival_wall, rival_cpu) = alternating(ours, rival)
    source = sum(len(frame) for frame in gold.values())
    what = f"training set, {len(rows):,} x {source:,} rows, {len(columns)} features (first call {index:.1f} s)"
    mine, theirs = f"{wall:.2f} / {cpu:.2f} s", f"pandas.merge_asof {rival_wall:.2f} / {rival_cpu:.2f} s"
    ratio = f"{rival_wall / wall:.1f} / {rival_cpu / cpu:.1f}"
    return [f"| {what} | {mine} | {theirs} | {ratio} | {'equal' if equal else 'DIFFERENT'} |"]


def decisions(ws: Workspace) -> list[str]:
    """A whole decision (features, route, score, ladder, record) against the bare predict of its boosters."""

    return [decision(ws, model, verb) for model, verb in (("late_delivery", "score"), ("demand", "forecast"))]


def decision(ws: Workspace, model: str, verb: str) -> str:
    """One model's line, at the moment of its newest decision in the demo's log."""
    from models.load import load_model
    from serving.assemble import columns_for

    policy, past = ws.policy(model), logged(ws, model)[-DECISIONS:]
    assert isinstance(ws.clock, SetClock)
    ws.clock.set(max(record.as_of for record in past))
    asked = [{"items": [{k: v for k, v in r.request.items() if k != "horizon" and v is not None}]} for r in past]
    bare = load_model(ws.artifacts.path(model, str(ws.registrar.state(model).champion)))
    handle, steps = getattr(ws.handler, verb), policy.horizon or 1
    records: list[DecisionRecord] = [handle(model, request)[0] for request in asked]
    columns = [
        columns_for(policy.kind, r.request, r.views, policy.features, ws.declarations, r.as_of, steps) for r in records
    ]
    marks = iter(range(10**9))

    def ours() -> None:
        mark = next(marks)
        for number, request in enumerate(asked):
            handle(model, {**request, "request_id": f"bench-{mark}-{number}"})

    def rival() -> None:
        for each in columns:
            bare.predict(each)

    (wall, cpu), (rival_wall, rival_cpu) = alternating(ours, rival)
    per = 1e3 / len(asked)
    mine = f"{wall * per:.2f} / {cpu * per:.2f} ms"
    theirs = f"the model's bare predict {rival_wall * per:.2f} / {rival_cpu * per:.2f} ms"
    by_model = sum(r.answer.rung in ("champion", "canary") for r in records)
    ratio = f"{rival_wall / wall:.2f} / {rival_cpu / cpu:.2f}"
    return f"| {verb}, one decision | {mine} | {theirs} | {ratio} | {by_model} of {len(asked)} by a model |"


def logged(ws: Workspace, model: str) -> list[DecisionRecord]:
    """The model's decisions in the demo's log, oldest first."""
    from serving.segments import SegmentReader

    home = (ws.settings.home / "serving").resolve().parent
    found, _ = SegmentReader(home / "decisions", "decisions").read({})
    mine = [DecisionRecord.model_validate_json(json.dumps(record)) for record in found if record["model"] == model]
    return sorted((r for r in mine if r.answer.version), key=lambda record: record.as_of)


def replays(ws: Workspace) -> list[str]:
    """Replays, artifact verified and loaded each time."""
    from serving.wiring import replay_in

    records = [record for model in ("late_delivery", "demand") for record in logged(ws, model)[::100]]
    same = sum(replay_in(ws.settings, record).same for record in records)
    wall, cpu = timed(lambda: [replay_in(ws.settings, record) for record in records])
    per = 1e3 / len(records)
    mine = f"{wall * per:.1f} / {cpu * per:.1f} ms"
    return [f"| replay of one decision | {mine} | - | - | {same} of {len(records)} the same |"]


def main() -> None:
    """Measure, print, write."""
    home = Settings().home
    if demo_end(Settings(home=home)) is None:
        sys.exit(f"{home} holds no finished demo; run `make demo` first")
    with tempfile.TemporaryDirectory(prefix="seatrial-bench-") as folder:
        ws = borrowed_workspace(home, Path(folder))
        lines = [*point_in_time_join(ws), *decisions(ws), *replays(ws)]
    head = [
        f"`make bench` after `make demo`, on {os.cpu_count()} cores. Wall / CPU time, medians of {ROUNDS}",
        "alternating rounds in one process; the ratio is rival / ours, over 1 means ours is faster. Quote ratios.",
        "",
        "| what | ours | rival | ratio wall / CPU | answers |",
        "|---|---|---|---|---|",
    ]
    text = "\n".join([*head, *lines])
    sys.stdout.write(text + "\n")
    write_section(OUTPUT, "lifecycle", text)


if __name__ == "__main__":
    main()
