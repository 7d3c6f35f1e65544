"""Slowly changing attributes (SCD2: valid_from, valid_to) read bitemporally. Pure: arrays in, values out.

An interval [valid_from, valid_to) of an attribute is one event; the same interval again with a later known_at is a
correction, for instance its end. What a decision at a moment may see is the state at that moment as known by then: of
the newest known versions that hold, the one with the latest valid_from. That state changes only when something becomes
known or begins or ends to hold, so one row at each such moment, event_time = known_at = the moment, gives a
point-in-time join exactly it. Where an interval ends and no other follows, the row says so with a missing value: a
tombstone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from contracts.times import iso
from features.event_log import FAR, Floats, Ints, microseconds

NO_END = FAR
_NAT = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Intervals:
    """Versions of intervals, in the order of landing; n of them. Times are microseconds since the epoch.

    Attributes:
        entity: code of the thing, (n,).
        name: place of the attribute, 0 to p - 1, (n,).
        start, end: [start, end) in which the value holds; NO_END for an open one.
        known: when the version became known.
        value: the value, NaN when it is not known.
    """

    entity: Ints
    name: Ints
    start: Ints
    end: Ints
    known: Ints
    value: Floats

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Intervals:
        """Some of the versions."""
        entity, name, start = self.entity[rows], self.name[rows], self.start[rows]
        return Intervals(entity, name, start, self.end[rows], self.known[rows], self.value[rows])


@dataclass(frozen=True)
class States:
    """What was known to hold, from each moment on; m rows, by entity and moment. `values`: (m, p)."""

    entity: Ints
    moment: Ints
    values: Floats


def ends(valid_to: pd.Series[pd.Timestamp]) -> Ints:
    """Ends of intervals as microseconds since the epoch; NO_END where there is none."""
    found = microseconds(valid_to)
    return np.where(found == _NAT, NO_END, found)


def change_moments(rows: Intervals) -> tuple[Ints, Ints]:
    """When each version begins to show, and when its end does; NO_END for never."""
    begins = np.maximum(rows.start, rows.known)
    return begins, np.where(rows.end >= NO_END, NO_END, np.maximum(rows.end, rows.known))


def states(rows: Intervals, names: int, *, after: int | None, until: int) -> States:
    """Every change of state of every entity in (after, until].

    Args:
        rows: all versions of the entities that became known by `until`.
        names: number of attributes, p.
        after: exclusive; None for the beginning.
        until: inclusive.
    """
    found: list[tuple[int, int, Floats]] = []
    order = np.argsort(rows.entity, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(rows.entity[order])) + 1) if len(order) else []:
        found += _states_of(rows.take(part), names, after, until)
    return States(
        np.array([row[0] for row in found], dtype=np.int64),
        np.array([row[1] for row in found], dtype=np.int64),
        np.array([row[2] for row in found], dtype=np.float64).reshape(len(found), names),
    )


def _states_of(rows: Intervals, names: int, after: int | None, until: int) -> list[tuple[int, int, Floats]]:
    """Changes of state of one entity."""
    begins, stops = change_moments(rows)
    moments = np.unique(np.concatenate([begins, stops]))
    moments = moments[moments <= until]
    first = 0 if after is None else max(int(np.searchsorted(moments, after, side="right")) - 1, 0)
    before = np.full(names, np.nan)
    found: list[tuple[int, int, Floats]] = []
    for moment in moments[first:].tolist():
        now = _state_at(rows, names, moment)
        if (after is None or moment > after) and not np.array_equal(now, before, equal_nan=True):
            found.append((int(rows.entity[0]), moment, now))
        before = now
    return found


def _state_at(rows: Intervals, names: int, moment: int) -> Floats:
    """What one entity was known to be at a moment."""
    values = np.full(names, np.nan)
    seen = np.flatnonzero((rows.known <= moment) & (rows.start <= moment))
    if not len(seen):
        return values
    rank = np.lexsort((seen, rows.known[seen], rows.start[seen], rows.name[seen]))
    seen = seen[rank]
    # the newest known version of each interval is the last one with its name and start
    last = np.append((np.diff(rows.name[seen]) != 0) | (np.diff(rows.start[seen]) != 0), True)
    holding = seen[last][rows.end[seen[last]] > moment]
    values[rows.name[holding]] = rows.value[holding]  # of several, the latest start comes last and stays
    return values


def interval_faults(events: pd.DataFrame, landed: pd.DataFrame) -> list[str]:
    """What is wrong with each new interval, '' when nothing is.

    Refused are intervals that end before they begin, that overlap another of the same attribute, and a second open one.
    Of two new intervals that contradict each other both are refused: which of them is right is not ours to guess.

    Args:
        events: canonical attribute events that are to land, (n,).
        landed: those that have.

    Returns:
        n reasons.
    """
    reasons = [""] * len(events)
    start, end = microseconds(events["valid_from"]), ends(events["valid_to"])
    for row in np.flatnonzero(end <= start).tolist():
        reasons[row] = f"valid_to: wanted a time after valid_from, got {_words(end[row])} [inverted]"
    good = np.flatnonzero(end > start)
    keys = ["entity", "entity_id", "name"]
    known = landed[landed["entity_id"].isin(events["entity_id"])] if len(landed) else landed
    both = pd.concat([known, events.iloc[good]], ignore_index=True)
    if both.empty:
        return reasons
    both["place"] = np.concatenate([np.full(len(known), -1), good])
    both["start"], both["end"] = microseconds(both["valid_from"]), ends(both["valid_to"])
    both = both.sort_values("known_at", kind="stable").drop_duplicates([*keys, "valid_from"], keep="last")
    both = both.sort_values([*keys, "start"], kind="stable")
    columns = (both.groupby(keys, sort=False).ngroup(), both["start"], both["end"])
    series, begins, stops = (np.asarray(column, dtype=np.int64) for column in columns)
    places = both["place"].tolist()
    for one, other in _overlaps(series, begins, stops):
        for row, rival in ((one, other), (other, one)):
            place = places[row]
            if place >= 0:
                reasons[place] = reasons[place] or _reason(both.iloc[row], both.iloc[rival])
    return reasons


def gaps(events: pd.DataFrame) -> pd.DataFrame:
    """Stretches in which an attribute has no value although it had one before and has one after.

    They are no error: a row says that the value is missing there. Rows: event_id (of the interval after the gap),
    entity, entity_id, name, start, end; from the newest known version of each interval.
    """
    keys = ["entity", "entity_id", "name"]
    rows = events.sort_values("known_at", kind="stable").drop_duplicates([*keys, "valid_from"], keep="last")
    rows = rows.sort_values([*keys, "valid_from"], kind="stable")
    before = rows.groupby(keys, sort=False)["valid_to"].shift()
    gap = (before < rows["valid_from"]).to_numpy()
    found = rows.loc[gap, ["event_id", *keys]].assign(start=before[gap], end=rows.loc[gap, "valid_from"])
    return found.reset_index(drop=True)


def gap_flags(events: pd.DataFrame) -> pd.DataFrame:
    """The gaps as flags on the intervals after them: event_id, field, rule, flag."""
    found = gaps(events)
    words = [
        f"valid_from: nothing holds from {iso(start)} to {iso(end)}"
        for start, end in zip(found["start"], found["end"], strict=True)
    ]
    ids = found["event_id"].to_numpy(dtype=object)
    return pd.DataFrame({"event_id": ids, "field": "valid_from", "rule": "gap", "flag": words})


def _overlaps(series: Ints, start: Ints, end: Ints) -> Sequence[tuple[int, int]]:
    """Pairs of rows (by series and start) of which the later begins before the earlier one's end."""
    found: list[tuple[int, int]] = []
    widest = 0
    for row in range(1, len(series)):
        if series[row] != series[widest]:
            widest = row
            continue
        if start[row] < end[widest]:
            found.append((widest, row))
        if end[row] > end[widest]:
            widest = row
    return found


def _reason(row: pd.Series[Any], rival: pd.Series[Any]) -> str:
    """Why a row is refused beside its rival."""
    of = f"{row['entity']} {row['entity_id']!r}, {row['name']}"[:120]
    if row["end"] >= NO_END and rival["end"] >= NO_END:
        return f"valid_to: wanted one open interval of {row['entity']}.{row['name']}, got another of {of} [open]"
    stretch = f"{_words(rival['start'])} to {_words(rival['end'])}"
    wanted = f"no overlap with an interval of {row['entity']}.{row['name']}"
    return f"valid_from: wanted {wanted}, got one of {of}: {stretch} [overlap]"


def _words(moment: int) -> str:
    return "open" if moment >= NO_END else iso(pd.Timestamp(moment, unit="us", tz="UTC").to_pydatetime())
