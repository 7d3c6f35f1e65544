"""Words of monitoring: what a window showed, what the judge found in it, and what the policy makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Health(StrEnum):
    """The judge's word on one window."""

    OK = "ok"
    DRIFT = "drift"
    DEGRADED = "degraded"
    BROKEN = "broken"
    NOT_ENOUGH = "not_enough_data"


@dataclass(frozen=True)
class Finding:
    """One thing the judge saw: kind is broken_data | feature_drift | prediction_drift | performance | calibration."""

    kind: str
    subject: str
    value: float
    bound: float
    words: str


@dataclass(frozen=True)
class WindowVerdict:
    """The judge's verdict on one window [start, end) of one model version; `rows` decisions, `matured` with outcome."""

    model: str
    version: str
    start: datetime
    end: datetime
    health: Health
    findings: tuple[Finding, ...]
    rows: int
    matured: int
    loss: float | None = None
    reference_loss: float | None = None

    @property
    def violation(self) -> bool:
        """True when the window counts towards a retraining: performance got worse than the gate promised."""
        return self.health is Health.DEGRADED


class Response(StrEnum):
    """What the policy makes of the windows so far."""

    NOTHING = "nothing"
    ALERT = "alert"
    RETRAIN = "retrain"


@dataclass(frozen=True)
class MonitorDecision:
    """The policy's response with its reason."""

    response: Response
    reason: str
