"""Bins of a reference column, and the population stability index over them: pure numpy, no vendor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Counts = NDArray[np.int64]
DECILES = 10
MAX_NAMES = 20
EMPTY_SHARE = 1e-4
MISSING = "missing"
OTHER = "other"


@dataclass(frozen=True)
class Bins:
    """How one column is cut: rising inner `edges` (numbers) or `names` (few values, or categories).

    The last bin is always `missing`; columns cut by names also have `other`.
    """

    edges: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    numeric: bool = True

    @property
    def labels(self) -> tuple[str, ...]:
        """Text of each bin, in order; numbered so that they also sort in order."""
        if self.names:
            return (*self.names, OTHER, MISSING)
        bounds = ["-inf", *(f"{edge:.4g}" for edge in self.edges), "inf"]
        spans = pairwise(bounds)
        return (*(f"{place:02d}: {low} to {high}" for place, (low, high) in enumerate(spans)), MISSING)

    def __len__(self) -> int:
        return len(self.labels)


def make_bins(values: pd.Series) -> Bins:
    """Bins of a reference column: its deciles, or its values where it has at most ten.

    Args:
        values: float64, or text with None for missing.

    Returns:
        edges that are distinct, so a column with many equal values has fewer bins; for categories the 20 most
        frequent values, ties by name.
    """
    if not pd.api.types.is_numeric_dtype(values):
        counts = values.dropna().astype(str).value_counts()
        names = sorted(counts.index, key=lambda name: (-int(counts[name]), name))[:MAX_NAMES]
        return Bins(names=tuple(names), numeric=False)
    known = values.to_numpy(dtype=np.float64)
    known = known[np.isfinite(known)]
    distinct = np.unique(known)
    if len(distinct) <= DECILES:
        return Bins(names=tuple(repr(float(value)) for value in distinct))
    edges = np.unique(np.quantile(known, np.arange(1, DECILES) / DECILES))
    return Bins(edges=tuple(float(edge) for edge in edges))


def assign(bins: Bins, values: pd.Series) -> NDArray[np.int64]:
    """The bin of each value, an index into `bins.labels`; an edge belongs to the bin above it."""
    missing = len(bins) - 1
    if bins.numeric:
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
        known = np.isfinite(numbers)
        if bins.names:
            table = np.array([float(name) for name in bins.names])
            place = np.minimum(np.searchsorted(table, numbers), len(table) - 1)
            places = np.where(table[place] == numbers, place, len(table))
        else:
            places = np.searchsorted(np.array(bins.edges), numbers, side="right")
        return np.where(known, places, missing).astype(np.int64)
    codes = np.asarray(pd.Index(bins.names, dtype=object).get_indexer(pd.Index(values.astype(str), dtype=object)))
    places = np.where(codes < 0, len(bins.names), codes)
    return np.where(values.isna().to_numpy(), missing, places).astype(np.int64)


def count(bins: Bins, values: pd.Series) -> Counts:
    """Rows in each bin."""
    return np.bincount(assign(bins, values), minlength=len(bins))


def psi(reference: Counts, current: Counts) -> float:
    """Population stability index of two histograms over the same bins.

    Args:
        reference, current: rows in each bin, (b,).

    Returns:
        sum((p - q) * ln(p / q)) in [0, inf) over bins that hold a row on either side; an empty share counts as 0.0001,
        as Evidently does. NaN when one side has no rows.

    Source: Siddiqi 2006; the share for empty bins as in evidently 0.7.
    """
    if not reference.sum() or not current.sum():
        return float("nan")
    held = (reference + current) > 0
    p, q = reference[held] / reference.sum(), current[held] / current.sum()
    p, q = np.where(p == 0, EMPTY_SHARE, p), np.where(q == 0, EMPTY_SHARE, q)
    return float(np.sum((p - q) * np.log(p / q)))


def comparable(reference: pd.DataFrame, current: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Columns that both frames have, with at least one value on each side."""
    both = [name for name in columns if name in reference.columns and name in current.columns]
    return [name for name in both if bool(reference[name].notna().any() and current[name].notna().any())]


def measure(reference: pd.DataFrame, current: pd.DataFrame, columns: Sequence[str]) -> dict[str, float]:
    """PSI of each comparable column: what `evidently_report.measure` gives, with nothing drawn, so much faster.

    Returns:
        column -> PSI in [0, inf); columns that cannot be compared are left out.
    """
    found = {}
    for name in comparable(reference, current, columns):
        bins = make_bins(reference[name])
        found[name] = psi(count(bins, reference[name]), count(bins, current[name]))
    return found


def psi_noise(bins: int, reference_rows: int, current_rows: int, false_alarm: float) -> float:
    """The PSI that two samples of the same population exceed with probability `false_alarm`.

    Args:
        bins: bins that hold rows, at least 1. reference_rows, current_rows: rows drawn independently.
        false_alarm: in (0, 1).

    Returns:
        a bound >= 0; infinity without rows.

    Source: PSI is about (1/n + 1/m) times a chi-square with b - 1 degrees of freedom (Yurdakul and Naranjo 2020); the
        quantile by Wilson and Hilferty 1931.
    """
    if not reference_rows or not current_rows:
        return float("inf")
    freedom = max(bins - 1, 1)
    part = 2.0 / (9.0 * freedom)
    root = max(0.0, 1.0 - part + NormalDist().inv_cdf(1.0 - false_alarm) * math.sqrt(part))
    chi_square = freedom * root * root * root
    return chi_square * (1.0 / reference_rows + 1.0 / current_rows)


def natural_psi(values: pd.Series, groups: Sequence[Any], min_rows: int) -> float | None:
    """How far windows of the reference itself lie from the whole of it.

    Args:
        values: the column. groups: window of each row, same length. min_rows: smaller windows are left out.

    Returns:
        the largest PSI of a window against all rows, >= 0; None with fewer than 3 windows: then nothing is known.
    """
    bins = make_bins(values)
    places = assign(bins, values)
    codes, uniques = pd.factorize(np.asarray(groups))
    table = np.bincount(codes * len(bins) + places, minlength=len(uniques) * len(bins)).reshape(len(uniques), len(bins))
    total = table.sum(axis=0)
    found = [psi(total, row) for row in table if row.sum() >= min_rows]
    return max(found) if len(found) >= 3 else None
