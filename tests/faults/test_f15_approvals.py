"""Fault 15: an approval that may not be given is refused and logged, one that does not hold any more does not count."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from contracts.errors import CheckFailed, LedgerConflict
from contracts.policy import Policy
from contracts.rollout import LedgerRow, Move, RowKind, Stage
from registry.ledger import RowDraft
from registry.rollout import approvals_needed
from registry.snapshot import read_snapshot, snapshot_path
from tests.registry.rig import MODEL, World, evidence, policy


def _four_eyes(**change: object) -> Policy:
    gate = policy().gate.model_dump(mode="json")
    gate["approvals"] = {"required": 2, "by": ["model-owner", "risk"], "not_author": True, "expires": "10d", **change}
    return policy(gate=gate, automate={"promote_to_champion": "approval"})


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A candidate that passed its gate and needs two approvals to become the first champion."""
    made = World(tmp_path)
    made.policy = _four_eyes()
    made.register("first")
    return made


def _approve(world: World, who: str, role: str = "model-owner", **more: str) -> None:
    world.registrar.approve(MODEL, world.policy, approver=who, role=role, **more)


def _missing(world: World) -> int:
    return approvals_needed(world.state, world.policy, Move.PROMOTE, now=world.clock.now())


@pytest.mark.parametrize(
    ("who", "role", "more", "why"),
    [
        ("seatrial", "model-owner", {}, "registered v1"),
        ("bea", "intern", {}, "'intern'"),
        ("bea", "", {}, "no role"),
        ("bea", "model-owner", {"version": "v7"}, "v7"),
        ("bea", "model-owner", {"manifest_sha256": "0" * 64}, "other files"),
    ],
)
def test_a_refused_approval_leaves_a_log_line_and_no_row(
    world: World, who: str, role: str, more: dict[str, str], why: str
) -> None:
    """The author, a wrong role, another version, other files: refused, told who and why, nothing written or served."""
    path = snapshot_path(world.home / "serving", MODEL)
    before, served = world.ledger.rows(MODEL), path.read_bytes()
    with capture_logs() as lines, pytest.raises(CheckFailed, match=why):
        _approve(world, who, role, **more)
    assert (world.ledger.rows(MODEL), path.read_bytes()) == (before, served)
    assert [(line["event"], line["who"], line["log_level"]) for line in lines] == [("approval_refused", who, "warning")]
    assert _missing(world) == 2


def test_the_same_person_twice_counts_once(world: World) -> None:
    """Two approvals by one person are one row and one voice; a second person makes it two."""
    for _ in range(3):
        _approve(world, "bea")
    assert _missing(world) == 1
    assert [row.kind for row in world.ledger.rows(MODEL)].count(RowKind.APPROVED) == 1
    _approve(world, "cleo", "risk")
    assert _missing(world) == 0
    assert world.advance().champion == "v1"


def test_an_expired_approval_does_not_count_and_can_be_given_again(world: World) -> None:
    """After ten days the first voice is gone; given again it counts anew, on a row of its own."""
    _approve(world, "bea")
    world.later(9.9)
    _approve(world, "cleo")
    assert _missing(world) == 0
    world.later(0.1)
    assert _missing(world) == 1
    with pytest.raises(CheckFailed, match="1 more approval"):
        world.advance()
    assert world.state.champion is None
    _approve(world, "bea")
    assert _missing(world) == 0
    given = [row.payload for row in world.ledger.rows(MODEL) if row.kind is RowKind.APPROVED]
    assert {payload["manifest_sha256"] for payload in given} == {world.state.manifests["v1"]}
    assert len(given) == 3


def test_a_role_that_may_not_approve_any_more_does_not_count(world: World) -> None:
    """The policy that is in force when the move is made says whose voice counts."""
    _approve(world, "bea", "risk")
    _approve(world, "cleo")
    world.policy = _four_eyes(by=["model-owner"])
    assert _missing(world) == 1


def test_an_approval_for_one_version_or_stage_is_none_for_the_next(world: World) -> None:
    """A challenger's approvals in shadow are gone in its canary, and gone when another takes its place."""
    world.policy = policy()
    world.advance()
    world.register("second")
    world.policy = _four_eyes(required=1)
    world.advance()
    _approve(world, "bea")
    world.later(6)
    assert world.advance(evidence()).stage is Stage.CANARY
    assert _missing(world) == 1
    _approve(world, "bea")
    world.register("third")
    assert (world.state.challenger, _missing(world)) == ("v3", 1)
    served = read_snapshot(snapshot_path(world.home / "serving", MODEL)).champion
    assert served is not None
    assert served.version == "v1"


def _in_canary(world: World) -> None:
    world.policy = policy()
    world.advance()
    world.crown("second")
    world.register("third")
    for stage in (Stage.SHADOW, Stage.CANARY):
        world.later(6)
        assert world.advance(evidence()).stage is stage
    world.policy = policy(automate={"promote_to_canary": "approval"})


def test_an_approval_does_not_survive_the_champion_that_it_was_given_against(world: World) -> None:
    """The champion is rolled back, its challenger goes back to shadow: what was agreed for its promotion is gone."""
    _in_canary(world)
    _approve(world, "bea")
    world.registrar.rollback(MODEL, world.policy, "wrong figures")
    state = world.registrar.resume(MODEL, world.policy, "looked at again")
    assert (state.stage, approvals_needed(state, world.policy, Move.STEP_CANARY, 0, now=world.clock.now())) == (
        Stage.SHADOW,
        1,
    )


def test_an_approval_never_slips_into_the_next_stage(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The challenger enters its canary while somebody agrees to its shadow: told, no row, no voice later."""
    world.policy = policy()
    world.advance()
    world.register("second")
    world.advance()
    world.later(6)
    there, append = World(world.home), world.ledger.append

    def overtaken(draft: RowDraft, expected: int) -> LedgerRow:
        there.clock.set(world.clock.now())
        assert there.advance(evidence()).stage is Stage.CANARY
        return append(draft, expected)

    monkeypatch.setattr(world.ledger, "append", overtaken)
    with pytest.raises(LedgerConflict, match="read again"):
        _approve(world, "bea", role="")
    assert not any(row.kind is RowKind.APPROVED for row in world.ledger.rows(MODEL))
