"""The kill switch as served: no version answers, the rung below does and says why, and shadows pause."""

from __future__ import annotations

import json

import pytest

from contracts.rollout import Stage
from registry.snapshot import read_snapshot, snapshot_path, write_snapshot
from serving.replay import replay
from serving.wiring import shadow_from


def _deploy(port, model, **more):
    stopped = more.pop("stopped", "")
    shot = port.deploy(model, **more)
    path = snapshot_path(port.settings.serving, model)
    write_snapshot(path, shot.model_copy(update={"stopped": stopped}))
    return shot


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_stopped_model_answers_by_its_rule_and_says_why(handler, port, shipment, share):
    """Champion, canary and previous champion are loaded and sound, and none of them answers until the release."""
    more = {"previous": "v3", "challenger": "v2", "share": share, "stage": Stage.CANARY if share else Stage.SHADOW}
    _deploy(port, "late_delivery", **more, stopped="wrong carrier codes")
    (record,) = handler.score("late_delivery", {"items": [shipment()]})
    assert (record.answer.rung.value, record.answer.version) == ("incumbent", None)
    assert record.answer.degraded[0] == "stopped: wrong carrier codes"
    assert (record.route.arm, record.route.reason) == ("none", "stopped: wrong carrier codes")
    assert handler.ready()["models"]["late_delivery"]["stopped"] == "wrong carrier codes"
    _deploy(port, "late_delivery", **more)
    (after,) = handler.score("late_delivery", {"items": [shipment(2)]})
    assert after.answer.version == ("v2" if share else "v1")
    assert after.answer.degraded == ()


def test_a_stopped_model_without_a_rule_refuses_with_the_reason(handler, port):
    """A ladder of versions only has nothing left: the refusal names the stop."""
    policy = port.policies["demand"]
    ladder = policy.serve.model_copy(update={"ladder": ("champion", "previous_champion", "refuse")})
    _deploy(port, "demand", policy=policy.model_copy(update={"serve": ladder}), stopped="recall")
    (record,) = handler.forecast("demand", {"items": [{"sku": "milk", "location": "north"}]})
    assert record.answer.rung.value == "refuse"
    assert record.answer.degraded == ("stopped: recall",)


def test_a_stopped_models_decision_replays(handler, port, shipment):
    """The rule's answer comes out the same to the last bit."""
    shot = _deploy(port, "late_delivery", stopped="recall")
    (record,) = handler.score("late_delivery", {"items": [shipment()]})
    again = replay(record, port.artifacts, port.declarations, shot.policy_hash, record.code_revision)
    assert again.same, again.words


def test_the_shadow_pauses_while_the_model_is_stopped(handler, port, shipment):
    """Decisions seen while it is stopped are never scored; after the release scoring goes on."""
    scorer = shadow_from(port.settings, port.declarations)
    _deploy(port, "late_delivery", challenger="v2", stage=Stage.SHADOW, stopped="recall")
    handler.score("late_delivery", {"items": [shipment()]})
    assert scorer.run_once() == 0
    _deploy(port, "late_delivery", challenger="v2", stage=Stage.SHADOW)
    handler.score("late_delivery", {"items": [shipment(2)]})
    assert scorer.run_once() == 1
    scorer.close()


def test_a_snapshot_from_before_there_was_a_switch_reads_as_not_stopped(port):
    """The file's new field is optional."""
    port.deploy("demand")
    path = snapshot_path(port.settings.serving, "demand")
    plain = json.loads(path.read_bytes())
    del plain["stopped"]
    path.write_text(json.dumps(plain))
    assert read_snapshot(path).stopped == ""
