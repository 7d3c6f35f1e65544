"""Does a candidate lose in a part of the business what it wins on average? All named segments, judged together. Pure.

Three outcomes, for every segment with enough rows: it *fails* when it is significantly worse than allowed, Holm's
correction taken over all segments of all columns, so that many segments fail no good candidate by chance. It *holds*
when it is more likely worse than allowed than not, by the same corrected chance, or when the rows are too few to rule
out that it is clearly worse (see `clearly_worse`): a bad segment does not pass because little is known of it. Else it
passes. Levels and power are simulated in docs/gates.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.policy import SegmentRule
from contracts.rollout import Criterion, Outcome
from registry.bootstrap import Improvement, day_bootstrap

Floats = NDArray[np.float64]
EVEN_CHANCE = 0.5
CLEARLY = 0.05
_LISTED = 20


@dataclass(frozen=True)
class Paired:
    """Losses of candidate and rival on the same rows.

    `candidate`, `rival`: finite losses >= 0, (n,); `days`: position of each row's day among all days, (n,); `labels`:
    segment column -> each row's segment, (n,); `who`: the rival's name.
    """

    candidate: Floats
    rival: Floats
    days: NDArray[np.int64]
    labels: dict[str, NDArray[np.str_]]
    who: str


@dataclass(frozen=True)
class _Judged:
    column: str
    label: str
    rows: int
    found: Improvement
    chance: float = math.nan
    outcome: Outcome = Outcome.INCONCLUSIVE


def clearly_worse(max_regression: float) -> float:
    """The relative regression that a passed segment must not have: twice what is allowed, at least 5 points more.

    >>> clearly_worse(0.1), clearly_worse(0.02)
    (0.2, 0.07)
    """
    return max_regression + max(max_regression, CLEARLY)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P-values corrected for being looked at together: rejecting those <= alpha errs in any with chance <= alpha.

    Args:
        p_values: in [0, 1]; NaN stays NaN and counts as one that was looked at.

    Returns:
        in the order given, each at least its own p-value, at most 1.

    Source: Holm (1979), Scandinavian Journal of Statistics 6: the k-th smallest of m times m - k + 1, made rising.
    """
    count, highest = len(p_values), 0.0
    corrected = [math.nan] * count
    for rank, place in enumerate(sorted(range(count), key=lambda i: (math.isnan(p_values[i]), p_values[i]))):
        if math.isnan(p_values[place]):
            break
        highest = max(highest, min(1.0, (count - rank) * p_values[place]))
        corrected[place] = highest
    return tuple(corrected)


def judge_segments(
    paired: Paired, rule: SegmentRule, *, confidence: float, root: bool, seed: int
) -> tuple[Criterion, ...]:
    """One criterion for each segment column of the rule, `segment_<column>`, by its weakest segment.

    Args:
        paired: all comparable rows. rule: columns, rows needed, regression allowed.
        confidence: 1 - confidence is the chance at which any segment fails though all are as good as allowed.
        root: improvement of the square root of the mean loss. seed: of the bootstrap.

    Returns:
        in order of the rule's columns; inconclusive where a column is missing or has no segment with enough rows.
    """
    judged = _judge(_sized(paired, rule, confidence=confidence, root=root, seed=seed), rule, 1 - confidence)
    found = []
    for column in rule.by:
        name = f"segment_{column}"
        if column not in paired.labels:
            words = f"the backtest's losses have no column {name!r}"
            found.append(Criterion(name, Outcome.INCONCLUSIVE, None, -rule.max_regression, words))
            continue
        here = [one for one in judged if one.column == column]
        found.append(_criterion(column, here, _thin(paired.labels[column], rule), paired.who, rule))
    return tuple(found)


def _thin(labels: NDArray[np.str_], rule: SegmentRule) -> dict[str, int]:
    names, counts = np.unique(labels, return_counts=True)
    return {str(n): int(c) for n, c in zip(names, counts, strict=True) if c < rule.min_rows}


def _sized(paired: Paired, rule: SegmentRule, *, confidence: float, root: bool, seed: int) -> list[_Judged]:
    """Every segment with enough rows, with its improvement; all from the same draws of days."""
    size = int(paired.days.max()) + 1 if len(paired.days) else 0
    groups: list[tuple[str, str, int]] = []
    sums: list[list[Floats]] = [[], []]
    for column in rule.by:
        names, place = np.unique(paired.labels.get(column, np.array([], dtype=str)), return_inverse=True)
        if not len(names):
            continue
        counts = np.bincount(place, minlength=len(names))
        cells = paired.days * len(names) + place
        for number, losses in enumerate((paired.candidate, paired.rival)):
            flat = np.bincount(cells, losses, size * len(names)).astype(np.float64)
            table = flat.reshape(size, len(names))
            sums[number].append(table[:, counts >= rule.min_rows])
        kept = [(column, str(n), int(c)) for n, c in zip(names, counts, strict=True) if c >= rule.min_rows]
        groups += kept
    if not groups:
        return []
    mine, theirs = (np.concatenate(part, axis=1) for part in sums)
    found = day_bootstrap(mine, theirs, confidence=confidence, root=root, seed=seed)
    return [_Judged(*group, improvement) for group, improvement in zip(groups, found, strict=True)]


def _judge(found: Sequence[_Judged], rule: SegmentRule, alpha: float) -> list[_Judged]:
    corrected = holm([one.found.chance_if(-rule.max_regression) for one in found])
    judged = []
    for one, chance in zip(found, corrected, strict=True):
        outcome = Outcome.INCONCLUSIVE
        if chance <= alpha:
            outcome = Outcome.FAIL
        elif chance >= EVEN_CHANCE and one.found.lower > -clearly_worse(rule.max_regression):
            outcome = Outcome.PASS
        judged.append(_Judged(one.column, one.label, one.rows, one.found, chance, outcome))
    return judged


_ORDER = {Outcome.FAIL: 0, Outcome.INCONCLUSIVE: 1, Outcome.PASS: 2}


def _criterion(column: str, judged: list[_Judged], thin: dict[str, int], who: str, rule: SegmentRule) -> Criterion:
    name, bound = f"segment_{column}", -rule.max_regression
    evidence: dict[str, Any] = {"rival": who, "not_judged": dict(sorted(thin.items(), key=_by_rows)[:_LISTED])}
    if not judged:
        words = f"no {column} has {rule.min_rows} rows to compare"
        return Criterion(name, Outcome.INCONCLUSIVE, None, bound, words, evidence)
    ranked = sorted(judged, key=_weakest_first)
    worst = ranked[0]
    evidence |= {"judged": len(judged), "weakest": [_figures(one) for one in ranked[:_LISTED]]}
    value = worst.found.estimate if math.isfinite(worst.found.estimate) else None
    words = _words(worst, len(judged), who, rule) + _not_judged(thin, rule)
    return Criterion(name, worst.outcome, value, bound, words, evidence)


def _weakest_first(one: _Judged) -> tuple[int, float, str]:
    estimate = one.found.estimate
    return _ORDER[one.outcome], -math.inf if math.isnan(estimate) else estimate, one.label


def _by_rows(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _figures(one: _Judged) -> dict[str, Any]:
    figures = {
        "less_loss": one.found.estimate,
        "lower": one.found.lower,
        "upper": one.found.upper,
        "chance_if_allowed": one.chance,
    }
    plain = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    return {"segment": one.label, "rows": one.rows, "outcome": one.outcome.value, **plain}


def _words(worst: _Judged, count: int, who: str, rule: SegmentRule) -> str:
    found, limit = worst.found, -rule.max_regression
    if not math.isfinite(found.estimate):
        return f"{worst.column} {worst.label}: the {who} has no loss to compare with"
    doubted = worst.outcome is Outcome.INCONCLUSIVE and worst.chance >= EVEN_CHANCE
    rank = "least certain" if doubted else "weakest"
    words = f"{worst.column} {worst.label} is the {rank} of {count}: {found.estimate:+.1%} against the {who}"
    if not math.isfinite(found.lower):
        return f"{words}, but no bound on it from {found.blocks} days"
    words += f" ({found.lower:+.1%} to {found.upper:+.1%}), allowed {limit:+.1%}"
    if worst.outcome is Outcome.PASS:
        return words
    if worst.outcome is Outcome.FAIL or worst.chance < EVEN_CHANCE:
        return f"{words}: {worst.chance:.2g} is the chance of any segment so bad if all were as good as allowed"
    return f"{words}: too few rows or days to rule out {-clearly_worse(rule.max_regression):+.1%}"


def _not_judged(thin: dict[str, int], rule: SegmentRule) -> str:
    if not thin:
        return ""
    named = ", ".join(f"{label} ({rows})" for label, rows in sorted(thin.items(), key=_by_rows)[:5])
    more = f" and {len(thin) - 5} more" if len(thin) > 5 else ""
    return f"; not judged, under {rule.min_rows} rows: {named}{more}"


def paired_rows(losses: pd.DataFrame, mask: NDArray[np.bool_], who: str, by: Sequence[str]) -> Paired:
    """The rows of `mask` as paired losses by day; segment columns that are there as text."""
    used = losses[mask]
    days = used["as_of"].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[D]").astype(np.int64)
    labels = {n: used[f"segment_{n}"].astype(str).to_numpy(dtype=str) for n in by if f"segment_{n}" in used.columns}
    return Paired(
        candidate=used["candidate"].to_numpy(dtype=np.float64),
        rival=used[who].to_numpy(dtype=np.float64),
        days=np.unique(days, return_inverse=True)[1].astype(np.int64),
        labels=labels,
        who=who,
    )
