"""Fault 11: files, manifests or whole versions in each other's place; refused by what the ledger recorded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.canonical import canonical_json, sha256_hex
from contracts.errors import ArtifactRefused
from registry.artifacts import MANIFEST, seal, verify
from tests.registry.rig import MODEL, World, policy, trained


def swap(first: Path, second: Path) -> None:
    """Put two files or folders in each other's place."""
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A registry with a champion v2 and its predecessor v1."""
    made = World(tmp_path / "home")
    assert (made.crown("first"), made.crown("second")) == ("v1", "v2")
    return made


def places(world: World) -> tuple[Path, Path]:
    """The folders of v1 and v2."""
    older, newer = (world.registrar.artifacts.path(MODEL, version) for version in ("v1", "v2"))
    return older, newer


SWAPS: dict[str, Callable[[Path, Path], None]] = {
    "an older version whole": lambda older, newer: (shutil.rmtree(newer), shutil.copytree(older, newer))[0],
    "the versions": swap,
    "their boosters": lambda older, newer: swap(older / "booster.txt", newer / "booster.txt"),
    "their manifests": lambda older, newer: swap(older / MANIFEST, newer / MANIFEST),
}


@pytest.mark.parametrize("what", SWAPS)
def test_what_is_in_anothers_place_is_refused(world: World, what: str) -> None:
    """Every file is as somebody sealed it, but not as this version was: the ledger's hash says so, nothing moves."""
    state = world.state
    SWAPS[what](*places(world))
    with pytest.raises(ArtifactRefused):
        verify(places(world)[1], state.manifests["v2"])
    with pytest.raises(ArtifactRefused):
        world.registrar.reconcile(MODEL, policy())
    assert world.state.champion == "v2"


def test_an_older_version_comes_back_by_rollback_only(world: World) -> None:
    """Registering the older version's files again gives its old number, and the champion stays."""
    before = world.state
    assert world.register("first", None) == "v1"
    assert world.state.champion == before.champion == "v2"
    assert set(world.state.manifests) == {"v1", "v2"}


def test_a_manifest_that_was_made_anew_is_another_one(world: World) -> None:
    """Who changes a file and seals the folder again has another hash than the ledger's."""
    newer = places(world)[1]
    (newer / "spec.json").write_text("{}")
    manifest = verify(newer, seal(newer, {}))
    assert manifest["meta"] == {}
    with pytest.raises(ArtifactRefused, match="the manifest is not"):
        verify(newer, world.state.manifests["v2"])


@pytest.mark.parametrize(
    ("first", "second"),
    [("spec.json", "SPEC.json"), ("stra\u00dfe.json", "strasse.json"), ("\u00e9.json", "e\u0301.json")],
)
def test_names_that_clash_on_other_systems_are_refused(tmp_path: Path, first: str, second: str) -> None:
    """Two names that differ by case or by how an accent is written: one would take the other's place elsewhere."""
    folder = trained(tmp_path / "model", "first").folder
    for name in (first, second):
        (folder / name).write_text("{}")
    with pytest.raises(ArtifactRefused, match="one name on some systems"):
        seal(folder, {})
    (folder / second).unlink()
    seal(folder, {})
    listed = {name: {"sha256": sha256_hex(b"{}"), "size": 2} for name in (first, second)}
    (folder / MANIFEST).write_text(canonical_json({"format": 1, "files": listed, "meta": {}}))
    with pytest.raises(ArtifactRefused, match="one name on some systems"):
        verify(folder, sha256_hex((folder / MANIFEST).read_bytes()))


def test_odd_files_are_refused_and_not_opened(tmp_path: Path) -> None:
    """A pipe (which would block who reads it), a name that is no text, a name with a line break, a folder as a link."""
    for number, make in enumerate(
        (
            lambda folder: os.mkfifo(folder / "pipe.json"),
            lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/\xff.json")).write_text("{}"),
            lambda folder: (folder / "two\nlines.json").write_text("{}"),
            lambda folder: (folder / "inside").symlink_to(tmp_path, target_is_directory=True),
        )
    ):
        folder = trained(tmp_path / str(number), "first").folder
        make(folder)
        with pytest.raises(ArtifactRefused):
            seal(folder, {})
