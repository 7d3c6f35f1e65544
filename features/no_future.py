"""Delete the future: features made again where only what was known by then has landed must come out the same."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from contracts.declarations import Declarations, fact_columns, view_columns
from contracts.settings import Settings
from features.audit_why import same
from features.build import build
from features.event_log import Events
from features.feast_store import FeatureRepo
from features.gold import GoldStore
from features.landing import Landing

Progress = Callable[[str, float], None]
MOMENTS = 3
ROWS_A_MOMENT = 50


@dataclass(frozen=True)
class Change:
    """A value that came out different without the future; NaN is missing."""

    row_id: str
    as_of: datetime
    column: str
    given: float
    without: float


@dataclass(frozen=True)
class NoFuture:
    """What the test found: rows and cells compared, the moments at which the future was deleted, and what changed."""

    rows: int
    cells: int
    moments: tuple[datetime, ...]
    changes: tuple[Change, ...] = ()


def delete_the_future(
    declarations: Declarations,
    service: str,
    landing: Events,
    rows: pd.DataFrame,
    *,
    moments: int = MOMENTS,
    rows_a_moment: int = ROWS_A_MOMENT,
    seed: int = 0,
    progress: Progress | None = None,
) -> NoFuture:
    """Make a sample's features again, each as_of in a scratch workspace in which later events never landed.

    For each chosen moment every event with known_at or event_time after it is left out, and the rest goes the same way
    as always: landing, build, Feast's point-in-time join. Rows of that as_of are made again, and the newest of the
    earlier ones: nothing that lands later may change them either.

    Args:
        declarations, service, landing: as the training set was made with.
        rows: row_id, as_of (UTC), join keys, request fields, and the service's columns.
        moments: how many values of as_of; the earliest and the latest are left to the audit's edges.
        rows_a_moment: cap on rows for each.
        seed: of the random choice.
        progress: called with words and the share done.
    """
    rng = np.random.default_rng(seed)
    times = rows["as_of"].drop_duplicates().sort_values()
    chosen = sorted(times.iloc[rng.permutation(len(times))[:moments]])
    cells, checked, changes = 0, 0, list[Change]()
    for done, stamp in enumerate(chosen):
        moment = stamp.floor("us").to_pydatetime().astimezone(UTC)
        if progress is not None:
            progress(f"without what came after {moment:%Y-%m-%d %H:%M}", done / len(chosen))
        until = rows[rows["as_of"] <= stamp].sort_values("as_of", kind="stable")
        exact = until[until["as_of"] == stamp]
        exact = exact.iloc[np.sort(rng.permutation(len(exact))[: max(rows_a_moment // 2, 1)])]
        before = until[until["as_of"] < stamp].tail(rows_a_moment - len(exact))
        some = pd.concat([before, exact])
        columns = _columns(declarations, service)
        again = _made_again(declarations, service, landing, some.drop(columns=columns), moment)
        checked, cells = checked + len(some), cells + len(some) * len(columns)
        changes += _changes(some, again, columns)
    return NoFuture(checked, cells, tuple(stamp.to_pydatetime() for stamp in chosen), tuple(changes))


def _columns(declarations: Declarations, service: str) -> list[str]:
    """Columns that a training set gains: the views' and the facts' that are no fields of the rows themselves."""
    declared = declarations.services[service]
    values = [f"{view}__{name}" for view in declared.views for name in view_columns(declarations.views[view])]
    facts = [name for group in declared.facts if group.kind != "given" for name in fact_columns(group)]
    return [*values, *facts]


def _made_again(
    declarations: Declarations, service: str, landing: Events, rows: pd.DataFrame, moment: datetime
) -> pd.DataFrame:
    views = declarations.services[service].views
    with tempfile.TemporaryDirectory(prefix="seatrial-no-future-") as folder:
        settings = Settings(home=Path(folder))
        scratch, gold = Landing(settings.lake), GoldStore(settings.lake / "gold", durable=False)
        for kind in dict.fromkeys(declarations.views[view].event for view in views):
            events = landing.read(kind)
            past = events[(events["known_at"] <= moment) & (events["event_time"] <= moment)]
            scratch.append(kind, past, source="audit", checked=True)
        build(declarations, scratch, gold, until=moment, views=views)
        repo = FeatureRepo(settings, declarations, gold=gold)
        repo.apply()
        return repo.training_set(service, rows)


def _changes(given: pd.DataFrame, again: pd.DataFrame, columns: list[str]) -> list[Change]:
    found = []
    for column in columns:
        left, right = (frame[column].to_numpy(dtype=np.float64, na_value=np.nan) for frame in (given, again))
        for row in np.flatnonzero(~((left == right) | (np.isnan(left) & np.isnan(right)))).tolist():
            if not same(float(left[row]), float(right[row])):
                moment = pd.Timestamp(given["as_of"].iloc[row]).to_pydatetime()
                row_id = str(given["row_id"].iat[row])
                found.append(Change(row_id, moment, column, float(left[row]), float(right[row])))
    return found
