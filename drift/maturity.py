"""Which decisions have matured, and what each lost: served answer, incumbent rule and shadow answers, by decision id.

A risk matures when its outcome is known; a forecast when every step is settled: its quantity is known, or it is known
to have none (closed, out of stock), or a later day of the same series is known already. Work is done only for
decisions that a new label or a new record touches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from contracts.decisions import DecisionRecord, ShadowScore
from contracts.declarations import Declarations
from contracts.policy import Policy
from drift.frames import prediction
from drift.labels import Key, LabelBook, microseconds
from drift.losses import Truth, incumbent_answers, losses, served_answers

MATURED_COLUMNS = (
    "decision_id",
    "version",
    "arm",
    "rung",
    "as_of",
    "matured_at",
    "subject",
    "segment",
    "loss",
    "incumbent_loss",
    "actual",
    "prediction",
    "covered",
    "steps",
    "corrections",
)


@dataclass(frozen=True)
class Maturation:
    """What one update did: decisions that matured, matured ones whose loss was corrected, ones held out again because
    labels contradict each other, decisions still waiting, and decisions whose label was known before they were made."""

    matured: int
    corrected: int
    held_out: int
    waiting: int
    known_before: int


class MaturityTracker:
    """Follows the decisions of one model until their outcomes are known.

    Feeding a record, a label or a shadow score again changes nothing. Corrected labels correct the loss in place and
    leave the order of maturity as it was.
    """

    def __init__(self, policy: Policy, declarations: Declarations) -> None:
        self.policy, self.declarations = policy, declarations
        self.book = LabelBook(policy.kind)
        self._records: dict[str, DecisionRecord] = {}
        self._keys: dict[str, list[Key]] = {}
        self._by_label: dict[Key, set[str]] = {}
        self._open: dict[Key, set[str]] = {}
        self._matured: dict[str, dict[str, Any]] = {}
        self._shadow: dict[tuple[str, str], ShadowScore] = {}
        self._shadow_loss: dict[tuple[str, str], float] = {}
        self._versions: dict[str, set[str]] = {}
        self._before: set[str] = set()
        self._frame: pd.DataFrame | None = None

    def update(
        self,
        records: Iterable[DecisionRecord],
        labels: pd.DataFrame,
        now: datetime,
        shadow: Iterable[ShadowScore] = (),
    ) -> Maturation:
        """Take in what is new (or everything again) and settle what can be settled.

        Args:
            records: decisions of the policy's model; others are left out, as are decisions after `now` and
                refused forecasts, which have no step to score.
            labels: see `LabelBook.update`.
            now: the present moment.
            shadow: answers that were not served.

        Returns:
            what changed.
        """
        touched = {record.decision_id for record in records if self._add(record, now)}
        late_scores = self._add_shadow(shadow)
        for key in self.book.update(labels, now):
            touched |= self._by_label.get(key, set())
            if self.policy.kind == "forecast":
                touched |= self._open.get(key[:2], set())
        before, corrected, held = len(self._matured), 0, 0
        ready: list[tuple[DecisionRecord, Truth]] = []
        for decision in sorted(touched):
            record = self._records[decision]
            truth = self._truth(record)
            if truth is not None:
                corrected += decision in self._matured
                ready.append((record, truth))
            elif decision in self._matured:
                held += 1
                self._forget(decision)
        self._settle(ready)
        self._settle_shadow([decision for decision in late_scores if decision in self._matured])
        waiting = len(self._records) - len(self._matured) - len(self._before)
        return Maturation(len(self._matured) - before + held, corrected, held, waiting, len(self._before))

    def frame(self) -> pd.DataFrame:
        """Matured decisions in order of maturity (then of id): the columns MATURED_COLUMNS.

        version: that answered, None for the incumbent rule; subject: text of the decision's keys; segment: text like
        `origin=JFK`; loss, incumbent_loss: mean over scored steps, NaN where there was no answer; actual, prediction:
        mean over scored steps; covered: share of steps inside the widest interval, NaN for a risk.
        """
        if self._frame is None:
            rows = pd.DataFrame.from_records(list(self._matured.values()), columns=list(MATURED_COLUMNS))
            for name in ("as_of", "matured_at"):
                rows[name] = pd.to_datetime(rows[name], utc=True).astype("datetime64[us, UTC]")
            self._frame = rows.sort_values(["matured_at", "decision_id"], kind="stable", ignore_index=True)
        return self._frame

    def pairs(self, challenger: str, champion: str, since: datetime | None = None) -> pd.DataFrame:
        """Losses of two versions on the same matured decisions, whoever of them was served.

        Args:
            challenger, champion: versions. since: leave out decisions before it.

        Returns:
            decision_id, as_of, matured_at, challenger, champion in order of maturity; finite losses only.
        """
        rows = self.frame()
        if since is not None:
            rows = rows[rows["as_of"] >= since]
        found = rows[["decision_id", "as_of", "matured_at"]].copy()
        for name, version in (("challenger", challenger), ("champion", champion)):
            served = rows["loss"].where(rows["version"] == version)
            unserved = [self._shadow_loss.get((decision, version), math.nan) for decision in rows["decision_id"]]
            found[name] = served.fillna(pd.Series(unserved, index=rows.index, dtype=np.float64)).astype(np.float64)
        finite = np.isfinite(found["challenger"].to_numpy()) & np.isfinite(found["champion"].to_numpy())
        kept: pd.DataFrame = found.loc[finite].reset_index(drop=True)
        return kept

    def _add(self, record: DecisionRecord, now: datetime) -> bool:
        if record.model != self.policy.model or record.decision_id in self._records or record.as_of > now:
            return False
        keys = self._label_keys(record)
        if not keys:
            return False
        self._records[record.decision_id] = record
        self._keys[record.decision_id] = keys
        for key in keys:
            self._by_label.setdefault(key, set()).add(record.decision_id)
        if self.policy.kind == "forecast":
            self._open.setdefault(_series(record), set()).add(record.decision_id)
        return True

    def _add_shadow(self, shadow: Iterable[ShadowScore]) -> set[str]:
        added: set[str] = set()
        for score in shadow:
            if score.model != self.policy.model or (score.decision_id, score.version) in self._shadow:
                continue
            self._shadow[(score.decision_id, score.version)] = score
            self._versions.setdefault(score.decision_id, set()).add(score.version)
            added.add(score.decision_id)
        return added

    def _label_keys(self, record: DecisionRecord) -> list[Key]:
        if self.policy.kind == "risk":
            return [(_field(record, "shipment_id"),)]
        series = _series(record)
        return [(*series, step.target_date) for step in record.answer.steps]

    def _truth(self, record: DecisionRecord) -> Truth | None:
        """Actuals of the decision's steps, or None while it has not matured (or never will)."""
        decided, series = microseconds(record.as_of), _series(record) if self.policy.kind == "forecast" else ()
        frontier = self.book.frontier.get(series, "")
        actual: list[float] = []
        known = 0
        early = 0
        keys = self._keys[record.decision_id]
        if self.policy.kind == "forecast" and keys[-1][2] >= frontier and self.book.get(keys[-1]) is None:
            return None
        for key in keys:
            label = self.book.get(key)
            if label is None:
                if self.policy.kind == "risk" or key[2] >= frontier:
                    return None
                actual.append(math.nan)
                continue
            if label.contradictory:
                return None
            early += label.known_us <= decided
            actual.append(math.nan if label.known_us <= decided else label.value)
            known = max(known, label.known_us)
        if early and not np.isfinite(actual).any():
            self._before.add(record.decision_id)
        if not np.isfinite(actual).any():
            return None
        return Truth(np.array(actual, dtype=np.float64), known)

    def _settle(self, ready: Sequence[tuple[DecisionRecord, Truth]]) -> None:
        if not ready:
            return
        records, truths = [record for record, _ in ready], [truth for _, truth in ready]
        metric = self.policy.gate.metric
        answers = [served_answers(record.answer.steps, record.answer.probability) for record in records]
        served = losses(metric, truths, answers, records)
        rule = losses(metric, truths, incumbent_answers(records, self.policy, self.declarations), records)
        for place, (record, truth) in enumerate(ready):
            before = self._matured.get(record.decision_id)
            self._matured[record.decision_id] = {
                "decision_id": record.decision_id,
                "version": record.answer.version,
                "arm": record.route.arm,
                "rung": record.answer.rung.value,
                "as_of": record.as_of,
                "matured_at": before["matured_at"] if before else pd.Timestamp(truth.known_us, unit="us", tz="UTC"),
                "subject": "|".join(record.subject.values()),
                "segment": self._segment(record),
                "loss": served[place],
                "incumbent_loss": rule[place],
                "actual": float(np.nanmean(truth.actual)),
                "prediction": prediction(record.answer.steps, record.answer.probability),
                "covered": answers[place].covered(truth),
                "steps": int(np.isfinite(truth.actual).sum()),
                "corrections": before["corrections"] + 1 if before else 0,
            }
            self._open.get(_series(record) if self.policy.kind == "forecast" else (), set()).discard(record.decision_id)
        self._frame = None
        self._settle_shadow([record.decision_id for record in records])

    def _settle_shadow(self, decisions: Sequence[str]) -> None:
        keys = [(decision, version) for decision in decisions for version in sorted(self._versions.get(decision, ()))]
        scored = [key for key in keys if not self._shadow[key].error]
        records = [self._records[decision] for decision, _ in scored]
        truths = [truth for record in records if (truth := self._truth(record)) is not None]
        answers = [served_answers(self._shadow[key].steps, self._shadow[key].probability) for key in scored]
        found = losses(self.policy.gate.metric, truths, answers, records)
        self._shadow_loss.update(zip(scored, found, strict=True))

    def _forget(self, decision: str) -> None:
        del self._matured[decision]
        for version in self._versions.get(decision, ()):
            self._shadow_loss.pop((decision, version), None)
        if self.policy.kind == "forecast":
            self._open.setdefault(_series(self._records[decision]), set()).add(decision)
        self._frame = None

    def _segment(self, record: DecisionRecord) -> str:
        named = [(name, _field(record, name)) for name in self.policy.gate.segments.by]
        return ",".join(f"{name}={value}" for name, value in named if value)


def _field(record: DecisionRecord, name: str) -> str:
    value = record.subject.get(name, record.request.get(name))
    return "" if value is None else str(value)


def _series(record: DecisionRecord) -> Key:
    return _field(record, "sku"), _field(record, "location")


def matured(
    records: Iterable[DecisionRecord],
    labels: pd.DataFrame,
    policy: Policy,
    declarations: Declarations,
    now: datetime,
) -> pd.DataFrame:
    """Matured decisions of a whole log in one go; see `MaturityTracker.frame`."""
    tracker = MaturityTracker(policy, declarations)
    tracker.update(records, labels, now)
    return tracker.frame()
