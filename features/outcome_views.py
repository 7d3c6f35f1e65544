"""Rolling outcome rates: how late a carrier, lane, ... has been of late, by when each outcome became known.

An outcome version counts at tick T in a window of D days when it had happened before T, is known by T, no newer known
version of the same shipment replaces it, and its known_at lies in (T - D, T]. So each version counts over one interval
of ticks, and all ticks are summed at once from what enters and leaves. Sums are of whole numbers (delays in
milliseconds), hence the same to the last bit whether ticks are built one by one or all at once. Rates with half-lives
are in `decayed_rates.py`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from contracts.declarations import OutcomeRates, view_columns
from features.decayed_rates import decayed, memory
from features.event_log import FAR, EventLog, Floats, Growing, Ints, first_ticks, length, microseconds, stamps
from features.gold import GoldStore
from features.view_rows import MICROSECOND_DAY, joined, view_frame

_MINUTE_MS = 60_000
_LONGEST_DELAY = 1e7
_CELLS = 400_000
_LATE_UNIT = float(1 << 26)


class OutcomeVersions:
    """Ticks over which each landed outcome version is the newest known one; shared by the views of one tick length."""

    def __init__(self, log: EventLog, tick: int) -> None:
        self.log = log
        self.tick = tick
        self._start, self._end = Growing(np.int64), Growing(np.int64)
        self._delay = Growing(np.float64)

    @property
    def start(self) -> Ints:
        """First tick at which the version counts."""
        return self._start.values

    @property
    def end(self) -> Ints:
        """First tick at which a newer known version has replaced it."""
        return self._end.values

    @property
    def delay(self) -> Floats:
        """Delay in whole milliseconds, NaN where unknown; beyond 19 years it is cut there, so that sums stay exact."""
        return self._delay.values

    def refresh(self) -> None:
        """Take in what the log has more than the last time."""
        seen = len(self.start)
        if seen == len(self.log):
            return
        self._start.add(first_ticks(self.log.event[seen:], self.log.known[seen:], self.tick))
        self._end.add(np.full(len(self.log) - seen, FAR, dtype=np.int64))
        minutes = np.clip(self.log.number("delay_minutes")[seen:], -_LONGEST_DELAY, _LONGEST_DELAY)
        self._delay.add(np.rint(minutes * _MINUTE_MS))
        keys, shipment = self.log.keyed(("shipment_id",))
        touched = np.zeros(len(keys), dtype=bool)
        touched[shipment[seen:]] = True
        again = seen > 0 and bool(touched[: int(shipment[:seen].max()) + 1].any())
        rows = np.flatnonzero(touched[shipment]) if again else np.arange(seen, len(self.log))
        self.end[rows] = _replaced_at(shipment[rows], self.log.known[rows], self.start[rows])


def _replaced_at(group: Ints, known: Ints, start: Ints) -> Ints:
    """For each version, the smallest start among the group's newer versions (later known_at, then landed later)."""
    order = np.lexsort((np.arange(len(group)), known, group))[::-1]
    sorted_group, sorted_start = group[order], start[order]
    fresh = np.r_[True, sorted_group[1:] != sorted_group[:-1]]
    # one running minimum over all groups: a later group's values lie below every earlier one's
    span = int(sorted_start.max()) - int(sorted_start.min()) + 1
    shift = np.cumsum(fresh) * span
    least = np.minimum.accumulate(sorted_start - shift) + shift
    found = np.empty(len(group), dtype=np.int64)
    found[order] = np.where(fresh, FAR, np.r_[FAR, least[:-1]])
    return found


class OutcomeBuilder:
    """Builds one view of outcome rates; see `ViewBuilder`."""

    def __init__(self, name: str, view: OutcomeRates, versions: OutcomeVersions) -> None:
        self.log = versions.log
        self._name = name
        self._view = view
        self._columns = view_columns(view)
        self._versions = versions
        self._tick = versions.tick
        # without a change a row is repeated when it is half the ttl old, so that it never lapses while it is true
        longest = [*(days * MICROSECOND_DAY for days in view.windows), *(length(memory(h)) for h in view.half_lives)]
        self._memory = max(longest)
        self._repeat = max(1, -(-length(view.ttl) // (2 * self._tick)))
        self._built: int | None = None
        self._seen = 0
        self._first, self._emitted = Growing(np.int64), Growing(np.int64)

    def behind(self) -> int | None:
        """See `ViewBuilder`."""
        self._versions.refresh()
        fresh = self._versions.start[self._seen :]
        if self._built is None or not len(fresh) or int(fresh.min()) > self._built:
            return None
        return int(fresh.min()) * self._tick

    def resume(self, gold: GoldStore, after: int) -> None:
        """See `ViewBuilder`; when each key's row was last given is read from gold."""
        self._take()
        self._built = after // self._tick
        since = (self._built - self._repeat) * self._tick
        recent = gold.read(self._name, stamps(np.array([since]))[0].to_pydatetime())
        if len(recent):
            keys, _ = self.log.keyed(self._view.keys)
            codes = keys.code([recent[key].to_numpy(dtype=object) for key in self._view.keys])
            np.maximum.at(self._emitted.values, codes, microseconds(recent["event_time"]) // self._tick)

    def rows(self, until: int) -> tuple[pd.DataFrame, int | None]:
        """See `ViewBuilder`."""
        self._take()
        names = {"text": self._view.keys, "number": self._columns}
        if not len(self.log):
            return joined([], names), None
        low = int(self._versions.start.min()) if self._built is None else self._built + 1
        high = until // self._tick
        if high < low:
            return joined([], names), None if self._built is None else self._built * self._tick
        step = max(1, _CELLS // max(1, len(self._first.values)))
        frames = [self._chunk(at, min(at + step - 1, high)) for at in range(low, high + 1, step)]
        self._built = high
        return joined([frame for frame in frames if len(frame)], names), high * self._tick

    def _take(self) -> None:
        self._versions.refresh()
        keys, codes = self.log.keyed(self._view.keys)
        fresh = len(keys) - len(self._first.values)
        self._first.add(np.full(fresh, FAR, dtype=np.int64))
        self._emitted.add(np.full(fresh, -FAR, dtype=np.int64))
        codes = codes[self._seen :]
        there = codes >= 0
        np.minimum.at(self._first.values, codes[there], self._versions.start[self._seen :][there])
        self._seen = len(self.log)

    def _chunk(self, low: int, high: int) -> pd.DataFrame:
        """Rows of the ticks low..high; the tick before is summed too, to see what changed."""
        values = self._values(low - 1, high)
        before, now = values[:, :-1], values[:, 1:]
        changed = ((before != now) & ~(np.isnan(before) & np.isnan(now))).any(axis=2)
        ticks = np.arange(low, high + 1)
        first = self._first.values[:, None]
        since = np.where((changed & (ticks > first)) | (ticks == first), ticks, -FAR)
        since[:, 0] = np.maximum(since[:, 0], self._emitted.values)
        since = np.maximum.accumulate(since, axis=1)
        give = (since > -FAR) & ((ticks - since) % self._repeat == 0)
        at, codes = np.nonzero(give.T)
        np.maximum.at(self._emitted.values, codes, ticks[at])
        keys, _ = self.log.keyed(self._view.keys)
        return view_frame(self._view.keys, keys, codes, ticks[at] * self._tick, self._columns, now[codes, at])

    def _values(self, low: int, high: int) -> npt.NDArray[np.float64]:
        """Value columns of every key at the ticks low..high: (keys, ticks, columns)."""
        _, codes = self.log.keyed(self._view.keys)
        oldest = low * self._tick - self._memory
        some = slice(self.log.known_after(oldest), None)
        start, end, known, codes = (
            self._versions.start[some],
            self._versions.end[some],
            self.log.known[some],
            codes[some],
        )
        reach = np.flatnonzero((start <= high) & (end > low) & (known > oldest) & (codes >= 0))
        start, end, known, codes = start[reach], end[reach], known[reach], codes[reach]
        rows = reach + some.start
        late, delay = self.log.number("late")[rows], self._versions.delay[rows]
        shape = (len(self._first.values), high - low + 2)
        values = np.full((shape[0], shape[1] - 1, len(self._columns)), np.nan)
        for place, days in enumerate(self._view.windows):
            # the first tick whose window does not reach back to known_at
            leave = np.minimum(end, -(-(known + days * MICROSECOND_DAY) // self._tick))
            enter = np.maximum(start, low)
            keep = leave > enter
            spans = _Spans(codes[keep], enter[keep] - low, np.minimum(leave[keep], high + 1) - low, shape)
            values[:, :, 3 * place : 3 * place + 3] = _rates(spans, late[keep], delay[keep])
        ticks, done = np.arange(low, high + 1) * self._tick, 3 * len(self._view.windows)
        for place, days in enumerate(self._view.half_lives):
            found = decayed(days, codes, start - low, end - low, known, late, ticks, (shape[0], len(ticks)))
            values[:, :, done + 2 * place : done + 2 * place + 2] = found
        return values


class _Spans:
    """Sums per key and tick over intervals of ticks."""

    def __init__(self, codes: Ints, enter: Ints, leave: Ints, shape: tuple[int, int]) -> None:
        self._shape = shape
        self._enter = codes * shape[1] + enter
        self._leave = codes * shape[1] + leave

    def total(self, weights: Floats) -> Floats:
        """Sum of the weights of the intervals that hold each (key, tick); exact for whole weights."""
        size = self._shape[0] * self._shape[1]
        change = np.bincount(self._enter, weights, size) - np.bincount(self._leave, weights, size)
        return np.asarray(np.cumsum(change.reshape(self._shape), axis=1)[:, :-1], dtype=np.float64)


def _rates(spans: _Spans, late: Floats, delay: Floats) -> npt.NDArray[np.float64]:
    """late_rate, delay_mean (minutes) and n per key and tick: (keys, ticks, 3)."""
    # two counts travel in one sum: n in the low 26 bits, late ones above
    both = spans.total(1.0 + late * _LATE_UNIT)
    n_late = np.floor(both / _LATE_UNIT)
    n = both - n_late * _LATE_UNIT
    known = ~np.isnan(delay)
    if known.all():
        delays, timed = spans.total(delay), n
    else:
        delays, timed = spans.total(np.where(known, delay, 0.0)), spans.total(known.astype(np.float64))
    with np.errstate(invalid="ignore"):
        return np.stack([n_late / n, delays / (timed * _MINUTE_MS), n], axis=2)
