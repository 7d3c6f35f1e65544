"""Maturity: late, duplicated, corrected, contradictory and future labels; pairs joined by decision id."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.decisions import Answer, Rung
from contracts.declarations import Declarations
from contracts.errors import InputInvalid, TimeInvalid
from contracts.policy import Policy
from drift.maturity import MATURED_COLUMNS, MaturityTracker, matured

DAY = timedelta(days=1)
Make = Callable[..., Any]


@pytest.fixture
def tracker(risk_policy: Policy, declarations: Declarations) -> MaturityTracker:
    return MaturityTracker(risk_policy, declarations)


@pytest.fixture
def demand_tracker(demand_policy: Policy, declarations: Declarations) -> MaturityTracker:
    return MaturityTracker(demand_policy, declarations)


def test_losses_are_those_of_the_definition(tracker: MaturityTracker, risk_records: Make, outcomes: Make) -> None:
    """Brier of the served answer and of the pooled rate, one row a decision, joined by its id."""
    records = risk_records(2, probability=[0.9, 0.2])
    tracker.update(records, outcomes(records, [1, 0]), records[-1].as_of + 9 * DAY)
    frame = tracker.frame().set_index("decision_id")
    assert tuple(tracker.frame().columns) == MATURED_COLUMNS
    assert frame.loc["d1-0", "loss"] == pytest.approx(0.01)
    assert frame.loc["d1-1", "loss"] == pytest.approx(0.04)
    rate, prior = records[0].views[0].values["late_rate_30"], 0.2
    for _ in range(4):
        prior = (30 * rate + 20 * prior) / 50
    assert frame.loc["d1-0", "incumbent_loss"] == pytest.approx((1 - prior) ** 2)
    assert frame.loc["d1-0", "segment"] in {"origin=JFK", "origin=LGA"}


def test_late_and_repeated_labels(tracker: MaturityTracker, risk_records: Make, outcomes: Make) -> None:
    """A decision waits until its label comes, in whatever order; the same rows again change nothing."""
    records = risk_records(6)
    labels, now = outcomes(records, [1, 0, 1, 0, 1, 0]), records[-1].as_of + 30 * DAY
    first = tracker.update(records, labels.iloc[3:], now)
    assert (first.matured, first.waiting) == (3, 3)
    second = tracker.update(records, labels, now)
    assert (second.matured, second.corrected, second.waiting) == (3, 0, 0)
    before = tracker.frame()
    again = tracker.update(records, pd.concat([labels, labels]), now)
    assert (again.matured, again.corrected) == (0, 0)
    pd.testing.assert_frame_equal(before, tracker.frame())
    assert before["matured_at"].is_monotonic_increasing


def test_corrected_label_corrects_the_loss_in_place(
    tracker: MaturityTracker, risk_records: Make, outcomes: Make
) -> None:
    """A later known_at with another value changes the loss, is counted, and keeps the order of maturity."""
    records = risk_records(3, probability=[0.9, 0.9, 0.9])
    now = records[-1].as_of + 30 * DAY
    tracker.update(records, outcomes(records, [1, 1, 1]), now)
    done = tracker.update([], outcomes(records[:1], [0], 20 * DAY), now)
    frame = tracker.frame()
    assert done.corrected == 1
    assert frame["decision_id"].tolist() == ["d1-0", "d1-1", "d1-2"]
    assert frame["loss"].tolist() == pytest.approx([0.81, 0.01, 0.01])
    assert frame["corrections"].tolist() == [1, 0, 0]
    tracker.update([], outcomes(records[:1], [1]), now)
    assert tracker.frame()["loss"][0] == pytest.approx(0.81)


def test_contradictory_labels_hold_a_decision_out(tracker: MaturityTracker, risk_records: Make, outcomes: Make) -> None:
    """Two values with one known_at: nobody is scored on it until a later word settles it."""
    records = risk_records(2)
    now = records[-1].as_of + 30 * DAY
    tracker.update(records, outcomes(records, [1, 1]), now)
    held = tracker.update([], outcomes(records[:1], [0]), now)
    assert held.held_out == 1
    assert tracker.frame()["decision_id"].tolist() == ["d1-1"]
    assert tracker.book.counts.contradictory == 1
    tracker.update([], outcomes(records[:1], [0], 3 * DAY), now)
    assert sorted(tracker.frame()["decision_id"]) == ["d1-0", "d1-1"]


def test_future_labels_wait_for_their_time(tracker: MaturityTracker, risk_records: Make, outcomes: Make) -> None:
    """A label known after now is not used now, and is used later although it comes only once."""
    records = risk_records(2, days=0.1)
    now = records[-1].as_of + timedelta(hours=1)
    assert tracker.update(records, outcomes(records, [1, 0]), now).matured == 0
    assert tracker.book.counts.future == 2
    assert tracker.update([], pd.DataFrame(), now + 2 * DAY).matured == 2


def test_label_known_before_the_decision_is_no_test(
    tracker: MaturityTracker, risk_records: Make, outcomes: Make
) -> None:
    """An outcome that was known when the decision was made does not count for or against it."""
    records = risk_records(2)
    done = tracker.update(records, outcomes(records, [1, 0], -DAY), records[-1].as_of + DAY)
    assert (done.matured, done.known_before) == (0, 2)


def test_forecast_matures_with_its_last_step(
    demand_tracker: MaturityTracker, forecast_record: Make, demand: Make
) -> None:
    """Thirteen of fourteen days are not enough; closed days (NaN) are dropped; loss is the mean scaled square."""
    record = forecast_record(mean=12.0)
    days = [step.target_date for step in record.answer.steps]
    end = record.as_of + 40 * DAY
    assert demand_tracker.update([record], demand(dict.fromkeys(days[:13], 10.0)), end).matured == 0
    assert demand_tracker.update([], demand({days[13]: np.nan}), end).matured == 1
    row = demand_tracker.frame().iloc[0]
    assert row["loss"] == pytest.approx(((12 - 10) / 2.0) ** 2)
    assert row["incumbent_loss"] == pytest.approx(0.0)
    assert (row["steps"], row["covered"], row["actual"]) == (13, 0.0, 10.0)
    assert row["matured_at"] == record.as_of + 14 * DAY


def test_a_day_that_never_comes_is_dropped_when_a_later_one_is_known(
    demand_tracker: MaturityTracker, forecast_record: Make, demand: Make
) -> None:
    """A gap does not hold a forecast up for ever, and corrects the loss should it be filled after all."""
    record = forecast_record(mean=12.0, steps=3)
    days = [(record.as_of + k * DAY).date().isoformat() for k in range(4)]
    end = record.as_of + 40 * DAY
    assert demand_tracker.update([record], demand({days[0]: 10.0, days[2]: 10.0}), end).matured == 1
    assert demand_tracker.frame()["steps"].tolist() == [2]
    assert demand_tracker.update([], demand({days[1]: 12.0}), end).corrected == 1
    assert demand_tracker.frame()["loss"].tolist() == pytest.approx([2 / 3])


def test_quantity_known_before_its_day_began_is_refused(
    demand_tracker: MaturityTracker, forecast_record: Make, demand: Make
) -> None:
    """A label from the future of its own day is impossible and matures nothing."""
    record = forecast_record(steps=1)
    labels = demand({record.answer.steps[0].target_date: 10.0}, later=-timedelta(hours=1))
    assert demand_tracker.update([record], labels, record.as_of + 9 * DAY).matured == 0
    assert demand_tracker.book.counts.impossible == 1


def test_zero_demand_and_constant_series_have_a_loss(
    demand_tracker: MaturityTracker, forecast_record: Make, demand: Make
) -> None:
    """All-zero actuals give a finite loss: nothing is divided by the total."""
    record = forecast_record(mean=0.0, steps=2)
    labels = demand({step.target_date: 0.0 for step in record.answer.steps})
    demand_tracker.update([record], labels, record.as_of + 9 * DAY)
    assert demand_tracker.frame()["loss"].tolist() == [0.0]


def test_pairs_join_shadow_and_served_by_decision_id(
    tracker: MaturityTracker, risk_records: Make, outcomes: Make, shadow_of: Make
) -> None:
    """Both arms give pairs, whoever was served; errors and other versions do not; scores may come after the label."""
    served = risk_records(3, probability=[0.5] * 3)
    canary = risk_records(2, seed=2, version="v2", arm="canary", probability=[0.9, 0.9])
    records = served + canary
    now = records[-1].as_of + 30 * DAY
    tracker.update(records, outcomes(records, [1] * 5), now, shadow_of(served[:1], "v2", 0.8))
    failed = shadow_of(served[1:2], "v2", 0.0, "model_failed: x")
    tracker.update([], pd.DataFrame(), now, shadow_of(canary, "v1", 0.5) + failed)
    pairs = tracker.pairs("v2", "v1")
    assert set(pairs["decision_id"]) == {"d1-0", "d2-0", "d2-1"}
    found = pairs.set_index("decision_id")
    assert found.loc["d1-0", ["challenger", "champion"]].tolist() == pytest.approx([0.04, 0.25])
    assert found.loc["d2-1", ["challenger", "champion"]].tolist() == pytest.approx([0.01, 0.25])
    assert pairs["matured_at"].is_monotonic_increasing


def test_day_by_day_equals_all_at_once(
    tracker: MaturityTracker, risk_policy: Policy, declarations: Declarations, risk_records: Make, outcomes: Make
) -> None:
    """Incremental updates, with the whole growing frame each time, end where one pass over the log ends."""
    records = risk_records(200, days=20)
    late = np.random.default_rng(1).random(200) < 0.3
    labels = outcomes(records, late, 3 * DAY)
    labels = pd.concat([labels, outcomes(records[::9], ~late[::9], 6 * DAY)]).sample(frac=1, random_state=1)
    end = records[0].as_of + 40 * DAY
    for day in range(41):
        now = records[0].as_of + day * DAY
        known = labels[labels["known_at"] <= now]
        tracker.update([r for r in records if now - DAY <= r.as_of < now], known, now)
    whole = matured(records, labels, risk_policy, declarations, end)
    assert len(whole) == 200
    pd.testing.assert_frame_equal(
        tracker.frame().sort_values("decision_id")[["decision_id", "loss", "incumbent_loss"]].reset_index(drop=True),
        whole.sort_values("decision_id")[["decision_id", "loss", "incumbent_loss"]].reset_index(drop=True),
    )


def test_refusals_and_bad_frames(tracker: MaturityTracker, risk_records: Make, outcomes: Make) -> None:
    """A refused decision matures without a loss; a frame without its columns or zones is refused by name."""
    records = risk_records(1, version=None, arm="none", answer=Answer(rung=Rung.REFUSE))
    now = records[0].as_of + 9 * DAY
    assert tracker.update(records, outcomes(records, [1]), now).matured == 1
    assert np.isnan(tracker.frame()["loss"][0])
    with pytest.raises(InputInvalid, match="late"):
        tracker.update([], pd.DataFrame({"shipment_id": ["x"]}), now)
    labels = outcomes(records, [1])
    naive = labels.assign(known_at=labels["known_at"].dt.tz_localize(None))
    with pytest.raises(TimeInvalid):
        tracker.update([], naive, now)
