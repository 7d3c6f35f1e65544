"""Build feature values: extend every view's gold rows from where they end to a moment, from the landed events.

The row at tick T is what brute force gives over the events with event_time < T and known_at <= T, the newest known
version of each. An event that lands after a view was built, although it was known before, cuts the view back to there
and the rows from there on are built again, so that gold always says what the landed events say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

from contracts.canonical import content_hash
from contracts.declarations import (
    AttributeHistory,
    Declarations,
    DemandHistory,
    OutcomeRates,
    PriceHistory,
    PromotionPlan,
    View,
)
from contracts.errors import UnknownName
from contracts.times import iso, parse_time, utc
from features.announced_views import PromotionBuilder, SignalBuilder
from features.attribute_view import AttributeBuilder
from features.demand_views import DemandBuilder
from features.event_log import EventLog, Events, instant, length
from features.gold import GoldStore
from features.outcome_views import OutcomeBuilder, OutcomeVersions
from features.view_rows import ViewBuilder

Progress = Callable[[str, float], None]


@dataclass
class _Standing:
    """A builder and the note on the newest part in gold, by which another process' writing is noticed."""

    builder: ViewBuilder
    note: dict[str, Any] | None


@dataclass
class _Session:
    """What one process remembers of one landing zone, so that the next build looks only at what is new."""

    logs: dict[str, EventLog] = field(default_factory=dict)
    versions: dict[int, OutcomeVersions] = field(default_factory=dict)
    standing: dict[tuple[str, str, str], _Standing] = field(default_factory=dict)

    def log(self, source: Events, kind: str) -> EventLog:
        log = self.logs.get(kind)
        if log is None or not log.refresh():
            self.logs[kind] = log = EventLog(source, kind)
            log.refresh()
            self.versions = {tick: kept for tick, kept in self.versions.items() if kept.log is not log}
        return log

    def outcome_versions(self, log: EventLog, tick: int) -> OutcomeVersions:
        kept = self.versions.get(tick)
        if kept is None or kept.log is not log:
            kept = self.versions[tick] = OutcomeVersions(log, tick)
        return kept


_sessions: WeakKeyDictionary[Events, _Session] = WeakKeyDictionary()


def build(
    declarations: Declarations,
    landing: Events,
    gold: GoldStore,
    until: datetime,
    views: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Extend the gold rows of views up to a moment.

    Args:
        declarations: the feature repository's declarations.
        landing: where the events landed. What was read of it is remembered for as long as it lives.
        gold: where the rows go; one build at a time.
        until: ticks up to this moment are built, at whole multiples of the view's tick since 1970 in UTC.
        views: names of views; None for all that are declared.
        progress: called with each view's name and the share of views that are done.

    Returns:
        Number of rows written for each view.

    Raises:
        UnknownName: a view that is not declared.
        TimeInvalid: `until` has no zone.
    """
    moment = instant(utc(until, "until"))
    names = list(declarations.views) if views is None else list(views)
    for name in names:
        if name not in declarations.views:
            raise UnknownName("view", name, declarations.views)
    session = _sessions.setdefault(landing, _Session())
    # one look per kind of event: the views of one build see the same events
    logs = {kind: session.log(landing, kind) for kind in {declarations.views[name].event for name in names}}
    written: dict[str, int] = {}
    for done, name in enumerate(names):
        if progress is not None:
            progress(name, done / len(names))
        view = declarations.views[name]
        written[name] = _extend(session, logs[view.event], gold, name, view, moment)
    if progress is not None:
        progress("", 1.0)
    return written


def _extend(session: _Session, log: EventLog, gold: GoldStore, name: str, view: View, until: int) -> int:
    key = (str(gold.root.absolute()), name, content_hash(view.model_dump(mode="json")))
    standing = session.standing.get(key)
    if standing is None or standing.builder.log is not log or standing.note != gold.built(name):
        standing = _stand(session, log, gold, name, view, gold.built(name))
    behind = standing.builder.behind()
    if behind is not None:
        note = _note(view, log, _aligned(view, behind - 1))
        gold.cut(name, _moment(behind - 1), note=note)
        standing = _stand(session, log, gold, name, view, gold.built(name))
    rows, built = standing.builder.rows(until)
    if built is not None:
        note = _note(view, log, built)
        if gold.append(name, rows, note=note):
            standing.note = note
    session.standing[key] = standing
    return len(rows)


def _stand(
    session: _Session, log: EventLog, gold: GoldStore, name: str, view: View, note: dict[str, Any] | None
) -> _Standing:
    """A builder that stands where gold ends; rows that the landed events do not bear out any more are taken away."""
    builder = _builder(session, log, name, view)
    end = None if note is None else instant(parse_time(note["until"]))
    if end is None or note != _note(view, log, end):
        gold.cut(name, None)
        return _Standing(builder, None)
    builder.resume(gold, end)
    return _Standing(builder, note)


def _builder(session: _Session, log: EventLog, name: str, view: View) -> ViewBuilder:
    if isinstance(view, DemandHistory | PriceHistory):
        return DemandBuilder(view, log)
    if isinstance(view, OutcomeRates):
        return OutcomeBuilder(name, view, session.outcome_versions(log, length(view.tick)))
    if isinstance(view, PromotionPlan):
        return PromotionBuilder(view, log)
    if isinstance(view, AttributeHistory):
        return AttributeBuilder(view, log)
    return SignalBuilder(view, log)


def _note(view: View, log: EventLog, until: int) -> dict[str, Any]:
    """What a build says of itself: for which declaration, until when, and from how many events known by then."""
    return {
        "view": content_hash(view.model_dump(mode="json")),
        "until": iso(_moment(until)),
        "events": log.known_by(until),
    }


def _aligned(view: View, moment: int) -> int:
    tick = getattr(view, "tick", None)
    return moment if tick is None else moment // length(tick) * length(tick)


def _moment(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
