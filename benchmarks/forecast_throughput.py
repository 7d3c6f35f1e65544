"""What forecasts cost: CPU seconds and memory of whole runs, rows a second of a booster on numpy rows and by pyfunc.

Every part runs in a process of its own, one thread.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SEATRIAL_THREADS", "1")

import numpy as np

from benchmarks.measure import in_child, limit_memory, machine, measured, tell
from models.panel import Panel, period_numbers

SEED = 7
HORIZON = 28
SPEED_SERIES, SPEED_DAYS = 1_000, 800
MEMORY_SERIES, MEMORY_DAYS = 10_000, 3 * 365
BATCH_ROWS, FEATURES, DECISION_ROWS, ROUNDS = 100_000, 60, 28, 7
LIMIT_GB = 7.0
SECONDS = 3_600.0


def throughput(say: Callable[[str], None]) -> dict[str, Any]:
    """All parts; lines of (what, figure) and the machine."""
    lines: list[tuple[str, str]] = []
    found: dict[str, Any] = {"machine": f"One thread; {machine()}."}
    for part, words in (("speed", _speed_words), ("memory", _memory_words), ("scoring", _scoring_words)):
        answer = in_child("benchmarks.forecast_throughput", [part], seconds=SECONDS)
        say(f"{part}: {answer}")
        found[part] = answer
        lines += [(part, str(answer["stopped"]))] if "stopped" in answer else words(answer)
    return found | {"lines": lines}


def _speed_words(answer: dict[str, Any]) -> list[tuple[str, str]]:
    what = f"{SPEED_SERIES:,} Rossmann stores x {SPEED_DAYS} days, {HORIZON} steps, seven quantiles, all models"
    return [(what, f"{answer['cpu']:.1f} CPU s, {SPEED_SERIES / answer['cpu']:,.0f} series / CPU s")]


def _memory_words(answer: dict[str, Any]) -> list[tuple[str, str]]:
    what = f"{MEMORY_SERIES:,} made-up series x {MEMORY_DAYS:,} days, {HORIZON} steps, seven quantiles"
    figure = f"{answer['peak_mb'] / 1024:.2f} GB at most resident, {answer['cpu']:.0f} CPU s"
    return [(what, figure)]


def _scoring_words(answer: dict[str, Any]) -> list[tuple[str, str]]:
    what = f"booster of 200 trees, 63 leaves, {FEATURES} features"
    batch = answer["numpy_batch"], answer["pyfunc_batch"]
    speed = [BATCH_ROWS / seconds for seconds in batch]
    one = answer["numpy_decision"], answer["pyfunc_decision"]
    return [
        (
            f"{what}: {BATCH_ROWS:,} rows, numpy / pyfunc",
            f"{speed[0]:,.0f} / {speed[1]:,.0f} rows / CPU s ({batch[1] / batch[0]:.2f} times)",
        ),
        (
            f"{what}: the {DECISION_ROWS} rows of one decision, numpy / pyfunc",
            f"{one[0] * 1e3:.2f} / {one[1] * 1e3:.2f} ms CPU ({one[1] / one[0]:.1f} times)",
        ),
    ]


def rossmann_part() -> Panel:
    """The first 1,000 stores and the last 800 days of their history, with the covariates of the last 28 days ahead."""
    from benchmarks.forecast_data import rossmann

    panel = rossmann(10_000)
    panel = panel.take(np.arange(SPEED_SERIES)).until(panel.periods - HORIZON, HORIZON)
    skip = panel.periods - SPEED_DAYS
    return Panel(
        panel.keys,
        panel.frequency,
        panel.first + skip,
        panel.demand[:, skip:],
        {name: values[:, skip:] for name, values in panel.ahead.items()},
        panel.static,
    )


def made_up(series: int, days: int) -> Panel:
    """Poisson demand of a level with trend, a weekly and a yearly shape, and promotions that double it; seeded."""
    rng = np.random.default_rng(SEED)
    time_ = np.arange(days + HORIZON)
    level = np.exp(rng.normal(1.5, 1.0, (series, 1)))
    promotion = (rng.random((series, -(-len(time_) // 7))) < 0.15).repeat(7, axis=1)[:, : len(time_)]
    week = 1.0 + 0.4 * np.sin(2 * np.pi * time_ / 7 + rng.uniform(0, 6, (series, 1)))
    year = 1.0 + 0.3 * np.sin(2 * np.pi * time_ / 365.25 + rng.uniform(0, 6, (series, 1)))
    trend = 1.0 + rng.normal(0.0, 0.3, (series, 1)) * time_ / len(time_)
    mean = np.maximum(level * week * year * trend, 0.01) * (1.0 + promotion)
    return Panel(
        tuple(f"s{i:05d}" for i in range(series)),
        "day",
        int(period_numbers("2023-01-01", "day")),
        rng.poisson(mean[:, :days]).astype(np.float64),
        {"promotion": promotion.astype(np.float64)},
        {"group": rng.choice(np.array(["a", "b", "c", "d"], dtype=object), series)},
    )


def _whole(panel: Panel) -> dict[str, Any]:
    from benchmarks.forecast_rivals import LEVELS
    from models.panel_forecast import forecast_panel

    forecast, cost = measured(lambda: forecast_panel(panel, HORIZON, levels=LEVELS, seed=SEED))
    answered = int(np.isfinite(forecast.mean).all(axis=1).sum())
    return {"cpu": cost.cpu, "wall": cost.wall, "peak_mb": cost.peak_mb, "answered": answered}


def scoring() -> dict[str, float]:
    """CPU seconds (medians of alternating rounds) of the same booster's text on numpy rows and through pyfunc."""
    import lightgbm
    import mlflow
    import pandas as pd

    rng = np.random.default_rng(SEED)
    rows = rng.normal(size=(BATCH_ROWS, FEATURES))
    target = np.abs(rows[:, 0] + rng.normal(size=BATCH_ROWS))
    options = {"num_leaves": 63, "num_threads": 1, "verbosity": -1, "seed": SEED}
    text = lightgbm.train(options, lightgbm.Dataset(rows, target), num_boost_round=200).model_to_string()
    booster = lightgbm.Booster(model_str=text)
    names = booster.feature_name()
    with tempfile.TemporaryDirectory(prefix="seatrial-bench-") as folder:
        path = str(Path(folder) / "model")
        mlflow.lightgbm.save_model(booster, path, pip_requirements=["lightgbm"])
        served = mlflow.pyfunc.load_model(path)
        batch, one = pd.DataFrame(rows, columns=names), pd.DataFrame(rows[:DECISION_ROWS], columns=names)
        few = rows[:DECISION_ROWS].copy()
        same = np.array_equal(served.predict(batch), booster.predict(rows, num_threads=1))
        work: dict[str, tuple[Callable[[], Any], int]] = {
            "numpy_batch": (lambda: booster.predict(rows, num_threads=1), 1),
            "pyfunc_batch": (lambda: served.predict(batch), 1),
            "numpy_decision": (lambda: booster.predict(few, num_threads=1), 200),
            "pyfunc_decision": (lambda: served.predict(one), 50),
        }
        taken: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(ROUNDS):
            for name, (call, times) in work.items():
                began = time.process_time()
                for _ in range(times):
                    call()
                taken[name].append((time.process_time() - began) / times)
    return {name: float(np.median(seconds)) for name, seconds in taken.items()} | {"same_answers": float(same)}


def main() -> None:
    """One part, for `in_child`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("speed", "memory", "scoring"))
    part = parser.parse_args().part
    limit_memory(LIMIT_GB)
    if part == "speed":
        tell(_whole(rossmann_part()))
    elif part == "memory":
        tell(_whole(made_up(MEMORY_SERIES, MEMORY_DAYS)))
    else:
        tell(scoring())


if __name__ == "__main__":
    main()
