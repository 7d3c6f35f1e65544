"""A small registry to try things on: real ledger, artifacts and snapshots in a folder, tiny sealed models."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from contracts.evaluation import Evaluation, TrainedModel
from contracts.policy import Policy
from contracts.rollout import Criterion, LedgerRow, OnlineEvidence, Outcome, RolloutState, RowKind, Verdict
from contracts.times import SetClock
from registry.artifacts import ArtifactStore
from registry.ledger import GENESIS, Ledger, RowDraft, chained
from registry.mlflow_store import MlflowProjection
from registry.promotion import Registrar
from registry.rollout import next_action
from registry.sql_ledger import SqlLedger

START = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = "late_delivery"


def policy(**change: object) -> Policy:
    """A risk policy with small numbers; `change` replaces whole sections."""
    sections: dict[str, object] = {
        "model": MODEL,
        "kind": "risk",
        "owner": {"team": "inbound"},
        "business": {"hypothesis": "fewer expedited shipments", "metric": "expedite spend"},
        "features": "late_delivery_v1",
        "incumbent": "rolling_late_rate",
        "gate": {
            "metric": "brier",
            "beat": {"champion": 0.0, "incumbent": 0.02},
            "min_rows": 100,
            "segments": {"by": ["origin"], "min_rows": 50, "max_regression": 0.05},
            "calibration": {"ece_max": 0.08},
        },
        "rollout": {
            "shadow": {"min_decisions": 50, "min_days": 2},
            "canary": {"key": "lane", "steps": [10, 50], "bake": "1d"},
            "guardrails": {"error_rate": 0.01, "fallback_rate": 0.05, "p99_ms": 100, "min_decisions": 30},
            "verdict": {"metric": "brier", "alpha": 0.05, "min_pairs": 100, "margin": 0.02, "deadline": "30d"},
        },
    }
    return Policy.model_validate({**sections, **change})


def verdict(outcome: Outcome = Outcome.PASS) -> Verdict:
    """A gate verdict of one criterion."""
    return Verdict(outcome, (Criterion("rows", outcome, 500.0, 100.0, f"the gate says {outcome}"),))


def evidence(
    *, decisions: int = 400, days: float = 5.0, pairs: int = 400, gain: float = 0.05, errors: int = 0, seed: int = 1
) -> OnlineEvidence:
    """A challenger's record; `gain`: how much lower its loss is on average (losses around 0.2)."""
    rng = np.random.default_rng(seed)
    champion = rng.beta(2, 8, pairs)
    challenger = np.clip(champion - gain + rng.normal(0, 0.03, pairs), 0, 1)
    return OnlineEvidence(
        decisions, days, tuple(challenger), tuple(champion), errors, 0, p99_ms=10.0, slow=0, prediction_psi=0.05
    )


def evaluation(
    *, rows: int = 400, candidate: float = 0.15, incumbent: float = 0.2, champion: float = 0.2, seed: int = 3
) -> Evaluation:
    """A backtest whose losses have these means, over 20 days and two origins."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-0.05, 0.05, rows)
    losses = pd.DataFrame(
        {
            "row_id": [f"r{i}" for i in range(rows)],
            "as_of": pd.to_datetime([START + timedelta(days=i * 20 // max(rows, 1)) for i in range(rows)], utc=True),
            "origin": pd.Timestamp(START),
            "candidate": candidate + noise,
            "incumbent": incumbent + noise * 0.9,
            "champion": champion + noise * 0.8,
            "segment_origin": ["JFK" if i % 2 else "LGA" for i in range(rows)],
        }
    )
    source = {"source": "erp", "kind": "outcome", "state": "safe for automation", "reasons": ""}
    audited = {"rows": 6, "cells": 240, "differing": 0, "derived": [], "implausible": [], "example": ""}
    dataset: dict[str, object] = {"hash": "d", "rows": rows, "leakage_audit": audited, "sources": [source]}
    dataset["hash_by_side"] = dict.fromkeys(("candidate", "incumbent", "champion"), "e" * 64)
    return Evaluation(losses, pd.DataFrame(), "brier", dataset, {"ece": 0.03}, candidate)


def trained(folder: Path, name: str) -> TrainedModel:
    """A tiny model of plain files; another `name` gives other bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(json.dumps({"format": 1, "name": name}))
    (folder / "booster.txt").write_text(f"tree\nversion=v4\nname={name}\n" + "leaf_value=0.1 0.2\n" * 20)
    return TrainedModel(MODEL, "risk", folder, evaluation(), START, START, 400, "d" * 64)


def chain(*steps: tuple[RowKind, str, dict[str, object]], model: str = MODEL) -> tuple[LedgerRow, ...]:
    """Ledger rows made directly, an hour apart."""
    rows: list[LedgerRow] = []
    for number, (kind, version, payload) in enumerate(steps, start=1):
        at = START + timedelta(hours=number)
        draft = RowDraft(model, kind, version, at, "ann", "because", f"q{number}", payload)
        rows.append(chained(draft, number, rows[-1].hash if rows else GENESIS))
    return tuple(rows)


class World:
    """A workspace folder with a registrar over it; opening it again is a new process's view of the same files."""

    def __init__(self, home: Path, *, ledger: Ledger | None = None, mlflow: MlflowProjection | None = None) -> None:
        self.home, self.policy = home, policy()
        self.clock = SetClock(START)
        self.ledger = ledger or SqlLedger(f"sqlite:///{home / 'ledger.db'}")
        self.artifacts = ArtifactStore(home / "artifacts")
        self.registrar = Registrar(self.ledger, self.artifacts, home / "serving", mlflow, self.clock, "seatrial")

    @property
    def state(self) -> RolloutState:
        """The rollout's state."""
        return self.registrar.state(MODEL)

    def later(self, days: float) -> None:
        """Let time pass."""
        self.clock.set(self.clock.now() + timedelta(days=days))

    def register(self, name: str, outcome: Outcome | None = Outcome.PASS) -> str:
        """Register a model and, unless None, record its gate."""
        model = trained(self.home / "trained" / name, name)
        version = self.registrar.register(model, self.policy, f"run-{name}", "f" * 64, "code")
        if outcome is not None:
            self.registrar.record_gate(self.policy, version, verdict(outcome))
        return version

    def advance(self, seen: OnlineEvidence | None = None) -> RolloutState:
        """One turn of the loop: decide and apply."""
        action = next_action(self.state, self.policy, None, seen, self.clock.now(), bound=1.0)
        return self.registrar.apply(action, self.policy, seen)

    def crown(self, name: str) -> str:
        """Take a model all the way to champion."""
        version = self.register(name)
        for _ in range(8):
            if self.state.champion == version:
                return version
            self.later(6)
            self.advance(evidence())
        raise AssertionError(f"{version} did not get there: {self.state}")


def changed(row: LedgerRow, **change: object) -> LedgerRow:
    """A row with something altered and its hash left as it was."""
    return replace(row, **change)  # type: ignore[arg-type]
