"""A small recorded history of a risk model: real decisions, shadow scores, windows and ledger, three tiny versions.

The parts that run live made it; only training is short: a version learns from drawn rows, some with wrong labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from contracts.canonical import canonical_json
from contracts.decisions import DecisionRecord
from contracts.declarations import Declarations
from contracts.evaluation import Evaluation, TrainedModel
from contracts.monitoring import Response
from contracts.policy import Policy, Training
from contracts.rollout import Stage
from contracts.settings import Settings
from contracts.times import SetClock
from drift.monitor import Monitor
from drift.profile import write_profile
from drift.psi import measure
from lifecycle.rollouts import advance, under_trial
from lifecycle.workspace import Workspace
from models.design import FrameColumns, design_spec
from models.incumbent import rate_views, rolling_late_rate
from models.metrics import ece, risk_losses
from models.risk import RiskModel, fit_risk
from registry.gate import gate
from registry.promotion import Registrar

START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS, PER_DAY = 24, 20
END = START + timedelta(days=DAYS)
MODEL, SERVICE = "late_delivery", "late_delivery_v1"
CARRIERS: tuple[str, ...] = ("UA", "DL", "AA", "WN", "AS", "B6")
# Share of wrong labels that a version learns from: the first is so so, the second good, the third worse than both.
WRONG = (0.35, 0.0, 0.48)

FEATURES = """\
project: policy_yard
views:
  carrier_rates: {kind: outcome_rates, keys: [carrier], tick: 1d, ttl: 3d, windows: [30]}
services:
  late_delivery_v1:
    views: [carrier_rates]
    facts:
      - {kind: given, categories: [carrier]}
"""
POLICY = """\
model: late_delivery
kind: risk
owner: {team: logistics, notify: ["mailto:owner@example.org"]}
business: {hypothesis: fewer late boxes, metric: money}
features: late_delivery_v1
incumbent: rolling_late_rate
training: {origins: 1, rounds: 20}
gate:
  metric: brier
  beat: {champion: -0.05, incumbent: -0.9}
  confidence: 0.9
  min_rows: 200
rollout:
  shadow: {min_decisions: 40, min_days: 3}
  canary: {key: lane, steps: [20, 60], bake: 2d}
  guardrails: {p99_ms: 10000, prediction_shift_psi: 9.0, min_decisions: 5, window: 4d}
  verdict: {metric: brier, alpha: 0.2, min_pairs: 60, margin: 0.1, deadline: 20d}
drift: {window: 4d, every: 4d, min_rows: 30, performance: 3.0}
retrain:
  when: {violations: 2, of_last: 3, max_age: 4d}
  veto: none
  cooldown: 4d
  budget: {runs: 4, per: 60d}
"""


@dataclass
class PolicyYard:
    """The folder of a workspace with that history in it."""

    root: Path

    @property
    def settings(self) -> Settings:
        """Where its parts are."""
        return Settings(
            home=self.root / "home", policies=self.root / "policies", features=self.root / "features", actor="tests"
        )

    def environment(self) -> dict[str, str]:
        """What the command line needs to work on it."""
        known = self.settings
        return {
            "SEATRIAL_HOME": str(known.home),
            "SEATRIAL_POLICIES": str(known.policies),
            "SEATRIAL_FEATURES": str(known.features),
            "SEATRIAL_CLOCK": f"{END + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}",
        }

    def workspace(self, at: datetime = END + timedelta(days=1)) -> Workspace:
        """The workspace, opened at a moment, without MLflow."""
        clock = SetClock(at)
        ws = Workspace(self.settings, clock)
        parts = (ws.ledger, ws.artifacts, self.settings.serving, None, clock, "tests")
        ws.__dict__["registrar"] = Registrar(*parts)
        return ws


def drawn(rng: np.random.Generator, at: Sequence[datetime], wrong: float = 0.0) -> pd.DataFrame:
    """Shipments with their carrier's late rate, and whether they were late; `wrong`: share of labels turned over."""
    rows = len(at)
    rate = rng.uniform(0.02, 0.95, rows)
    late = rng.random(rows) < 0.05 + 0.8 * rate
    turned = rng.random(rows) < wrong
    return pd.DataFrame(
        {
            "row_id": [f"r{place}" for place in range(rows)],
            "as_of": pd.DatetimeIndex(list(at)).as_unit("us"),
            "carrier": rng.choice(CARRIERS, rows),
            "origin": rng.choice(["JFK", "EWR", "LGA"], rows),
            "destination": rng.choice(["ATL", "ORD", "LAX", "SFO"], rows),
            "carrier_rates__late_rate_30": rate,
            "carrier_rates__delay_mean_30": 30 * rate,
            "carrier_rates__n_30": 30.0,
            "label": np.where(turned, ~late, late).astype(float),
        }
    )


def fitted(declarations: Declarations, number: int) -> RiskModel:
    """Version `number`, from 1."""
    rows = drawn(np.random.default_rng(number), [START - timedelta(days=9)] * 900, WRONG[number - 1])
    columns = FrameColumns(rows)
    spec = design_spec("risk", declarations, SERVICE, rows)
    return fit_risk(spec, columns, rows["label"].to_numpy(), Training(rounds=20))


def backtested(
    folder: Path, policy: Policy, declarations: Declarations, now: datetime, models: Sequence[RiskModel]
) -> Evaluation:
    """The newest of `models` (the one before it is the champion) on 30 days of drawn shipments, kept in its folder."""
    moments = [now - timedelta(days=31) + timedelta(days=place // 20) for place in range(600)]
    rows = drawn(np.random.default_rng(77), moments)
    actual, columns = rows["label"].to_numpy(), FrameColumns(rows)
    said = models[-1].predict(columns)
    table = rows[["row_id", "as_of"]].assign(origin=rows["as_of"].min())
    rule = rolling_late_rate(columns, rate_views(declarations, SERVICE))
    table["candidate"], table["incumbent"] = risk_losses("brier", actual, said), risk_losses("brier", actual, rule)
    before = models[-2].predict(columns) if len(models) > 1 else np.full(len(rows), np.nan)
    table["champion"] = risk_losses("brier", actual, before)
    plain: dict[str, Any] = {
        "loss": "brier",
        "reference_loss": float(table["candidate"].mean()),
        "calibration": {"ece": ece(actual, said)},
        "metrics": [],
        "dataset": {
            "rows": len(rows),
            "hash": "d",
            "leakage_audit": {"rows": 5, "cells": 100, "differing": 0},
            "sources": [{"source": "tms", "kind": "outcome", "state": "safe for automation", "reasons": ""}],
            "hash_by_side": dict.fromkeys(("candidate", "incumbent", "champion"), "d"),
        },
    }
    table.to_parquet(folder / "losses.parquet", index=False)
    (folder / "evaluation.json").write_text(canonical_json(plain))
    known = {name: plain[name] for name in ("loss", "dataset", "calibration", "reference_loss")}
    found = Evaluation(losses=table, metrics=pd.DataFrame(), **known)
    write_profile(folder, rows, said, policy, declarations, evaluation=found)
    return found


class Voyage:
    """Lives through the days of a yard: asks, outcomes, shadow, rollout, judge, a new version when one is wanted."""

    def __init__(self, yard: PolicyYard) -> None:
        self.ws = yard.workspace(START)
        self.root, self.clock = yard.root, self.ws.clock
        self.policy = self.ws.policy(MODEL)
        self.monitor = Monitor(yard.settings, self.policy, self.ws.declarations, distance=measure)
        self.rng = np.random.default_rng(5)
        self.models: list[RiskModel] = []
        self.watched = START
        self.late: dict[str, bool] = {}

    def sail(self) -> None:
        """From the first version to the end."""
        with self.ws.closing():
            self.train(START)
            for day in range(DAYS):
                now = START + timedelta(days=day)
                fresh = self.decide(now + timedelta(hours=6))
                self.day_ends(now + timedelta(days=1), fresh)

    def train(self, now: datetime) -> None:
        """The next version: registered, gated, and its rollout's first move."""
        number = len(self.models) + 1
        if number > len(WRONG):
            return
        folder = self.root / "trained" / f"v{number}"
        self.models.append(fitted(self.ws.declarations, number))
        self.models[-1].save(folder)
        found = backtested(folder, self.policy, self.ws.declarations, now, self.models)
        trained = TrainedModel(MODEL, "risk", folder, found, now, now, 900, "d" * 64)
        features = self.ws.features_hash(self.policy)
        registrar = self.ws.registrar
        version = registrar.register(trained, self.policy, f"run-{number}", features, self.ws.revision)
        champion = registrar.state(MODEL).champion
        verdict = gate(found, self.policy, has_champion=champion is not None, now=now)
        registrar.record_gate(self.policy, version, verdict)
        advance(self.ws, self.policy, now, verdict=verdict)

    def decide(self, now: datetime) -> list[DecisionRecord]:
        """A day's shipments, after the day's late rates went online; their outcomes land at its end."""
        self.clock.set(now)  # type: ignore[attr-defined]
        rates = dict(zip(CARRIERS, self.rng.permutation(np.linspace(0.05, 0.9, len(CARRIERS))), strict=True))
        rows = {
            "carrier": list(rates),
            "late_rate_30": list(rates.values()),
            "delay_mean_30": [30 * rate for rate in rates.values()],
            "n_30": [30.0] * len(rates),
        }
        at = pd.Timestamp(now - timedelta(hours=6))
        self.ws.online.write("carrier_rates", ("carrier",), pd.DataFrame(rows).assign(event_time=at, known_at=at))
        items = []
        for place in range(PER_DAY):
            carrier = str(self.rng.choice(CARRIERS))
            name = f"s{now:%m%d}-{place}"
            self.late[name] = bool(self.rng.random() < 0.05 + 0.8 * rates[carrier])
            lane = {"origin": str(self.rng.choice(["JFK", "EWR", "LGA"]))}
            lane["destination"] = str(self.rng.choice(["ATL", "ORD", "LAX", "SFO"]))
            promised = (now + timedelta(hours=8)).isoformat()
            items.append({"shipment_id": name, "carrier": carrier, "promised_at": promised, **lane})
        return self.ws.handler.score(MODEL, {"items": items})

    def day_ends(self, now: datetime, fresh: list[DecisionRecord]) -> None:
        """What the loop does at midnight."""
        self.clock.set(now)  # type: ignore[attr-defined]
        self.land(now, fresh)
        state = self.ws.registrar.state(MODEL)
        if under_trial(state):
            self.ws.shadow.run_once()
        self.monitor.update(self.ws.landing, now, records=fresh)
        if state.stage in (Stage.SHADOW, Stage.CANARY):
            advance(self.ws, self.policy, now, evidence=self.monitor.evidence(state, now))
        if now - self.watched >= self.policy.drift.every:
            self.watched, state = now, self.ws.registrar.state(MODEL)
            unsafe = self.ws.sources.unsafe(SERVICE, now)
            _, response = self.monitor.run(state, now, unsafe=unsafe)
            if response.response is Response.RETRAIN and not under_trial(state):
                self.ws.registrar.request_retrain(self.policy, response.reason, f"{now:%Y-%m-%d}")
                self.train(now)

    def land(self, now: datetime, fresh: list[DecisionRecord]) -> None:
        """How the day's shipments ended, known two hours before its end."""
        names = [record.subject["shipment_id"] for record in fresh]
        known = pd.Timestamp(now - timedelta(hours=2))
        events = {
            "event_id": [f"e-{name}" for name in names],
            "event_time": known,
            "known_at": known,
            "shipment_id": names,
            "carrier": [record.subject["carrier"] for record in fresh],
            "late": [self.late[name] for name in names],
            "source_system": "tms",
        }
        self.ws.landing.append("outcome", pd.DataFrame(events), source="tms")


def sailed_yard(root: Path) -> PolicyYard:
    """A yard with its history in it."""
    for folder, name, text in (("features", "features.yaml", FEATURES), ("policies", f"{MODEL}.yaml", POLICY)):
        (root / folder).mkdir(parents=True)
        (root / folder / name).write_text(text)
    yard = PolicyYard(root)
    Voyage(yard).sail()
    return yard
