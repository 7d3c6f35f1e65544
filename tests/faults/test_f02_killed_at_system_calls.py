"""Fault 2: killed at the n-th write or sync of a promotion, n = 1, 2, ... until one passes clean."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.system_calls import (
    DISK_CALLS,
    assert_invariants,
    assert_second_is_champion,
    promote_second,
    under_strace,
)
from tests.registry.rig import World


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one champion, to be copied."""
    home = tmp_path_factory.mktemp("harbour")
    World(home).crown("first")
    return home


def _killed_at(harbour: Path, home: Path, call: str, number: int) -> bool:
    """Promote with a kill at the call's n-th use; whether it was killed. Afterwards the same run finishes it."""
    shutil.copytree(harbour, home)
    code = under_strace(lambda: promote_second(home), f"{call}:signal=KILL:when={number}", call)
    assert code in (0, -signal.SIGKILL), f"{call} {number} ended with {code}"
    assert_invariants(home)
    promote_second(home)
    assert_invariants(home)
    assert_second_is_champion(home)
    shutil.rmtree(home)
    return code != 0


@pytest.mark.parametrize(("call", "number"), [("fdatasync", 2), ("fsync", 7), ("fsync", 12), ("pwrite64", 9)])
def test_a_kill_at_a_system_call_is_finished_by_the_next_run(
    harbour: Path, tmp_path: Path, call: str, number: int
) -> None:
    """Killed there, the old or the new version is champion, everything verifies, and running again completes it."""
    assert _killed_at(harbour, tmp_path / "home", call, number)


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("call", DISK_CALLS)
def test_a_kill_at_every_system_call(
    harbour: Path, tmp_path: Path, call: str, record_property: Callable[[str, object], None]
) -> None:
    """The same at each n, until n is beyond the last one."""
    number = 1
    while _killed_at(harbour, tmp_path / f"home{number}", call, number):
        number += 1
    record_property(f"figure: kills at {call} while promoting, each finished by the next run", number - 1)
    assert number > 5
