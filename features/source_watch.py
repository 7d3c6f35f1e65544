"""The health of a lake's sources and the age of its views, from what landed; reads only what is new since last time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from contracts.declarations import Declarations
from contracts.source_terms import SourceTerms, terms_of
from contracts.times import utc
from features.event_log import Ints, instant, length
from features.gold import GoldStore
from features.landing import Landing, Receipt
from features.online_rows import OnlineFeatures
from features.quarantine import Quarantine
from features.sources import DELIVERIES, PERIODS, Delivery, SourceHealth, never, source_health


@dataclass(frozen=True)
class ViewAge:
    """How old a view is: its newest row (by known_at) and up to when it is online; ages None where there is nothing."""

    view: str
    newest_row: datetime | None
    row_age: timedelta | None
    online_until: datetime | None
    online_age: timedelta | None


class SourceWatch:
    """Looks at the sources of one lake.

    Args:
        landing: where events landed.
        declarations: what the views need, and how sources differ from their contracts.
    """

    def __init__(self, landing: Landing, declarations: Declarations) -> None:
        self._landing, self._declarations = landing, declarations
        self._times: dict[Path, tuple[Ints, Ints]] = {}
        self._looked_at: set[Path] = set()

    def health(self, now: datetime, kinds: Iterable[str] | None = None) -> tuple[SourceHealth, ...]:
        """Every source of every kind of event at a moment, by kind and source.

        Args:
            now: the moment, with a zone.
            kinds: only these; one of which nothing landed is there without a source's name. None: what landed and what
                a declared view needs.
        """
        needed = {view.event for view in self._declarations.views.values()}
        chosen = sorted(set(self._landing.kinds()) | needed) if kinds is None else sorted(set(kinds))
        found: list[SourceHealth] = []
        self._looked_at.clear()
        for kind in chosen:
            found += self._of_kind(kind, utc(now, "now")) or [never("", kind)]
        if kinds is None:
            self._times = {part: self._times[part] for part in self._looked_at}
        return tuple(found)

    def unsafe(self, service: str, now: datetime) -> tuple[str, ...]:
        """Why sources that a feature service needs are not safe for automation, a sentence each; empty when all are."""
        views = self._declarations.services[service].views
        health = self.health(now, {self._declarations.views[name].event for name in views})
        return tuple(
            f"{source.source or 'none'} {source.kind}: {'; '.join(source.reasons)}"
            for source in health
            if not source.safe
        )

    def views(self, now: datetime, gold: GoldStore | None, online: OnlineFeatures | None) -> tuple[ViewAge, ...]:
        """How old the rows of every declared view are, in gold and online; a store that is not given holds nothing."""
        found = []
        for view in self._declarations.views:
            newest = None if gold is None else gold.last_tick(view)
            mark = None if online is None else online.mark(view)
            until = None if mark is None else mark.until
            ages = [None if at is None else utc(now, "now") - at for at in (newest, until)]
            found.append(ViewAge(view, newest, ages[0], until, ages[1]))
        return tuple(found)

    def _of_kind(self, kind: str, now: datetime) -> list[SourceHealth]:
        by_source: dict[str, list[tuple[Path, Receipt]]] = {}
        for part, receipt in self._landing.parts(kind):
            by_source.setdefault(receipt.source, []).append((part, receipt))
        waiting = Quarantine(self._landing).open_rows(kind) if by_source else {}
        found = []
        for source, parts in sorted(by_source.items()):
            terms = terms_of(source, kind, self._declarations.sources)
            deliveries = self._deliveries(parts, waiting, terms, now)
            landed = sum(receipt.landed for _, receipt in parts)
            found.append(source_health(source, kind, deliveries, terms, now, rows=landed))
        return found

    def _deliveries(
        self, parts: list[tuple[Path, Receipt]], waiting: dict[str, int], terms: SourceTerms, now: datetime
    ) -> list[Delivery]:
        """The newest deliveries, as far back as the health of a moment looks, oldest first."""
        window = PERIODS * length(terms.frequency) + length(terms.latency)
        found: list[Delivery] = []
        past: int | None = None
        for part, receipt in reversed(parts):
            event, known = self._read(part)
            released = receipt.released > 0
            found.append(Delivery(receipt.rows_in, waiting.get(receipt.batch, 0), event, known, released))
            if len(known):
                newest = int(known.max())
                past = min(instant(now), newest if past is None else max(past, newest))
                if len(found) >= DELIVERIES and newest < past - window:
                    break
        return found[::-1]

    def _read(self, part: Path) -> tuple[Ints, Ints]:
        times = self._times.get(part)
        if times is None:
            table = pq.ParquetFile(part).read(columns=["event_time", "known_at"])
            event, known = (table[name].to_numpy().astype("M8[us]").view(np.int64) for name in table.column_names)
            times = self._times[part] = (event, known)
        self._looked_at.add(part)
        return times
