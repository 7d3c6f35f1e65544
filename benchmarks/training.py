"""What a training costs beside its fits, on the history that `make demo` left: figures, MLflow run, registration.

Run: `python -m benchmarks.training` after `make demo`; prints a table. The workspace is copied where it is written to.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lifecycle import timed
from benchmarks.measure import machine
from contracts.settings import Settings
from contracts.times import SetClock
from lifecycle.demo_state import demo_end
from lifecycle.pipeline import source_facts, training_set
from lifecycle.versions import version_of
from lifecycle.workspace import Workspace

MODELS = ("demand", "late_delivery")
ROUNDS = 5
WRITTEN = ("artifacts", "ledger.db", "mlflow.db", "serving", "lake")


def copied_workspace(home: Path, folder: Path) -> Workspace:
    """The demo's workspace at its end, in a folder of its own."""
    end = demo_end(Settings(home=home))
    if end is None:
        sys.exit(f"{home} holds no finished demo; run `make demo` first")
    for name in WRITTEN:
        source = home / name
        if source.is_dir():
            # Feature rows are made anew: the declarations may have changed since the demo.
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("gold"))
        elif source.exists():
            shutil.copy2(source, folder / name)
    return Workspace(Settings(home=folder), SetClock(end))


def costs(ws: Workspace, model: str, folder: Path) -> dict[str, tuple[float, float]]:
    """(wall, CPU) seconds of each part: medians of five after one that is not counted."""
    from models.design import FrameColumns
    from models.evaluate import Answers, incumbent_answers, scoreboard, segments
    from models.load import load_model
    from models.mlflow_run import log_training
    from models.plots import draw
    from models.training import train

    policy = ws.policy(model)
    # A rehearsal's voyages end at different times: each model is trained as of its newest training.
    now = version_of(ws, policy, list(ws.registrar.state(model).manifests)[-1]).trained_until
    rows = training_set(ws, policy, now)
    out = folder / f"{model}-model"
    whole: list[Any] = []
    sources = source_facts(ws, policy, now)
    training = timed(lambda: whole.append(train(policy, rows, ws.declarations, now=now, out=out, sources=sources)))
    trained = whole[0]
    loaded = load_model(out)
    scored = rows[rows["row_id"].isin(trained.evaluation.losses["row_id"])].reset_index(drop=True)
    answer = loaded.predict(FrameColumns(scored))
    given = Answers(*answer) if isinstance(answer, tuple) else Answers(answer, np.empty((len(scored), 0)))
    board = scoreboard(policy, ws.declarations, scored)
    answers = {"candidate": given, "incumbent": incumbent_answers(policy, ws.declarations, scored)}
    named = segments(policy, ws.declarations, rows, scored)
    features, runs = ws.features_hash(policy), iter(range(10**6))

    def log() -> None:
        log_training(
            ws.settings.tracking,
            policy,
            trained,
            features_hash=features,
            policy_hash=policy.hash,
            code_revision=ws.revision,
            artifact_root=ws.settings.home / "mlartifacts",
            key=f"bench-{next(runs)}",
        )

    def register() -> None:
        ws.registrar.register(
            trained, policy, run_id=f"bench-{next(runs)}", features_hash=features, code_revision=ws.revision
        )

    (folder / "figures").mkdir(exist_ok=True)
    return {
        f"{model}: training on {len(rows):,} rows, figures included": training,
        f"{model}: figures": median_of(lambda: draw(folder / "figures", board, answers, named, loaded)),
        f"{model}: MLflow run": median_of(log),
        f"{model}: seal, place, register, project": median_of(register),
    }


def median_of(work: Callable[[], object]) -> tuple[float, float]:
    """Median wall and CPU seconds of some rounds after one that is not counted."""
    work()
    taken = [timed(work) for _ in range(ROUNDS)]
    return statistics.median(wall for wall, _ in taken), statistics.median(cpu for _, cpu in taken)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="seatrial-bench-") as name:
        folder = Path(name)
        (folder / "home").mkdir()
        ws = copied_workspace(Settings().home, folder / "home")
        sys.stdout.write(f"{machine()}\n\n| what | wall s | CPU s |\n|---|---|---|\n")
        for model in MODELS:
            for what, (wall, cpu) in costs(ws, model, folder).items():
                sys.stdout.write(f"| {what} | {wall:.2f} | {cpu:.2f} |\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
