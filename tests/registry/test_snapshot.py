"""The serving snapshot: what is written reads back, and nothing else reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contracts.errors import InputInvalid
from registry.snapshot import ServingSnapshot, read_snapshot, snapshot_path, write_snapshot
from tests.registry.rig import MODEL, World, evidence


@pytest.fixture
def written(world: World) -> Path:
    """The snapshot of a model with a champion and a canary."""
    world.crown("first")
    world.register("second")
    world.advance()
    world.later(6)
    world.advance(evidence())
    return snapshot_path(world.home / "serving", MODEL)


def test_a_snapshot_reads_back_as_it_was(written: Path, tmp_path: Path) -> None:
    """Writing what was read gives the same snapshot, policy and its hash included, and leaves no other file."""
    found = read_snapshot(written)
    write_snapshot(tmp_path / "copy" / "late_delivery.json", found)
    assert read_snapshot(tmp_path / "copy" / "late_delivery.json") == found
    assert found.policy_hash == found.policy.hash
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["late_delivery.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"share": 1.5},
        {"share": "0.1"},
        {"stage": "shadow"},
        {"champion": None},
        {"policy_hash": "0" * 64},
        {"model": "demand"},
        {"surprise": 1},
        {"challenger": {"version": "v2", "manifest_sha256": "a" * 64, "folder": "../outside"}},
        {"challenger": {"version": "v2", "manifest_sha256": "short", "folder": "late_delivery/v2"}},
    ],
)
def test_a_snapshot_that_does_not_hold_together_is_refused(written: Path, change: dict[str, object]) -> None:
    """Another format, unknown keys, paths that lead out, or a canary without champion do not read."""
    plain = json.loads(written.read_bytes()) | change
    written.write_text(json.dumps(plain))
    with pytest.raises(InputInvalid, match="reconcile"):
        read_snapshot(written)


def test_a_missing_snapshot_is_named(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(InputInvalid, match="nobody"):
        read_snapshot(tmp_path / "nobody.json")


def test_the_salt_belongs_to_the_challenger(written: Path, world: World) -> None:
    """Steps of one canary share their salt, so that a key stays on its side; another challenger has another."""
    first: ServingSnapshot = read_snapshot(written)
    world.later(6)
    world.advance(evidence())
    second = read_snapshot(written)
    assert (second.share, second.salt) == (0.5, first.salt)
    world.register("third")
    assert read_snapshot(written).salt != first.salt
