"""The trainings that `benchmarks.leakage` compares: one recipe, honest and leaky datings, features and splits.

Everything goes the way of the toolkit: events land in a scratch workspace, views are built, Feast joins the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.declarations import Declarations, GivenFacts, fact_columns
from contracts.errors import NotEnoughData
from contracts.policy import Policy
from contracts.settings import Settings
from contracts.times import SetClock, parse_time
from features.build import build
from features.population import shipment_population
from lifecycle.pipeline import population
from lifecycle.workspace import Workspace
from models import metrics
from models.backtest import fit_rows
from models.design import FrameColumns
from models.folds import capped
from models.risk import RiskModel

MODEL = "late_delivery"
DATINGS = ("honest", "event", "promise", "decision")
ENCODED, ENCODED_KEYS = "late_share_of_key", ["carrier", "origin", "destination"]
FLAGGED, TRAIN_SHARE = 0.1, 0.75
BEGIN, END = parse_time("1970-01-02"), parse_time("2020-01-01")

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Events = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Source:
    """A data set with its example, and the cuts and seeds it is tried at; `period`: how long after a cut is served."""

    name: str
    mapping: Path
    data: Path
    features: Path
    policies: Path
    cuts: tuple[datetime, ...]
    period: timedelta
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Marks:
    """AUC, Brier score, and the share of the late rows that are among the `FLAGGED` share with the highest scores."""

    auc: float
    brier: float
    caught: float


@dataclass(frozen=True)
class Score:
    """One variant at one cut and seed: what its own evaluation says, the same on the served rows, what it serves."""

    variant: str
    cut: datetime
    seed: int
    claimed: Marks
    same_rows: Marks
    served: Marks


@dataclass(frozen=True)
class Yard:
    """The same rows with the features of each dating; `taken`: rows that the toolkit's own training path takes."""

    policy: Policy
    declarations: Declarations
    frames: dict[str, pd.DataFrame]
    taken: dict[str, int]
    features: tuple[str, ...]


def dated(events: Events, dating: str) -> dict[str, pd.DataFrame]:
    """The events as a pipeline with this idea of time would land them.

    Args:
        events: canonical events by kind, as recorded.
        dating: honest (as recorded); event (known_at of all but shipments is ignored); promise, decision (an outcome
            is filed under its shipment's due time, or decision moment, and counts from then on).
    """
    changed = dict(events)
    if dating == "event":
        for kind in set(events) - {"shipment"}:
            changed[kind] = events[kind].assign(known_at=events[kind]["event_time"])
    elif dating != "honest":
        column = {"decision": "event_time", "promise": "promised_at"}[dating]
        moments = events["shipment"].drop_duplicates("shipment_id").set_index("shipment_id")[column]
        at = moments.reindex(events["outcome"]["shipment_id"]).array
        changed["outcome"] = events["outcome"].assign(event_time=at, known_at=at)
    return {kind: frame.sort_values(["known_at", "event_id"], ignore_index=True) for kind, frame in changed.items()}


def workspace(source: Source, events: Events, home: Path) -> Workspace:
    """A scratch workspace in which these events have landed and the model's views are built to their end."""
    settings = Settings(home=home, features=source.features, policies=source.policies)
    ws = Workspace(settings, SetClock(END), durable=False)
    for kind, frame in events.items():
        ws.landing.append(kind, frame, source=source.name, checked=True)
    until = max(frame["known_at"].max() for frame in events.values()) + timedelta(days=2)
    views = ws.declarations.services[ws.policy(MODEL).features].views
    build(ws.declarations, ws.landing, ws.gold, until=until.to_pydatetime(), views=views)
    return ws


def decided(ws: Workspace) -> pd.DataFrame:
    """Every shipment with an outcome that was not yet known at its decision."""
    rows = shipment_population(ws.landing, since=BEGIN, until=END, known_by=END)
    return rows[rows["label"].notna() & (rows["label_known_at"] > rows["as_of"])].reset_index(drop=True)


def trainable(ws: Workspace, now: datetime) -> int:
    """How many rows `seatrial train` would take in this workspace at a moment; 0: it refuses."""
    try:
        return len(population(ws, ws.policy(MODEL), now))
    except NotEnoughData:
        return 0


def joined(source: Source, events: Events, folder: Path) -> Yard:
    """The rows with the features of every dating, each through landing, gold and Feast in a workspace of its own."""
    frames: dict[str, pd.DataFrame] = {}
    taken: dict[str, int] = {}
    features: tuple[str, ...] = ()
    rows = pd.DataFrame()
    for dating in DATINGS:
        ws = workspace(source, dated(events, dating), folder / dating)
        policy = ws.policy(MODEL)
        if dating == "honest":
            rows, features = decided(ws), ws.feast.feature_columns(policy.features)
        facts = [name for group in ws.declarations.services[policy.features].facts for name in fact_columns(group)]
        kept = dict.fromkeys(["as_of", "label", "label_known_at", *ENCODED_KEYS, *features, *facts])
        frames[dating] = ws.feast.training_set(policy.features, rows)[list(kept)]
        taken[dating] = trainable(ws, source.cuts[-1])
    return Yard(policy, ws.declarations, frames, taken, features)


def marks(label: Floats, score: Floats) -> Marks:
    """AUC, Brier score and share of late rows caught, of probabilities (n,) against outcomes (n,) of 0 and 1."""
    flagged = np.argsort(-score, kind="stable")[: int(FLAGGED * len(score))]
    return Marks(metrics.auc(label, score), metrics.brier(label, score), float(label[flagged].sum() / label.sum()))


def answer(model: RiskModel, rows: pd.DataFrame) -> Marks:
    """How a fitted model does on rows with a known label."""
    return marks(rows["label"].to_numpy(dtype=np.float64), model.predict(FrameColumns(rows)))


@dataclass(frozen=True)
class Places:
    """Positions of rows at one cut.

    `train`: decided in the policy's history before the cut and known at it; `early`: decided there, known or not;
    `served`: decided in the period after the cut; `window`: history and period together.
    """

    train: Rows
    early: Rows
    served: Rows
    window: Rows


def places(yard: Yard, cut: datetime, period: timedelta) -> Places:
    """Which rows a model of this cut learns from and which it serves; the same for every dating."""
    rows = yard.frames["honest"]
    since, before = rows["as_of"] >= cut - yard.policy.training.history, rows["as_of"] < cut
    end, known = rows["as_of"] < cut + period, rows["label_known_at"] <= cut
    masks = (since & before & known, since & before, ~before & end, since & end)
    return Places(*(np.flatnonzero(mask.to_numpy()) for mask in masks))


@dataclass(frozen=True)
class Trial:
    """All variants at one cut with one seed, of the sample of rows and of the fit."""

    yard: Yard
    cut: datetime
    seed: int
    at: Places

    def scores(self) -> list[Score]:
        """What every variant claims, and what the model that it ships does on the rows that are served."""
        honest, found = self.yard.frames["honest"], []
        for dating in DATINGS:
            model = self._fit(self.yard.frames[dating], self.at.train)
            said = answer(model, self.yard.frames[dating].iloc[self.at.served])
            found.append(self._score(dating, said, answer(model, honest.iloc[self.at.served])))
        ships = {score.variant: score.served for score in found}
        no_gap = answer(self._fit(honest, self.at.early), honest.iloc[self.at.served])
        found += [self._score("no_gap", no_gap, ships["honest"]), self._encoded()]
        return [
            *found,
            self._shuffled("random", "honest", ships["honest"]),
            self._shuffled("random_decision", "decision", ships["decision"]),
        ]

    def _fit(self, frame: pd.DataFrame, rows: Rows, declarations: Declarations | None = None) -> RiskModel:
        training = self.yard.policy.training.model_copy(update={"seed": self.seed})
        policy = self.yard.policy.model_copy(update={"training": training})
        chosen = frame.iloc[capped(rows, training.row_cap, self.seed)]
        model = fit_rows(policy, chosen, declarations or self.yard.declarations)
        assert isinstance(model, RiskModel)
        return model

    def _score(self, variant: str, claimed: Marks, served: Marks, same_rows: Marks | None = None) -> Score:
        return Score(variant, self.cut, self.seed, claimed, same_rows or claimed, served)

    def _shuffled(self, variant: str, dating: str, ships: Marks) -> Score:
        """A random split of the window; what ships has the dating's features and the rows known at the cut."""
        frame, window = self.yard.frames[dating], self.at.window
        size = min(int(TRAIN_SHARE * len(window)), self.yard.policy.training.row_cap)
        dealt = np.random.default_rng(self.seed).permutation(window)
        model, held = self._fit(frame, np.sort(dealt[:size])), np.sort(dealt[size:])
        same = answer(model, frame.iloc[np.intersect1d(held, self.at.served)])
        return self._score(variant, answer(model, frame.iloc[held]), ships, same)

    def _encoded(self) -> Score:
        """Each carrier and lane's mean label as a feature, over all rows: a row's own label and the served period too.

        When it serves, the same model is given the means over the rows that were known at the cut.
        """
        honest = self.yard.frames["honest"]
        leaky, kept = (
            honest.assign(**{ENCODED: late_share(honest.iloc[p], honest)}) for p in (self.at.window, self.at.train)
        )
        declarations = with_number(self.yard.declarations, self.yard.policy.features, ENCODED)
        model = self._fit(leaky, self.at.train, declarations)
        said, held = (answer(model, frame.iloc[self.at.served]) for frame in (leaky, kept))
        return self._score("encoded", said, held)


def late_share(source: pd.DataFrame, rows: pd.DataFrame) -> Floats:
    """For each of `rows`, (n,): the mean label of its key among the rows of `source`; NaN for a key without any."""
    means = source.groupby(ENCODED_KEYS)["label"].mean()
    keys = pd.MultiIndex.from_frame(rows[ENCODED_KEYS])
    return np.asarray(means.reindex(keys).to_numpy(dtype=np.float64))


def with_number(declarations: Declarations, service: str, name: str) -> Declarations:
    """The declarations with one more number among the service's given facts."""
    old = declarations.services[service]
    new = old.model_copy(update={"facts": (*old.facts, GivenFacts(kind="given", numbers=(name,)))})
    return declarations.model_copy(update={"services": {**declarations.services, service: new}})


def differing(yard: Yard, dating: str, rows: Rows) -> float:
    """Share of rows with at least one feature that is not what was available, in [0, 1]."""
    one, other = (yard.frames[name][list(yard.features)].to_numpy()[rows] for name in (dating, "honest"))
    return float(((one != other) & ~(np.isnan(one) & np.isnan(other))).any(axis=1).mean())


def strongest(frame: pd.DataFrame, columns: tuple[str, ...]) -> float:
    """The best AUC that one column has on its own, whichever way it points, over the rows where it is known."""
    label = frame["label"].to_numpy(dtype=np.float64)
    found = []
    for name in columns:
        values = frame[name].to_numpy(dtype=np.float64)
        known = np.isfinite(values)
        alone = metrics.auc(label[known], values[known])
        found.append(max(alone, 1 - alone))
    return float(np.nanmax(found))
