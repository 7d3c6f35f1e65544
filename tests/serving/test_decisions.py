"""Decisions through the handler: rungs, flags, idempotency."""

from __future__ import annotations

from datetime import timedelta

import pytest

from contracts.decisions import Rung
from contracts.errors import RequestConflict, UnknownName
from serving.requests import ForecastRequest, RequestInvalid, ScoreRequest


def forecast(sku="milk", location="north", **more):
    return ForecastRequest.model_validate({"items": [{"sku": sku, "location": location}], **more})


def test_champion_forecasts_every_step_with_ordered_quantiles(handler):
    """A known series is answered by the champion: a step a day, quantiles rising, nothing negative, nothing flagged."""
    (record,) = handler.forecast("demand", forecast())
    assert (record.answer.rung, record.answer.version, record.answer.degraded) == (Rung.CHAMPION, "v1", ())
    assert [step.target_date for step in record.answer.steps][::13] == ["2026-03-04", "2026-03-17"]
    for step in record.answer.steps:
        values = list(step.quantiles.values())
        assert values == sorted(values)
        assert min(values) >= 0


def test_champion_scores_with_reasons(handler, shipment):
    """A shipment gets a probability and at most three reasons from the champion."""
    (record,) = handler.score("late_delivery", ScoreRequest.model_validate({"items": [shipment()]}))
    assert record.answer.rung is Rung.CHAMPION
    assert 0 < record.answer.probability < 1
    assert 1 <= len(record.answer.reasons) <= 3


def test_unknown_sku_is_refused_with_its_reason(handler):
    """A series that nobody has ever seen is refused on every rung with the reason, never answered with a zero."""
    (record,) = handler.forecast("demand", forecast(sku="unheard-of"))
    assert record.answer.rung is Rung.REFUSE
    assert record.answer.steps == ()
    assert any("cold_start" in words for words in record.answer.degraded)


def test_unknown_lane_is_flagged(handler, shipment):
    """A lane without history is scored from what is known of its carrier, and the answer says what was missing."""
    request = ScoreRequest.model_validate({"items": [shipment(destination="nowhere")]})
    (record,) = handler.score("late_delivery", request)
    assert record.answer.probability is not None
    assert "missing: lane_rates has no row for this key" in record.answer.degraded


def test_old_features_are_flagged_then_left_to_the_rule(port, handler):
    """Beyond the policy's age an answer is flagged, beyond the ttl the rule answers, a season later nobody does."""
    port.clock.set(port.clock.now() + timedelta(hours=36))
    (late,) = handler.forecast("demand", forecast())
    assert late.answer.rung is Rung.CHAMPION
    assert any(words.startswith("stale: demand_history") for words in late.answer.degraded)
    port.clock.set(port.clock.now() + timedelta(days=3))
    (later,) = handler.forecast("demand", forecast())
    assert later.answer.rung is Rung.INCUMBENT
    port.clock.set(port.clock.now() + timedelta(days=30))
    (last,) = handler.forecast("demand", forecast())
    assert last.answer.rung is Rung.REFUSE


def test_steps_count_from_the_history_so_lags_keep_their_weekday(port, handler):
    """When the newest tick is two days late, the rule still repeats each target's own weekday."""
    (fresh,) = handler.forecast("demand", forecast())
    port.clock.set(port.clock.now() + timedelta(days=4))
    (late,) = handler.forecast("demand", forecast())
    lags = {view.view: view.values for view in fresh.views}["demand_history"]
    assert late.answer.rung is Rung.INCUMBENT
    # Target 2026-03-08, four days after the tick 03-04: same weekday is 03-01, which is lag 3.
    assert late.answer.steps[0].target_date == "2026-03-08"
    assert late.answer.steps[0].mean == lags["lag_3"]


def test_failing_champion_falls_to_previous_then_rule(port, handler, broken_model):
    """A champion that raises is stepped over and told of; then the previous champion answers, then the rule."""
    port.deploy("demand", "v2", previous="v1")
    handler.refresh()
    broken_model(handler, "demand", Rung.CHAMPION)
    (first,) = handler.forecast("demand", forecast())
    assert (first.answer.rung, first.answer.version) == (Rung.PREVIOUS_CHAMPION, "v1")
    assert first.answer.degraded[0].startswith("champion: model_failed")
    assert first.manifest_sha256 == port.trained.manifests["demand", "v1"]
    broken_model(handler, "demand", Rung.PREVIOUS_CHAMPION)
    (second,) = handler.forecast("demand", forecast())
    assert (second.answer.rung, second.answer.version, second.manifest_sha256) == (Rung.INCUMBENT, None, None)


def test_same_request_gets_its_first_answer(port, handler):
    """The same id and body give the stored decision, also later and from another process; another body is refused."""
    (first,) = handler.forecast("demand", forecast(request_id="order-1"))
    port.clock.set(port.clock.now() + timedelta(hours=1))
    (again,) = handler.forecast("demand", forecast(request_id="order-1"))
    other = port.handler()
    (elsewhere,) = other.forecast("demand", forecast(request_id="order-1"))
    assert first == again
    assert elsewhere.model_dump_json() == first.model_dump_json()
    with pytest.raises(RequestConflict):
        handler.forecast("demand", forecast(sku="bread", request_id="order-1"))
    assert len(handler.log) == 1


def test_horizon_and_items_are_bounded_by_policy(port, handler):
    """More days or more items than the policy names are refused with the field's name."""
    with pytest.raises(RequestInvalid, match="horizon"):
        handler.forecast("demand", forecast(horizon=15))
    policy = port.policies["demand"]
    small = policy.model_copy(update={"serve": policy.serve.model_copy(update={"max_items": 1})})
    port.deploy("demand", policy=small)
    two = ForecastRequest.model_validate({"items": [{"sku": "milk", "location": "north"}] * 2})
    with pytest.raises(RequestInvalid, match="items"):
        handler.forecast("demand", two)


def test_wrong_kind_or_name_is_unknown(handler, shipment):
    """A model of another kind, or none, is an unknown name with the nearest suggested."""
    with pytest.raises(UnknownName):
        handler.forecast("late_delivery", forecast())
    with pytest.raises(UnknownName, match="demand"):
        handler.forecast("demandd", forecast())
