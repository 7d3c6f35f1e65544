"""Records and shadow scores from the log folder; each read takes only what is new."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from contracts.decisions import DecisionRecord, ShadowScore
from serving.decision_log import read_record
from serving.segments import SegmentReader

_SHADOW: TypeAdapter[ShadowScore] = TypeAdapter(ShadowScore)


class LogSource:
    """Reads the decision and shadow streams of a log folder; holds no handle that could write.

    Args:
        folder: `Settings.decisions`.
        model: other models' records are left out; None keeps all.
    """

    def __init__(self, folder: Path, model: str | None = None) -> None:
        self.model = model
        self._decisions, self._scores = SegmentReader(folder, "decisions"), SegmentReader(folder, "shadow")
        self._read: dict[str, dict[str, int]] = {"decisions": {}, "shadow": {}}

    def records(self) -> list[DecisionRecord]:
        """Decisions written since the last call, in the order of the log."""
        found = []
        for payload in self._new(self._decisions):
            record = read_record(payload)
            if self.model in (None, record.model):
                found.append(record)
        return found

    def shadow(self) -> list[ShadowScore]:
        """Shadow scores written since the last call."""
        scores = [_SHADOW.validate_json(payload) for payload in self._new(self._scores)]
        return [score for score in scores if self.model in (None, score.model)]

    def _new(self, reader: SegmentReader) -> list[bytes]:
        offsets = self._read[reader.stream]
        found = []
        for segment, _, payload, end in reader.lines(dict(offsets)):
            offsets[segment] = end
            found.append(payload)
        return found
