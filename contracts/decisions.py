"""Requests, features as served, routes, rungs, and the record from which a decision can be replayed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from contracts.yaml_file import Strict

RECORD_FORMAT = 1
Status = Literal["present", "stale", "missing"]


class Rung(StrEnum):
    """Where an answer came from, best first."""

    CHAMPION = "champion"
    CANARY = "canary"
    PREVIOUS_CHAMPION = "previous_champion"
    INCUMBENT = "incumbent"
    REFUSE = "refuse"


class ViewRead(Strict):
    """One feature view as read online for one key.

    `values`: column -> value, None where unknown; `event_time`: of the row, None when missing; `age_s`: seconds from
    event_time to the decision.
    """

    view: str
    values: dict[str, float | None]
    event_time: datetime | None = None
    age_s: float | None = None
    status: Status


class Route(Strict):
    """Who was to answer and why. `bucket`: the key's place in [0, 1); `share`: the canary's share at that moment."""

    arm: Literal["champion", "canary", "none"]
    version: str | None
    key: str
    bucket: float
    share: float
    reason: str
    revision: int


class Step(Strict):
    """Forecast of one target date: mean and quantiles in units; quantile levels are the keys, as text."""

    target_date: str
    mean: float
    quantiles: dict[str, float]


class Answer(Strict):
    """What was answered. Exactly one of `steps` (forecast) and `probability` (risk), or neither on a refusal.

    `rung`: where it came from; `version`: the model version that made it, None for the incumbent rule and a refusal;
    `degraded`: reasons why it is not the routed model's full answer, empty when it is.
    """

    rung: Rung
    version: str | None = None
    steps: tuple[Step, ...] = ()
    probability: float | None = None
    reasons: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()


class DecisionRecord(Strict):
    """Everything needed to make the same answer again, and to say what differs when it does not come out the same."""

    format: int = RECORD_FORMAT
    decision_id: str
    request_id: str
    request_hash: str
    model: str
    kind: Literal["forecast", "risk"]
    as_of: datetime
    subject: dict[str, str]
    request: dict[str, Any]
    views: tuple[ViewRead, ...]
    route: Route
    answer: Answer
    manifest_sha256: str | None
    features_hash: str
    policy_hash: str
    code_revision: str
    latency_ms: float = 0.0
    provenance: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class ShadowScore:
    """A challenger's answer to a decision that another version answered; never served."""

    decision_id: str
    model: str
    version: str
    as_of: datetime
    steps: tuple[Step, ...] = ()
    probability: float | None = None
    error: str = ""
