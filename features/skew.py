"""Training-serving skew: what decisions were served with, against what the offline join gives for the same moment.

Pure: values in, findings out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from contracts.decisions import Status
from contracts.times import iso

EXPLAINED = 25
PURE = "pure fact differs: the request says something else than the landed shipment, or the code computed otherwise"


@dataclass(frozen=True)
class Skewed:
    """One value that differs: which row, what was served and what the offline join gives, and the likely cause."""

    row_id: str
    as_of: datetime
    served: Any
    offline: Any
    cause: str


@dataclass(frozen=True)
class FeatureSkew:
    """How one feature compares.

    `pure`: it follows from the request alone, so that any difference is a fault; `rows`: compared; `largest`: largest
    absolute difference of two numbers, 0 without any; `causes`: likely cause -> rows, of those that were looked into;
    `examples`: some of them.
    """

    feature: str
    pure: bool
    rows: int
    differing: int
    largest: float = 0.0
    causes: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[Skewed, ...] = ()

    @property
    def share(self) -> float:
        """Share of differing rows, in [0, 1]."""
        return self.differing / self.rows if self.rows else 0.0

    @property
    def cause(self) -> str:
        """The commonest likely cause, "" when nothing differs."""
        return max(self.causes, key=lambda name: self.causes[name]) if self.causes else ""


@dataclass(frozen=True)
class Seen:
    """How a view stood online at the decision: status, and the event_time of the row that was there."""

    status: Status
    event_time: datetime | None = None


@dataclass(frozen=True)
class Stored:
    """The offline row that the join finds now, and the events behind it that landed after the decision."""

    event_time: datetime
    known_at: datetime
    landed_behind: tuple[str, ...] = ()


def compare(
    served: pd.DataFrame,
    offline: pd.DataFrame,
    features: Sequence[str],
    *,
    pure: bool,
    cause: Callable[[int, str], tuple[str, str]] | None = None,
    explained: int = EXPLAINED,
) -> tuple[FeatureSkew, ...]:
    """Compare features row by row: to the last bit, missing equals missing.

    Args:
        served, offline: row_id, as_of and the features, the same rows in the same order.
        features: which columns.
        pure: whether they follow from the request alone.
        cause: called with row and feature, gives the likely cause: its name, and words on this row; None for pure ones.
        explained: rows a feature whose cause is looked for, the newest ones.
    """
    found = []
    for name in features:
        left, right = served[name], offline[name]
        wrong = np.flatnonzero(_differs(left, right))
        causes: Counter[str] = Counter()
        examples = []
        for row in wrong[::-1][:explained].tolist():
            why, words = (PURE.partition(":")[0], PURE) if cause is None else cause(row, name)
            causes[why] += 1
            moment = pd.Timestamp(served["as_of"].iloc[row]).to_pydatetime()
            row_id = str(served["row_id"].iat[row])
            examples.append(Skewed(row_id, moment, _shown(left.iat[row]), _shown(right.iat[row]), words))
        largest = _largest(left, right, wrong)
        found.append(FeatureSkew(name, pure, len(left), len(wrong), largest, dict(causes), tuple(examples)))
    return tuple(found)


def likely_cause(seen: Seen, stored: Stored | None, ttl: timedelta) -> tuple[str, str]:
    """Why a view's value differs.

    Args:
        seen: as read online at the decision.
        stored: the row that the offline join finds; None when it finds none.
        ttl: the view's.

    Returns:
        the cause in a word or two, and words on this row.
    """
    if stored is None:
        when = "" if seen.event_time is None else f" of {iso(seen.event_time)}"
        return "rebuilt gold row", f"served a row{when} that gold does not have any more"
    there = f"the row of {iso(stored.event_time)}, known at {iso(stored.known_at)},"
    if stored.landed_behind:
        names = ", ".join(stored.landed_behind[:3])
        return "late-landed row", f"{there} counts events that landed after later ones, out of order: {names}"
    if seen.status == "missing" or seen.event_time is None:
        return "missing online row", f"{there} was not online: materialise more often, or --full after late data"
    if seen.event_time < stored.event_time:
        behind = stored.event_time - seen.event_time
        return "materialisation lag", f"{there} was not online yet: a row {behind} older was read"
    if seen.event_time > stored.event_time:
        return "rebuilt gold row", f"a row of {iso(seen.event_time)} was read, which gold does not have any more"
    if seen.status == "stale":
        return "ttl", f"{there} counted as older than {ttl} online and not offline"
    return "rebuilt gold row", f"{there} has other values now than when it was read"


def _differs(left: pd.Series[Any], right: pd.Series[Any]) -> npt.NDArray[np.bool_]:
    gone_left, gone_right = left.isna().to_numpy(), right.isna().to_numpy()
    unequal = left.to_numpy() != right.to_numpy()
    found: npt.NDArray[np.bool_] = (gone_left != gone_right) | (unequal.astype(bool) & ~gone_left & ~gone_right)
    return found


def _largest(left: pd.Series[Any], right: pd.Series[Any], rows: npt.NDArray[np.int64]) -> float:
    if left.dtype.kind != "f" or right.dtype.kind != "f" or not len(rows):
        return 0.0
    gap = np.abs(left.to_numpy()[rows] - right.to_numpy()[rows])
    return float(np.nanmax(gap)) if np.isfinite(gap).any() else 0.0


def _shown(value: Any) -> Any:
    return None if pd.isna(value) else value
