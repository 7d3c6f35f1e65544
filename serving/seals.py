"""Seals over the parts of a decision record, so that a replay can say which part was changed afterwards."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from contracts.decisions import DecisionRecord
from contracts.times import iso

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS


def seals(record: DecisionRecord) -> dict[str, str]:
    """`seal_data` over request, subject, time, route and answer, `seal_features` over the views as read; SHA-256 each.

    Latency and the seals themselves are outside. A seal tells accident from accident, not friend from foe: who can
    rewrite the log can seal it anew, which is what the line checksums and the ledger's chain are for.
    """
    views = [
        [view.view, view.status, view.age_s, iso(view.event_time) if view.event_time else None, view.values]
        for view in record.views
    ]
    answer, route = record.answer, record.route
    data = [
        record.decision_id,
        record.request_hash,
        iso(record.as_of),
        record.subject,
        record.request,
        [route.arm, route.version, route.key, route.bucket, route.share, route.reason, route.revision],
        [answer.rung.value, answer.version, answer.probability, list(answer.reasons), list(answer.degraded)],
        [[step.target_date, step.mean, step.quantiles] for step in answer.steps],
    ]
    return {"seal_data": _digest(data), "seal_features": _digest(views)}


def _digest(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=_OPTIONS)).hexdigest()
