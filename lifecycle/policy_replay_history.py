"""Recorded history of one model, read for a replay: ledger, decisions, outcomes, windows, candidates' backtests."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

import pandas as pd

from contracts.decisions import DecisionRecord, ShadowScore
from contracts.errors import NotEnoughData
from contracts.evaluation import Evaluation
from contracts.monitoring import WindowVerdict
from contracts.policy import Policy
from contracts.rollout import LedgerRow, RowKind
from drift.landed_labels import LandedLabels
from drift.log_source import LogSource
from drift.monitor import Monitor
from lifecycle.workspace import Workspace
from registry.artifacts import verify
from serving.answers import Model


class History:
    """What a workspace recorded of one model; everything is read once, nothing is written.

    Args:
        ws: the workspace.
        policy: of the model, for its kind and name; thresholds in it do not matter here.

    Attributes:
        rows: the ledger's, by revision. records: decisions, by time. shadow: unserved answers.
        windows: judged windows. retrains: when retrainings were asked for.
    """

    def __init__(self, ws: Workspace, policy: Policy) -> None:
        self.ws, self.policy = ws, policy
        self.rows: tuple[LedgerRow, ...] = tuple(ws.ledger.rows(policy.model))
        if not self.rows:
            raise NotEnoughData(f"ledger rows of {policy.model}", 1, 0)
        source = LogSource(ws.settings.decisions, policy.model)
        self.records: list[DecisionRecord] = sorted(source.records(), key=lambda record: record.as_of)
        self.shadow: list[ShadowScore] = source.shadow()
        monitor = Monitor(ws.settings, policy, ws.declarations)
        self.windows: list[WindowVerdict] = monitor.watcher.log.verdicts()
        self.retrains: list[datetime] = [row.at for row in self.rows if row.kind is RowKind.RETRAIN_REQUESTED]
        self._landed: dict[str, pd.DataFrame] = {}
        self._unsafe: dict[datetime, tuple[str, ...]] = {}

    @property
    def first(self) -> datetime:
        """When the first version was registered."""
        return min(row.at for row in self.registrations)

    @property
    def last(self) -> datetime:
        """The last thing that was recorded: a decision, a ledger row or a judged window."""
        moments = [self.rows[-1].at, *(window.end for window in self.windows[-1:])]
        return max([*moments, *(record.as_of for record in self.records[-1:])])

    @cached_property
    def registrations(self) -> list[LedgerRow]:
        """The rows by which versions came, in order."""
        return [row for row in self.rows if row.kind is RowKind.REGISTERED]

    def read(self, kind: str, *, known_by: datetime | None = None) -> pd.DataFrame:
        """Landed labels of the recorded decisions, every version of each; what is known when is told by known_at."""
        if kind not in self._landed:
            self._landed[kind] = self._of_decisions(self.ws.landing.read(kind, known_by=known_by))
        return self._landed[kind]

    @cached_property
    def labels(self) -> pd.DataFrame:
        """The same as labels, see `LabelBook.update`."""
        return LandedLabels(self.policy.kind).new(self)

    def _of_decisions(self, landed: pd.DataFrame) -> pd.DataFrame:
        if self.policy.kind == "risk":
            wanted = {record.subject.get("shipment_id") for record in self.records}
            return landed[landed["shipment_id"].isin(wanted)].reset_index(drop=True)
        series = {(record.subject.get("sku", ""), record.subject.get("location", "")) for record in self.records}
        known = pd.MultiIndex.from_tuples(sorted(series) or [("", "")])
        asked = pd.MultiIndex.from_frame(landed[["sku", "location"]]).isin(known)
        recent = landed["event_time"] >= self.records[0].as_of - timedelta(days=1) if self.records else asked
        return landed[asked & recent].reset_index(drop=True)

    @cached_property
    def evaluations(self) -> dict[str, Evaluation]:
        """Each version's backtest, from its sealed artifact."""
        from models.training import read_evaluation

        return {row.version: read_evaluation(self._folder(row)) for row in self.registrations}

    def models(self) -> dict[str, Model]:
        """Every registered version, verified and loaded.

        Raises:
            ArtifactRefused: a version's files are gone or are not what was registered.
        """
        from models.load import load_model

        found: dict[str, Model] = {}
        for row in self.registrations:
            folder = self._folder(row)
            verify(folder, str(row.payload["manifest_sha256"]))
            found[row.version] = load_model(folder)
        return found

    def unsafe(self, now: datetime) -> tuple[str, ...]:
        """Why sources were not safe for automation at a moment, from what had landed and was known by then."""
        if now not in self._unsafe:
            self._unsafe[now] = self.ws.sources.unsafe(self.policy.features, now)
        return self._unsafe[now]

    def _folder(self, row: LedgerRow) -> Path:
        return self.ws.artifacts.path(row.model, row.version)
