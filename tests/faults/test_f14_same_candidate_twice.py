"""Fault 14: a candidate promoted twice is promoted once; a newer one in mid-canary supersedes it, on record."""

from __future__ import annotations

from pathlib import Path

from contracts.rollout import RowKind, Stage
from registry.rollout import next_action
from registry.snapshot import read_snapshot, snapshot_path
from tests.registry.rig import MODEL, World, evidence


def test_the_same_candidate_promoted_twice_is_one_promotion(tmp_path: Path) -> None:
    """Registered, gated and promoted again after it serves: same version, same revision, one row."""
    world = World(tmp_path)
    world.crown("first")
    before = world.ledger.rows(MODEL)
    assert world.register("first") == "v1"
    action = next_action(world.state, world.policy, None, None, world.clock.now(), bound=1.0)
    world.registrar.apply(action, world.policy)
    assert world.ledger.rows(MODEL) == before


def test_a_newer_candidate_in_mid_canary_supersedes_the_older(tmp_path: Path) -> None:
    """The older canary loses its share at once, its end is a row, and it never comes back by itself."""
    world = World(tmp_path)
    world.crown("first")
    world.register("second")
    world.advance()
    world.later(6)
    assert world.advance(evidence()).stage is Stage.CANARY
    assert world.register("third") == "v3"
    assert read_snapshot(snapshot_path(world.home / "serving", MODEL)).share == 0
    assert [row.version for row in world.ledger.rows(MODEL) if row.kind is RowKind.SUPERSEDED] == ["v2"]
    world.register("second")
    assert world.state.challenger == "v3"
    assert world.crown("third") == "v3"
    assert world.state.previous_champion == "v1"
