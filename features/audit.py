"""The leakage audit: a training set's values against brute force over the landed events, cell by cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from contracts.declarations import Declarations, View, fact_columns, join_keys, view_columns
from contracts.errors import TimeInvalid, UnknownName
from features.audit_events import LandedEvents, chosen, edges
from features.audit_facts import NEEDED, plain_facts
from features.audit_values import Key, read_view
from features.audit_why import Detective, SourceEvent, Why, same
from features.event_log import Events

Progress = Callable[[str, float], None]
SAMPLE = 40
MOST_EDGES = 120
EXPLAINED = 20
NOT_EXPLAINED = Why("not looked into: enough others were explained")


@dataclass(frozen=True)
class Difference:
    """A cell that is not what the landed events give.

    `given`: what the training set says; `wanted`: what brute force says; NaN is missing. `events`: the landed events
    that explain the given value.
    """

    row_id: str
    as_of: datetime
    view: str
    column: str
    given: float
    wanted: float
    why: str
    events: tuple[SourceEvent, ...] = ()


@dataclass(frozen=True)
class Audit:
    """What the audit found.

    Attributes:
        rows: distinct rows that were recomputed; each view has its own choice of them.
        cells: values compared.
        edges: view -> kind of edge -> rows of the whole training set that sit on it.
        edges_left_out: view -> rows on an edge beyond the cap, which were not recomputed.
        differences: every cell that differs.
    """

    rows: int
    cells: int
    edges: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    edges_left_out: Mapping[str, int] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether something was compared and nothing differs."""
        return self.cells > 0 and not self.differences


def audit(
    declarations: Declarations,
    service: str,
    landing: Events,
    rows: pd.DataFrame,
    *,
    sample: int = SAMPLE,
    most_edges: int = MOST_EDGES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Audit:
    """Recompute rows of a training set from landed events, by brute force, and compare every feature.

    Rows are chosen for each view: `sample` at random, and those on an edge (`audit_events.edges`) up to `most_edges`;
    how many edge rows there are and how many were left out is reported. With `most_edges` 0 no edges are looked for,
    and the first and last rows join the random ones.

    Args:
        declarations: the feature repository's declarations.
        service: the feature service that the training set was made with.
        landing: where the events landed.
        rows: row_id, as_of (UTC), the join keys, the columns that `FeatureRepo.training_set` gives, and perhaps label.
        sample: random rows a view.
        most_edges: cap on edge rows a view.
        seed: of the random choice.
        progress: called with each view's name and the share of views done.

    Raises:
        UnknownName: no such service, or a column is missing.
        TimeInvalid: as_of without a zone.
    """
    if service not in declarations.services:
        raise UnknownName("feature service", service, declarations.services)
    declared = declarations.services[service]
    _check(declarations, service, rows)
    run = _Run(declarations, landing, rows.reset_index(drop=True), sample, most_edges, np.random.default_rng(seed))
    for done, name in enumerate(declared.views):
        if progress is not None:
            progress(name, done / len(declared.views))
        run.view(name)
    run.facts(service)
    if progress is not None:
        progress("", 1.0)
    return run.found()


class _Run:
    """One audit under way."""

    def __init__(
        self,
        declarations: Declarations,
        landing: Events,
        rows: pd.DataFrame,
        sample: int,
        most_edges: int,
        rng: np.random.Generator,
    ) -> None:
        self._declarations, self._landing, self._rows = declarations, landing, rows
        self._sample, self._most_edges, self._rng = sample, most_edges, rng
        self._labels = rows["label"].to_numpy(dtype=np.float64) if "label" in rows.columns else None
        self._events: dict[str, LandedEvents] = {}
        self._random = np.sort(rng.permutation(len(rows))[:sample])
        self._used: set[int] = set()
        self._cells = 0
        self._edges: dict[str, dict[str, int]] = {}
        self._left_out: dict[str, int] = {}
        self._differences: list[Difference] = []

    def _moment(self, row: int) -> datetime:
        """as_of of a row; a moment between two microseconds is the earlier one, at which no more is known."""
        return pd.Timestamp(self._rows["as_of"].iloc[row]).floor("us").to_pydatetime().astimezone(UTC)

    def view(self, name: str) -> None:
        """Audit one view."""
        view = self._declarations.views[name]
        if view.event not in self._events:
            self._events[view.event] = LandedEvents(self._landing, view.event)
        events = self._events[view.event]
        columns = view_columns(view)
        values = self._rows[[f"{name}__{column}" for column in columns]].to_numpy(dtype=np.float64, na_value=np.nan)
        keys = [self._rows[key].to_numpy(dtype=object) for key in join_keys(view)]
        for row in self._choice(name, view, events).tolist():
            key = tuple(None if pd.isna(part[row]) else part[row] for part in keys)
            self._row(name, view, events, row, key, values[row])

    def _choice(self, name: str, view: View, events: LandedEvents) -> npt.NDArray[np.int64]:
        if not self._most_edges or self._rows.empty:
            moments = self._rows["as_of"].reset_index(drop=True)
            ends = [int(moments.argmin()), int(moments.argmax())] if len(moments) else []
            return np.unique(np.concatenate([self._random, np.array(ends, dtype=np.int64)]))
        kinds = edges(view, self._rows, events)
        on_edge = int(np.any(list(kinds.values()), axis=0).sum())
        taken = chosen(kinds, self._most_edges, self._rng)
        self._edges[name] = {kind: int(flags.sum()) for kind, flags in kinds.items() if flags.any()}
        self._left_out[name] = on_edge - len(taken)
        return np.unique(np.concatenate([self._random, taken]))

    def _row(
        self, name: str, view: View, events: LandedEvents, row: int, key: Key, given: npt.NDArray[np.float64]
    ) -> None:
        as_of, columns = self._moment(row), view_columns(view)
        reading = read_view(view, events.of(view, key, as_of, future=False), key, as_of)
        wanted = (math.nan,) * len(columns) if reading is None else reading.values
        self._used.add(row)
        self._cells += len(columns)
        wrong = [place for place in range(len(columns)) if not same(float(given[place]), wanted[place])]
        if not wrong:
            return
        detective: Detective | None = None
        if len({(found.row_id, found.view) for found in self._differences}) < EXPLAINED:
            label = None if self._labels is None else float(self._labels[row])
            detective = Detective(view, events.of(view, key, as_of, future=True), key, as_of, label)
        for place in wrong:
            value = float(given[place])
            why = NOT_EXPLAINED if detective is None else detective.explain(columns[place], value)
            self._differ(row, name, f"{name}__{columns[place]}", value, wanted[place], why)

    def facts(self, service: str) -> None:
        """Audit the request facts of the random rows."""
        for group in self._declarations.services[service].facts:
            names = fact_columns(group) if group.kind != "given" else ()
            for row in self._random.tolist() if names else ():
                asked = {name: _plain(self._rows[name].iat[row]) for name in NEEDED[group.kind]}
                wanted = plain_facts(group, asked | {"as_of": self._moment(row)})
                self._used.add(row)
                for name in names:
                    self._cells += 1
                    given = _number(self._rows[name].iat[row])
                    if not same(given, wanted[name]):
                        why = Why("does not follow from the row's own fields")
                        self._differ(row, group.kind, name, given, wanted[name], why)

    def _differ(self, row: int, view: str, column: str, given: float, wanted: float, why: Why) -> None:
        row_id = str(self._rows["row_id"].iat[row])
        self._differences.append(
            Difference(row_id, self._moment(row), view, column, given, wanted, why.words, why.events)
        )

    def found(self) -> Audit:
        """What was found so far."""
        return Audit(len(self._used), self._cells, self._edges, self._left_out, tuple(self._differences))


def _check(declarations: Declarations, service: str, rows: pd.DataFrame) -> None:
    declared = declarations.services[service]
    needed = ["row_id", "as_of"]
    for name in declared.views:
        view = declarations.views[name]
        needed += [*join_keys(view), *(f"{name}__{column}" for column in view_columns(view))]
    for group in declared.facts:
        needed += [*NEEDED[group.kind], *fact_columns(group)]
    for name in needed:
        if name not in rows.columns:
            raise UnknownName("column of a training set", name, [str(column) for column in rows.columns])
    if not isinstance(rows["as_of"].dtype, pd.DatetimeTZDtype):
        raise TimeInvalid("as_of", f"a column of {rows['as_of'].dtype}", "times with a zone")


def _plain(value: Any) -> Any:
    if value is None or value is pd.NaT or value is pd.NA or value != value:
        return None
    return value.to_pydatetime() if isinstance(value, pd.Timestamp) else value


def _number(value: Any) -> float:
    return math.nan if value is None or value is pd.NA else float(value)
