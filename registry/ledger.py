"""The ledger: an append-only chain of rows for each model, appended by compare-and-swap; the truth of every rollout."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from contracts.canonical import canonical_json, content_hash
from contracts.errors import InputInvalid, LedgerBroken, LedgerConflict, RequestConflict, UsageError
from contracts.rollout import LEDGER_FORMAT, LedgerRow, RowKind
from contracts.times import parse_time, utc

GENESIS = "0" * 64
_MODEL = re.compile(r"_?[a-z][a-z0-9_]{0,62}")  # with _ before it: a chain of our own, about no model


@dataclass(frozen=True)
class RowDraft:
    """A row before it has its place in the chain.

    `request_id`: names the wish; the same wish twice gives one row. `payload`: plain JSON values.

    Raises:
        UsageError: a model that is no name (a name becomes part of paths), or a text that holds what no database keeps:
            a NUL or half of a surrogate pair.
    """

    model: str
    kind: RowKind
    version: str
    at: datetime
    actor: str
    reason: str
    request_id: str
    payload: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("model", "version", "actor", "reason", "request_id"):
            _storable(name, getattr(self, name))
        if not _MODEL.fullmatch(self.model):
            raise UsageError(f"ledger row: wanted a model name like late_delivery, got {self.model[:80]!r}")


@dataclass(frozen=True)
class Anchor:
    """A row's place and hash kept outside the ledger: with it a cut tail or a rewritten chain is found."""

    model: str
    revision: int
    hash: str

    def __str__(self) -> str:
        return f"{self.model} {self.revision} {self.hash}"


class Ledger(Protocol):
    """What every ledger does; one suite of tests runs over all of them."""

    def append(self, draft: RowDraft, expected: int) -> LedgerRow:
        """Append a row as revision `expected` + 1.

        Args:
            draft: the row; a `request_id` that the model's chain already holds returns that first row, unchanged.
            expected: the newest revision the writer knows of, 0 for an empty chain.

        Returns:
            the row as it stands in the ledger.

        Raises:
            LedgerConflict: the newest revision is not `expected`; nothing was written.
            RequestConflict: the request id came before for another kind of row or another version.
            DependencyDown: the store does not answer.
        """
        ...

    def rows(self, model: str) -> tuple[LedgerRow, ...]:
        """All rows of a model, by revision; empty for an unknown model."""
        ...

    def models(self) -> tuple[str, ...]:
        """Names of the models that have rows, sorted."""
        ...


class MemoryLedger:
    """A ledger in this process's memory; safe between threads."""

    def __init__(self) -> None:
        self._rows: dict[str, list[LedgerRow]] = {}
        self._lock = threading.Lock()

    def append(self, draft: RowDraft, expected: int) -> LedgerRow:
        """See Ledger.append."""
        with self._lock:
            rows = self._rows.setdefault(draft.model, [])
            for row in rows:
                if row.request_id == draft.request_id:
                    return same_wish(row, draft)
            if len(rows) != expected:
                raise LedgerConflict(draft.model, expected, len(rows))
            row = chained(draft, expected + 1, rows[-1].hash if rows else GENESIS)
            rows.append(row)
            return row

    def rows(self, model: str) -> tuple[LedgerRow, ...]:
        """See Ledger.rows."""
        with self._lock:
            return tuple(self._rows.get(model, ()))

    def models(self) -> tuple[str, ...]:
        """See Ledger.models."""
        with self._lock:
            return tuple(sorted(model for model, rows in self._rows.items() if rows))


def same_wish(row: LedgerRow, draft: RowDraft) -> LedgerRow:
    """`row`, the first answer to the draft's request id.

    Raises:
        RequestConflict: the draft asks for something else under the same id.
    """
    if (row.kind, row.version) != (draft.kind, draft.version):
        raise RequestConflict(draft.request_id)
    return row


def chained(draft: RowDraft, revision: int, previous: str) -> LedgerRow:
    """The draft as a row of the chain: times in UTC, payload as plain JSON, hash over everything.

    Raises:
        UsageError: the payload holds half of a surrogate pair.
        TimeInvalid: the draft's time has no zone.
    """
    payload = canonical_json(draft.payload)
    _storable("payload", payload)
    row = LedgerRow(
        model=draft.model,
        revision=revision,
        kind=RowKind(draft.kind),
        version=draft.version,
        at=utc(draft.at, "at"),
        actor=draft.actor,
        reason=draft.reason,
        request_id=draft.request_id,
        payload=json.loads(payload),
        previous=previous,
        hash="",
    )
    return replace(row, hash=row_hash(row))


def _storable(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(f"ledger row: {name} holds half of a surrogate pair; wanted plain text") from None
    if "\0" in value:
        raise UsageError(f"ledger row: {name} holds a NUL; wanted plain text")


def row_hash(row: LedgerRow) -> str:
    """SHA-256 over everything in the row but its own hash, in canonical form."""
    plain = asdict(row)
    del plain["hash"]
    return content_hash(plain)


def verify(rows: Sequence[LedgerRow], *anchors: Anchor | None) -> None:
    """Check a model's chain from its first row, and against what was kept of it elsewhere.

    Args:
        rows: all rows of one model, by revision.
        anchors: places and hashes kept elsewhere; without one, a tail cut off cleanly cannot be seen.

    Raises:
        LedgerBroken: names the first bad row: format, model, gap or order of revisions, previous hash, or own hash.
    """
    kept = [a for a in anchors if a is not None and a.revision > 0]
    previous, model = GENESIS, rows[0].model if rows else (kept[0].model if kept else "")
    for place, row in enumerate(rows, start=1):
        why = _why_broken(row, model, place, previous)
        if why:
            raise LedgerBroken(model, place, why)
        previous = row.hash
    for anchor in sorted(kept, key=lambda a: a.revision):
        if anchor.model != model or len(rows) < anchor.revision:
            why = f"rows up to {anchor.revision} were there before; the tail is gone"
            raise LedgerBroken(anchor.model, len(rows) + 1, why)
        if rows[anchor.revision - 1].hash != anchor.hash:
            raise LedgerBroken(model, anchor.revision, "another row stood there before; the chain was replaced")


def _why_broken(row: LedgerRow, model: str, place: int, previous: str) -> str:
    if row.format != LEDGER_FORMAT:
        return f"format {row.format}, this program reads {LEDGER_FORMAT}"
    if row.model != model or row.revision != place:
        return f"wanted revision {place} of {model}, found {row.revision} of {row.model}"
    if row.previous != previous:
        return "it does not follow the row before"
    return "" if row.hash == row_hash(row) else "its content is not what its hash says"


def head(rows: Sequence[LedgerRow], model: str) -> Anchor:
    """The anchor of the newest row, to be kept outside the ledger."""
    return Anchor(model, rows[-1].revision, rows[-1].hash) if rows else Anchor(model, 0, GENESIS)


def export(rows: Iterable[LedgerRow]) -> str:
    """The rows as JSON lines, one row a line, in canonical form."""
    return "".join(canonical_json(asdict(row)) + "\n" for row in rows)


def read_export(text: str) -> tuple[LedgerRow, ...]:
    """Rows from what `export` wrote; check them with `verify`.

    Raises:
        InputInvalid: a line is not a ledger row.
    """
    found = []
    # Not splitlines(): a text in a row may hold a line separator of Unicode, which JSON leaves as it is.
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), start=1):
        try:
            plain = json.loads(line)
            plain["kind"], plain["at"] = RowKind(plain["kind"]), parse_time(plain["at"], "at")
            found.append(LedgerRow(**plain))
        except (ValueError, TypeError, KeyError) as error:
            raise InputInvalid(f"ledger export line {number}", "a ledger row", str(error)) from None
    return tuple(found)
