"""A risk that no feature view can speak for is not the model's to answer."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contracts.decisions import Status, ViewRead
from contracts.declarations import load_declarations
from serving.assemble import history_failure, plan_for

PLAN = plan_for(load_declarations(Path(__file__).parents[2] / "features" / "repo"), "late_delivery_v1")
AT = datetime(2026, 1, 1, tzinfo=UTC)


def read(status: Status) -> ViewRead:
    age = timedelta(days=1400 if status == "stale" else 0)
    return ViewRead(view="carrier_rates", values={}, event_time=AT - age, age_s=age.total_seconds(), status=status)


@pytest.mark.parametrize(
    ("statuses", "begins"),
    [
        (["stale", "stale"], "stale:"),
        (["missing", "stale"], "stale:"),
        (["missing", "missing"], "cold_start:"),
        (["missing", "present"], ""),
    ],
)
def test_without_a_fresh_view_the_models_step_aside(statuses: list[Status], begins: str) -> None:
    """One fresh view is enough to answer; all stale or all missing name which, so that the ladder goes on."""
    failure = history_failure(PLAN, [read(status) for status in statuses], rule=False)
    assert failure.startswith(begins)
    assert bool(failure) == bool(begins)
