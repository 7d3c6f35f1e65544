"""Fault 9: the disk is full or fails during a promotion: a typed error, nothing half-written, the champion stays."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts.errors import DependencyDown
from tests.faults.system_calls import assert_invariants, assert_second_is_champion, promote_second, under_strace
from tests.registry.rig import World

TYPED = 42


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one champion, to be copied."""
    home = tmp_path_factory.mktemp("harbour")
    World(home).crown("first")
    return home


def _promote_or_say(home: Path) -> None:
    """Promote; end with TYPED when that fails with the error that it should fail with."""
    try:
        promote_second(home)
    except DependencyDown as error:
        sys.exit(TYPED if str(error).startswith(("disk is not", "ledger is not")) else 1)


def _failing_at(harbour: Path, home: Path, call: str, error: str, number: int) -> bool:
    shutil.copytree(harbour, home)
    code = under_strace(lambda: _promote_or_say(home), f"{call}:error={error}:when={number}", call)
    assert code in (0, TYPED), f"{call} {number} with {error} ended with {code}"
    assert not list(home.rglob("*.tmp")), "a temporary file was left"
    assert not list(home.glob("artifacts/.incoming/*")), "half an artifact was left"
    assert_invariants(home)
    promote_second(home)
    assert_second_is_champion(home)
    shutil.rmtree(home)
    return code == TYPED


@pytest.mark.parametrize(("call", "error"), [("fdatasync", "EIO"), ("fdatasync", "ENOSPC"), ("fsync", "ENOSPC")])
def test_a_failing_disk_is_a_typed_error(harbour: Path, tmp_path: Path, call: str, error: str) -> None:
    """A sync that fails ends with what is down, temporary files gone, the champion intact; the next run completes."""
    failed = [_failing_at(harbour, tmp_path / f"home{number}", call, error, number) for number in (3, 5, 7, 9)]
    assert sum(failed) >= 2, "SQLite overlooks a failing checkpoint, which loses nothing, but not so many syncs"


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", ["fdatasync", "fsync", "pwrite64"])
def test_a_failing_disk_at_every_call(
    harbour: Path, tmp_path: Path, call: str, error: str, record_property: Callable[[str, object], None]
) -> None:
    """The same at each n, until n is beyond the last one."""
    failed, clean, number = 0, 0, 0
    while clean < 3:
        number += 1
        hit = _failing_at(harbour, tmp_path / f"home{number}", call, error, number)
        failed, clean = failed + hit, 0 if hit else clean + 1
    record_property(f"figure: {error} at {call} while promoting, each a typed error", failed)
    assert failed >= 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 800 KB: room for two promotions, not for waste."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode()[-100:]}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("room", [0, 8, 24, 48, 72])
def test_a_full_disk_leaves_the_champion_and_the_next_run_completes(
    small_disk: Path, tmp_path: Path, room: int
) -> None:
    """With too few KB for artifact, row or snapshot the error says so; with room again the same run goes through."""
    home = small_disk / "home"
    world = World(home)
    world.crown("first")
    world.ledger.close()  # type: ignore[attr-defined]
    (tmp_path / "trained").mkdir()
    shutil.rmtree(home / "trained")
    (home / "trained").symlink_to(tmp_path / "trained")  # training has a disk of its own
    ballast = small_disk / "ballast"
    _fill(ballast, room)
    with pytest.raises(DependencyDown, match=r"(disk|ledger) is not available: .*(full|space|disk I/O)"):
        promote_second(home)
    ballast.unlink()
    assert not list(home.rglob("*.tmp"))
    assert not list(home.glob("artifacts/.incoming/*"))
    assert_invariants(home)
    promote_second(home)
    assert_invariants(home)
    assert_second_is_champion(home)


def _fill(ballast: Path, room: int) -> None:
    """Take all the space there is but `room` KB."""
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 512, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size):
                    pass
    os.truncate(ballast, max(0, ballast.stat().st_size - room * 1024))
