"""Fault 4: somebody moves aliases in MLflow by hand; it is reported, never served, and restored or taken up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.errors import CheckFailed
from contracts.settings import Settings
from contracts.times import SetClock
from lifecycle.adopt import adopt
from lifecycle.doctor import Finding, examine
from lifecycle.workspace import Workspace
from registry.mlflow_store import MlflowProjection
from registry.snapshot import read_snapshot, snapshot_path
from tests.mlflow_registry import client, tracking_uri
from tests.registry.rig import MODEL, World

pytestmark = pytest.mark.slow
__all__ = ["client", "tracking_uri"]


@pytest.fixture
def world(client: Any, tracking_uri: str, tmp_path: Path) -> World:
    """Two champions after each other, and a third version that never stood a trial."""
    world = World(tmp_path, mlflow=MlflowProjection(tracking_uri))
    world.crown("first")
    world.crown("second")
    world.register("third", None)
    return world


@pytest.fixture
def workspace(world: World, tracking_uri: str) -> Workspace:
    """The same folder as a workspace, with the policy in a file."""
    folder = world.home / "policies"
    folder.mkdir()
    (folder / f"{MODEL}.yaml").write_text(world.policy.model_dump_json(exclude_defaults=True))
    settings = Settings(home=world.home, policies=folder, tracking_uri=tracking_uri)
    return Workspace(settings, SetClock(world.clock.now()))


def _move(client: Any, alias: str, version: str) -> None:
    found = client.search_model_versions(f"name = '{MODEL}'")
    number = next(one.version for one in found if one.tags["seatrial_version"] == version)
    client.set_registered_model_alias(MODEL, alias, number)


def _said(workspace: Workspace) -> list[Finding]:
    return [one for one in examine(workspace) if one.subject == f"MLflow's {MODEL}"]


def test_an_alias_moved_by_hand_is_reported_and_not_served(world: World, workspace: Workspace, client: Any) -> None:
    """One look finds it, ledger and snapshot do not move, and reconcile puts the alias back."""
    assert {one.level for one in _said(workspace)} == {"ok"}
    served = read_snapshot(snapshot_path(world.home / "serving", MODEL))
    _move(client, "champion", "v3")
    found = _said(workspace)
    assert [one.level for one in found] == ["wrong"]
    assert "the ledger says v2, MLflow says v3" in found[0].words
    words = world.registrar.reconcile(MODEL, world.policy)
    assert any("MLflow says v3" in one for one in words)
    assert read_snapshot(snapshot_path(world.home / "serving", MODEL)).says_the_same_as(served)
    assert {one.level for one in _said(workspace)} == {"ok"}


def test_tags_texts_and_lost_versions_are_reported(world: World, workspace: Workspace, client: Any) -> None:
    """A forged gate tag, a rewritten description and a deleted champion are each named; reconcile makes them again."""
    number = client.get_model_version_by_alias(MODEL, "champion").version
    client.set_model_version_tag(MODEL, number, "seatrial_gate", "fail")
    client.update_model_version(MODEL, number, "the best model ever")
    assert [one.level for one in _said(workspace)] == ["wrong", "wrong"]
    client.delete_model_version(MODEL, number)
    assert any("v2 is in use and is gone" in one.words for one in _said(workspace))
    world.registrar.reconcile(MODEL, world.policy)
    assert {one.level for one in _said(workspace)} == {"ok"}
    assert client.get_model_version_by_alias(MODEL, "champion").tags["seatrial_version"] == "v2"


def test_adopting_an_alias_on_the_previous_champion_rolls_back(world: World, workspace: Workspace, client: Any) -> None:
    """The wish behind the alias is carried out as a rollback, on record; asked for again, nothing more happens."""
    _move(client, "champion", "v1")
    assert adopt(workspace, world.policy, dry_run=True).startswith("would roll back from v2 to v1")
    assert world.state.champion == "v2"
    assert adopt(workspace, world.policy) == "rolled back from v2 to v1, as the alias in MLflow asked"
    assert world.state.champion == "v1"
    assert adopt(workspace, world.policy) == ""


def test_adopting_an_untried_version_is_refused(world: World, workspace: Workspace, client: Any) -> None:
    """An alias is no trial: the version stays out of service and the words say how to restore."""
    _move(client, "champion", "v3")
    with pytest.raises(CheckFailed, match="only a trial can bring it into service"):
        adopt(workspace, world.policy)
    assert world.state.champion == "v2"
