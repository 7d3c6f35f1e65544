"""How often the offline gate errs and what it can see, on made-up backtests; writes the tables of docs/gates.md.

Run: `python -m benchmarks.gates` (about three minutes). Seeds are fixed: the same tables on every machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.gate_backtests import DRIFT, WORLDS, Shape, World, plain_percentiles, scaled
from benchmarks.measure import write_section
from contracts.policy import SegmentRule
from contracts.rollout import Outcome
from registry.bootstrap import block_length, day_bootstrap
from registry.diebold_mariano import diebold_mariano
from registry.gate_segments import Paired, judge_segments

Floats = NDArray[np.float64]
OUTPUT = Path(__file__).parents[1] / "docs" / "gates.md"
RUNS, SEGMENT_RUNS, ROWS, DRAWS, SEED, CONFIDENCE = 2000, 400, 50, 1000, 7, 0.95


def bounds(candidate: Floats, rival: Floats, *, root: bool) -> tuple[Floats, Floats]:
    """The gate's lower and upper bounds of every run, (runs,); candidate, rival: (runs, days)."""
    found = day_bootstrap(candidate.T, rival.T, confidence=CONFIDENCE, root=root, seed=SEED, draws=DRAWS)
    return np.array([one.lower for one in found]), np.array([one.upper for one in found])


def share(hits: NDArray[np.bool_]) -> str:
    """As in the tables."""
    return f"{hits.mean():.1%}"


def level_lines(world: World, days: int, dependence: float, origins: int = 1) -> str:
    """One line of the table of equal models: what 0.1 passed, what the gate passes and fails, what others would say."""
    shape = Shape(RUNS, days, ROWS, dependence, origins)
    mine, theirs = world.make(np.random.default_rng(SEED), shape)
    a, b = mine.sum(axis=2), theirs.sum(axis=2)
    before, _ = plain_percentiles(a.T, b.T, root=world.root, seed=SEED, draws=DRAWS)
    lower, upper = bounds(a, b, root=world.root)
    lags = block_length(days) - 1
    tested = [diebold_mariano(row, lags=lags) for row in b - a]
    beside = np.array([one.statistic > 0 and one.p_value < 2 * (1 - CONFIDENCE) for one in tested])
    cells = share(before > 0), share(lower > 0), share(upper < 0), share(beside)
    return f"| {world.name} | {days} | {origins} | {dependence:g} | {' | '.join(cells)} |"


def levels() -> str:
    """Equal models at margin 0: nobody should win."""
    head = [
        "| losses | days | origins | day to day | 0.1 passed | passed | failed | Diebold-Mariano |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines = [level_lines(world, days, dep) for world in WORLDS for days in (7, 14, 30, 60, 120) for dep in (0.0, 0.7)]
    lines += [level_lines(world, 42, 0.7, origins) for world in WORLDS for origins in (1, 3)]
    lines += [level_lines(DRIFT, days, dep) for days in (7, 14, 30, 60, 120) for dep in (0.3, 0.5, 0.7)]
    return "\n".join(head + lines)


def edges() -> str:
    """Candidates exactly as good as the margin asks: a pass is an error."""
    head = ["| losses | days | day to day | margin | passed |", "|---|--:|--:|--:|--:|"]
    lines = []
    for world in WORLDS:
        for days, dependence, margin in ((30, 0.4, 0.02), (30, 0.4, -0.02), (60, 0.4, 0.02), (120, 0.4, -0.02)):
            mine, theirs = world.make(np.random.default_rng(SEED + 1), Shape(RUNS, days, ROWS, dependence))
            just = scaled(mine, margin, root=world.root).sum(axis=2)
            lower, _ = bounds(just, theirs.sum(axis=2), root=world.root)
            lines.append(f"| {world.name} | {days} | {dependence:g} | {margin:+.0%} | {share(lower > margin)} |")
    return "\n".join(head + lines)


def power() -> str:
    """Candidates that are truly better, at margin 0: how many pass."""
    gains = (0.01, 0.02, 0.05, 0.10)
    head = [
        f"| losses | days | rows a day | {' | '.join(f'{gain:.0%} better' for gain in gains)} |",
        "|---|--:|--:|" + "--:|" * len(gains),
    ]
    lines = []
    for world in WORLDS:
        for days in (30, 60, 120):
            for rows in (20, 200):
                mine, theirs = world.make(np.random.default_rng(SEED + 2), Shape(RUNS // 4, days, rows, 0.4))
                cells = []
                for gain in gains:
                    better = scaled(mine, gain, root=world.root).sum(axis=2)
                    cells.append(share(bounds(better, theirs.sum(axis=2), root=world.root)[0] > 0))
                lines.append(f"| {world.name} | {days} | {rows} | {' | '.join(cells)} |")
    return "\n".join(head + lines)


def segment_outcomes(world: World, count: int, rows: int, common: float, one: float) -> tuple[str, ...]:
    """Shares of runs that fail without Holm, fail, hold, pass; all segments are `common` better, the first is `one`."""
    rule = SegmentRule(by=("part",), min_rows=1, max_regression=0.05)
    days, per_day = 60, count * rows
    labels = {"part": np.tile(np.repeat([f"s{n:02}" for n in range(count)], rows), days)}
    place, alpha = np.repeat(np.arange(days), per_day), 1 - CONFIDENCE
    outcomes, naive = [], []
    rng = np.random.default_rng(SEED + 3)
    for _ in range(SEGMENT_RUNS):
        mine, theirs = world.make(rng, Shape(1, days, per_day, 0.4))
        changed = scaled(mine, common, root=world.root)
        changed[:, :, :rows] = scaled(mine[:, :, :rows], one, root=world.root)
        paired = Paired(changed.ravel(), theirs.ravel(), place, labels, "champion")
        found = judge_segments(paired, rule, confidence=CONFIDENCE, root=world.root, seed=SEED)
        outcomes.append(found[0].outcome)
        naive.append(_smallest_chance(changed[0], theirs[0], count, root=world.root) <= alpha)
    ends = [f"{outcomes.count(end) / SEGMENT_RUNS:.1%}" for end in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)]
    return share(np.array(naive)), *ends


def _smallest_chance(mine: Floats, theirs: Floats, count: int, *, root: bool) -> float:
    """The smallest uncorrected p-value of any segment against the allowed regression."""
    sums = [losses.reshape(len(losses), count, -1).sum(axis=2) for losses in (mine, theirs)]
    found = day_bootstrap(sums[0], sums[1], confidence=CONFIDENCE, root=root, seed=SEED, draws=DRAWS)
    return min(one.chance_if(-0.05) for one in found)


def segments() -> str:
    """Many segments, all as good, all just as bad as allowed, or one of them bad."""
    head = [
        "| losses | segments | rows a day in each | truth | fails without Holm | fails | holds | passes |",
        "|---|--:|--:|---|--:|--:|--:|--:|",
    ]
    lines = []
    for world in (WORLDS[0], WORLDS[2]):
        for count, rows in ((1, 20), (10, 20), (50, 20), (10, 100)):
            truths = [("all equal", 0.0, 0.0), ("all 5% worse: just allowed", -0.05, -0.05)]
            truths += [("one 10% worse", 0.0, -0.1), ("one 25% worse", 0.0, -0.25)]
            for words, common, one in truths:
                cells = segment_outcomes(world, count, rows, common, one)
                lines.append(f"| {world.name} | {count} | {rows} | {words} | {' | '.join(cells)} |")
    return "\n".join(head + lines)


def main() -> None:
    """Simulate, print, write."""
    for name, table in (("levels", levels), ("edges", edges), ("power", power), ("segments", segments)):
        text = table()
        sys.stdout.write(f"{name}\n{text}\n\n")
        sys.stdout.flush()
        write_section(OUTPUT, name, text)


if __name__ == "__main__":
    main()
