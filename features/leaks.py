"""Leaks that no join can see: columns made from the label, or that predict it better than anything honest does.

Pure: arrays in, findings out. Whether a value changes when the future is deleted is found by `features.no_future`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Leak = Literal["label_derived", "missingness", "implausible"]
THRESHOLD = 0.98
MIN_ROWS = 200
MIN_CLASS = 20


@dataclass(frozen=True)
class Suspect:
    """A feature that looks as if it knew the label.

    `kind`: label_derived (it is the label, recoded), missingness (it is missing as the label says), implausible (it
    predicts the label better than `threshold`). `score`: the figure that was judged, in [0, 1]; `rows`: over how many.
    """

    column: str
    kind: Leak
    score: float
    rows: int
    words: str


def suspects(
    features: Mapping[str, npt.NDArray[Any]],
    label: npt.NDArray[Any],
    *,
    groups: npt.NDArray[Any] | None = None,
    threshold: float = THRESHOLD,
    min_rows: int = MIN_ROWS,
) -> tuple[Suspect, ...]:
    """Features that know more of the label than a feature honestly can; at most one finding a feature.

    A 0/1 label is judged by the AUC of the feature alone, in whichever direction is better (a text by the label's rate
    of each value, learnt on the other half of the rows). A number is judged by the rank correlation with the label
    after the mean rank of each group was taken off both: how large a series is explains much of its demand honestly;
    what happens within the series, to `threshold`, nothing does.

    Args:
        features: name -> n values, numbers or text.
        label: n values, NaN where unknown (those rows are left out).
        groups: n values that name each row's series; None puts all rows into one.
        threshold: from which a feature is implausible, in (0.5, 1].
        min_rows: rows with feature and label below which nothing is said; of a 0/1 label each class needs 20.
    """
    target = np.asarray(label, dtype=np.float64)
    known = ~np.isnan(target)
    names = np.zeros(len(target), dtype=np.int64) if groups is None else pd.factorize(pd.Series(groups))[0]
    names = np.asarray(names[known], dtype=np.int64)
    target = target[known]
    found = []
    for name, values in features.items():
        column = np.asarray(values)[known]
        suspect = _missingness(name, column, target, threshold, min_rows)
        if suspect is None:
            judge = _number if column.dtype.kind in "fiub" else _text
            suspect = judge(name, column, target, names, threshold, min_rows)
        if suspect is not None:
            found.append(suspect)
    return tuple(found)


def _number(name: str, values: Any, target: Floats, groups: Ints, threshold: float, min_rows: int) -> Suspect | None:
    column = values.astype(np.float64)
    there = np.isfinite(column)
    column, target, groups = column[there], target[there], groups[there]
    if not _enough(column, target, min_rows):
        return None
    words = derived(column, target)
    if words:
        return Suspect(name, "label_derived", 1.0, len(column), words)
    if _binary(target):
        score = separation(column, target)
        words = f"AUC {score:.4f} alone, over {len(column)} rows"
    else:
        score = within_correlation(column, target, groups)
        words = f"rank correlation {score:.4f} with the label within its series, over {len(column)} rows"
    return Suspect(name, "implausible", score, len(column), words) if score >= threshold else None


def _text(name: str, values: Any, target: Floats, groups: Ints, threshold: float, min_rows: int) -> Suspect | None:
    there = ~pd.isna(values)
    codes, target = pd.factorize(values[there])[0].astype(np.int64), target[there]
    # of a name that hardly repeats nothing can be learnt on one half and tried on the other
    if not _enough(codes, target, min_rows) or codes.max() + 1 > len(codes) / 10:
        return None
    half = np.arange(len(codes)) % 2
    means = np.empty(len(codes))
    for side in (0, 1):
        learnt, tried = half != side, half == side
        count = np.bincount(codes[learnt], minlength=codes.max() + 1)
        total = np.bincount(codes[learnt], target[learnt], codes.max() + 1)
        rate = np.where(count > 0, total / np.maximum(count, 1), target.mean())
        means[tried] = rate[codes[tried]]
    score = separation(means, target) if _binary(target) else within_correlation(means, target, groups[there])
    words = f"its values alone tell the label to {score:.4f}, over {len(codes)} rows"
    return Suspect(name, "implausible", score, len(codes), words) if score >= threshold else None


def _missingness(name: str, values: Any, target: Floats, threshold: float, min_rows: int) -> Suspect | None:
    missing = pd.isna(values).astype(np.float64)
    if min(missing.sum(), (1 - missing).sum()) < MIN_CLASS or len(target) < min_rows:
        return None
    score = separation(target, missing)
    if score < threshold:
        return None
    words = f"missing as the label says: missing rows are told from the others by the label with AUC {score:.4f}"
    return Suspect(name, "missingness", score, len(target), words)


def _enough(values: Any, target: Floats, min_rows: int) -> bool:
    if len(values) < min_rows or (values == values[0]).all():
        return False
    low, high = target.min(), target.max()
    if low == high:
        return False
    return not _binary(target) or min((target == low).sum(), (target == high).sum()) >= MIN_CLASS


def _binary(target: Floats) -> bool:
    return bool(np.isin(target, (0.0, 1.0)).all())


def derived(column: Floats, target: Floats) -> str:
    """How a column is made from the label: the label itself, an affine or a monotone recoding; "" when it is not."""
    if np.array_equal(column, target):
        return "is the label"
    slope, offset = np.polyfit(target, column, 1)
    spread = float(np.ptp(column))
    if spread > 0 and np.abs(column - (slope * target + offset)).max() <= 1e-9 * max(spread, np.abs(column).max()):
        return f"is the label times {slope:.6g} plus {offset:.6g}"
    if np.unique(column, return_counts=True)[1].max() > len(column) - MIN_CLASS:
        return ""
    order = np.lexsort((column, target))
    steps, turns = np.diff(column[order]), np.diff(target[order])
    rising, falling = (steps >= 0).all(), (np.diff(column[np.lexsort((-column, target))]) <= 0).all()
    if not (rising or falling) or (steps[turns == 0] != 0).any():
        return ""
    return "is a rising recoding of the label" if rising else "is a falling recoding of the label"


def separation(score: npt.NDArray[Any], target: Floats) -> float:
    """AUC of a score for a 0/1 target in the better direction, in [0.5, 1]; ties count half (Mann-Whitney)."""
    ranks = pd.Series(score).rank().to_numpy(dtype=np.float64)
    high = float(target.sum())
    low = len(target) - high
    area = (float(ranks[target == 1].sum()) - high * (high + 1) / 2) / (high * low)
    return max(area, 1 - area)


def within_correlation(column: Floats, target: Floats, groups: Ints) -> float:
    """|Spearman| of two columns after each group's mean rank was taken off both, in [0, 1]; 0 without variation."""
    left, right = (_centred(values, groups) for values in (column, target))
    size = float(np.sqrt((left**2).sum() * (right**2).sum()))
    return abs(float((left * right).sum())) / size if size > 0 else 0.0


def _centred(values: Floats, groups: Ints) -> Floats:
    ranks = pd.Series(values).rank().to_numpy(dtype=np.float64)
    count = np.maximum(np.bincount(groups), 1)
    centred: Floats = ranks - (np.bincount(groups, ranks) / count)[groups]
    return centred
