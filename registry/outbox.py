"""Ledger rows as events for others: what the event of a row is, what came of sending it, when to try again. Pure."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from urllib.parse import quote

from contracts.canonical import canonical_json
from contracts.events_out import EventData
from contracts.rollout import LedgerRow, RowKind

SOURCE = "seatrial:///models/"
TYPE = "org.seatrial.model.{kind}.v1"
SILENT = (RowKind.KEY_ISSUED, RowKind.KEY_REVOKED)
MAX_REASON = 2_000
MAX_FACTS = 30_000
FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=6)
LONGEST_ASKED = timedelta(hours=24)

# Only what is named here leaves the house: a payload may hold more than others should see.
FACTS = (
    *("manifest_sha256", "policy_hash", "dataset_hash", "features_hash", "code_revision", "run_id"),
    *("trained_at", "trained_until", "rows", "features", "carried"),
    *("outcome", "of", "criteria", "evidence", "seen", "gate_revision", "verdict_revision"),
    *("step", "share", "stage", "by", "to", "approver", "role", "window_end"),
)


def event_of(row: LedgerRow) -> dict[str, Any] | None:
    """The event that tells others about a row, as a CloudEvents 1.0 object in plain JSON (structured mode).

    The same row gives the same event, byte for byte: `id` is model, revision and the row's hash. `subject` is the
    version (absent when the row is about no version), `sequence` and `partitionkey` are the CloudEvents extensions of
    these names: the revision, and the model, within which events have an order.

    Args:
        row: a row as it stands in the ledger.

    Returns:
        the event, or None for rows that nobody outside needs: keys issued and revoked, chains that are about no model.
    """
    if row.kind in SILENT or row.model.startswith("_"):
        return None
    from cloudevents.core.formats.json import JSONFormat  # 50 ms: only who writes a row pays
    from cloudevents.core.v1.event import CloudEvent

    data = EventData(
        model=row.model,
        version=row.version,
        revision=row.revision,
        kind=row.kind,
        actor=row.actor,
        reason=row.reason[:MAX_REASON],
        hash=row.hash,
        facts=_facts(row.payload),
    )
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": f"{row.model}-{row.revision}-{row.hash[:32]}",
        "source": SOURCE + quote(row.model, safe=""),
        "type": TYPE.format(kind=row.kind.value),
        "time": row.at,
        "datacontenttype": "application/json",
        "partitionkey": row.model,
        "sequence": f"{row.revision:010d}",
    }
    if row.version:
        attributes["subject"] = row.version
    event: dict[str, Any] = json.loads(JSONFormat().write(CloudEvent(attributes, data.model_dump(mode="json"))))
    return event


def _facts(payload: dict[str, Any]) -> dict[str, Any]:
    """What the payload says under the names that may leave; only its single values when all would be too long.

    Every receiver must take events of 64 KB (CloudEvents 1.0, Size Limits), and none has to take more.
    """
    facts = {name: payload[name] for name in FACTS if name in payload}
    if len(canonical_json(facts).encode()) <= MAX_FACTS:
        return facts
    single = {name: value for name, value in facts.items() if not isinstance(value, (dict, list))}
    return {name: value[:200] if isinstance(value, str) else value for name, value in single.items()}


@dataclass(frozen=True)
class Sent:
    """What came of one attempt.

    `ok`: the receiver has it; `refused`: it will never take this event, so that trying again is of no use; `words`:
    why not, without anything that the receiver wrote; `wait_s`: seconds after which it asked to be tried again.
    """

    ok: bool
    words: str = ""
    refused: bool = False
    wait_s: float = 0.0


class Sender(Protocol):
    """Brings events to one target."""

    def send(self, event: dict[str, Any], now: datetime) -> Sent:
        """Try once to bring one event there; whatever goes wrong on the way is said in the answer, not raised.

        Args:
            event: as `event_of` made it.
            now: the time of the attempt.
        """
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


def next_wait(attempts: int, chance: random.Random, asked_s: float = 0.0) -> timedelta:
    """How long to wait after the failed attempt number `attempts`.

    30 seconds, doubled with every attempt up to 6 hours, each 20% more or less by chance so that many waiting
    events do not come back together; longer when the receiver asked for it, up to a day.

    Args:
        attempts: failed attempts so far, from 1.
        chance: where the chance comes from; seeded by the caller.
        asked_s: seconds that the receiver asked for.
    """
    doubled = min(FIRST_WAIT * 2.0 ** min(attempts - 1, 30), LONGEST_WAIT)
    asked = min(timedelta(seconds=max(0.0, asked_s)), LONGEST_ASKED)
    return max(doubled * chance.uniform(0.8, 1.2), asked)
