"""Sealed artifacts: what verifies is byte for byte what was sealed."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import ArtifactRefused, UsageError
from registry.artifacts import ArtifactStore, seal, verify
from tests.registry.rig import trained


def test_sealing_twice_gives_the_same_hash(tmp_path: Path) -> None:
    """The identity depends on files and facts alone; other facts are another artifact."""
    folder = trained(tmp_path / "m", "first").folder
    assert seal(folder, {"model": "m"}) == seal(folder, {"model": "m"}) != seal(folder, {"model": "n"})


def test_a_sealed_folder_verifies_and_tells_its_facts(tmp_path: Path) -> None:
    """Verifying gives the manifest, with the files in sub-folders too."""
    folder = trained(tmp_path / "m", "first").folder
    (folder / "figures").mkdir()
    (folder / "figures" / "card.html").write_text("<p>card</p>")
    manifest = verify(folder, seal(folder, {"rows": 5}))
    assert manifest["meta"] == {"rows": 5}
    assert set(manifest["files"]) == {"booster.txt", "figures/card.html", "spec.json"}


def test_a_manifest_written_by_somebody_else_is_refused(tmp_path: Path) -> None:
    """Files and manifest that agree with each other are not enough: the hash from the ledger decides."""
    folder = trained(tmp_path / "m", "first").folder
    sha = seal(folder, {})
    (folder / "spec.json").write_text("{}")
    seal(folder, {})
    with pytest.raises(ArtifactRefused, match="manifest"):
        verify(folder, sha)


def test_placing_is_repeatable_and_never_replaces(tmp_path: Path) -> None:
    """The same artifact may be placed again; another one at the same version is refused and changes nothing."""
    store = ArtifactStore(tmp_path / "store")
    first, other = (trained(tmp_path / name, name).folder for name in ("first", "other"))
    sha = seal(first, {})
    seal(other, {})
    place = store.place("demand", "v1", first)
    assert store.place("demand", "v1", first) == place == store.path("demand", "v1")
    with pytest.raises(ArtifactRefused, match="another"):
        store.place("demand", "v1", other)
    verify(place, sha)
    assert list((tmp_path / "store" / ".incoming").iterdir()) == []


@pytest.mark.parametrize(
    ("model", "version"),
    [("..", "v1"), ("demand/../x", "v1"), ("demand", ".."), ("demand", "v1/.."), ("demand", "v0"), ("demand", "v1\0")],
)
def test_a_path_that_leads_out_is_refused(tmp_path: Path, model: str, version: str) -> None:
    """Model and version names cannot leave the store."""
    with pytest.raises(UsageError):
        ArtifactStore(tmp_path).path(model, version)
