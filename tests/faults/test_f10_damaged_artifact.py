"""Fault 10 (and 11): a bit flipped, a file cut, missing or added; the artifact is refused, nothing is loaded."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from contracts.errors import ArtifactRefused
from registry.artifacts import MANIFEST, seal, verify
from tests.registry.rig import trained


@pytest.fixture
def sealed(tmp_path: Path) -> tuple[Path, str]:
    """A sealed model and its hash."""
    folder = trained(tmp_path / "model", "first").folder
    return folder, seal(folder, {"model": "late_delivery"})


def test_each_flipped_bit_is_refused(sealed: tuple[Path, str]) -> None:
    """One bit in any of 64 random bytes, manifest included, is found; put back, the artifact verifies again."""
    folder, sha = sealed
    draw = random.Random(7)
    files = sorted(folder.iterdir())
    for _ in range(64):
        path = draw.choice(files)
        whole = path.read_bytes()
        place = draw.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
        with pytest.raises(ArtifactRefused):
            verify(folder, sha)
        path.write_bytes(whole)
    verify(folder, sha)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", ["spec.json", "booster.txt", MANIFEST])
def test_a_truncated_file_is_refused(sealed: tuple[Path, str], name: str, share: float) -> None:
    """A file cut short is not the file that was sealed."""
    folder, sha = sealed
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ArtifactRefused):
        verify(folder, sha)


def test_missing_extra_and_linked_files_are_refused(sealed: tuple[Path, str], tmp_path: Path) -> None:
    """The folder holds exactly the sealed files, and none of them is a link."""
    folder, sha = sealed
    (folder / "extra.json").write_text("{}")
    with pytest.raises(ArtifactRefused, match="extra"):
        verify(folder, sha)
    (folder / "extra.json").unlink()
    whole = (folder / "spec.json").read_bytes()
    (folder / "spec.json").unlink()
    with pytest.raises(ArtifactRefused, match="missing"):
        verify(folder, sha)
    (tmp_path / "elsewhere.json").write_bytes(whole)
    (folder / "spec.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ArtifactRefused, match="link"):
        verify(folder, sha)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """No folder is no artifact."""
    with pytest.raises(ArtifactRefused):
        verify(tmp_path / "gone", "0" * 64)
