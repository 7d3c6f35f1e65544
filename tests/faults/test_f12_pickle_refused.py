"""Fault 12: pickles, archives and links dressed as models are refused before anything is read; no payload runs."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import pytest
import skops.io
from sklearn.linear_model import LinearRegression

from contracts.canonical import canonical_json, sha256_hex
from contracts.errors import ArtifactRefused
from registry.artifacts import MANIFEST, ArtifactStore, seal, verify
from tests.registry.rig import trained


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.marker,))


def _zip(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../evil.txt", content)
    return buffer.getvalue()


def _tar(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("../../evil.txt")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _corpus(marker: Path) -> dict[str, bytes]:
    evil = {protocol: pickle.dumps(_Evil(marker), protocol=protocol) for protocol in range(6)}
    names = ("pkl", "pickle", "joblib", "cloudpickle", "dill", "pt", "npy", "skops", "bin", "json", "txt", "parquet")
    found = {f"model.{name}": evil[4] for name in names}
    found |= {f"protocol{number}.txt": content for number, content in evil.items()}
    found |= {"booster": evil[0], "module.py": b"import os", "library.so": b"\x7fELF" + b"\0" * 60}
    found |= {"wrapped.parquet": b"PAR1" + evil[4], "picture.png": evil[4], "table.arrow": evil[2], "nul.txt": b"a\0b"}
    for name, pack in (("gz", gzip.compress), ("zz", zlib.compress), ("bz", bz2.compress), ("xz", lzma.compress)):
        found[f"packed_{name}.txt"] = pack(evil[4])
    return found | {"slip.zip": _zip(evil[4]), "slip.json": _zip(evil[4]), "slip.tar": _tar(evil[4])}


def test_every_payload_is_refused_and_none_runs(tmp_path: Path) -> None:
    """Refused when sealing, and also under a manifest made by other means; the payload's marker stays away."""
    marker = tmp_path / "marker"
    corpus = _corpus(marker)
    assert len(corpus) >= 30
    for number, (name, content) in enumerate(corpus.items()):
        folder = trained(tmp_path / str(number), "first").folder
        (folder / name).write_bytes(content)
        with pytest.raises(ArtifactRefused):
            seal(folder, {})
        sha = _forged(folder)
        with pytest.raises(ArtifactRefused):
            verify(folder, sha)
        with pytest.raises(ArtifactRefused):
            ArtifactStore(tmp_path / "store").place("demand", "v1", folder)
    assert not marker.exists()
    assert not (tmp_path / "store" / "demand").exists()


@pytest.mark.parametrize(
    "name", ["../evil.json", "/evil.json", "a/../../evil.json", "..\\evil.json", "c:evil.json", ""]
)
def test_a_manifest_whose_paths_lead_out_is_refused(tmp_path: Path, name: str) -> None:
    """Names in a manifest stay inside the folder, even when the manifest is the one that was asked for."""
    folder = trained(tmp_path / "model", "first").folder
    (tmp_path / "evil.json").write_text("{}")
    sha = _forged(folder, {name: {"sha256": sha256_hex(b"{}"), "size": 2}})
    with pytest.raises(ArtifactRefused):
        verify(folder, sha)


def test_a_folder_that_is_or_holds_a_link_is_refused(tmp_path: Path) -> None:
    """Links are refused, not followed, at the top and inside."""
    folder = trained(tmp_path / "model", "first").folder
    sha = seal(folder, {})
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ArtifactRefused):
        verify(tmp_path / "link", sha)
    (folder / "outside").symlink_to(tmp_path)
    with pytest.raises(ArtifactRefused, match="link"):
        seal(folder, {})


class _Estimator(LinearRegression):  # type: ignore[misc]
    """A type that nobody has declared safe."""


def _written(marker: Path) -> dict[str, Any]:
    """Name -> how the library itself writes such a file."""
    evil = _Evil(marker)

    def dumped(path: Path) -> None:
        path.write_bytes(cloudpickle.dumps({"model": evil, "hook": lambda: marker.touch()}))

    return {
        "plain.joblib": lambda path: joblib.dump({"model": evil}, path),
        "compressed.json": lambda path: joblib.dump({"model": evil}, path, compress=("gzip", 3)),
        "as_text.txt": lambda path: joblib.dump([evil], path),
        "cloud.json": dumped,
        "known.skops": lambda path: skops.io.dump(LinearRegression(), path),
        "unknown.skops": lambda path: skops.io.dump(_Estimator(), path),
        "unknown.json": lambda path: path.write_bytes(skops.io.dumps(_Estimator())),
    }


def test_what_other_libraries_write_is_refused(tmp_path: Path) -> None:
    """joblib, cloudpickle and skops, with their own writers, under their own names and under ours."""
    marker = tmp_path / "marker"
    for number, (name, write) in enumerate(_written(marker).items()):
        folder = trained(tmp_path / str(number), "first").folder
        write(folder / name)
        with pytest.raises(ArtifactRefused, match=name):
            seal(folder, {})
        with pytest.raises(ArtifactRefused, match=name):
            verify(folder, _forged(folder))
    assert not marker.exists()


def _forged(folder: Path, more: dict[str, object] | None = None) -> str:
    """A manifest that lists whatever lies there, made without the checks of `seal`."""
    files: dict[str, object] = {
        path.name: {"sha256": sha256_hex(path.read_bytes()), "size": path.stat().st_size}
        for path in folder.iterdir()
        if path.name != MANIFEST
    }
    content = canonical_json({"format": 1, "files": {**files, **(more or {})}, "meta": {}})
    assert json.loads(content)["format"] == 1
    (folder / MANIFEST).write_text(content)
    return sha256_hex(content)
