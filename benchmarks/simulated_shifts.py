"""How often the guardrail on shifted predictions ends a rollout, looked at all the time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

from drift.paired_shift import ROWS_A_BIN, Floats, paired_shift
from drift.psi import DECILES, psi, psi_noise

RUNS, ROWS, FIRST, EVERY, LIMIT, ALPHA = 300, 600, 30, 15, 0.25, 0.05
# shift of the challenger's answers in spreads, correlation with the champion's
SHIFTS = ((0.0, 0.0), (0.3, 0.7), (0.5, 0.0), (0.5, 0.7), (0.5, 0.97), (0.8, 0.7), (1.0, 0.7), (1.5, 0.7))


def shift_table() -> Iterator[str]:
    """Rows of the table: shift, true PSI, correlation, shares of rollouts ended by three rules, median decisions."""
    rng = np.random.default_rng(1)
    for shift, agreement in SHIFTS:
        ended = np.zeros(3)
        decisions = []
        for _ in range(RUNS):
            first = rng.standard_normal(ROWS)
            second = agreement * first + math.sqrt(1 - agreement**2) * rng.standard_normal(ROWS) + shift
            hits = ends(first, second)
            ended += [hit is not None for hit in hits]
            decisions += [] if hits[2] is None else [hits[2]]
        shares = " | ".join(f"{share:.0%}" for share in ended / RUNS)
        median = f"{statistics.median(decisions):.0f}" if decisions else "-"
        yield f"| {shift:g} | {true_psi(shift):.2f} | {agreement:g} | {shares} | {median} |"


def ends(first: Floats, second: Floats) -> list[int | None]:
    """At how many decisions each rule ends the rollout: PSI, PSI less chance, lower bound; None when it does not."""
    found: list[int | None] = [None, None, None]
    for rows in range(FIRST, ROWS + 1, EVERY):
        plain, noise = _plain(first[:rows], second[:rows])
        over = (plain > LIMIT, plain - noise > LIMIT, paired_shift(first[:rows], second[:rows], ALPHA).low > LIMIT)
        found = [rows if seen is None and now else seen for seen, now in zip(found, over, strict=True)]
    return found


def true_psi(shift: float) -> float:
    """PSI over deciles of a normal champion's answers against the same moved by `shift` spreads."""
    normal = NormalDist()
    edges = [normal.inv_cdf(place / DECILES) for place in range(1, DECILES)]
    moved = np.diff([0.0, *(normal.cdf(edge - shift) for edge in edges), 1.0])
    return float(np.sum((1 / DECILES - moved) * np.log(1 / DECILES / moved)))


def _plain(first: Floats, second: Floats) -> tuple[float, float]:
    bins = min(DECILES, max(2, len(first) // ROWS_A_BIN))
    edges = np.unique(np.quantile(first, np.arange(1, bins) / bins))
    counts = [np.bincount(np.searchsorted(edges, x, side="right"), minlength=len(edges) + 1) for x in (first, second)]
    return psi(counts[0], counts[1]), psi_noise(bins, len(first), len(second), ALPHA)
