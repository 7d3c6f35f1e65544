"""Demand forecasts on five real data sets: ours against the seasonal naive, statsforecast's models and mlforecast.

Run: `python -m benchmarks.forecast` (all sets at full size; writes the tables of docs/forecast.md and the summary in
docs/benchmarks.md), `--sets`, `--series`, `--only` for a part, which is printed and not written; `--cache DIR` keeps
the rivals' forecasts and their CPU seconds; `--throughput` measures speed and memory instead. One process, one thread.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# read by OpenMP when it is loaded: on a busy machine a second thread makes a fit slower, and CPU seconds must compare
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SEATRIAL_THREADS", "1")

import numpy as np

from benchmarks import forecast_report as report
from benchmarks.forecast_data import SETS, BenchmarkSet, horizon_of, origins_of, zero_share
from benchmarks.forecast_rivals import LEVELS, MLFORECAST, NAIVE, OURS, STATISTICAL, answered_by, contenders
from benchmarks.forecast_scores import (
    Answers,
    completed,
    facts,
    figures,
    kinds,
    scored_rows,
    segments,
    table_of,
)
from models.panel import Panel, PanelForecast


def say(words: str) -> None:
    """Progress, beside the tables."""
    sys.stderr.write(words + "\n")
    sys.stderr.flush()


def key_of(panel: Panel, horizon: int) -> str:
    """A hash of all that a contender is shown."""
    digest = hashlib.sha256(repr((panel.keys, panel.frequency, panel.first, horizon, LEVELS)).encode())
    digest.update(np.ascontiguousarray(panel.demand).tobytes())
    for name, values in sorted(panel.ahead.items()):
        digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
    for name, texts in sorted(panel.static.items()):
        digest.update(repr((name, texts.tolist())).encode())
    return digest.hexdigest()[:20]


def one_answer(
    name: str, panel: Panel, horizon: int, of: BenchmarkSet, cache: Path | None, *, stored_only: bool
) -> tuple[PanelForecast, float] | None:
    """A contender's answer at one origin; rivals' from the cache where it is there. None: not there, and not asked."""
    path = None
    if cache is not None and name != OURS:
        path = cache / f"{of.name}-{panel.periods}-{name}-{key_of(panel, horizon)}.npz"
        if path.exists():
            with np.load(path) as kept:
                return PanelForecast(kept["mean"], kept["quantiles"], LEVELS), float(kept["cpu"])
    if stored_only:
        return None
    forecast, cpu = answered_by(name, panel, horizon, of.country)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.npz")
        np.savez_compressed(draft, mean=forecast.mean, quantiles=forecast.quantiles, cpu=cpu)
        draft.replace(path)
    return forecast, cpu


def run(of: BenchmarkSet, most: int | None, cache: Path | None, only: str | None) -> dict[str, Any]:
    """One data set: every contender at every origin, scored on the same rows."""
    panel = of.load(most)
    horizon, origins = horizon_of(panel), origins_of(panel)
    names = list(contenders(panel))
    if only != "rivals":
        names.append(OURS)
    found: dict[str, Answers] = {}
    about: list[Any] = []
    for name in names:
        answers = []
        for at in origins:
            stored = only == "ours" and name not in (OURS, NAIVE)
            answer = one_answer(name, panel.until(at, horizon), horizon, of, cache, stored_only=stored)
            if answer is None:
                break
            answers.append(answer)
            if name == OURS:
                about.append(dict(answer[0].about))
        if len(answers) == len(origins):
            cpu = sum(seconds for _, seconds in answers)
            found[name] = Answers(
                np.stack([forecast.mean for forecast, _ in answers]),
                np.stack([forecast.quantiles for forecast, _ in answers]),
                cpu,
                np.stack([forecast.mean if forecast.point is None else forecast.point for forecast, _ in answers]),
            )
            say(f"{of.name}: {name} {cpu:.1f} CPU s")
    return scored(of, panel, origins, horizon, found) | {"about_ours": about}


def scored(
    of: BenchmarkSet, panel: Panel, origins: Sequence[int], horizon: int, found: dict[str, Answers]
) -> dict[str, Any]:
    """All figures of a data set as plain values."""
    given = facts(panel, origins, horizon)
    full, stood_in = completed(found)
    use, left = scored_rows(given, full)
    of_series = kinds(panel, origins[0])
    table = table_of(given, full, use)
    continuous = use & of_series.continuous[None, :, None]
    for name, line in table.items():
        line["stood_in"] = stood_in[name]
        line["coverage_80_continuous"] = figures(given, full[name], continuous)["coverage_80"]
    shown = [name for name in (OURS, NAIVE, MLFORECAST) if name in full]
    return {
        "set": of.name,
        "about": of.about,
        "series": len(panel.keys),
        "frequency": panel.frequency,
        "horizon": horizon,
        "origins": [str(panel.dates(at, at + 1)[0]) for at in origins],
        "rows": int(use.sum()),
        "left_out": left,
        "zero_share": zero_share(np.where(use, given.actual, np.nan)),
        "continuous_rows": int(continuous.sum()),
        "statistical": [name for name in STATISTICAL[panel.frequency] if name in full],
        "table": table,
        "segments": segments(given, full, use, of_series, shown),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [one.name for one in SETS]
    parser.add_argument("--sets", default=",".join(names), help=f"some of {', '.join(names)}")
    parser.add_argument("--series", type=int, help="the most series of each set; full size when not given")
    parser.add_argument("--only", choices=("ours", "rivals"), help="ours: rivals only from the cache")
    parser.add_argument("--cache", type=Path, help="folder of the rivals' forecasts")
    parser.add_argument("--json", action="store_true", help="print figures as JSON instead of tables")
    parser.add_argument("--throughput", action="store_true", help="measure speed and memory instead")
    given = parser.parse_args()
    unknown = sorted(set(given.sets.split(",")) - set(names))
    if unknown:
        parser.error(f"no set {unknown[0]}; known: {', '.join(names)}")
    return given


def main() -> None:
    """Measure, print; write when everything was measured."""
    given = _arguments()
    if given.throughput:
        from benchmarks.forecast_throughput import throughput

        result: dict[str, Any] = throughput(say)
        text = json.dumps(result, indent=1) if given.json else report.throughput_text(result)
        sys.stdout.write(text + "\n")
        report.write_throughput(result)
        return
    only = given.only
    if only is None and importlib.util.find_spec("models.panel_forecast") is None:
        say("models/panel_forecast.py is not there: rivals only")
        only = "rivals"
    chosen = [one for one in SETS if one.name in given.sets.split(",")]
    results = [run(one, given.series, given.cache, only) for one in chosen]
    if given.json:
        sys.stdout.write(json.dumps(results, indent=1) + "\n")
    else:
        sys.stdout.write(report.accuracy_text(results) + "\n")
    if len(chosen) == len(SETS) and given.series is None and only is None:
        report.write_accuracy(results)
    else:
        say("a part was measured: no page was written")


if __name__ == "__main__":
    main()
