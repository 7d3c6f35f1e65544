"""Shadow scoring: the same answer as asking directly, beside the decisions and never among them."""

from __future__ import annotations

import pytest

from contracts.rollout import Stage
from serving.segments import SegmentReader
from serving.shadow import BOOKMARK
from serving.wiring import shadow_from


@pytest.fixture
def scorer(port):
    made = shadow_from(port.settings, port.declarations)
    yield made
    made.close()


def scores(port):
    return SegmentReader(port.settings.decisions, "shadow").read()[0]


def test_shadow_score_equals_the_challengers_own_answer(handler, port, scorer, shipment):
    """What the challenger says in shadow is to the bit what it says as champion on the same moment."""
    port.deploy("late_delivery", "v1", challenger="v2", stage=Stage.SHADOW)
    port.deploy("demand", "v1", challenger="v2", stage=Stage.SHADOW)
    handler.score("late_delivery", {"items": [shipment()]})
    handler.forecast("demand", {"items": [{"sku": "milk", "location": "north"}]})
    assert scorer.run_once() == 2
    port.deploy("late_delivery", "v2")
    port.deploy("demand", "v2")
    (risk,) = handler.score("late_delivery", {"items": [shipment()]})
    (demand,) = handler.forecast("demand", {"items": [{"sku": "milk", "location": "north"}]})
    found = {score["model"]: score for score in scores(port)}
    assert {score["version"] for score in found.values()} == {"v2"}
    assert found["late_delivery"]["probability"] == risk.answer.probability
    assert found["demand"]["steps"] == [step.model_dump() for step in demand.answer.steps]


def test_in_canary_each_decision_is_scored_by_the_version_that_did_not_answer(handler, port, scorer, shipment):
    """Both versions have an answer to every subject: one served, one in shadow."""
    port.deploy("late_delivery", "v1", challenger="v2", share=0.5)
    items = [shipment(number, destination=f"D{number}") for number in range(20)]
    records = handler.score("late_delivery", {"items": items})
    assert scorer.run_once() == 20
    shadowed = {score["decision_id"]: score["version"] for score in scores(port)}
    assert all({record.answer.version, shadowed[record.decision_id]} == {"v1", "v2"} for record in records)


def test_f17_shadow_never_touches_decisions(handler, port, scorer, shipment):
    """The decision stream is byte for byte what it was, and the scorer holds no writer for it."""
    port.deploy("late_delivery", "v1", challenger="v2", stage=Stage.SHADOW)
    handler.score("late_delivery", {"items": [shipment()]})
    before = {path.name: path.read_bytes() for path in port.settings.decisions.glob("decisions-*")}
    scorer.run_once()
    assert {path.name: path.read_bytes() for path in port.settings.decisions.glob("decisions-*")} == before
    assert not hasattr(scorer._decisions, "append")


def test_no_challenger_no_scores(handler, port, scorer, shipment):
    """Without a challenger decisions pass by unscored and are not scored afterwards either."""
    handler.score("late_delivery", {"items": [shipment()]})
    assert scorer.run_once() == 0
    port.deploy("late_delivery", "v1", challenger="v2", stage=Stage.SHADOW)
    assert scorer.run_once() == 0


def test_restart_and_lost_bookmark_score_nothing_twice(handler, port, scorer, shipment):
    """A new scorer goes on where the last one stopped, and knows its rows even without a bookmark."""
    port.deploy("late_delivery", "v1", challenger="v2", stage=Stage.SHADOW)
    handler.score("late_delivery", {"items": [shipment(number) for number in range(3)]})
    assert scorer.run_once() == 3
    handler.score("late_delivery", {"items": [shipment(9)]})
    (port.settings.decisions / BOOKMARK).unlink()
    other = shadow_from(port.settings, port.declarations)
    assert (other.run_once(), other.run_once()) == (1, 0)
    assert len({(s["decision_id"], s["version"]) for s in scores(port)}) == len(scores(port)) == 4
    other.close()


def test_failure_of_the_challenger_is_recorded_as_its_error(handler, port, scorer):
    """A challenger that cannot answer leaves a row with its reason, which counts against it."""
    port.deploy("demand", "v1", challenger="v2", stage=Stage.SHADOW)
    handler.forecast("demand", {"items": [{"sku": "unheard-of", "location": "north"}]})
    assert scorer.run_once() == 1
    assert "cold_start" in scores(port)[0]["error"]
