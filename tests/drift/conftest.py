"""Real records, policies and labels for the watchers' tests; no data set is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.decisions import Answer, DecisionRecord, Route, Rung, ShadowScore, Step, ViewRead
from contracts.declarations import Declarations, load_declarations, view_columns
from contracts.policy import Policy, load_policy

ROOT = Path(__file__).resolve().parents[2]
START = datetime(2026, 3, 1, tzinfo=UTC)
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


@pytest.fixture(scope="session")
def declarations() -> Declarations:
    return load_declarations(ROOT / "features" / "repo")


@pytest.fixture(scope="session")
def risk_policy() -> Policy:
    return load_policy(ROOT / "policies" / "late_delivery.yaml")


@pytest.fixture(scope="session")
def demand_policy() -> Policy:
    return load_policy(ROOT / "policies" / "demand.yaml")


def _route(version: str | None, arm: Any) -> Route:
    return Route(arm=arm, version=version, key="k", bucket=0.5, share=0.0, reason="test", revision=1)


def _record(name: str, model: str, kind: Any, at: datetime, answer: Answer, **more: Any) -> DecisionRecord:
    return DecisionRecord(
        decision_id=name, request_id=name, request_hash="h", model=model, kind=kind, as_of=at, answer=answer,
        manifest_sha256=None, features_hash="f", policy_hash="p", code_revision="c", latency_ms=2.0, **more,
    )  # fmt: skip


@pytest.fixture(scope="session")
def risk_records(declarations: Declarations) -> Callable[..., list[DecisionRecord]]:
    """Factory of late_delivery decisions, `n` of them evenly over `days`; `shift` moves every lane late rate."""

    def make(
        n: int, *, seed: int = 1, start: datetime = START, days: float = 14.0, shift: float = 0.0,
        version: str | None = "v1", arm: str = "champion", drop: Sequence[str] = (), probability: Any = None,
        answer: Answer | None = None, prefix: str = "d",
    ) -> list[DecisionRecord]:  # fmt: skip
        draw = np.random.default_rng(seed)
        views = [name for name in declarations.services["late_delivery_v1"].views if name not in drop]
        made = []
        for place in range(n):
            base = float(draw.beta(4, 12)) + shift
            reads = []
            for name in views:
                values = {c: float(draw.normal(15, 4)) for c in view_columns(declarations.views[name])}
                values |= {c: base for c in values if c.startswith("late_rate")}
                values |= {c: 30.0 for c in values if c.startswith("n_")}
                reads.append(ViewRead(view=name, values=values, event_time=start, age_s=60.0, status="present"))
            said = base if probability is None else float(probability[place])
            carrier, origin = str(draw.choice(["UA", "DL", "AA"])), str(draw.choice(["JFK", "LGA"]))
            name = f"{prefix}{seed}-{place}"
            fields = {"shipment_id": name, "carrier": carrier, "origin": origin, "destination": "ATL"}
            rung = Rung.CANARY if arm == "canary" else Rung.CHAMPION
            made.append(
                _record(
                    name, "late_delivery", "risk", start + timedelta(days=days * place / n),
                    answer or Answer(rung=rung, version=version, probability=said),
                    subject=fields, request={**fields, "distance_km": float(draw.gamma(5, 200))},
                    views=tuple(reads), route=_route(version, arm),
                )
            )  # fmt: skip
        return made

    return make


@pytest.fixture(scope="session")
def outcomes() -> Callable[..., pd.DataFrame]:
    """Factory of outcomes of risk decisions, known a day later; late by the given probabilities or flags."""

    def make(records: Sequence[DecisionRecord], late: Any, delay: timedelta = timedelta(days=1)) -> pd.DataFrame:
        known = [record.as_of + delay for record in records]
        ids = [record.subject["shipment_id"] for record in records]
        frame = pd.DataFrame({"shipment_id": ids, "late": np.asarray(late, bool)})
        frame["known_at"] = pd.DatetimeIndex(known, tz="UTC").as_unit("us")
        return frame

    return make


@pytest.fixture(scope="session")
def forecast_record(declarations: Declarations) -> Callable[..., DecisionRecord]:
    """Factory of one demand decision: lags all 10, mean 10 unless said otherwise."""

    def make(name: str = "f1", *, at: datetime = START, mean: float = 10.0, steps: int = 14, sku: str = "milk") -> Any:
        history = dict.fromkeys(view_columns(declarations.views["demand_history"]), 10.0)
        history |= {"naive_rmse": 2.0, "scale": 10.0}
        reads = [ViewRead(view="demand_history", values=history, event_time=at, age_s=0.0, status="present")]
        dates = [(at + timedelta(days=k)).date().isoformat() for k in range(steps)]
        reads += [ViewRead(view="promotion_plan", values={}, status="missing") for _ in dates]
        quantiles = {repr(level): mean + 4 * (level - 0.5) for level in LEVELS}
        answer = tuple(Step(target_date=date, mean=mean, quantiles=quantiles) for date in dates)
        return _record(
            name, "demand", "forecast", at, Answer(rung=Rung.CHAMPION, version="v1", steps=answer),
            subject={"sku": sku, "location": "L1"}, request={"sku": sku, "location": "L1", "horizon": steps},
            views=tuple(reads), route=_route("v1", "champion"),
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def demand() -> Callable[..., pd.DataFrame]:
    """Factory of daily labels: quantity by date, each known at the day's end."""

    def make(quantities: dict[str, float], sku: str = "milk", later: timedelta = timedelta(days=1)) -> pd.DataFrame:
        dates = list(quantities)
        known = [datetime.fromisoformat(date).replace(tzinfo=UTC) + later for date in dates]
        return pd.DataFrame(
            {
                "sku": sku,
                "location": "L1",
                "target_date": dates,
                "quantity": list(quantities.values()),
                "known_at": pd.DatetimeIndex(known, tz="UTC").as_unit("us"),
            }
        )

    return make


@pytest.fixture(scope="session")
def shadow_of() -> Callable[..., list[ShadowScore]]:
    """Factory of a version's unserved answers to risk decisions."""

    def make(records: Sequence[DecisionRecord], version: str, probability: Any, error: str = "") -> list[ShadowScore]:
        return [
            ShadowScore(r.decision_id, r.model, version, r.as_of, probability=None if error else float(p), error=error)
            for r, p in zip(records, np.broadcast_to(probability, len(records)), strict=True)
        ]

    return make
