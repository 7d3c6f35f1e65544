"""Labels as they become known: late, duplicated, corrected, contradictory and future ones, told apart. In memory."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pandas as pd

from contracts.errors import InputInvalid, TimeInvalid

Key = tuple[str, ...]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Label:
    """What is known of one subject.

    `value`: NaN when it is known that there is nothing to score (closed, out of stock); `known_us`: when it became
    known first with this value, microseconds since 1970; `contradictory`: two values with one known_at.
    """

    value: float
    known_us: int
    contradictory: bool = False


@dataclass
class LabelCounts:
    """What came in: rows that said nothing new, replaced a value, contradicted one, or are not to be known yet."""

    new: int = 0
    repeated: int = 0
    corrected: int = 0
    contradictory: int = 0
    future: int = 0
    impossible: int = 0


class LabelBook:
    """The newest known value of every label key.

    Keys: (shipment_id,) of a risk, (sku, location, target_date) of a forecast. Feeding the same rows again changes
    nothing, so that a caller may pass only what is new, or everything each time.
    """

    def __init__(self, kind: Literal["forecast", "risk"]) -> None:
        self.kind = kind
        self.counts = LabelCounts()
        self.frontier: dict[Key, str] = {}
        self._known: dict[Key, Label] = {}
        self._early: list[tuple[int, Key, float]] = []
        self._waiting: set[tuple[int, Key, float]] = set()

    def get(self, key: Key) -> Label | None:
        """What is known of the key, None when nothing is."""
        return self._known.get(key)

    def update(self, labels: pd.DataFrame, now: datetime) -> set[Key]:
        """Take in labels.

        Args:
            labels: risk: shipment_id, late (0/1 or boolean, missing when unknown), known_at; forecast: sku, location,
                target_date (text), quantity (units, NaN for closed), known_at. Times with zone.
            now: what is known later waits inside until its time has come.

        Returns:
            keys whose value changed.

        Raises:
            InputInvalid: a column is missing. TimeInvalid: known_at without zone.
        """
        limit = microseconds(now)
        changed: set[Key] = set()
        while self._early and self._early[0][0] <= limit:
            item = heapq.heappop(self._early)
            self._waiting.discard(item)
            self._take(item[1], item[2], item[0], changed)
        for key, value, known_us in _rows(_check(labels, self.kind), self.kind):
            if known_us <= limit:
                self._take(key, value, known_us, changed)
            elif (item := (known_us, key, value)) not in self._waiting:
                self.counts.future += 1
                self._waiting.add(item)
                heapq.heappush(self._early, item)
        return changed

    def _take(self, key: Key, value: float, known_us: int, changed: set[Key]) -> None:
        if self.kind == "forecast" and known_us < day_us(key[2]):
            self.counts.impossible += 1
            return
        before = self._known.get(key)
        if before is None:
            self.counts.new += 1
        elif known_us < before.known_us or _same(value, before.value):
            self.counts.repeated += 1
            return
        elif known_us == before.known_us:
            if before.contradictory:
                return
            self.counts.contradictory += 1
            self._known[key] = Label(before.value, known_us, contradictory=True)
            changed.add(key)
            return
        else:
            self.counts.corrected += 1
        self._known[key] = Label(value, known_us)
        changed.add(key)
        if self.kind == "forecast" and key[2] > self.frontier.get(key[:2], ""):
            self.frontier[key[:2]] = key[2]


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def microseconds(at: datetime) -> int:
    """Microseconds since 1970 of a time with zone."""
    delta = at - _EPOCH
    return (delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds


_DAYS: dict[str, int] = {}


def day_us(date: str) -> int:
    """Microseconds since 1970 of a date's first moment in UTC."""
    found = _DAYS.get(date)
    if found is None:
        found = _DAYS[date] = microseconds(datetime.fromisoformat(date).replace(tzinfo=UTC))
    return found


def _names(kind: str) -> tuple[tuple[str, ...], str]:
    return (("shipment_id",), "late") if kind == "risk" else (("sku", "location", "target_date"), "quantity")


def _check(labels: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The rows that have a known_at, of a frame that has the columns."""
    keys, value = _names(kind)
    wanted = (*keys, value, "known_at")
    if not len(labels.columns):
        return pd.DataFrame(columns=list(wanted)).astype({"known_at": "datetime64[us, UTC]"})
    missing = [name for name in wanted if name not in labels.columns]
    if missing:
        raise InputInvalid("labels", f"columns {', '.join(wanted)}", f"no {', '.join(missing)}")
    if not isinstance(labels["known_at"].dtype, pd.DatetimeTZDtype):
        raise TimeInvalid("labels known_at", str(labels["known_at"].dtype))
    known = labels["known_at"].notna().to_numpy()
    return labels if known.all() else labels[known]


def _rows(labels: pd.DataFrame, kind: str) -> Iterable[tuple[Key, float, int]]:
    names, value = _names(kind)
    known = labels["known_at"].astype("datetime64[us, UTC]").astype(np.int64).tolist()
    values = pd.to_numeric(labels[value]).astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan).tolist()
    parts = [labels[name].tolist() for name in names]
    rows = zip(zip(*parts, strict=True), values, known, strict=True)
    # A risk's outcome is late or not; without a value there is no outcome yet.
    return (row for row in rows if not math.isnan(row[1])) if kind == "risk" else rows
