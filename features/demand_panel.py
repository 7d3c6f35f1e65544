"""Demand as a panel of series by periods, as it was known at one tick after the other.

One period is one tick long. An event counts from the first tick at which it is known and over its beginning; the
newest known version of a (sku, location, event_time) replaces older ones whole. A version that is closed or
stocked_out leaves its period missing. Several events of a series in one period add up; their prices are averaged.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features.event_log import EventLog, Floats, Growing, Ints, KeyCodes, first_ticks

Panel = npt.NDArray[np.float64]
_SLOT = ("sku", "location", "event_time")


class DemandPanel:
    """Series by periods, moved forward tick by tick with `advance`.

    Args:
        log: the landed demand events.
        keys: fields that make a series.
        tick: length of a tick and of a period, microseconds.
        columns: numeric fields of the event to keep; `quantity` adds up, others are averaged.
    """

    def __init__(self, log: EventLog, keys: tuple[str, ...], tick: int, columns: tuple[str, ...]) -> None:
        self.log = log
        self.tick = tick
        self.first_period = 0
        self.at: int | None = None
        self._keys = keys
        self._columns = columns
        self._seen = 0
        self._start = Growing(np.int64)
        self._waiting = np.empty(0, dtype=np.int64)
        self._current = Growing(np.int64)
        self._cells, self._cell = KeyCodes(), Growing(np.int64)
        self._room: dict[str, Panel] = {name: np.full((0, 0), np.nan) for name in columns}
        self._shape = (0, 0)

    @property
    def series(self) -> KeyCodes:
        """Keys of the series; a series' code is its row in the panel."""
        return self.log.keyed(self._keys)[0]

    def behind(self) -> int | None:
        """First tick among events that landed since the last `advance` and count at ticks that are past; else None."""
        start = self._starts()[self._seen :]
        if self.at is None or not len(start) or int(start.min()) > self.at:
            return None
        return int(start.min())

    def first_tick(self) -> int | None:
        """The first tick at which any event counts, None without events."""
        start = self._starts()
        return int(start.min()) if len(start) else None

    def advance(self, tick: int) -> None:
        """Stand at `tick`: everything that counts by then is in the panel."""
        self._take()
        due = int(np.searchsorted(self._start.values[self._waiting], tick, side="right"))
        rows, self._waiting = self._waiting[:due], self._waiting[due:]
        self.at = tick
        if not len(rows):
            return
        _, slots = self.log.keyed(_SLOT)
        # rows are from oldest to newest version: the last one assigned to a slot stays
        self._current.values[slots[rows]] = rows
        cells = self._cell.values[slots[rows]]
        touched = slots[rows]
        if len(self._cells) < len(self._cell.values):
            mark = np.zeros(len(self._cells), dtype=bool)
            mark[cells] = True
            touched = np.flatnonzero(mark[self._cell.values])
        touched = np.unique(touched)
        self._put(touched[self._current.values[touched] >= 0])

    def window(self, column: str, periods: int) -> Panel:
        """The last `periods` periods before the tick, newest last: (series, periods), NaN where missing."""
        known = self.history(column)
        if known.shape[1] >= periods:
            return known[:, known.shape[1] - periods :]
        found = np.full((known.shape[0], periods), np.nan)
        found[:, periods - known.shape[1] :] = known
        return found

    def history(self, column: str) -> Panel:
        """All periods before the tick from the first known one on: (series, periods), NaN where missing."""
        periods = 0 if self.at is None or not self._shape[1] else max(0, self.at - self.first_period)
        series = len(self.series)
        rows, columns = min(self._shape[0], series), min(self._shape[1], periods)
        if (rows, columns) == (series, periods):
            return self._room[column][:rows, :columns]
        found = np.full((series, periods), np.nan)
        found[:rows, :columns] = self._room[column][:rows, :columns]
        return found

    def _starts(self) -> Ints:
        seen = len(self._start.values)
        if seen < len(self.log):
            self._start.add(first_ticks(self.log.event[seen:], self.log.known[seen:], self.tick))
        return self._start.values

    def _take(self) -> None:
        start = self._starts()
        if self._seen == len(self.log):
            return
        _, codes = self.log.keyed(self._keys)
        slots, slot = self.log.keyed(_SLOT)
        fresh = np.arange(self._seen, len(self.log))
        new_slots = np.arange(len(self._cell.values), len(slots))
        # the first event of a slot says where it is; later versions have the same sku, location and event_time
        first = np.full(len(slots), -1, dtype=np.int64)
        first[slot[fresh][::-1]] = fresh[::-1]
        rows = first[new_slots]
        self._cell.add(self._cells.code([codes[rows], self.log.event[rows] // self.tick]))
        self._current.add(np.full(len(new_slots), -1, dtype=np.int64))
        waiting = np.concatenate([self._waiting, fresh])
        self._waiting = waiting[np.lexsort((waiting, self.log.known[waiting], start[waiting]))]
        self._seen = len(self.log)

    def _put(self, slots: Ints) -> None:
        """Write the cells of these slots from their newest versions."""
        rows = self._current.values[slots]
        cells, cell = np.unique(self._cell.values[slots], return_inverse=True)
        places = np.array([self._cells.keys[code] for code in cells.tolist()], dtype=np.int64)
        self._make_room(len(self.series), int(places[:, 1].min()), int(places[:, 1].max()))
        traded = ~((self.log.number("closed")[rows] == 1.0) | (self.log.number("stocked_out")[rows] == 1.0))
        for name in self._columns:
            self._room[name][places[:, 0], places[:, 1] - self.first_period] = _together(
                name, np.where(traded, self.log.number(name)[rows], np.nan), cell, len(cells)
            )

    def _make_room(self, series: int, first: int, last: int) -> None:
        if not self._shape[1]:
            self.first_period = first
        left = max(0, self.first_period - first)
        width = max(self._shape[1] + left, last - min(first, self.first_period) + 1)
        room = next(iter(self._room.values())).shape
        if left or series > room[0] or width > room[1]:
            shape = (max(series, 2 * room[0] if series > room[0] else room[0]), max(width, room[1] + room[1] // 2 + 32))
            for name, old in self._room.items():
                new = np.full(shape, np.nan)
                new[: self._shape[0], left : left + self._shape[1]] = old[: self._shape[0], : self._shape[1]]
                self._room[name] = new
        self.first_period -= left
        self._shape = (max(series, self._shape[0]), width)


def _together(name: str, values: Floats, cell: Ints, cells: int) -> Floats:
    known = ~np.isnan(values)
    total = np.bincount(cell, np.where(known, values, 0.0), cells)
    count = np.bincount(cell, known, cells)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total, np.nan) if name == "quantity" else total / count
