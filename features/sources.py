"""How far a source can be trusted now: available, validated, safe for automation. Pure: values in, value out.

available: something became known within its expected time (the frequency and latency agreed). validated: available, and
refused rows, completeness and latency are as agreed. safe for automation: validated, and its newest event is fresh. A
source that stopped shows its age growing; no figure ever turns into a silent NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum

import numpy as np

from contracts.source_terms import SourceTerms, expected_within
from contracts.times import utc, write_duration
from features.event_log import Ints, instant, length

DELIVERIES = 20
PERIODS = 28
FEW = 5
_LISTED = 5


class SourceState(IntEnum):
    """How far a source can be trusted; each state holds all before it."""

    UNAVAILABLE = 0
    AVAILABLE = 1
    VALIDATED = 2
    SAFE_FOR_AUTOMATION = 3

    @property
    def words(self) -> str:
        """As it is printed: safe_for_automation."""
        return self.name.lower()


@dataclass(frozen=True)
class Delivery:
    """One batch of a source.

    Attributes:
        rows: rows that came, landed and refused.
        refused: rows in quarantine that nobody has decided about.
        event, known: event_time and known_at of the landed rows, microseconds since the epoch, (n,).
        released: they came out of quarantine by somebody's hand: their events count, the source gets no credit.
    """

    rows: int
    refused: int
    event: Ints
    known: Ints
    released: bool = False


@dataclass(frozen=True)
class SourceHealth:
    """One source of one kind of event at a moment.

    Attributes:
        source, kind: which.
        rows: rows that landed.
        newest_event, newest_known: newest event_time and known_at; None while nothing is known.
        age: since newest_known, None while nothing is known; `event_age` since newest_event.
        latency_p50, latency_p95: of known_at - event_time over the last 28 stretches with anything known.
        completeness: share of the stretches due of the last 28 that have events, in [0, 1]; 1 when none was due.
        refused_last, refused_recent: share of rows in quarantine, undecided, in the last and the last 20 deliveries.
        gaps: [start, end) of stretches without events, oldest first.
        state: how far it can be trusted.
        reasons: why it is not safe for automation, in plain words; empty when it is.
        needed: False for a source of which nothing more is expected.
    """

    source: str
    kind: str
    rows: int
    newest_event: datetime | None
    newest_known: datetime | None
    age: timedelta | None
    event_age: timedelta | None
    latency_p50: timedelta | None
    latency_p95: timedelta | None
    completeness: float
    refused_last: float
    refused_recent: float
    gaps: tuple[tuple[datetime, datetime], ...]
    state: SourceState
    reasons: tuple[str, ...]
    needed: bool = True

    @property
    def safe(self) -> bool:
        """True when automation may go on as far as this source is concerned."""
        return not self.needed or self.state is SourceState.SAFE_FOR_AUTOMATION


def source_health(
    source: str,
    kind: str,
    deliveries: Sequence[Delivery],
    terms: SourceTerms,
    now: datetime,
    *,
    rows: int | None = None,
) -> SourceHealth:
    """The health of one source at a moment; what became known later is not looked at.

    Args:
        source, kind: names.
        deliveries: in the order of landing; at least those of the last 28 stretches of the agreed frequency.
        terms: what is expected.
        now: the moment, with a zone.
        rows: rows of all deliveries, when only the last ones are given.
    """
    moment = instant(utc(now, "now"))
    seen = [_until(delivery, moment) for delivery in deliveries]
    own = [part for part in seen if not part.released]
    if not any(len(part.event) for part in own):
        return never(source, kind, ended=terms.ended)
    event = np.concatenate([part.event for part in seen])
    known = np.concatenate([part.known for part in own])
    newest_event, newest_known = _time(int(event.max())), _time(int(known.max()))
    age, event_age = now - newest_known, now - newest_event
    p50, p95 = _latency(np.concatenate([part.event for part in own]), known, terms)
    completeness, gaps = _periods(event, terms, moment)
    recent = [part for part in own if part.rows][-DELIVERIES:]
    last_share = recent[-1].refused / recent[-1].rows
    recent_share = sum(part.refused for part in recent) / sum(part.rows for part in recent)
    stopped = _stopped(age, terms)
    wrong = _invalid(recent, terms, p95, completeness, gaps)
    stale = _stale(event_age, terms)
    state = SourceState.UNAVAILABLE if stopped else SourceState.AVAILABLE if wrong else SourceState.VALIDATED
    if state is SourceState.VALIDATED and not stale:
        state = SourceState.SAFE_FOR_AUTOMATION
    return SourceHealth(
        source=source,
        kind=kind,
        rows=len(event) if rows is None else rows,
        newest_event=newest_event,
        newest_known=newest_known,
        age=age,
        event_age=event_age,
        latency_p50=p50,
        latency_p95=p95,
        completeness=completeness,
        refused_last=last_share,
        refused_recent=recent_share,
        gaps=gaps,
        state=state,
        reasons=(*stopped, *wrong, *stale),
        needed=not terms.ended,
    )


def never(source: str, kind: str, *, ended: bool = False) -> SourceHealth:
    """A source of which nothing is known."""
    words = f"nothing of kind {kind} has ever landed" if not source else "nothing of it has landed yet"
    unavailable = SourceState.UNAVAILABLE
    return SourceHealth(
        source, kind, 0, None, None, None, None, None, None, 0.0, 0.0, 0.0, (), unavailable, (words,), not ended
    )


def short(duration: timedelta) -> str:
    """A duration in words of one unit, rounded down to hours or days as a person would say it."""
    if abs(duration) < timedelta(hours=1):
        return f"{duration // timedelta(minutes=1)} min"
    if abs(duration) < timedelta(days=2):
        return f"{duration // timedelta(hours=1)} h"
    return f"{duration // timedelta(days=1)} days"


def _until(delivery: Delivery, moment: int) -> Delivery:
    """The delivery as it was known at a moment; one of which nothing was known has not come yet."""
    if not len(delivery.known) or int(delivery.known.max()) <= moment:
        return delivery
    keep = delivery.known <= moment
    share = float(keep.mean())
    rows = delivery.rows if share else 0
    refused = delivery.refused if share else 0
    return Delivery(rows, refused, delivery.event[keep], delivery.known[keep], delivery.released)


def _stopped(age: timedelta, terms: SourceTerms) -> tuple[str, ...]:
    allowed = expected_within(terms)
    if age <= allowed:
        return ()
    return (f"nothing came for {short(age)}, {write_duration(allowed)} is the most expected",)


def _stale(age: timedelta, terms: SourceTerms) -> tuple[str, ...]:
    if age <= terms.freshness:
        return ()
    return (f"its newest event is {short(age)} old, {write_duration(terms.freshness)} is the most allowed",)


def _invalid(
    recent: Sequence[Delivery],
    terms: SourceTerms,
    p95: timedelta,
    completeness: float,
    gaps: Sequence[tuple[datetime, datetime]],
) -> tuple[str, ...]:
    found = []
    rows, refused = sum(part.rows for part in recent), sum(part.refused for part in recent)
    if refused > terms.refused * rows:
        found.append(f"{refused} of the last {rows} rows are in quarantine, {terms.refused:.3g} of them is the most")
    last = recent[-1]
    # a handful of bad rows in a small delivery is noise; a delivery of nothing else is not
    if last.refused > max(terms.refused * last.rows, FEW if last.refused < last.rows else 0):
        found.append(f"{last.refused} of the {last.rows} rows of the last delivery are in quarantine")
    if completeness < terms.completeness:
        listed = ", ".join(f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}" for start, end in gaps[-_LISTED:])
        found.append(
            f"{completeness:.3g} of what was due is there, {terms.completeness:.3g} is the least; gaps: {listed}"
        )
    if p95 > terms.latency:
        found.append(f"events become known {short(p95)} late, {write_duration(terms.latency)} is the most")
    return tuple(found)


def _latency(event: Ints, known: Ints, terms: SourceTerms) -> tuple[timedelta, timedelta]:
    """Median and 95th percentile of known_at - event_time over the last stretches in which anything became known."""
    since = int(known.max()) - PERIODS * length(terms.frequency)
    delay = (known - event)[known > since]
    middle, high = np.quantile(delay, [0.5, 0.95], method="inverted_cdf").tolist()
    return timedelta(microseconds=int(middle)), timedelta(microseconds=int(high))


def _periods(event: Ints, terms: SourceTerms, moment: int) -> tuple[float, tuple[tuple[datetime, datetime], ...]]:
    """Share of the stretches due that have events, and the runs of those that have none."""
    step = length(terms.frequency)
    end = (moment - length(terms.latency)) // step
    there = np.unique(event // step)
    start = max(end - PERIODS, int(there[0]))
    due = np.arange(start, end)
    if not len(due):
        return 1.0, ()
    missing = due[~np.isin(due, there)]
    runs = np.split(missing, np.flatnonzero(np.diff(missing) > 1) + 1) if len(missing) else []
    gaps = tuple((_time(int(run[0]) * step), _time((int(run[-1]) + 1) * step)) for run in runs)
    return 1.0 - len(missing) / len(due), gaps


def _time(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
