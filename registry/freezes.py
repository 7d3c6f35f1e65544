"""Freeze windows of a policy: spans in which nothing goes forward. Pure."""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, timedelta

from contracts.policy import Freeze, Policy


def frozen(policy: Policy, now: datetime) -> str:
    """Why nothing may go forward now and until when, in words; empty when no freeze is on.

    Args:
        policy: its `rollout.freeze`; days are UTC days, both ends included.
        now: the moment, with a zone.
    """
    today = now.astimezone(UTC).date()
    for freeze in policy.rollout.freeze:
        first, last = _span(freeze, today)
        if first <= today <= last:
            return f"frozen until the end of {last}: {freeze.reason}"
    return ""


def _span(freeze: Freeze, today: date) -> tuple[date, date]:
    """The window's days; of a quarter's end, those of the quarter that `today` is in."""
    if freeze.first is not None and freeze.last is not None:
        return freeze.first, freeze.last
    month = 3 * ((today.month - 1) // 3) + 3
    last = date(today.year, month, calendar.monthrange(today.year, month)[1])
    return last - timedelta(days=(freeze.quarter_end or 1) - 1), last
