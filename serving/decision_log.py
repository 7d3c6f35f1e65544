"""The decision log with an index: find a decision by id, and give a repeated request its first answer again."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path

from contracts.decisions import DecisionRecord
from contracts.errors import RequestConflict
from serving.segments import SegmentLog, SegmentReader

__all__ = ["DecisionLog", "SegmentLog", "SegmentReader", "decision_id", "read_record"]

INDEXED = 2_000_000
KEPT = 256


def decision_id(model: str, request_id: str, item: int) -> str:
    """Id of one item's decision: the same request always means the same ids.

    Returns:
        the first 32 hexadecimal digits of SHA-256 over `model|request_id|item`.
    """
    return hashlib.sha256(f"{model}|{request_id}|{item}".encode()).hexdigest()[:32]


def read_record(payload: bytes | str) -> DecisionRecord:
    """A decision record from its JSON."""
    return DecisionRecord.model_validate_json(payload)


class DecisionLog:
    """Decisions of all models, append-only, by id.

    Args:
        folder: the log folder.
        indexed: how many of the newest decisions can be found by id (about 150 bytes of memory each).
        kept: how many of the newest records stay in memory whole.
    """

    def __init__(self, folder: Path, *, indexed: int = INDEXED, kept: int = KEPT) -> None:
        self.segments = SegmentLog(folder, "decisions")
        self._places: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._recent: OrderedDict[str, DecisionRecord] = OrderedDict()
        self._indexed, self._kept = indexed, kept
        self._offsets: dict[str, int] = {}
        self._lock = threading.RLock()

    def append(self, record: DecisionRecord) -> None:
        """Write one decision; returns when the kernel has it.

        Raises:
            DependencyDown: the log cannot be written; the decision must not be given out.
        """
        payload = record.model_dump_json().encode()
        with self._lock:
            segment, end = self.segments.append_json(record.decision_id, payload)
            self._offsets[segment] = end
            self._place(record.decision_id, segment, end)
            self._recent[record.decision_id] = record
            if len(self._recent) > self._kept:
                self._recent.popitem(last=False)

    def find(self, wanted: str) -> DecisionRecord | None:
        """The decision of that id, also when another process wrote it, or None."""
        with self._lock:
            record = self._recent.get(wanted)
            if record is not None:
                return record
            place = self._places.get(wanted)
            if place is None:
                self._catch_up()
                place = self._places.get(wanted)
            return read_record(self.segments.payload(*place)) if place else None

    def replayed(self, wanted: str, request_id: str, request_hash: str) -> DecisionRecord | None:
        """The stored decision when the same request came before, None when it is new.

        Raises:
            RequestConflict: the request id came before with another body.
        """
        record = self.find(wanted)
        if record is not None and record.request_hash != request_hash:
            raise RequestConflict(request_id)
        return record

    def __len__(self) -> int:
        with self._lock:
            self._catch_up()
            return len(self._places)

    def _catch_up(self) -> None:
        """Index what was written since the last look, by whatever process."""
        for segment, key, _, end in self.segments.lines(self._offsets):
            self._offsets[segment] = end
            if key not in self._places:
                self._place(key, segment, end)

    def _place(self, key: str, segment: str, end: int) -> None:
        self._places[key] = (segment, end)
        if len(self._places) > self._indexed:
            self._places.popitem(last=False)
