"""What a caller sees of decisions: the answer, where it came from, and how fresh its features were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from contracts.decisions import DecisionRecord, ViewRead
from contracts.times import iso

_ORDER = {"present": 0, "stale": 1, "missing": 2}


def answer_body(model: str, records: Sequence[DecisionRecord]) -> dict[str, Any]:
    """The body of an answer: request id, model, and one decision an item in order."""
    return {"request_id": records[0].request_id, "model": model, "decisions": [decision_body(r) for r in records]}


def decision_body(record: DecisionRecord) -> dict[str, Any]:
    """One decision: ids, subject, rung, version, steps or probability, reasons, degradations, freshness."""
    answer = record.answer
    body: dict[str, Any] = {
        "decision_id": record.decision_id,
        "as_of": iso(record.as_of),
        "subject": record.subject,
        "rung": answer.rung.value,
        "version": answer.version,
        "degraded": list(answer.degraded),
        "freshness": freshness(record.views),
    }
    if record.kind == "forecast":
        body["steps"] = [
            {"target_date": step.target_date, "mean": step.mean, "quantiles": step.quantiles} for step in answer.steps
        ]
    else:
        body["probability"] = answer.probability
        body["reasons"] = list(answer.reasons)
    return body


def freshness(views: Sequence[ViewRead]) -> list[dict[str, Any]]:
    """Per view its best status among its reads and the age of its oldest row in seconds."""
    found: dict[str, dict[str, Any]] = {}
    for read in views:
        seen = found.setdefault(read.view, {"view": read.view, "status": read.status, "age_s": read.age_s})
        if _ORDER[read.status] < _ORDER[seen["status"]]:
            seen["status"] = read.status
        ages = [age for age in (seen["age_s"], read.age_s) if age is not None]
        seen["age_s"] = max(ages) if ages else None
    return list(found.values())


def record_body(record: DecisionRecord) -> Any:
    """A whole record as plain JSON values."""
    return orjson.loads(record.model_dump_json())
