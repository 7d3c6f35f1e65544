"""The view of attributes as they were known to hold: a row of an entity whenever one of its attributes changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from contracts.declarations import AttributeHistory
from features.event_log import EventLog, Ints, microseconds, stamps
from features.gold import GoldStore
from features.scd2 import Intervals, change_moments, ends, states
from features.view_rows import joined, key_columns


class AttributeBuilder:
    """Builds an attribute history; see `ViewBuilder` and `features.scd2`."""

    def __init__(self, view: AttributeHistory, log: EventLog) -> None:
        self.log = log
        self._view = view
        self._built: int | None = None
        self._seen = 0

    def behind(self) -> int | None:
        """See `ViewBuilder`."""
        moments = np.maximum(self._start(), self.log.known)[self._seen :]
        if self._built is None or not len(moments) or int(moments.min()) > self._built:
            return None
        return int(moments.min())

    def resume(self, gold: GoldStore, after: int) -> None:
        """See `ViewBuilder`."""
        self._built, self._seen = after, len(self.log)

    def rows(self, until: int) -> tuple[pd.DataFrame, int | None]:
        """See `ViewBuilder`."""
        after, self._built, self._seen = self._built, until, len(self.log)
        intervals = self._intervals()
        begins, stops = change_moments(intervals)
        low = np.iinfo(np.int64).min if after is None else after
        moved = ((begins > low) & (begins <= until)) | ((stops > low) & (stops <= until))
        if not moved.any():
            return joined([], {"text": self._view.keys, "number": self._view.names}), until
        touched = np.isin(intervals.entity, np.unique(intervals.entity[moved]))
        found = states(
            intervals.take(touched & (intervals.known <= until)), len(self._view.names), after=after, until=until
        )
        order = np.argsort(found.moment, kind="stable")
        keys, _ = self.log.keyed(("entity_id",))
        rows: dict[str, Any] = key_columns(self._view.keys, keys, found.entity[order])
        rows["event_time"] = rows["known_at"] = stamps(found.moment[order])
        rows.update({name: found.values[order, place] for place, name in enumerate(self._view.names)})
        return pd.DataFrame(rows), until

    def _start(self) -> Ints:
        return microseconds(self.log.frame["valid_from"]) if len(self.log) else self.log.known

    def _intervals(self) -> Intervals:
        """The view's own versions among all that landed."""
        kinds, kind = self.log.keyed(("entity",))
        names, name = self.log.keyed(("name",))
        _, entity = self.log.keyed(("entity_id",))
        places = {wanted: place for place, wanted in enumerate(self._view.names)}
        place = self._each(name, [places.get(key[0], -1) for key in names.keys])
        mine = self._each(kind, [0 if key[0] == self._view.entity else -1 for key in kinds.keys])
        rows = np.flatnonzero((place >= 0) & (mine >= 0))
        return Intervals(
            entity=entity[rows],
            name=place[rows],
            start=self._start()[rows],
            end=ends(self.log.frame["valid_to"].iloc[rows]) if len(rows) else rows,
            known=self.log.known[rows],
            value=self.log.number("value")[rows],
        )

    @staticmethod
    def _each(codes: Ints, by_code: list[int]) -> Ints:
        return np.array(by_code, dtype=np.int64)[codes] if len(codes) else codes
