"""Replay: every rung to the last bit, and every kind of difference by its name."""

from __future__ import annotations

from datetime import timedelta

import pytest

from contracts.decisions import DecisionRecord, Rung
from serving.replay import replay
from serving.wiring import replay_in

SERIES = {"items": [{"sku": "milk", "location": "north"}]}


def again(port, record, **changes):
    """Replay from the log's own text, as a command in another process would."""
    loaded = DecisionRecord.model_validate_json(record.model_dump_json())
    policy = changes.pop("policy", port.policies[record.model].hash)
    code = changes.pop("code", record.code_revision)
    return replay(loaded.model_copy(update=changes), port.artifacts, port.declarations, policy, code)


def test_records_survive_the_log_to_the_bit(handler, port, shipment):
    """A record read back from the log is the record that was written."""
    for record in handler.forecast("demand", SERIES) + handler.score("late_delivery", {"items": [shipment()]}):
        assert port.handler().decision(record.decision_id).model_dump_json() == record.model_dump_json()


@pytest.mark.parametrize("horizon", [1, 5, 14])
def test_champion_forecast_replays(handler, port, horizon):
    """A champion's forecast comes out the same to the last bit, at any horizon."""
    (record,) = handler.forecast("demand", SERIES | {"horizon": horizon})
    result = again(port, record)
    assert (result.same, result.differs) == (True, ())
    assert result.again.steps == record.answer.steps


def test_both_arms_replay_with_their_own_version(handler, port, shipment):
    """With a canary at half the lanes, decisions of both arms replay, each with the version that answered it."""
    port.deploy("late_delivery", "v1", challenger="v2", share=0.5)
    items = [shipment(number, destination=f"D{number}") for number in range(40)]
    records = handler.score("late_delivery", {"items": items})
    assert {record.answer.version for record in records} == {"v1", "v2"}
    assert {record.answer.rung for record in records} == {Rung.CHAMPION, Rung.CANARY}
    assert all(again(port, record).same for record in records)


def test_previous_champion_rule_and_refusal_replay(handler, port, broken_model):
    """Lower rungs replay too: the previous champion, the rule on fresh and on stale history, and a refusal."""
    port.deploy("demand", "v2", previous="v1")
    handler.refresh()
    broken_model(handler, "demand", Rung.CHAMPION)
    records = handler.forecast("demand", SERIES)
    broken_model(handler, "demand", Rung.PREVIOUS_CHAMPION)
    records += handler.forecast("demand", SERIES)
    port.clock.set(port.clock.now() + timedelta(days=4))
    records += handler.forecast("demand", SERIES)
    records += handler.forecast("demand", {"items": [{"sku": "unheard-of", "location": "north"}]})
    assert [r.answer.rung.value for r in records] == ["previous_champion", "incumbent", "incumbent", "refuse"]
    assert all(again(port, record).same for record in records)


def test_risk_rule_replays(handler, port, shipment, broken_model):
    """The rolling late rate replays to the last bit."""
    broken_model(handler, "late_delivery", Rung.CHAMPION)
    (record,) = handler.score("late_delivery", {"items": [shipment()]})
    assert record.answer.rung is Rung.INCUMBENT
    assert again(port, record).same


def test_changed_features_request_and_answer_are_named(handler, port):
    """A changed feature value, request or stored answer is found and named by its part."""
    (record,) = handler.forecast("demand", SERIES)
    first = record.views[0]
    values = {**first.values, "lag_7": 999.0, "season_mean_3": 999.0, "mean_7": 999.0}
    tampered = (first.model_copy(update={"values": values}), *record.views[1:])
    features = again(port, record, views=tampered)
    assert features.differs == ("features",)
    assert not features.same
    assert again(port, record, request=record.request | {"horizon": 13}).differs == ("data",)
    step = record.answer.steps[0].model_copy(update={"mean": record.answer.steps[0].mean + 1})
    answer = record.answer.model_copy(update={"steps": (step, *record.answer.steps[1:])})
    changed = again(port, record, answer=answer)
    assert (changed.same, changed.differs) == (False, ("data",))


def test_changed_model_is_named_and_not_loaded(handler, port):
    """One changed byte in the artifact, or an artifact that is gone, is named as the model."""
    (record,) = handler.forecast("demand", SERIES)
    port.break_artifact("demand", "v1")
    result = again(port, record)
    assert (result.same, result.differs, result.again) == (False, ("model",), None)
    assert "spec.json" in result.words


def test_moved_policy_and_code_are_named_though_the_answer_is_the_same(handler, port):
    """A newer policy or newer code is told, also when it makes no difference to the answer."""
    (record,) = handler.forecast("demand", SERIES)
    result = again(port, record, policy="0" * 64, code="other")
    assert result.same
    assert result.differs == ("policy", "code")


def test_changed_declarations_are_named(handler, port):
    """A feature service that is declared otherwise today is named as features."""
    (record,) = handler.forecast("demand", SERIES)
    longer = port.declarations.views["price_history"].model_copy(update={"window": 14})
    views = port.declarations.views | {"price_history": longer}
    changed = port.declarations.model_copy(update={"views": views})
    result = replay(record, port.artifacts, changed, record.policy_hash, record.code_revision)
    assert result.differs == ("features",)


def test_replay_in_a_workspace_needs_only_the_record(handler, port):
    """Against a workspace's own policies, declarations and code nothing differs."""
    (record,) = handler.forecast("demand", SERIES)
    result = replay_in(port.settings, record)
    assert (result.same, result.differs) == (True, ())
