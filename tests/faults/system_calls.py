"""Work in a child process whose n-th system call of a kind fails or kills it (strace), and what must hold then."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.rollout import Outcome, RowKind
from registry.artifacts import verify as verify_artifact
from registry.ledger import verify as verify_chain
from registry.snapshot import read_snapshot, snapshot_path
from tests.registry.rig import MODEL, World, evidence

DISK_CALLS = ("fdatasync", "fsync", "pwrite64")


def promote_second(home: Path) -> None:
    """Take a second version from registration to champion, from wherever an earlier attempt stopped."""
    world = World(home)
    version = world.register("second")
    for _ in range(8):
        if world.state.champion == version:
            break
        world.later(6)
        world.advance(evidence(pairs=150))
    world.registrar.reconcile(MODEL, world.policy)


def assert_invariants(home: Path) -> None:
    """I1 one champion, the same for servers; I2 its files verify; I3 the chain holds; I4 a passing gate before it."""
    world = World(home)
    rows, state = world.ledger.rows(MODEL), world.state
    verify_chain(rows)
    assert state.champion in {"v1", "v2"}
    for version in {state.champion, state.previous_champion} - {None}:
        verify_artifact(world.artifacts.path(MODEL, str(version)), state.manifests[str(version)])
    passed = {r.version for r in rows if r.kind is RowKind.GATED and r.payload["outcome"] == Outcome.PASS}
    assert {r.version for r in rows if r.kind is RowKind.PROMOTED} <= passed
    served = read_snapshot(snapshot_path(home / "serving", MODEL)).champion
    assert served is not None
    assert served.version in {"v1", "v2"}
    leftovers = [path.name for path in home.rglob("*.tmp")]
    assert len(leftovers) <= 1, leftovers


def assert_second_is_champion(home: Path) -> None:
    """The interrupted work was finished, with one promotion of each version."""
    world = World(home)
    promoted = [row.version for row in world.ledger.rows(MODEL) if row.kind is RowKind.PROMOTED]
    assert (world.state.champion, promoted) == ("v2", ["v1", "v2"])


def under_strace(work: Callable[[], None], inject: str, calls: str) -> int:
    """Run `work` in a forked child with a fault injected; the exit code, negative for a signal.

    Args:
        work: what the child does; an exception ends it with 1.
        inject: strace's own words: `fsync:signal=KILL:when=3`.
        calls: the system calls that are looked at.
    """
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    go = multiprocessing.get_context("fork").Event()
    child = multiprocessing.get_context("fork").Process(target=_after, args=(go, work))
    child.start()
    command = [strace, "-f", "-p", str(child.pid), "-e", f"trace={calls}", "-e", f"inject={inject}", "-o", os.devnull]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        if not _attached(child.pid or 0, tracer):
            child.kill()
            said = tracer.communicate(timeout=10)[1].decode() if tracer.poll() is not None else "no answer"
            pytest.skip(f"strace may not attach here: {said[-200:]}")
        go.set()
        child.join(timeout=120)
        assert child.exitcode is not None, f"it hangs under {inject}"
        return child.exitcode
    finally:
        if child.is_alive():
            child.kill()
        if tracer.poll() is None:
            tracer.terminate()
        tracer.communicate(timeout=10)


def _after(go: object, work: Callable[[], None]) -> None:
    go.wait(60)  # type: ignore[attr-defined]
    work()


def _attached(pid: int, tracer: subprocess.Popen[bytes]) -> bool:
    status = Path(f"/proc/{pid}/status")
    for _ in range(500):
        if tracer.poll() is not None:
            return False
        if "TracerPid:\t0\n" not in status.read_text():
            return True
        time.sleep(0.01)
    return False
