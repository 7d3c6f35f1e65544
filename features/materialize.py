"""Gold rows into an online store, from where the last run ended; no Feast on this path."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from contracts.declarations import Declarations, join_keys, view_columns
from contracts.errors import UnknownName
from contracts.times import Clock, utc
from features.gold import GoldStore, Place
from features.online_rows import Mark, OnlineFeatures

Progress = Callable[[str, float], None]


class Materialized(NamedTuple):
    """Rows of a view in one run: looked at, put online, kept out by a newer row of their key, there already."""

    considered: int
    written: int
    older: int
    same: int


def materialize(
    declarations: Declarations,
    gold: GoldStore,
    online: OnlineFeatures,
    until: datetime,
    *,
    views: Iterable[str] | None = None,
    full: bool = False,
    clock: Clock | None = None,
    progress: Progress | None = None,
) -> dict[str, Materialized]:
    """Bring what gold got since the last run, and was known by `until`, into the online store.

    How far gold was read is kept in the online store beside the rows, by the order in which gold was appended to: a row
    that landed late counts as new, however early its known_at. The embedded store writes rows and mark in one
    transaction, Redis the mark after the rows; a run that was killed is completed by the next, and a store that was
    deleted, or a gold that was begun anew, is read from the beginning.

    Args:
        declarations: names the views and their keys.
        gold: rows of the views.
        online: where they go; rows older than what it holds are left out.
        until: inclusive, with a zone; a moment before the last run's does nothing.
        views: only these; None for all.
        full: from the beginning, whatever was remembered.
        clock: nothing known after its present is brought in.
        progress: called with each view's name and the share of views that are done.

    Returns:
        Counts of rows, a view.

    Raises:
        UnknownName: `views` names a view that is not declared.
        DependencyDown: the online store does not answer; nothing is remembered of this run.
    """
    chosen = list(declarations.views) if views is None else list(views)
    for name in chosen:
        if name not in declarations.views:
            raise UnknownName("feature view", name, declarations.views)
    limit = utc(until, "until") if clock is None else min(utc(until, "until"), clock.now())
    found, marks = {}, {}
    for done, name in enumerate(chosen):
        if progress is not None:
            progress(name, done / len(chosen))
        mark = None if full else online.mark(name)
        if mark is not None and mark.until > limit:
            continue
        rows, place = gold.appended(name, _place(mark), mark.until if mark else None, limit)
        if len(rows) or (mark is not None and mark.place != _text(place)):
            keys = join_keys(declarations.views[name])
            if len(rows):
                found[name] = (keys, rows[[*keys, "event_time", "known_at", *view_columns(declarations.views[name])]])
            marks[name] = Mark(limit, _text(place))
    counts = online.write_views(found, marks) if marks else {}
    if progress is not None:
        progress("", 1.0)
    none = Materialized(0, 0, 0, 0)
    return {name: Materialized(len(found[name][1]), *counts[name]) if name in counts else none for name in chosen}


def _text(place: Place) -> str:
    return f"{place.order} {place.lineage}"


def _place(mark: Mark | None) -> Place | None:
    if mark is None or not mark.place:
        # the first release remembered a time only: what landed late before it may be missing online
        return None
    order, _, lineage = mark.place.partition(" ")
    return Place(lineage, int(order))
