"""Views whose rows are announcements or readings themselves: promotion plans and the latest external signals."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from contracts.declarations import PromotionPlan, SignalLatest, join_keys
from features.event_log import EventLog, Floats, Ints, length, stamps
from features.gold import GoldStore
from features.view_rows import joined, key_columns


class PromotionBuilder:
    """Builds a promotion plan: every announced version is a row, dated as it was announced; see `ViewBuilder`."""

    def __init__(self, view: PromotionPlan, log: EventLog) -> None:
        self.log = log
        self._view = view
        self._built: int | None = None
        self._seen = 0

    def behind(self) -> int | None:
        """See `ViewBuilder`."""
        return _behind(self.log.known[self._seen :], self._built)

    def resume(self, gold: GoldStore, after: int) -> None:
        """See `ViewBuilder`."""
        self._built, self._seen = after, len(self.log)

    def rows(self, until: int) -> tuple[pd.DataFrame, int | None]:
        """See `ViewBuilder`."""
        keys = join_keys(self._view)
        until = until if self._built is None else max(until, self._built)
        known = self.log.known
        new = known <= until
        if self._built is not None:
            new &= known > self._built
        rows = np.flatnonzero(new)
        rows = rows[np.argsort(known[rows], kind="stable")]
        self._built, self._seen = until, len(self.log)
        if not len(rows):
            return joined([], {"text": keys, "number": self._view.fields}), until
        frame = self.log.frame.iloc[rows]
        found: dict[str, Any] = {key: frame[key].to_numpy(dtype=object) for key in keys}
        found["event_time"], found["known_at"] = stamps(self.log.event[rows]), stamps(known[rows])
        found.update({name: self.log.number(name)[rows] for name in self._view.fields})
        return pd.DataFrame(found), until


class SignalBuilder:
    """Builds the latest signals of each site; see `ViewBuilder`.

    Whenever something becomes known of a site there is a row: event_time is that of its newest known reading, and each
    name has its newest known value, NaN when that is older than the view's ttl by then. A reading of a later moment
    than its known_at (a forecast) counts from that moment on; known_at is then that moment.
    """

    def __init__(self, view: SignalLatest, log: EventLog) -> None:
        self.log = log
        self._view = view
        self._ttl = length(view.ttl)
        self._built: int | None = None
        self._seen = 0
        self._rows = np.empty(0, dtype=np.int64)

    def behind(self) -> int | None:
        """See `ViewBuilder`."""
        return _behind(self._usable()[self._seen :], self._built)

    def resume(self, gold: GoldStore, after: int) -> None:
        """See `ViewBuilder`."""
        self._built, self._seen = after, len(self.log)
        self._rows = self._newest(np.flatnonzero(self._usable() <= after))

    def rows(self, until: int) -> tuple[pd.DataFrame, int | None]:
        """See `ViewBuilder`."""
        until = until if self._built is None else max(until, self._built)
        usable = self._usable()
        new = usable <= until
        if self._built is not None:
            new &= usable > self._built
        rows = np.concatenate([self._rows, np.flatnonzero(new)])
        after = self._built
        self._rows = self._newest(rows)
        self._built, self._seen = until, len(self.log)
        if not new.any() or not len(self._rows):
            return joined([], {"text": self._view.keys, "number": self._view.names}), until
        return self._pivot(rows, after), until

    def _usable(self) -> Ints:
        return np.maximum(self.log.event, self.log.known)

    def _codes(self, rows: Ints) -> tuple[Ints, Ints]:
        """Site code and place of the name in the view (-1 when it is not in it) of some events."""
        _, sites = self.log.keyed(("site",))
        names, codes = self.log.keyed(("name",))
        order = {name: place for place, name in enumerate(self._view.names)}
        place = np.array([order.get(key[0], -1) for key in names.keys], dtype=np.int64)
        return sites[rows], place[codes[rows]] if len(rows) else codes[:0]

    def _ranked(self, rows: Ints) -> Ints:
        """`rows` from oldest to newest reading: by event_time, then known_at, then landing."""
        return rows[np.lexsort((rows, self.log.known[rows], self.log.event[rows]))]

    def _newest(self, rows: Ints) -> Ints:
        """The newest reading of each site and name among `rows`."""
        rows = self._ranked(rows)
        sites, names = self._codes(rows)
        group = np.where(names < 0, -1, sites * len(self._view.names) + names)[::-1]
        found, last = np.unique(group, return_index=True)
        newest: Ints = np.sort(rows[::-1][last[found >= 0]])
        return newest

    def _pivot(self, rows: Ints, after: int | None) -> pd.DataFrame:
        rows = self._ranked(rows)
        sites, names = self._codes(rows)
        rows, sites, names = rows[names >= 0], sites[names >= 0], names[names >= 0]
        usable = self._usable()[rows]
        moments, at = np.unique(usable, return_inverse=True)
        cells, cell = np.unique(sites * len(moments) + at, return_inverse=True)
        newest = np.full((len(cells), len(self._view.names)), -1, dtype=np.int64)
        # ranks grow with newness, so the largest rank known by a moment is the newest reading known by it
        np.maximum.at(newest, (cell, names), np.arange(len(rows)))
        site = cells // len(moments)
        newest = _running_maximum(newest, site)
        event = self.log.event[rows]
        read = np.where(newest >= 0, event[newest], np.iinfo(np.int64).min // 2)
        shown = read.max(axis=1)
        values = np.where(read >= shown[:, None] - self._ttl, self._value(rows)[newest], np.nan)
        moment = moments[cells % len(moments)]
        give = np.flatnonzero(moment > after) if after is not None else np.arange(len(cells))
        give = give[np.argsort(moment[give], kind="stable")]
        keys, _ = self.log.keyed(("site",))
        found: dict[str, Any] = key_columns(self._view.keys, keys, site[give])
        found["event_time"], found["known_at"] = stamps(shown[give]), stamps(moment[give])
        found.update({name: values[give, place] for place, name in enumerate(self._view.names)})
        return pd.DataFrame(found)

    def _value(self, rows: Ints) -> Floats:
        return self.log.number("value")[rows]


def _behind(times: Ints, built: int | None) -> int | None:
    if built is None or not len(times) or int(times.min()) > built:
        return None
    return int(times.min())


def _running_maximum(ranks: npt.NDArray[np.int64], site: Ints) -> npt.NDArray[np.int64]:
    """Running maximum down each column within each site; sites are sorted."""
    width = int(ranks.max()) + 2
    lift = (site * width)[:, None]
    lowest = np.where(ranks < 0, -1, ranks)
    found: npt.NDArray[np.int64] = np.maximum.accumulate(lowest + lift, axis=0) - lift
    return found
