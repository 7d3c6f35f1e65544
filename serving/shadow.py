"""Shadow scoring: decisions are scored a second time off the path, from what they recorded; nothing of it is served."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from contracts.decisions import DecisionRecord, Rung, ShadowScore
from contracts.declarations import Declarations
from contracts.errors import SeatrialError, UnknownName
from contracts.times import iso
from serving.answers import try_model
from serving.assemble import columns_for, history_failure
from serving.decision_log import read_record
from serving.ladder import Attempt
from serving.models_in_service import InService, Loaded, ModelsInService
from serving.segments import SegmentLog, SegmentReader

BOOKMARK = "shadow-read.json"


@dataclass(frozen=True)
class Due:
    """One score that is due: by which version, for which decision."""

    record: DecisionRecord
    service: InService
    loaded: Loaded
    rung: Rung


class ShadowScorer:
    """Follows the decision log and scores with the version that did not answer.

    While a challenger is in shadow or canary, each decision that it did not answer is scored by it, and each that it
    did answer by the champion, so that both can be compared on the same subjects; nothing while the model is stopped.
    It reads decisions without a handle that could write them, and writes one stream, `shadow`, one row a decision and
    version.

    Args:
        folder: the log folder.
        models: what is in service; only read.
        declarations: views and services.
    """

    def __init__(self, folder: Path, models: ModelsInService, declarations: Declarations) -> None:
        self.models, self._declarations = models, declarations
        self._decisions = SegmentReader(folder, "decisions")
        self._log = SegmentLog(folder, "shadow")
        self._bookmark = folder / BOOKMARK
        self._offsets = self._read_bookmark()
        # Rows after the bookmark's last writing may be there already: a crash must not score a decision twice.
        self._done = {key for _, key, _, _ in self._log.lines({})}

    def run_once(self, limit: int = 10_000) -> int:
        """Score what came since the last call, at most `limit` decisions; returns how many scores were written."""
        self.models.refresh()
        written = 0
        for seen, (segment, _, payload, end) in enumerate(self._decisions.lines(self._offsets)):
            if seen >= limit:
                break
            for due in self._due(read_record(payload)):
                written += self._score(due)
            self._offsets[segment] = end
        self._write_bookmark()
        return written

    def run(self, stop: threading.Event, every_s: float = 1.0) -> None:
        """Score until `stop` is set, looking every `every_s` seconds."""
        while not stop.is_set():
            self.run_once()
            stop.wait(every_s)

    def close(self) -> None:
        """Bring the scores onto the disk and close."""
        self._log.sync()
        self._log.close()

    def _due(self, record: DecisionRecord) -> Iterator[Due]:
        try:
            service = self.models.get(record.model)
        except (UnknownName, SeatrialError):
            return
        challenger, champion = service.loaded(Rung.CANARY), service.loaded(Rung.CHAMPION)
        deployed = service.snapshot.challenger
        if challenger is None or deployed is None or service.snapshot.stopped:
            return
        if deployed.trained_until is not None and record.as_of < deployed.trained_until:
            return  # it may have learnt from what became of this decision
        if record.answer.version != challenger.version:
            yield Due(record, service, challenger, Rung.CANARY)
        elif champion is not None:
            yield Due(record, service, champion, Rung.CHAMPION)

    def _score(self, due: Due) -> int:
        key = f"{due.record.decision_id}.{due.loaded.version}"
        if key in self._done:
            return 0
        attempt = self._attempt(due)
        score = ShadowScore(
            decision_id=due.record.decision_id,
            model=due.record.model,
            version=due.loaded.version,
            as_of=due.record.as_of,
            steps=attempt.steps,
            probability=attempt.probability,
            error=attempt.failure,
        )
        self._log.append_json(key, shadow_json(score))
        self._done.add(key)
        return 1

    def _attempt(self, due: Due) -> Attempt:
        record, plan = due.record, due.service.plan
        failure = history_failure(plan, record.views, rule=False)
        if not failure and record.features_hash != due.service.features_hash:
            failure = "features_changed: the decision was made on other feature declarations"
        if failure:
            return Attempt(rung=due.rung, version=due.loaded.version, failure=failure)
        try:
            columns = columns_for(
                record.kind, record.request, record.views, plan.service, self._declarations, record.as_of,
                int(record.request.get("horizon", 1)), plan=plan,
            )  # fmt: skip
        except SeatrialError as error:
            return Attempt(rung=due.rung, version=due.loaded.version, failure=f"columns_failed: {error}")
        return try_model(due.rung, due.loaded.version, due.loaded.model, columns)

    def _read_bookmark(self) -> dict[str, int]:
        try:
            return {str(name): int(end) for name, end in json.loads(self._bookmark.read_text()).items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    def _write_bookmark(self) -> None:
        if not self._bookmark.parent.is_dir():
            return
        temporary = self._bookmark.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(self._offsets))
        temporary.replace(self._bookmark)


def shadow_json(score: ShadowScore) -> bytes:
    """A shadow score as one JSON object: the fields of ShadowScore, steps as in a decision's answer."""
    return orjson.dumps(
        {
            "decision_id": score.decision_id,
            "model": score.model,
            "version": score.version,
            "as_of": iso(score.as_of),
            "steps": [step.model_dump() for step in score.steps],
            "probability": score.probability,
            "error": score.error,
        }
    )
