"""Served decisions beside the offline join: reads the log, asks Feast for the same moments, compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

import numpy as np
import pandas as pd

from contracts.decisions import DecisionRecord, ViewRead
from contracts.declarations import PromotionPlan, fact_columns, join_keys, view_columns
from contracts.errors import NotEnoughData
from contracts.policy import Policy
from features.audit_events import LandedEvents
from features.audit_values import read_view
from features.skew import FeatureSkew, Seen, Stored, compare, likely_cause
from lifecycle.progress import Progress, quiet
from lifecycle.workspace import Workspace


@dataclass(frozen=True)
class Skew:
    """What a comparison found: decisions compared, those left out because the feature definitions have changed since,
    rows whose facts were taken from a landed shipment, and the features."""

    decisions: int
    other_features: int
    from_landed: int
    features: tuple[FeatureSkew, ...]

    def over(self, max_share: float) -> tuple[FeatureSkew, ...]:
        """Features that differ too much: pure facts at all, others in more than `max_share` of the rows."""
        return tuple(one for one in self.features if one.differing and (one.pure or one.share > max_share))


@dataclass(frozen=True)
class _Row:
    """One compared row: its decision, step ahead (1 for a risk) and the reads of its views."""

    record: DecisionRecord
    step: int
    reads: dict[str, ViewRead]


def skew_of(ws: Workspace, policy: Policy, *, sample: int, seed: int = 0, progress: Progress = quiet) -> Skew:
    """Compare what a model's decisions were served with the offline join at each decision's moment.

    Args:
        ws: the workspace; nothing in it is changed but Feast's registry, which is made to say what is declared.
        policy: of the model.
        sample: number of decisions, at random; all when there are fewer.
        seed: of the random choice.
        progress: told (stage, share).

    Raises:
        NotEnoughData: no decision was served with the present feature definitions.
    """
    from drift.log_source import LogSource

    progress("decisions", 0.0)
    logged = LogSource(ws.settings.decisions, policy.model).records()
    present = [record for record in logged if record.features_hash == ws.features_hash(policy)]
    if not present:
        raise NotEnoughData(f"decisions of {policy.model} on the present feature definitions", 1, 0)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(present))[:sample])
    run = _Comparison(ws, policy, [present[place] for place in chosen.tolist()])
    progress("point-in-time join", 0.3)
    features = run.views()
    progress("facts", 0.8)
    features += run.facts()
    progress("compared", 1.0)
    return Skew(len(chosen), len(logged) - len(present), run.from_landed, features)


class _Comparison:
    """The rows of some decisions, as served and as the offline side has them."""

    def __init__(self, ws: Workspace, policy: Policy, records: Sequence[DecisionRecord]) -> None:
        self._ws, self._policy = ws, policy
        self._declared = ws.declarations.services[policy.features]
        self._rows: list[_Row] = []
        served = [self._served(record) for record in records]
        self._frame = pd.DataFrame({name: np.concatenate([one[name] for one in served]) for name in served[0]})
        for record in records:
            steps = range(self._horizon(record))
            self._rows += [_Row(record, step + 1, self._reads(record, step)) for step in steps]
        self._frame["row_id"] = [f"{row.record.decision_id}|{row.step}" for row in self._rows]
        self._frame["as_of"] = pd.DatetimeIndex([row.record.as_of for row in self._rows]).as_unit("us")
        self._events: dict[str, LandedEvents] = {}
        self._gold: dict[str, pd.DataFrame] = {}
        self.from_landed = 0

    def _horizon(self, record: DecisionRecord) -> int:
        return int(record.request["horizon"]) if record.kind == "forecast" else 1

    def _served(self, record: DecisionRecord) -> dict[str, Any]:
        """The columns that the model was given, by the handler's own code from the record alone."""
        from serving.assemble import columns_for

        columns = columns_for(
            record.kind,
            record.request,
            record.views,
            self._policy.features,
            self._ws.declarations,
            record.as_of,
            self._horizon(record),
        )
        return {name: values for name, values in columns.items() if name != "as_of"}

    def _reads(self, record: DecisionRecord, step: int) -> dict[str, ViewRead]:
        """The read of each view for one step: a plan is read once a step, other views once."""
        found: dict[str, ViewRead] = {}
        for name in self._declared.views:
            reads = [read for read in record.views if read.view == name]
            plan = isinstance(self._ws.declarations.views[name], PromotionPlan)
            found[name] = reads[step if plan else 0]
        return found

    def _asked(self) -> pd.DataFrame:
        """The rows for the offline join: the keys as they were asked for, the decision's moment."""
        asked = self._frame.copy()
        asked["target_date"] = [_target(row) for row in self._rows]
        declared = self._ws.declarations.views
        known = {f"{name}__{column}" for name in self._declared.views for column in view_columns(declared[name])}
        facts = {name for group in self._declared.facts if group.kind != "given" for name in fact_columns(group)}
        return asked.drop(columns=[name for name in asked.columns if name in known | facts])

    def views(self) -> tuple[FeatureSkew, ...]:
        """Features that are stored."""
        offline = self._ws.feast.training_set(self._policy.features, self._asked())
        first = np.array([row.step == 1 for row in self._rows])
        found: tuple[FeatureSkew, ...] = ()
        for name in self._declared.views:
            view = self._ws.declarations.views[name]
            # what is read once a decision counts once, however many steps it was used for
            rows = np.arange(len(first)) if isinstance(view, PromotionPlan) else np.flatnonzero(first)
            features = [f"{name}__{column}" for column in view_columns(view)]

            def cause(place: int, _feature: str, name: str = name, rows: Any = rows) -> tuple[str, str]:
                return self._cause(name, int(rows[place]))

            found += compare(self._frame.iloc[rows], offline.iloc[rows], features, pure=False, cause=cause)
        return found

    def _cause(self, name: str, row: int) -> tuple[str, str]:
        view = self._ws.declarations.views[name]
        read = self._rows[row].reads[name]
        return likely_cause(Seen(read.status, read.event_time), self._stored(name, row), view.ttl)

    def _stored(self, name: str, row: int) -> Stored | None:
        """The gold row that the join finds, by looking at all rows of the key."""
        view, as_of = self._ws.declarations.views[name], self._rows[row].record.as_of
        fields = self._rows[row].record.request | {"target_date": _target(self._rows[row])}
        key = tuple(fields.get(part) for part in join_keys(view))
        if name not in self._gold:
            self._gold[name] = self._ws.gold.read(name)
        gold = self._gold[name]
        mine = (gold["event_time"] <= as_of) & (gold["known_at"] <= as_of)
        for part, value in zip(join_keys(view), key, strict=True):
            mine &= gold[part] == value
        usable = gold[mine].sort_values(["event_time", "known_at"], kind="stable")
        if usable.empty or as_of - usable["event_time"].iloc[-1] > view.ttl:
            return None
        newest = usable.iloc[-1]
        if view.event not in self._events:
            self._events[view.event] = LandedEvents(self._ws.landing, view.event)
        events = self._events[view.event]
        reading = read_view(view, events.of(view, key, as_of, future=False), key, as_of)
        behind = () if reading is None else events.landed_behind([e["event_id"] for e in reading.events], as_of)
        return Stored(newest["event_time"].to_pydatetime(), newest["known_at"].to_pydatetime(), behind)

    def facts(self) -> tuple[FeatureSkew, ...]:
        """Features that follow from the request: recomputed from the landed shipment where it has landed."""
        from features.facts import fact_values

        names = [name for group in self._declared.facts for name in fact_columns(group)]
        if not names:
            return ()
        columns = {name: self._frame[name].to_numpy() for name in self._frame.columns if name not in names}
        given = {name for group in self._declared.facts if group.kind == "given" for name in fact_columns(group)}
        columns |= {name: self._frame[name].to_numpy() for name in given}
        columns["target_date"] = np.array([_target(row) for row in self._rows])
        columns["as_of"] = self._frame["as_of"].dt.tz_convert(None).to_numpy(dtype="M8[us]")
        offline = pd.DataFrame(fact_values(self._declared.facts, columns | self._landed(columns)))
        return compare(self._frame, offline, names, pure=True)

    def _landed(self, columns: dict[str, Any]) -> dict[str, Any]:
        """Fields of the landed shipments as known at each decision, the request's own where none had landed."""
        names = [row.record.request.get("shipment_id") for row in self._rows]
        landed = self._ws.landing.read("shipment")
        landed = landed[landed["shipment_id"].isin([name for name in names if name is not None])]
        if landed.empty:
            return {}
        landed = landed.sort_values("known_at", kind="stable")
        by_id: dict[Any, pd.DataFrame] = dict(list(landed.groupby("shipment_id", sort=False)))
        fields = [name for name in columns if name in landed.columns]
        found = {name: columns[name].copy() for name in fields}
        for place, (name, row) in enumerate(zip(names, self._rows, strict=True)):
            versions = by_id.get(name)
            usable = None if versions is None else versions[versions["known_at"] <= row.record.as_of]
            if usable is None or usable.empty:
                continue
            self.from_landed += 1
            for field in fields:
                found[field][place] = _as_asked(usable[field].iat[-1], found[field].dtype)
        return found


def _target(row: _Row) -> str:
    day = row.record.as_of.astimezone(UTC).date() + timedelta(days=row.step - 1)
    return day.isoformat()


def _as_asked(value: Any, dtype: Any) -> Any:
    """A landed value as a request has it: times as datetime64 without zone, missing numbers as NaN."""
    if dtype.kind == "M":
        return np.datetime64("NaT", "us") if pd.isna(value) else value.tz_convert(None).to_datetime64()
    if dtype.kind == "f":
        return np.nan if pd.isna(value) else float(value)
    return None if pd.isna(value) else value
