"""Risk of being late, or out of stock: the toolkit's model against its rivals on three real histories.

Run: `python -m benchmarks.risk [--sets scms,flights,usaid] [--json]`; writes docs/risk.md and the section `risk` of
docs/benchmarks.md. Samples, seeds and cuts are fixed.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.risk_data import PERIODS, Trainable, histories, trainable
from benchmarks.risk_rivals import Answered, answered
from models import metrics

Floats = NDArray[np.float64]
OURS, RULE, BASE = "seatrial", "rule", "base rate"
FLAGGED = 0.1
LARGE_SET = 30_000
ECE_LARGE, ECE_SMALL = 0.03, 0.05


@dataclass(frozen=True)
class Measures:
    """How one contender did over all test periods of a history; `skill`: 1 - Brier / Brier of the base rate."""

    skill: float
    brier: float
    log_loss: float
    auc: float
    pr_auc: float
    ece: float
    top: float


@dataclass(frozen=True)
class Result:
    """One history: contenders by name, what the candidate chose in each period, and the CPU seconds of it all."""

    short: str
    name: str
    rows: int
    tested: int
    rate: float
    first: str
    last: str
    table: dict[str, Measures]
    choices: list[str]
    cpu: float


def measures(label: Floats, probability: Floats, base_brier: float) -> Measures:
    """All measures of probabilities (n,) against outcomes (n,) of 0 and 1."""
    from sklearn.metrics import average_precision_score

    flagged = np.argsort(-probability, kind="stable")[: int(FLAGGED * len(probability))]
    brier = metrics.brier(label, probability)
    return Measures(
        skill=1 - brier / base_brier,
        brier=brier,
        log_loss=metrics.log_loss(label, probability),
        auc=metrics.auc(label, probability),
        pr_auc=float(average_precision_score(label, probability)),
        ece=metrics.ece(label, probability),
        top=float(label[flagged].mean()),
    )


def judged(short: str, yard: Trainable, periods: list[Answered], cpu: float) -> Result:
    """Every contender's measures over the rows of all periods together."""
    label = np.concatenate([part.rows["label"].to_numpy(dtype=np.float64) for part in periods])
    answers = {name: np.concatenate([part.answers[name] for part in periods]) for name in periods[0].answers}
    base = metrics.brier(label, answers[BASE])
    return Result(
        short=short,
        name=yard.history.name,
        rows=len(yard.rows),
        tested=len(label),
        rate=float(label.mean()),
        first=f"{yard.cuts[0]:%Y-%m-%d}",
        last=f"{yard.cuts[-1]:%Y-%m-%d}",
        table={name: measures(label, probability, base) for name, probability in answers.items()},
        choices=[_choice(yard, number, part) for number, part in enumerate(periods)],
        cpu=cpu,
    )


def _choice(yard: Trainable, number: int, part: Answered) -> str:
    weights, calibration = part.backtest.weights, part.backtest.calibration
    shares = " / ".join(f"{share:.2f}" for share in weights)
    method = "identity" if calibration.method == "identity" else f"{calibration.method} {calibration.intercept:+.2f}"
    return f"{yard.cuts[number]:%Y-%m-%d} | {len(part.rows):,} | {part.rows['label'].mean():.1%} | {shares} | {method}"


def run(short: str) -> Result:
    """One history, from its files to all measures."""
    began = _cpu()
    yard = trainable(histories()[short])
    periods = []
    for number in range(PERIODS):
        periods.append(answered(yard, number))
        sys.stderr.write(f"{short}: period {number + 1} of {PERIODS}\n")
    return judged(short, yard, periods, _cpu() - began)


def _cpu() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


@dataclass(frozen=True)
class Aim:
    """What was wanted, what was found, and whether it is met."""

    words: str
    found: str
    met: bool


def aims(results: list[Result]) -> list[Aim]:
    """The aims of the benchmark, judged by its figures."""
    found = [_beats_rule(result) for result in results]
    found += [_best_on_average(results, "brier", "Brier score"), _best_on_average(results, "log_loss", "log loss")]
    for result in results:
        bound = ECE_LARGE if result.rows > LARGE_SET else ECE_SMALL
        ece = result.table[OURS].ece
        found.append(Aim(f"{result.short}: ECE at most {bound}", f"{ece:.3f}", ece <= bound))
    return found


def _beats_rule(result: Result) -> Aim:
    ours, rule = result.table[OURS], result.table[RULE]
    words = f"{result.short}: never worse than the incumbent rule by Brier or AUC"
    shown = f"Brier {ours.brier:.4f} against {rule.brier:.4f}, AUC {ours.auc:.3f} against {rule.auc:.3f}"
    return Aim(words, shown, ours.brier <= rule.brier and ours.auc >= rule.auc)


def _best_on_average(results: list[Result], measure: str, words: str) -> Aim:
    """By the mean over the histories of the loss relative to the base rate's, among contenders of every history."""
    names = [name for name in results[0].table if all(name in result.table for result in results)]
    relative = {
        name: float(np.mean([getattr(r.table[name], measure) / getattr(r.table[BASE], measure) for r in results]))
        for name in names
    }
    best = min((name for name in names if name != OURS), key=relative.__getitem__)
    shown = f"{relative[OURS]:.4f} of the base rate's, best rival {relative[best]:.4f} ({best})"
    return Aim(f"best of all rivals by {words} on average", shown, relative[OURS] < relative[best])


def main() -> None:
    """Measure, print, write."""
    from benchmarks.risk_report import as_json, write

    parser = argparse.ArgumentParser(prog="python -m benchmarks.risk")
    parser.add_argument("--sets", default=",".join(histories()), help="which histories, comma-separated")
    parser.add_argument("--json", action="store_true", help="figures as JSON on standard output; writes no page")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore", module="sklearn")
    results = [run(short) for short in asked.sets.split(",")]
    if asked.json:
        sys.stdout.write(json.dumps(as_json(results), indent=1) + "\n")
    else:
        sys.stdout.write(write(results))


if __name__ == "__main__":
    main()
