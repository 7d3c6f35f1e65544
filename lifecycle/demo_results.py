"""What a demo found: each voyage's end, and the summary of all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from contracts.policy import Policy
from contracts.rollout import Move
from lifecycle.http_check import HttpCheck
from lifecycle.live_scores import LiveRows
from lifecycle.loop import Story
from lifecycle.skew import Skew


@dataclass(frozen=True)
class Voyaged:
    """One voyage's end: its story, scores and the rows behind them, and what HTTP answered."""

    policy: Policy
    story: Story
    rows: LiveRows
    scores: dict[str, float]
    http: HttpCheck
    outcomes: int


@dataclass
class Demo:
    """Everything a finished demo knows."""

    title: str
    voyages: list[Voyaged] = field(default_factory=list)
    replayed: int = 0
    mismatches: list[str] = field(default_factory=list)
    duration_s: float = 0.0
    skews: dict[str, Skew] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """The figures of `.seatrial/reports/demo.json`."""
        stories = [voyage.story for voyage in self.voyages]

        def total(move: Move) -> int:
            return sum(story.count(move) for story in stories)

        return {
            "title": self.title,
            "decisions": sum(len(story.records) for story in stories),
            "outcomes": sum(voyage.outcomes for voyage in self.voyages),
            "events_landed": sum(story.landed for story in stories),
            "events_quarantined": sum(story.quarantined for story in stories),
            "trainings": sum(len(story.trials) for story in stories),
            "retrains": sum(story.retrains for story in stories),
            "promotions": total(Move.PROMOTE),
            "rejections": total(Move.REJECT),
            "rollbacks": total(Move.ROLL_BACK),
            "holds": total(Move.HOLD),
            "row_guarantee_violations": sum(story.guarantee_violations for story in stories),
            "replayed": self.replayed,
            "replay_mismatches": len(self.mismatches),
            "skew_decisions": sum(skew.decisions for skew in self.skews.values()),
            "skew_features": sum(len(skew.features) for skew in self.skews.values()),
            "skew_pure_differing": sum(one.pure for skew in self.skews.values() for one in skew.over(0.0)),
            "skew_differing": sum(len(skew.over(0.0)) for skew in self.skews.values()),
            "http_compared": sum(voyage.http.compared for voyage in self.voyages),
            "http_different": sum(len(voyage.http.different) for voyage in self.voyages),
            "metrics": {voyage.policy.model: voyage.scores for voyage in self.voyages},
            "by_model": {voyage.policy.model: _by_model(voyage) for voyage in self.voyages},
            "duration_s": round(self.duration_s, 1),
        }


def _by_model(voyage: Voyaged) -> dict[str, Any]:
    story = voyage.story
    return {
        "decisions": len(story.records),
        "trainings": len(story.trials),
        "promotions": story.count(Move.PROMOTE),
        "rejections": story.count(Move.REJECT),
        "rollbacks": story.count(Move.ROLL_BACK),
        "windows": len(story.windows),
        "violations": sum(window.violation for window in story.windows),
        "incumbent_rung": sum(record.answer.rung == "incumbent" for record in story.records),
        "refusals": sum(record.answer.rung == "refuse" for record in story.records),
    }
