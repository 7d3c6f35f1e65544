"""The real histories of `benchmarks.risk`, through landing, feature views and Feast as in `seatrial train`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pandas as pd

from contracts.declarations import Declarations, fact_columns
from contracts.mapping import load_mapping
from contracts.policy import Policy
from contracts.rehearsal import load_rehearsal
from contracts.settings import Settings
from contracts.times import SetClock, parse_time
from features.build import build
from features.importer import stage
from features.population import shipment_population
from lifecycle.demo_data import data_folder
from lifecycle.workspace import Workspace

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
BEGIN, END = parse_time("1970-01-02"), parse_time("2020-01-01")
PERIODS, TEST_SHARE = 6, 0.3


@dataclass(frozen=True)
class History:
    """A data set with the example that maps it, and the policy to train by.

    `bands`: view of late rates by a band of the request, whose rate alone is a rule of the trade; `most`: a seeded
    sample of the decisions when there are more.
    """

    name: str
    model: str
    mapping: Path
    data: Path
    features: Path
    policies: Path
    bands: str | None = None
    most: int = 80_000


@dataclass(frozen=True)
class Trainable:
    """Decisions with features as of each, label and when it became known; ordered by time.

    `columns`: of the views; `facts`: of the request; `cuts`: PERIODS + 1 moments, the starts of the test periods and
    the end of the last.
    """

    history: History
    policy: Policy
    declarations: Declarations
    rows: pd.DataFrame
    columns: tuple[str, ...]
    facts: tuple[str, ...]
    cuts: tuple[pd.Timestamp, ...]

    @property
    def categories(self) -> tuple[str, ...]:
        """Facts that are text."""
        return tuple(name for name in self.facts if self.rows[name].dtype == object)


def histories() -> Mapping[str, History]:
    """The data sets by their short names."""
    data = Path(os.environ.get("SEATRIAL_DATA", ROOT.parent / "shared" / "data"))
    demo = EXAMPLES / "demo"
    voyage = next(each for each in load_rehearsal(demo / "demo.yaml").voyages if each.model == "late_delivery")
    scms, usaid = EXAMPLES / "scms", EXAMPLES / "usaid"
    return {
        "scms": History(
            name="SCMS late deliveries",
            model="late_delivery",
            mapping=scms / "deliveries.yaml",
            data=data / "scms_delivery_history" / "SCMS_Delivery_History_Dataset.csv",
            features=scms / "features",
            policies=scms / "policies",
        ),
        "flights": History(
            name="NYC flights over 15 minutes late",
            model="late_delivery",
            mapping=demo / voyage.mapping,
            data=data_folder(voyage),
            features=ROOT / "features" / "repo",
            policies=ROOT / "policies",
        ),
        "usaid": History(
            name="USAID stock-outs next month",
            model="stockout",
            mapping=usaid / "risk.yaml",
            data=data / "usaid_contraceptive_lmis" / "contraceptive_logistics_data.csv",
            features=usaid / "features",
            policies=usaid / "policies",
            bands="cover_rates",
        ),
    }


def trainable(history: History) -> Trainable:
    """Land the history in a scratch workspace, build its views, and join every decision with what was known at it."""
    events = stage(load_mapping(history.mapping), history.data).events
    with tempfile.TemporaryDirectory(prefix="seatrial-risk-") as home:
        settings = Settings(home=Path(home), features=history.features, policies=history.policies)
        ws = Workspace(settings, SetClock(END), durable=False)
        for kind, frame in events.items():
            ws.landing.append(kind, frame, source=history.model, checked=True)
        policy = ws.policy(history.model)
        service = ws.declarations.services[policy.features]
        until = max(frame["known_at"].max() for frame in events.values()) + timedelta(days=2)
        build(ws.declarations, ws.landing, ws.gold, until=until.to_pydatetime(), views=service.views)
        asked = sampled(decided(ws), history.most, policy.training.seed)
        rows = ws.feast.training_set(policy.features, asked)
        facts = tuple(name for group in service.facts for name in fact_columns(group))
        return Trainable(
            history, policy, ws.declarations, rows, ws.feast.feature_columns(policy.features), facts, cuts(rows)
        )


def decided(ws: Workspace) -> pd.DataFrame:
    """Every decision with an outcome that was not yet known at it."""
    rows = shipment_population(ws.landing, since=BEGIN, until=END, known_by=END)
    return rows[rows["label"].notna() & (rows["label_known_at"] > rows["as_of"])].reset_index(drop=True)


def sampled(rows: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """At most so many of the rows, a seeded random subset in the order of time."""
    chosen = rows.sample(most, random_state=seed) if len(rows) > most else rows
    return chosen.sort_values(["as_of", "row_id"], kind="stable").reset_index(drop=True)


def cuts(rows: pd.DataFrame) -> tuple[pd.Timestamp, ...]:
    """Starts of the test periods and the end of the last: the last 30% of the time, in six parts of one length."""
    first, last = rows["as_of"].min(), rows["as_of"].max()
    start = first + (last - first) * (1 - TEST_SHARE)
    edges = [start + (last - start) * (number / PERIODS) for number in range(PERIODS)]
    return (*edges, last + pd.Timedelta(1, "us"))
