"""One side of a replay, what happened or what would have: its moves, responses, losses and costs as plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from contracts.decisions import DecisionRecord
from contracts.declarations import Declarations
from contracts.monitoring import MonitorDecision, Response, WindowVerdict
from contracts.policy import Costs, Policy
from contracts.rollout import LedgerRow, RowKind
from drift.maturity import matured
from drift.triggers import respond
from lifecycle.policy_replay_course import MOVES, Course, Span, by_person
from lifecycle.policy_replay_history import History
from registry.fold import fold


@dataclass(frozen=True)
class Happening:
    """Something that happened, or would have: `kind` a row's, or retraining, alert; `subject` a version or ""."""

    at: datetime
    kind: str
    subject: str
    reason: str
    outcome: str = ""

    @property
    def words(self) -> str:
        """What happened, in a few words."""
        return " ".join(part for part in (self.kind.replace("_", " "), self.subject, self.outcome) if part)

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes two happenings the same but for their moment."""
        return self.kind, self.subject, self.outcome


@dataclass
class Side:
    """One side: happenings by time, judged windows, decisions, and how many a person had to look at."""

    happenings: list[Happening]
    windows: list[WindowVerdict]
    records: list[DecisionRecord]
    retrains: int = 0
    alarms: int = 0
    reviews: int = 0
    losses: pd.DataFrame = field(default_factory=pd.DataFrame)

    def of(self, *kinds: str) -> list[Happening]:
        """Happenings of these kinds."""
        return [one for one in self.happenings if one.kind in kinds]

    def counts(self) -> dict[str, int]:
        """How often each kind of thing happened."""
        return dict(Counter(one.kind for one in self.happenings))

    def answered(self) -> dict[str, int]:
        """Decisions by the version that answered, or the rung where none did."""
        found = Counter(record.answer.version or record.answer.rung.value for record in self.records)
        return dict(sorted(found.items()))


def recorded_side(history: History, policy: Policy, span: Span) -> Side:
    """What happened in the span, from the ledger, the judged windows and the recorded decisions.

    Args:
        policy: that history ran under; alerts were not written down and follow from the windows by the same rule.
    """
    rows = [row for row in history.rows if span.since <= row.at <= span.until]
    windows = [window for window in history.windows if span.since < window.end <= span.until]
    retrains = [at for at in history.retrains if span.since <= at <= span.until]
    responses = [(window.end, _response(history, policy, window)) for window in windows]
    alarms = _alarms(responses)
    happenings = [*moves(rows), *(Happening(at, "retraining", "", "as recorded") for at in retrains), *alarms]
    records = [record for record in history.records if span.since <= record.as_of < span.until]
    return Side(
        happenings=sorted(happenings, key=lambda one: one.at),
        windows=windows,
        records=records,
        retrains=len(retrains),
        alarms=len(alarms),
        reviews=_reviews(rows, 0),
    )


def replayed_side(course: Course, span: Span) -> Side:
    """What would have happened in the span, from a replay."""
    rows = [row for row in course.rows if row.at >= span.since]
    asked = {at: words.reason for at, words in course.responses if words.response is Response.RETRAIN}
    retrains = [Happening(at, "retraining", "", asked[at]) for at in course.asked]
    alarms = _alarms(course.responses)
    tried = sum(1 for _, words in course.notes if "tried all the same" in words)
    return Side(
        happenings=sorted([*moves(rows), *retrains, *alarms], key=lambda one: one.at),
        windows=course.windows,
        records=[record for record in course.records if span.since <= record.as_of < span.until],
        retrains=len(retrains) + tried,
        alarms=len(alarms),
        reviews=_reviews(rows, len(course.waits)),
    )


def moves(rows: Sequence[LedgerRow]) -> list[Happening]:
    """The rows that say what became of a version, by revision."""
    found = []
    for row in rows:
        outcome = {RowKind.GATED: row.payload.get("outcome"), RowKind.CANARY_STEP: _share(row)}.get(row.kind)
        if row.kind in MOVES or row.kind in (RowKind.GATED, RowKind.APPROVED):
            found.append(Happening(row.at, row.kind.value, row.version, row.reason, str(outcome or "")))
    return found


def _share(row: LedgerRow) -> str:
    return f"to {float(row.payload['share']):.0%}" if "share" in row.payload else ""


def _alarms(responses: Sequence[tuple[datetime, MonitorDecision]]) -> list[Happening]:
    return [Happening(at, "alert", "", one.reason) for at, one in responses if one.response is Response.ALERT]


def _reviews(rows: Sequence[LedgerRow], waits: int) -> int:
    """Holds that a rule made, and approvals given or asked for."""
    held = sum(row.kind is RowKind.HELD and not by_person(row) for row in rows)
    return held + max(waits, sum(row.kind is RowKind.APPROVED for row in rows))


def _response(history: History, policy: Policy, window: WindowVerdict) -> MonitorDecision:
    """What the policy makes of a recorded window, from what was on record at its end."""
    now = window.end
    state = fold([row for row in history.rows if row.at <= now], policy.model)
    since = state.champion_since or window.start
    known = [past for past in history.windows if past.version == window.version and since < past.end <= now]
    retrains = [at for at in history.retrains if at < now]
    unsafe = history.unsafe(now)
    return respond(known, retrains, since, policy, now, unsafe=unsafe, overridden=state.overridden)


def with_losses(side: Side, history: History, policy: Policy, declarations: Declarations, now: datetime) -> Side:
    """The side with each matured decision's loss in the verdict's metric, outcomes as they are known by `now`."""
    metric = policy.rollout.verdict.metric
    measured = policy.model_copy(update={"gate": policy.gate.model_copy(update={"metric": metric})})
    side.losses = matured(side.records, history.labels, measured, declarations, now)
    return side


def cost(side: Side, costs: Costs, total_loss: float) -> dict[str, float]:
    """What a side cost, in the policy's currency: loss of its decisions, trainings, reviews, alarms, and the sum."""
    parts = {
        "loss": costs.loss * total_loss,
        "retrain": costs.retrain * side.retrains,
        "review": costs.review * side.reviews,
        "alarm": costs.alarm * side.alarms,
    }
    return {**parts, "total": sum(parts.values())}


def compared_losses(happened: Side, replayed: Side, policy: Policy) -> dict[str, Any]:
    """Losses of both sides, and of the incumbent rule, on the matured decisions that both sides answered."""
    from models.metrics import headline
    from registry.bootstrap import block_bootstrap

    columns = ["decision_id", "as_of", "loss", "incumbent_loss"]
    again = replayed.losses[["decision_id", "loss"]]
    both = happened.losses[columns].merge(again, on="decision_id", suffixes=("", "_again"))
    first, second = both["loss"].to_numpy(dtype=np.float64), both["loss_again"].to_numpy(dtype=np.float64)
    usable = np.isfinite(first) & np.isfinite(second)
    first, second, kept = first[usable], second[usable], both[usable]
    metric = policy.rollout.verdict.metric
    rule = kept["incumbent_loss"].to_numpy(dtype=np.float64)
    days = kept["as_of"].astype("datetime64[us, UTC]").astype("int64").to_numpy() // 86_400_000_000
    change = block_bootstrap(
        second, first, days, confidence=policy.gate.confidence, root=metric == "rmsse", seed=policy.training.seed
    )
    return {
        "metric": metric,
        "decisions": len(kept),
        "happened": headline(metric, first),
        "replayed": headline(metric, second),
        "incumbent": headline(metric, rule),
        "better_by": change.estimate,
        "better_by_low": change.lower,
        "better_by_high": change.upper,
        "confidence": policy.gate.confidence,
        "answered_otherwise": int((first != second).sum()),
        "total_happened": float(first.sum()),
        "total_replayed": float(second.sum()),
    }
