"""Landed events as the audit wants them: those that can matter for a key, and which rows of a frame sit on an edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from contracts.declarations import OutcomeRates, SignalLatest, View, join_keys
from contracts.events import event_contract
from features.audit_values import HALVINGS, Event, Key, event_fields
from features.event_log import Events, Ints, instant, length, microseconds

Flags = npt.NDArray[np.bool_]
ALWAYS = ("event_id", "event_time", "known_at")
VALUES = {
    "demand": ("quantity", "price", "discount", "closed", "stocked_out"),
    "outcome": ("late", "delay_minutes"),
    "price_promotion": ("promo", "price", "discount", "display", "mailer"),
    "external_signal": ("value",),
    "attribute": ("value", "valid_to"),
}
# Rows of ticked views are looked at some ticks further back too, when a wrong value is to be explained.
MARGIN_TICKS = 12


class LandedEvents:
    """All landed versions of one kind, found by key and time.

    Attributes:
        event: when what each says begins to hold (event_time, an attribute's valid_from), microseconds, (n,).
        end: when an attribute ends to hold, the smallest integer when it does not; of other kinds the same as `event`.
        known: known_at, (n,).
    """

    def __init__(self, landing: Events, kind: str) -> None:
        self._frame = landing.read(kind)
        self._kind = kind
        self.event: Ints = microseconds(self._frame["valid_from" if kind == "attribute" else "event_time"])
        self.end: Ints = microseconds(self._frame["valid_to"]) if kind == "attribute" else self.event
        self.known: Ints = microseconds(self._frame["known_at"])
        self._columns: dict[str, tuple[Ints, dict[Any, int]]] = {}

    def of(self, view: View, key: Key, as_of: datetime, *, future: bool) -> list[Event]:
        """Events that can matter for a view's row of a key at a moment, as plain values in the order of landing.

        Args:
            view: a view over this kind.
            key: in the order of `join_keys`.
            as_of: with a zone.
            future: also what became known, or happens, after it.
        """
        now, reach = instant(as_of), _reach(view)
        until = np.ones(len(self.known), dtype=bool) if future else self.known <= now
        if reach is None:
            return self._plain(np.flatnonzero(self._mine(view, key) & until), view)
        time = self.event if isinstance(view, SignalLatest) else self.known
        near = np.flatnonzero(until & (time > now - reach))
        mine = np.ones(len(near), dtype=bool)
        for field, part in zip(event_fields(view), key, strict=True):
            mine &= self._frame[field].to_numpy(dtype=object)[near] == part
        if not isinstance(view, OutcomeRates):
            return self._plain(near[mine], view)
        if not mine.any():
            # nothing within the windows: whether there ever was anything still matters
            return self._plain(np.flatnonzero(self._mine(view, key) & until), view)
        # a version may have moved a shipment to another carrier: all versions of these shipments count
        names = self._frame["shipment_id"].iloc[near]
        return self._plain(near[names.isin(names[mine]).to_numpy()], view)

    def landed_behind(self, event_ids: Sequence[str], as_of: datetime) -> tuple[str, ...]:
        """Those of some events that landed after one which became known only after `as_of`: a decision of that moment
        cannot have seen them, although they bear an earlier known_at."""
        newest = np.maximum.accumulate(self.known)
        rows = np.flatnonzero(self._frame["event_id"].isin(event_ids).to_numpy())
        behind = rows[newest[rows] > instant(as_of)]
        return tuple(self._frame["event_id"].iloc[behind].tolist())

    def codes(self, fields: Sequence[str], asked: Sequence[Any]) -> tuple[Ints, Ints]:
        """One number a key: of every event, and of every asked row (its columns in the order of `fields`); -1 where
        a part is missing, -2 where no event has the key."""
        ours, theirs = np.zeros(len(self._frame), dtype=np.int64), np.zeros(len(asked[0]), dtype=np.int64)
        lost = np.zeros(len(asked[0]), dtype=bool)
        for field, column in zip(fields, asked, strict=True):
            codes, names = self._coded(field)
            found = pd.Series(column, dtype=object).map(names).fillna(-1).to_numpy(dtype=np.int64)
            lost |= found < 0
            ours = np.where((ours < 0) | (codes < 0), -1, ours * len(names) + codes)
            theirs = np.where(lost, -2, theirs * len(names) + found)
        known = np.unique(ours[ours >= 0])
        place = np.minimum(np.searchsorted(known, theirs), max(len(known) - 1, 0))
        there = (known[place] == theirs) if len(known) else np.zeros(len(theirs), dtype=bool)
        return np.where(ours >= 0, np.searchsorted(known, ours), -1), np.where(there & ~lost, place, -2)

    def _coded(self, field: str) -> tuple[Ints, dict[Any, int]]:
        if field not in self._columns:
            codes, names = pd.factorize(self._frame[field].to_numpy(dtype=object))
            self._columns[field] = codes.astype(np.int64), {name: code for code, name in enumerate(names)}
        return self._columns[field]

    def _mine(self, view: View, key: Key) -> Flags:
        mine = np.ones(len(self._frame), dtype=bool)
        for field, part in zip(event_fields(view), key, strict=True):
            codes, names = self._coded(field)
            mine &= codes == names.get(part, -2)
        return mine

    def _plain(self, rows: Ints, view: View) -> list[Event]:
        contract = event_contract(self._kind)
        names = dict.fromkeys((*ALWAYS, *contract.natural_key, *event_fields(view), *VALUES[self._kind]))
        part = self._frame.iloc[rows]
        columns: dict[str, list[Any]] = {}
        for name in names:
            values = part[name].to_numpy(dtype=object)
            values[pd.isna(values)] = None
            if isinstance(part[name].dtype, pd.DatetimeTZDtype):
                columns[name] = [None if value is None else value.to_pydatetime() for value in values]
            else:
                columns[name] = values.tolist()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _reach(view: View) -> int | None:
    """Microseconds before the moment from which on an event's time matters; None: all history does."""
    if isinstance(view, OutcomeRates):
        days = max([*view.windows, *(HALVINGS * half_life for half_life in view.half_lives)])
        return length(timedelta(days=days) + MARGIN_TICKS * view.tick)
    return 2 * length(view.ttl) + 1 if isinstance(view, SignalLatest) else None


@dataclass(frozen=True)
class _Times:
    """Times by key, so that those up to a moment can be counted for many rows at once."""

    rank: Ints
    moments: Ints

    @staticmethod
    def of(codes: Ints, times: Ints) -> _Times:
        moments = np.unique(times)
        there = codes >= 0
        rank = codes[there] * (len(moments) + 1) + np.searchsorted(moments, times[there])
        return _Times(np.sort(rank), moments)

    def until(self, codes: Ints, moment: Ints) -> Ints:
        """How many times of each key lie at or before the moment."""
        width = len(self.moments) + 1
        first = np.searchsorted(self.rank, codes * width)
        last = np.searchsorted(self.rank, codes * width + np.searchsorted(self.moments, moment, side="right"))
        return np.where(codes >= 0, last - first, 0).astype(np.int64)

    def within(self, codes: Ints, low: Ints, high: Ints) -> Flags:
        """Whether a time of the key lies in [low, high]."""
        found: Flags = self.until(codes, high) > self.until(codes, low - 1)
        return found


def edges(view: View, rows: pd.DataFrame, events: LandedEvents) -> dict[str, Flags]:
    """Which rows have an answer that a mistake of a microsecond to a tick would change.

    The cut is the newest tick at or before as_of, or as_of itself for views without ticks (whose tick counts as an
    hour here).

    Args:
        view: the declaration.
        rows: join keys and as_of.
        events: landed versions of the view's kind.

    Returns:
        by kind of edge, one flag a row: `at_cut`: an event of the key happened or became known within a microsecond
        of the cut or of as_of; `late`: one had happened by the cut and became known after it; `next_tick`: one became
        known within a tick after the cut; `window`: one became known within a microsecond of where a window begins;
        `ttl`: the row's age, or that of an announcement or a reading, is within a microsecond of the ttl; `unseen`: no
        event of the key became known by the cut; `first`, `last`: as_of is the earliest or latest of all.
    """
    as_of = rows["as_of"].to_numpy(dtype="M8[us]").astype(np.int64)
    tick = length(getattr(view, "tick", timedelta(hours=1)))
    ticked = hasattr(view, "tick")
    cut = as_of // tick * tick if ticked else as_of
    ours, codes = events.codes(event_fields(view), [rows[key].to_numpy(dtype=object) for key in join_keys(view)])
    event, known = _Times.of(ours, events.event), _Times.of(ours, events.known)
    ttl = length(view.ttl)
    found = {
        "ttl": np.abs(as_of - cut - ttl) <= 1 if ticked else event.within(codes, as_of - ttl - 1, as_of - ttl + 1),
        "at_cut": event.within(codes, cut - 1, cut + 1) | known.within(codes, cut - 1, cut + 1),
        "late": _late(codes, cut, ours, events, before=int(ticked)),
        "next_tick": known.within(codes, cut + 1, cut + tick),
        "unseen": known.until(codes, cut) == 0,
        "first": as_of == as_of.min(initial=np.iinfo(np.int64).max),
        "last": as_of == as_of.max(initial=np.iinfo(np.int64).min),
    }
    found["at_cut"] |= event.within(codes, as_of - 1, as_of + 1) | known.within(codes, as_of - 1, as_of + 1)
    found["at_cut"] |= _Times.of(ours, events.end).within(codes, cut - 1, cut + 1)
    if isinstance(view, OutcomeRates):
        starts = [cut - length(timedelta(days=days)) for days in view.windows]
        found["window"] = np.any([known.within(codes, start - 1, start + 1) for start in starts], axis=0)
    return found


def _late(codes: Ints, cut: Ints, ours: Ints, events: LandedEvents, *, before: int) -> Flags:
    """Whether an event of the key had happened by the cut (`before` microseconds earlier) and became known only after
    it: more had happened than were usable."""
    usable = _Times.of(ours, np.maximum(events.event + before, events.known))
    found: Flags = _Times.of(ours, events.event).until(codes, cut - before) > usable.until(codes, cut)
    return found


def chosen(kinds: Mapping[str, Flags], most: int, rng: np.random.Generator) -> Ints:
    """Rows on an edge, at most `most`: from the rarest kind to the commonest, each in turn, at random within a kind."""
    piles = [rng.permutation(np.flatnonzero(flags)).tolist() for flags in kinds.values() if flags.any()]
    piles.sort(key=len)
    taken: dict[int, None] = {}
    while piles and len(taken) < most:
        for pile in piles:
            while pile:
                row = pile.pop()
                if row not in taken:
                    taken[row] = None
                    break
            if len(taken) >= most:
                break
        piles = [pile for pile in piles if pile]
    return np.array(sorted(taken), dtype=np.int64)
