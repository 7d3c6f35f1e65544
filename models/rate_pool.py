"""Late rates of sparse keys drawn to those of coarser keys, by weights learnt from the data. Plain data, pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.declarations import OutcomeRates
from contracts.yaml_file import Strict
from models.incumbent import PRIOR_RATE, PRIOR_ROWS, floats

Floats = NDArray[np.float64]
Columns = Mapping[str, Any]

# With fewer labels the weight is the incumbent rule's own.
FEWEST_LABELS = 500
WEIGHTS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
_EDGE = 0.005


class RatePool(Strict):
    """A chain of rates from the coarsest key to the finest: each is drawn to the one before.

    `sources`: (rate column, count column) of each step; `weights`: how many outcomes the coarser rate counts for;
    `prior`: what the first is drawn to.
    """

    sources: tuple[tuple[str, str], ...]
    weights: tuple[float, ...]
    prior: float

    def steps(self, columns: Columns) -> list[Floats]:
        """The pooled rate after each step, (n,) each, in (0, 1); where a key is not known, that of the step before."""
        found: list[Floats] = []
        for (rate, count), weight in zip(self.sources, self.weights, strict=True):
            before = found[-1] if found else np.full(len(floats(columns, rate)), self.prior)
            found.append(drawn(floats(columns, rate), floats(columns, count), before, weight))
        return found


def drawn(rate: Floats, count: Floats, before: Floats, weight: float) -> Floats:
    """(count * rate + weight * before) / (count + weight), (n,); `before` where rate or count is unknown."""
    seen = np.where(np.isfinite(rate) & (count > 0), count, 0.0)
    return np.asarray((seen * np.where(seen > 0, rate, 0.0) + weight * before) / (seen + weight), dtype=np.float64)


def learn_pool(columns: Columns, label: Floats, sources: Sequence[tuple[str, str]]) -> RatePool:
    """The pool whose rates, each as known at its row's decision, would have foretold the labels best.

    Args:
        columns: name -> n values. label: 1 late, 0 on time, NaN unknown, (n,). sources: coarse to fine.

    Returns:
        weights in 2..320 rows, one a step, chosen one after the other by log loss; 20 and a prior of 0.2, like the
        incumbent rule, where labels are few.

    Source: empirical Bayes with a beta prior at the coarser rate; its weight by the likelihood of the outcomes that
        followed rather than by moments of the counts, so that rates that move count for less than their rows say.
    """
    known = np.isfinite(label)
    if known.sum() < FEWEST_LABELS:
        return RatePool(sources=tuple(sources), weights=(PRIOR_ROWS,) * len(sources), prior=PRIOR_RATE)
    late = label[known] > 0.5
    prior = float(np.clip(late.mean(), _EDGE, 1 - _EDGE))
    before, weights = np.full(len(late), prior), []
    for rate, count in sources:
        seen = floats(columns, rate)[known], floats(columns, count)[known]
        tried = [drawn(*seen, before, weight) for weight in WEIGHTS]
        best = int(np.argmin([_loss(late, p) for p in tried]))
        before = tried[best]
        weights.append(WEIGHTS[best])
    return RatePool(sources=tuple(sources), weights=tuple(weights), prior=float(f"{prior:.6g}"))


def _loss(late: NDArray[np.bool_], rate: Floats) -> float:
    p = np.clip(rate, _EDGE, 1 - _EDGE)
    return float(-np.mean(np.log(np.where(late, p, 1 - p))))


def pool_sources(views: Mapping[str, OutcomeRates]) -> dict[str, tuple[tuple[str, str], ...]]:
    """What is pooled over a service's rate views, coarsest keys first: `window`, the longest window of each, and, where
    views have half-lives, `decayed`, the longest half-life of those."""
    ordered = sorted(views.items(), key=lambda item: len(item[1].keys))
    longest = [(name, max(v.windows)) for name, v in ordered]
    window = [(f"{name}__late_rate_{d}", f"{name}__n_{d}") for name, d in longest]
    fading = [(name, max(v.half_lives)) for name, v in ordered if v.half_lives]
    decayed = [(f"{name}__decayed_rate_{h}", f"{name}__decayed_n_{h}") for name, h in fading]
    return {name: tuple(sources) for name, sources in (("window", window), ("decayed", decayed)) if sources}
