"""MLflow shows what the ledger says, on a real store; what somebody changes there by hand is reported and put right."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import DependencyDown
from contracts.rollout import RolloutState
from registry.mlflow_store import MlflowProjection
from tests.mlflow_registry import client, tracking_uri
from tests.registry.rig import MODEL, World, evidence

pytestmark = pytest.mark.slow
__all__ = ["client", "tracking_uri"]


@pytest.fixture
def projected(client: Any, tracking_uri: str, tmp_path: Path) -> World:
    """A registry that projects into MLflow, with a champion and a canary."""
    world = World(tmp_path, mlflow=MlflowProjection(tracking_uri))
    world.crown("first")
    world.register("second")
    world.advance()
    world.later(6)
    world.advance(evidence())
    return world


def _aliases(client: Any) -> dict[str, str]:
    return {
        alias: client.get_model_version(MODEL, number).tags["seatrial_version"]
        for alias, number in client.get_registered_model(MODEL).aliases.items()
    }


def test_aliases_and_tags_follow_the_rollout(projected: World, client: Any) -> None:
    """MLflow's own client sees champion and canary by alias, with stage, gate and manifest as tags."""
    assert _aliases(client) == {"champion": "v1", "canary": "v2"}
    version = client.get_model_version_by_alias(MODEL, "canary")
    assert version.tags["seatrial_stage"] == "canary"
    assert version.tags["seatrial_gate"] == "pass"
    assert version.tags["seatrial_manifest_sha256"] == projected.state.manifests["v2"]
    assert version.source == projected.artifacts.path(MODEL, "v2").absolute().as_uri()
    projected.registrar.reject(MODEL, projected.policy, "enough")
    assert _aliases(client) == {"champion": "v1"}


def test_an_alias_set_by_hand_is_reported_and_restored(projected: World, client: Any) -> None:
    """Fault 4: a hand-edited alias is named by reconcile and put back; the ledger and what is served do not move."""
    number = client.get_model_version_by_alias(MODEL, "canary").version
    client.set_registered_model_alias(MODEL, "champion", number)
    client.delete_registered_model_alias(MODEL, "canary")
    before = projected.state
    found = projected.registrar.reconcile(MODEL, projected.policy)
    assert any("champion" in words and "v1" in words and "v2" in words for words in found)
    assert _aliases(client) == {"champion": "v1", "canary": "v2"}
    assert projected.state == before
    assert projected.registrar.reconcile(MODEL, projected.policy) == ()


def test_projecting_again_makes_no_second_version(projected: World, client: Any) -> None:
    """Reconciling and re-registering leave one MLflow version for each of ours."""
    projected.registrar.reconcile(MODEL, projected.policy)
    projected.register("second")
    assert len(client.search_model_versions(f"name = '{MODEL}'")) == 2


def test_mlflow_down_does_not_stop_a_promotion(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Fault 5: with MLflow away the ledger and the snapshot go on, and what is pending is said."""
    (tmp_path / "not_a_folder").write_text("")
    broken = MlflowProjection(f"sqlite:///{tmp_path / 'not_a_folder' / 'mlflow.db'}")
    with pytest.raises(DependencyDown):
        broken.project(RolloutState(MODEL))
    world = World(tmp_path, mlflow=broken)
    with caplog.at_level(logging.WARNING):
        world.crown("first")
    assert world.state.champion == "v1"
    assert MODEL in world.registrar.projection.pending
    assert "pending" in caplog.text
