"""Fault 25: a rollback whose target is gone or damaged is refused before the switch."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from contracts.errors import ArtifactRefused, CheckFailed
from registry.snapshot import read_snapshot, snapshot_path
from tests.registry.rig import MODEL, World


@pytest.mark.parametrize("damage", ["gone", "changed", "emptied"])
def test_the_champion_stays_when_the_way_back_is_damaged(tmp_path: Path, damage: str) -> None:
    """Missing folder, changed file, missing file: refused, no row, the snapshot untouched; repaired, it works."""
    world = World(tmp_path)
    world.crown("first")
    world.crown("second")
    target, kept = world.artifacts.path(MODEL, "v1"), tmp_path / "kept"
    shutil.copytree(target, kept)
    if damage == "changed":
        (target / "booster.txt").write_text("tree\n")
    elif damage == "emptied":
        (target / "spec.json").unlink()
    else:
        shutil.rmtree(target)
    rows, path = world.ledger.rows(MODEL), snapshot_path(tmp_path / "serving", MODEL)
    served = path.read_bytes()
    with pytest.raises(ArtifactRefused):
        world.registrar.rollback(MODEL, world.policy, "complaints")
    assert (world.ledger.rows(MODEL), path.read_bytes()) == (rows, served)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(kept, target)
    world.registrar.rollback(MODEL, world.policy, "complaints")
    champion = read_snapshot(path).champion
    assert champion is not None
    assert champion.version == "v1"


def test_without_a_previous_champion_there_is_nothing_to_roll_back_to(tmp_path: Path) -> None:
    """The first champion, and no champion at all, cannot be rolled back."""
    world = World(tmp_path)
    for _ in range(2):
        with pytest.raises(CheckFailed, match="no previous champion"):
            world.registrar.rollback(MODEL, world.policy, "complaints")
        world.crown("first")
