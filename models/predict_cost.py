"""What one prediction costs on this machine: the slowest of a hundred in ms of CPU time, and the loaded model's memory.

Such figures are never the same twice: they go into the gate's row, not into sealed files.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from contracts.policy import Policy
from models.design import FrameColumns
from models.load import load_model

ROWS = 200
ROUNDS = 3
_SECONDS = 120.0
_CHILD = """
import json, sys
from pathlib import Path
from models.load import load_model

def resident():
    words = Path("/proc/self/statm").read_text().split()
    return int(words[1]) * 4096 if len(words) > 1 else 0

first = load_model(Path(sys.argv[1]))  # what libraries take at first use is no part of a model
before = resident()
kept = [load_model(Path(sys.argv[1])) for _ in range(COPIES)]
print(json.dumps((resident() - before) / COPIES / 1e6))
"""
COPIES = 16


def predict_cost(policy: Policy, folder: Path, rows: pd.DataFrame) -> dict[str, float]:
    """Those of p99_ms and memory_mb that the policy's gate bounds, of the model saved in `folder`."""
    asked, found = policy.gate.predict, {}
    if asked.p99_ms is not None:
        found["p99_ms"] = predict_p99_ms(folder, rows)
    if asked.memory_mb is not None and (memory := predict_memory_mb(folder)) is not None:
        found["memory_mb"] = memory
    return found


def predict_p99_ms(folder: Path, rows: pd.DataFrame) -> float:
    """The 99th percentile of the CPU time that the model in `folder` takes for one row, in ms, in this process.

    Args:
        folder: of a saved model. rows: at least one, with the model's columns; the first 200 are asked one by one.

    Returns:
        the smallest of three rounds' percentiles, after a warm-up; CPU time and the best round, because a machine that
        trains does other work as well.
    """
    model = load_model(folder)
    wanted = [*model.columns, *(("target_date",) if "target_date" in rows.columns else ())]
    singles = [_single(rows.iloc[[place]], wanted) for place in range(min(len(rows), ROWS))]
    for columns in singles[:20]:
        model.predict(columns)
    rounds = []
    for _ in range(ROUNDS):
        taken = []
        for columns in singles:
            began = time.process_time_ns()
            model.predict(columns)
            taken.append((time.process_time_ns() - began) / 1e6)
        rounds.append(float(np.percentile(taken, 99)))
    return min(rounds)


def _single(row: pd.DataFrame, wanted: list[str]) -> dict[str, Any]:
    columns = FrameColumns(row)
    return {name: columns[name] for name in wanted}


def predict_memory_mb(folder: Path) -> float | None:
    """What a loaded model adds to a serving process, in MB; None where the kernel does not tell (no /proc).

    Measured in a process of its own, where no memory freed by a training can be used again: the growth of resident
    memory by sixteen loads, over sixteen. It costs that process's start, some seconds.
    """
    if not Path("/proc/self/statm").exists():
        return None
    program = _CHILD.replace("COPIES", str(COPIES))
    command = [sys.executable, "-c", program, str(folder.absolute())]
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=_SECONDS, check=True)
        return float(json.loads(done.stdout.strip().splitlines()[-1]))
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None
