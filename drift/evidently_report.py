"""Evidently: population stability by its ValueDrift metric, and its HTML report. The only file that imports it.

Columns are cut into the reference's deciles first (or its few values), with missing values as a bin of their own: that
is the PSI its usual limits of 0.1 and 0.2 were made for, an all-null column cannot bring the report down, and what is
drawn is what was judged.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drift.psi import assign, comparable, make_bins

METHOD = "psi"
MAX_CURRENT = 4000


def measure(reference: pd.DataFrame, current: pd.DataFrame, columns: Sequence[str], seed: int = 7) -> dict[str, float]:
    """PSI of each column.

    Args:
        reference: the version's sample. current: the window; more than 4,000 rows are sampled.
        columns: which to compare.

    Returns:
        column -> PSI in [0, inf). Left out: columns that either frame does not have, and columns that hold no value at
        all in the reference or in the window; those are the judge's business before any distance is.
    """
    names = comparable(reference, current, columns)
    if not names:
        return {}
    snapshot = _snapshot(reference, current, names, 0.2, seed)
    found = {metric["config"]["column"]: float(metric["value"]) for metric in snapshot.dict()["metrics"]}
    return {name: found[name] for name in names}


def render(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    columns: Sequence[str],
    path: Path,
    threshold: float = 0.2,
    seed: int = 7,
) -> tuple[str, ...]:
    """Evidently's HTML report on the columns, about 4 MB, readable without a network.

    Returns:
        the columns that are in it; those that cannot be compared are not (see `measure`).
    """
    names = tuple(comparable(reference, current, columns))
    path.parent.mkdir(parents=True, exist_ok=True)
    if not names:
        path.write_text("<!doctype html><title>Drift</title><p>Not enough data: no column to compare.</p>", "utf-8")
        return ()
    _snapshot(reference, current, names, threshold, seed).save_html(str(path))
    return names


def _snapshot(reference: pd.DataFrame, current: pd.DataFrame, columns: Sequence[str], limit: float, seed: int) -> Any:
    os.environ["DO_NOT_TRACK"] = "1"
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    if len(current) > MAX_CURRENT:
        keep = np.sort(np.random.default_rng(seed).choice(len(current), MAX_CURRENT, replace=False))
        current = current.iloc[keep]
    before, after = {}, {}
    for name in columns:
        bins = make_bins(reference[name])
        labels = np.array(bins.labels, dtype=object)
        before[name], after[name] = labels[assign(bins, reference[name])], labels[assign(bins, current[name])]
    definition = DataDefinition(categorical_columns=list(columns))
    # The tests' thresholds only colour the report; method and limit are named because the defaults depend on the rows.
    report = Report([ValueDrift(column=name, method=METHOD, threshold=limit) for name in columns])
    return report.run(
        Dataset.from_pandas(pd.DataFrame(after), data_definition=definition),
        Dataset.from_pandas(pd.DataFrame(before), data_definition=definition),
    )
