"""What each version would have answered to each recorded decision, scored again in batches from the records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from contracts.decisions import DecisionRecord, Rung, Step
from contracts.declarations import Declarations
from contracts.errors import SeatrialError
from lifecycle.progress import Progress
from models.forecaster import ForecastModel
from serving.answers import Model, try_model
from serving.assemble import Plan, columns_for, history_failure, plan_for
from serving.ladder import Attempt

CHUNK = 2000
_CHANGED = "features_changed: the decision was made on other feature declarations"


@dataclass(frozen=True)
class _Answers:
    """One version's answers to one chunk: means and quantiles by place in the log, and failures by place."""

    levels: tuple[str, ...]
    mean: Mapping[int, Any] = field(default_factory=dict)
    quantiles: Mapping[int, Any] = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)


class Scores:
    """Answers of versions to recorded decisions.

    Args:
        records: one model's decisions, in the order of `attempt`'s places.
        declarations: views and services of today; a decision made on others cannot be scored again.
        service: the feature service.
    """

    def __init__(self, records: Sequence[DecisionRecord], declarations: Declarations, service: str) -> None:
        self.records, self._declarations = records, declarations
        self.plan: Plan = plan_for(declarations, service)
        self._features = declarations.service_hash(service)
        self._dates: dict[int, tuple[str, ...]] = {}
        self._found: dict[str, list[_Answers]] = {}

    @property
    def unusable(self) -> int:
        """How many decisions were made on feature declarations that are not today's."""
        return sum(record.features_hash != self._features for record in self.records)

    def score(self, models: Mapping[str, Model], progress: Progress) -> None:
        """Let every version answer every decision; columns are made once a decision, whatever the versions."""
        self._found = {version: [] for version in models}
        for start in range(0, len(self.records), CHUNK):
            self._chunk(start, self.records[start : start + CHUNK], models)
            progress("scoring versions", min(1.0, (start + CHUNK) / len(self.records)))

    def attempt(self, place: int, version: str, rung: Rung) -> Attempt:
        """What the version answers to the decision at a place of `records`, or why it does not."""
        found = self._found[version][place // CHUNK]
        if failure := found.failures.get(place):
            answer = self.records[place].answer
            if failure == _CHANGED and answer.version == version:
                return Attempt(rung=rung, version=version, steps=answer.steps, probability=answer.probability)
            return Attempt(rung=rung, version=version, failure=failure)
        if not found.levels:
            return Attempt(rung=rung, version=version, probability=float(found.mean[place][0]))
        rows = zip(self._dates[place], found.mean[place].tolist(), found.quantiles[place].tolist(), strict=True)
        steps = tuple(
            Step.model_construct(target_date=date, mean=mean, quantiles=dict(zip(found.levels, row, strict=True)))
            for date, mean, row in rows
        )
        return Attempt(rung=rung, version=version, steps=steps)

    def reproduced(self) -> tuple[int, int]:
        """Recorded answers of versions that came out again to the last bit, and how many there are."""
        answers = [(place, record.answer) for place, record in enumerate(self.records)]
        told = [(place, answer) for place, answer in answers if answer.version in self._found]
        again = [self.attempt(place, str(answer.version), answer.rung) for place, answer in told]
        pairs = zip(again, (answer for _, answer in told), strict=True)
        return sum(repr((a.steps, a.probability)) == repr((b.steps, b.probability)) for a, b in pairs), len(told)

    def columns(self, record: DecisionRecord, *, use_stale: bool = False) -> dict[str, Any]:
        """The columns of one decision, as `serving.assemble` made them."""
        horizon = int(record.request.get("horizon", 1))
        return columns_for(
            record.kind, record.request, record.views, self.plan.service, self._declarations, record.as_of, horizon,
            plan=self.plan, use_stale=use_stale,
        )  # fmt: skip

    def _chunk(self, start: int, records: Sequence[DecisionRecord], models: Mapping[str, Model]) -> None:
        failures: dict[int, str] = {}
        made: dict[int, dict[str, Any]] = {}
        for place, record in enumerate(records, start=start):
            failure = history_failure(self.plan, record.views, rule=False)
            if record.features_hash != self._features:
                failure = _CHANGED
            if failure:
                failures[place] = failure
                continue
            try:
                made[place] = self.columns(record)
            except SeatrialError as error:
                failures[place] = f"columns_failed: {error}"
                continue
            if "target_date" in made[place]:
                self._dates[place] = tuple(made[place]["target_date"].tolist())
        together = {
            name: np.concatenate([columns[name] for columns in made.values()])
            for name in (next(iter(made.values())) if made else ())
        }
        for version, model in models.items():
            self._found[version].append(_answers(version, model, made, together, failures))


def _answers(
    version: str, model: Model, made: Mapping[int, dict[str, Any]], together: dict[str, Any], failures: dict[int, str]
) -> _Answers:
    """All decisions in one go; one by one when the batch fails, so that one bad row does not take the others along."""
    levels = tuple(repr(float(level)) for level in model.levels)
    if not made:
        return _Answers(levels, failures=failures)
    try:
        mean, quantiles = _predict(model, together)
    except Exception:
        return _one_by_one(version, model, made, failures, levels)
    ends = np.cumsum([len(columns["as_of"]) for columns in made.values()])
    starts = np.concatenate(([0], ends[:-1]))
    spans = {place: slice(int(a), int(b)) for place, a, b in zip(made, starts, ends, strict=True)}
    fits = np.isfinite(mean) & (np.isfinite(quantiles).all(axis=1) if levels else (mean >= 0.0) & (mean <= 1.0))
    bad = {place: f"not_finite: {version} gives no usable number" for place, s in spans.items() if not fits[s].all()}
    return _Answers(
        levels,
        mean={place: mean[span] for place, span in spans.items()},
        quantiles={place: quantiles[span] for place, span in spans.items()} if levels else {},
        failures=failures | bad,
    )


def _predict(model: Model, columns: dict[str, Any]) -> tuple[Any, Any]:
    if isinstance(model, ForecastModel):
        return model.predict(columns)
    return model.predict(columns), np.empty((0, 0))


def _one_by_one(
    version: str,
    model: Model,
    made: Mapping[int, dict[str, Any]],
    failures: dict[int, str],
    levels: tuple[str, ...],
) -> _Answers:
    mean, quantiles, failed = {}, {}, dict(failures)
    for place, columns in made.items():
        tried = try_model(Rung.CHAMPION, version, model, columns)
        if tried.failure:
            failed[place] = tried.failure
        elif tried.probability is not None:
            mean[place] = np.array([tried.probability])
        else:
            mean[place] = np.array([step.mean for step in tried.steps])
            quantiles[place] = np.array([[step.quantiles[name] for name in levels] for step in tried.steps])
    return _Answers(levels, mean, quantiles, failed)
