"""Fault 1: the process is killed at every labelled point on a version's way; running again finishes it, once."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.rollout import RowKind
from registry import crashpoints
from registry.artifacts import verify as verify_artifact
from registry.crashpoints import CRASH_POINTS
from registry.ledger import Anchor
from registry.ledger import verify as verify_chain
from registry.snapshot import read_snapshot, snapshot_path
from tests.registry.rig import MODEL, World, evidence

# How often a whole journey passes each point (found by counting); a seed picks the passages to die at.
SEEDS = (1, 2, 3)


def _by_hand(world: World) -> None:
    """A hold and a resume, a stop and a release: each once, however often this is run again."""
    done = {row.kind for row in world.ledger.rows(MODEL)}
    if RowKind.HELD not in done:
        world.registrar.hold(MODEL, world.policy, "stocktaking")
    if RowKind.RESUMED not in done:
        world.registrar.resume(MODEL, world.policy, "counted")
    if RowKind.STOPPED not in done:
        world.registrar.stop(MODEL, world.policy, "recall")
    world.registrar.release(MODEL, world.policy, "mended")


def _journey(home: Path) -> None:
    """Bootstrap, a challenger to the top, a newcomer that supersedes one in shadow, and a rollback; from anywhere."""
    world = World(home)
    for name in ("first", "second"):
        version = world.register(name)
        while world.state.challenger == version:
            world.later(6)
            world.advance(evidence(pairs=150))
    third = world.register("third")
    if world.state.challenger == third:
        world.advance()
        _by_hand(world)
    world.register("fourth")
    world.registrar.rollback(MODEL, world.policy, "complaints", version="v2")
    world.registrar.reconcile(MODEL, world.policy)


def _die_at(home: Path, point: str) -> None:
    os.environ["SEATRIAL_CRASH_AT"] = point
    crashpoints._SEEN.clear()
    _journey(home)


def _run(home: Path, point: str = "") -> int:
    child = multiprocessing.get_context("fork").Process(target=_die_at, args=(home, point))
    child.start()
    child.join(timeout=120)
    assert child.exitcode is not None, f"the journey hangs after {point}"
    return child.exitcode


def _assert_invariants(home: Path) -> None:
    """I1 one champion or none, everywhere the same; I2 its files verify; I3 the chain holds; I4 its gate passed."""
    world = World(home)
    rows, state = world.ledger.rows(MODEL), world.state
    verify_chain(rows)
    if state.champion is not None:
        verify_artifact(world.artifacts.path(MODEL, state.champion), state.manifests[state.champion])
        promoted = next(row for row in rows if row.kind is RowKind.PROMOTED and row.version == state.champion)
        assert rows[promoted.payload["gate_revision"] - 1].payload["outcome"] == "pass"
        if (ruled := promoted.payload.get("verdict_revision")) is not None:
            assert (rows[ruled - 1].kind, rows[ruled - 1].payload["outcome"]) == (RowKind.VERDICT, "pass")
    path = snapshot_path(home / "serving", MODEL)
    if path.exists():
        served = read_snapshot(path)
        verify_chain(rows, Anchor(MODEL, served.revision, served.ledger_head))
        champions = {row.version for row in rows if row.kind is RowKind.PROMOTED}
        assert served.champion is None or served.champion.version in champions


def _assert_finished(home: Path, journey: Counter[tuple[str, str]]) -> None:
    world = World(home)
    rows, state = world.ledger.rows(MODEL), world.state
    assert (state.champion, state.challenger, state.previous_champion) == ("v1", "v4", None)
    assert Counter((row.kind.value, row.version) for row in rows) == journey
    served = read_snapshot(snapshot_path(home / "serving", MODEL))
    assert served.champion is not None
    assert (served.revision, served.champion.version) == (state.revision, "v1")


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Counter[tuple[str, str]]:
    """What an undisturbed journey writes into the ledger."""
    home = tmp_path_factory.mktemp("whole")
    assert _run(home) == 0
    return Counter((row.kind.value, row.version) for row in World(home).ledger.rows(MODEL))


def _kill_everywhere(tmp_path: Path, journey: Counter[tuple[str, str]], passages: range | tuple[int, ...]) -> int:
    killed = 0
    for point in CRASH_POINTS:
        for passage in passages:
            home = tmp_path / f"{point}-{passage}"
            home.mkdir()
            if _run(home, f"{point}:{passage}") == 0:
                continue
            killed += 1
            _assert_invariants(home)
            assert _run(home) == 0, f"killed at {point}:{passage}, the second run did not finish"
            _assert_invariants(home)
            _assert_finished(home, journey)
    return killed


@pytest.mark.slow
def test_a_kill_at_every_point_leaves_one_champion_and_one_row(
    tmp_path: Path, journey: Counter[tuple[str, str]], record_property: Callable[[str, object], None]
) -> None:
    """Killed anywhere, the rollout has its old or its new champion; the same run again ends where it would have."""
    killed = _kill_everywhere(tmp_path, journey, SEEDS)
    record_property("figure: labelled crash points", len(CRASH_POINTS))
    record_property("figure: processes killed there and run again", killed)
    assert killed >= 2 * len(CRASH_POINTS)


@pytest.mark.long
def test_a_kill_at_every_passage_of_every_point(
    tmp_path: Path, journey: Counter[tuple[str, str]], record_property: Callable[[str, object], None]
) -> None:
    """The same at up to twenty-five passages of each point."""
    killed = _kill_everywhere(tmp_path, journey, range(1, 26))
    record_property("figure: processes killed at up to 25 passages of each point", killed)
    assert killed >= 100


def test_the_child_really_dies_by_the_signal(tmp_path: Path) -> None:
    """A crash point kills with SIGKILL: no handler, no clean-up."""
    assert _run(tmp_path, "ledger.inserted:1") == -signal.SIGKILL
