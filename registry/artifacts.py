"""Sealed artifacts: a folder of plain files with a manifest, checked file by file before anything in it is read."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import time
import unicodedata
import uuid
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from contracts.canonical import canonical_json, sha256_hex
from contracts.errors import ArtifactRefused, UsageError
from registry.artifact_kinds import why_forbidden
from registry.crashpoints import crash_point
from registry.durable import on_disk, sync_folder

MANIFEST = "manifest.json"
MANIFEST_FORMAT = 1
MAX_FILES = 1_000
MAX_BYTES = 2_000_000_000
_MAX_MANIFEST = 4_000_000
_MODEL = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
_VERSION = re.compile(r"^v[1-9][0-9]{0,8}$")
_LEFTOVER_S = 3600.0


def seal(folder: Path, meta: dict[str, Any]) -> str:
    """Write the folder's manifest: format, SHA-256 and size of every file, and `meta`.

    Sealing the same files with the same meta again gives the same bytes, so the same hash.

    Args:
        folder: plain files, also in sub-folders; an older manifest is replaced.
        meta: plain JSON values about the model; must not name the version, which is given later.

    Returns:
        SHA-256 of the manifest, 64 hexadecimal digits: the artifact's identity.

    Raises:
        ArtifactRefused: a link, a special file, a forbidden kind of file, or no file at all.
        DependencyDown: the disk is full or failing.
    """
    files = _files(folder)
    files.pop(MANIFEST, None)
    if not files:
        raise ArtifactRefused(folder.name, "there is no file to seal")
    entries = {}
    for name, path in sorted(files.items()):
        if why := why_forbidden(path):
            raise ArtifactRefused(folder.name, why)
        entries[name] = {"sha256": sha256_hex(path.read_bytes()), "size": path.stat().st_size}
    content = canonical_json({"format": MANIFEST_FORMAT, "files": entries, "meta": meta}).encode()
    with (
        on_disk(folder),
        (folder / MANIFEST).open("wb") as file,
    ):  # in place: half a manifest never verifies, and sealing again mends it
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return sha256_hex(content)


def verify(folder: Path, manifest_sha256: str) -> dict[str, Any]:
    """Check that the folder is exactly what was sealed under this hash.

    Args:
        folder: the artifact.
        manifest_sha256: what `seal` returned, from a trusted place (ledger, snapshot).

    Returns:
        the manifest: format, files, meta.

    Raises:
        ArtifactRefused: a missing, extra or changed file, a link, a path that leads out, a forbidden kind of file, or
            a manifest that is not the one named; nothing was loaded.
    """
    manifest = _manifest(folder, manifest_sha256)
    listed: dict[str, Any] = manifest["files"]
    found = _files(folder)
    found.pop(MANIFEST, None)
    for name in listed:
        if not _is_plain(name):
            raise ArtifactRefused(folder.name, f"{name!r} leads out of the folder")
    _no_clash(folder, listed)
    for what, names in (("missing", set(listed) - set(found)), ("extra", set(found) - set(listed))):
        if names:
            raise ArtifactRefused(folder.name, f"{what} file {sorted(names)[0]!r}")
    for name, path in sorted(found.items()):
        if path.stat().st_size != listed[name]["size"] or sha256_hex(path.read_bytes()) != listed[name]["sha256"]:
            raise ArtifactRefused(folder.name, f"{name!r} is not the file that was sealed")
        if why := why_forbidden(path):
            raise ArtifactRefused(folder.name, why)
    return manifest


class ArtifactStore:
    """Sealed artifacts under one root, a folder for each model and version; a placed artifact never changes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, model: str, version: str) -> Path:
        """Where the artifact of a version lies or would lie.

        Raises:
            UsageError: not a model name or not a version.
        """
        if not _MODEL.fullmatch(model) or not _VERSION.fullmatch(version):
            raise UsageError(f"artifact: wanted a model and a version like v3, got {model!r} and {version!r}")
        return self.root / model / version

    def folder(self, model: str, version: str) -> str:
        """The artifact's folder relative to the root, as snapshots name it."""
        return self.path(model, version).relative_to(self.root).as_posix()

    def place(self, model: str, version: str, folder: Path) -> Path:
        """Copy a sealed folder to its place in one step; the same artifact already there is fine.

        Raises:
            ArtifactRefused: the folder is not sealed or does not verify, or another artifact stands at that version.
            DependencyDown: the disk is full or failing; nothing half-copied is left.
        """
        place = self.path(model, version)
        if not (folder / MANIFEST).is_file():
            raise ArtifactRefused(folder.name, "it has no manifest; seal it first")
        sha = sha256_hex((folder / MANIFEST).read_bytes())
        verify(folder, sha)
        with on_disk(place):
            if not self._stands(place, sha):
                self._copy(folder, place, sha)
        crash_point("artifact.placed")
        return place

    def holds_other(self, model: str, version: str, manifest_sha256: str) -> bool:
        """True when an artifact with another manifest stands at this version."""
        there = self.path(model, version) / MANIFEST
        return there.parent.exists() and not (there.is_file() and sha256_hex(there.read_bytes()) == manifest_sha256)

    def _stands(self, place: Path, sha: str) -> bool:
        if not place.exists():
            return False
        if not (place / MANIFEST).is_file() or sha256_hex((place / MANIFEST).read_bytes()) != sha:
            raise ArtifactRefused(f"{place.parent.name}/{place.name}", "another artifact stands at this version")
        verify(place, sha)
        return True

    def _copy(self, folder: Path, place: Path, sha: str) -> None:
        incoming = self.root / ".incoming"
        incoming.mkdir(parents=True, exist_ok=True)
        _sweep(incoming)
        temporary = incoming / f"{place.parent.name}-{place.name}-{uuid.uuid4().hex[:12]}"
        try:
            shutil.copytree(folder, temporary)
            for path in sorted(temporary.rglob("*")):
                sync_folder(path)
            verify(temporary, sha)
            crash_point("artifact.copied")
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.rename(place)
            except OSError:  # somebody placed it between our look and now
                if not self._stands(place, sha):
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(place.parent)


def _sweep(incoming: Path) -> None:
    """Remove what crashed copies left behind, once it is old enough to belong to nobody alive."""
    for leftover in incoming.iterdir():
        if time.time() - leftover.stat().st_mtime > _LEFTOVER_S:
            shutil.rmtree(leftover, ignore_errors=True)


def _manifest(folder: Path, manifest_sha256: str) -> dict[str, Any]:
    path = folder / MANIFEST
    if folder.is_symlink() or not folder.is_dir():
        raise ArtifactRefused(folder.name, "it is not a folder")
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _MAX_MANIFEST:
        raise ArtifactRefused(folder.name, "it has no manifest")
    content = path.read_bytes()
    if sha256_hex(content) != manifest_sha256:
        raise ArtifactRefused(folder.name, f"the manifest is not {manifest_sha256[:12]}...")
    try:
        manifest = json.loads(content)
        if manifest["format"] == MANIFEST_FORMAT and isinstance(manifest["files"], dict):
            return dict(manifest)
    except (ValueError, TypeError, KeyError):
        pass
    raise ArtifactRefused(folder.name, f"the manifest is not of format {MANIFEST_FORMAT}")


def _is_plain(name: str) -> bool:
    parts = PurePosixPath(name).parts
    odd = "\\" in name or ":" in name or any(ord(c) < 32 or 0xD800 <= ord(c) <= 0xDFFF for c in name)
    return bool(parts) and not odd and name[0] != "/" and ".." not in parts and str(PurePosixPath(name)) == name


def _files(folder: Path) -> dict[str, Path]:
    """Every file below `folder` by relative name; links and special files are refused, not followed."""
    if folder.is_symlink() or not folder.is_dir():
        raise ArtifactRefused(folder.name, "it is not a folder")
    found: dict[str, Path] = {}
    total = 0
    for base, folders, names in os.walk(folder, followlinks=False):
        for name in (*folders, *names):
            path = Path(base) / name
            relative = path.relative_to(folder).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            if not stat.S_ISREG(mode) or not _is_plain(relative):
                raise ArtifactRefused(folder.name, f"{relative!r} is a link, a special file or oddly named")
            found[relative] = path
            total += path.lstat().st_size
        if len(found) > MAX_FILES or total > MAX_BYTES:
            raise ArtifactRefused(folder.name, f"more than {MAX_FILES} files or {MAX_BYTES} bytes")
    _no_clash(folder, found)
    return found


def _no_clash(folder: Path, names: Iterable[str]) -> None:
    """Refuse names that are one name on a system that ignores case or writes accents otherwise."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise ArtifactRefused(folder.name, f"{other!r} and {name!r} are one name on some systems")
