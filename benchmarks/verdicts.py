"""How often the online verdict errs and how long it takes: day means of Brier losses under a shared shock, simulated.

Run: `make bench`; writes docs/verdicts.md. Seeds are fixed: the same table on every machine.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import numpy as np

from contracts.rollout import Outcome
from registry.evidence import sequential_test

RUNS, DAYS, PER_DAY, FIRST, EVERY, ALPHA = 200, 60, 40, 10, 2, 0.05
OUTPUT = Path(__file__).parents[1] / "docs" / "verdicts.md"
# name, challenger's extra noise (its champion has 0.05), margin, base rate of late shipments
CASES = (
    ("equal, margin 0", 0.0, 0.0, 0.2),
    ("equal, margin 0, rare outcome", 0.0, 0.0, 0.05),
    ("equal, margin 2%", 0.0, 0.02, 0.2),
    ("better by 1%", -0.03, 0.02, 0.2),
    ("worse by 4%", 0.05, 0.02, 0.2),
    ("worse by 10%", 0.1, 0.02, 0.2),
)


def day_means(noise: float, base: float, rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """Mean Brier loss a day of challenger and champion on the same shipments, which share a daily shock."""
    challenger: list[float] = []
    champion: list[float] = []
    for _ in range(DAYS):
        truth = np.clip(rng.beta(2, 2 / base - 2, PER_DAY), 0.01, 0.99)
        late = rng.random(PER_DAY) < np.clip(truth + rng.normal(0, 0.05), 0, 1)
        for losses, spread in ((champion, 0.05), (challenger, 0.05 + noise)):
            said = np.clip(truth + rng.normal(0, spread, PER_DAY), 0.01, 0.99)
            losses.append(float(((said - late) ** 2).mean()))
    return challenger, champion


def verdict(challenger: list[float], champion: list[float], margin: float) -> tuple[Outcome, int]:
    """The first verdict and its day, looking every second day from the tenth on."""
    for day in range(FIRST, DAYS + 1, EVERY):
        found = sequential_test(challenger[:day], champion[:day], bound=1.0, alpha=ALPHA, margin=margin, adaptive=True)
        if found.outcome is not Outcome.INCONCLUSIVE:
            return found.outcome, day
    return Outcome.INCONCLUSIVE, DAYS


def line(name: str, noise: float, margin: float, base: float) -> str:
    """One case's row of the table."""
    rng = np.random.default_rng(1)
    days, differences, outcomes = [], [], []
    for _ in range(RUNS):
        challenger, champion = day_means(noise, base, rng)
        differences.append(np.mean(challenger) / np.mean(champion) - 1)
        outcome, day = verdict(challenger, champion, margin)
        outcomes.append(outcome)
        if outcome is not Outcome.INCONCLUSIVE:
            days.append(day)
    shares = [f"{outcomes.count(outcome) / RUNS:.1%}" for outcome in (Outcome.PASS, Outcome.FAIL)]
    typical = f"{statistics.median(days):.0f}" if days else "-"
    return f"| {name} | {np.mean(differences):+.1%} | {shares[0]} | {shares[1]} | {typical} |"


def main() -> None:
    """Simulate, print, write."""
    head = [
        "# The online verdict, simulated",
        "",
        f"`make bench`: {RUNS} runs a case, {DAYS} days of {PER_DAY} decisions with a shared daily shock, a look every",
        f"{EVERY} days from day {FIRST} on, alpha {ALPHA}. A pass means not worse than the champion by the margin.",
        "",
        "| challenger | measured loss difference | passed | failed | median day |",
        "|---|---|---|---|---|",
    ]
    text = "\n".join([*head, *(line(*case) for case in CASES)]) + "\n"
    sys.stdout.write(text)
    OUTPUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
