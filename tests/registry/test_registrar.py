"""The registrar: one wish one row, one champion, projections that follow the ledger."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.errors import ArtifactRefused, CheckFailed, LedgerBroken, LedgerConflict, UsageError
from contracts.policy import Policy
from contracts.rollout import Move, Outcome, RowKind, Stage
from registry.artifacts import verify
from registry.promotion import Registrar
from registry.rollout import next_action
from registry.snapshot import read_snapshot, snapshot_path
from tests.registry.rig import MODEL, World, evidence, policy, trained, verdict


def _kinds(world: World) -> list[str]:
    return [row.kind.value for row in world.ledger.rows(MODEL)]


def test_the_first_model_is_promoted_on_its_gate(world: World) -> None:
    """With nobody serving, a candidate that passed its gate becomes champion at once, the gate on record."""
    world.register("first")
    state = world.advance()
    assert (state.champion, state.challenger, state.gates) == ("v1", None, {"v1": "pass"})
    assert _kinds(world) == ["registered", "gated", "promoted"]


def test_a_challenger_goes_through_shadow_and_every_canary_step(world: World) -> None:
    """The second model reaches service only by shadow and all steps, and the first becomes the way back."""
    world.crown("first")
    world.crown("second")
    moves = [kind for kind in _kinds(world)[3:] if kind != "verdict"]
    assert moves == ["registered", "gated", "shadow_started", "canary_step", "canary_step", "promoted"]
    assert (world.state.champion, world.state.previous_champion) == ("v2", "v1")


def test_the_snapshot_follows_every_row(world: World) -> None:
    """The serving snapshot names the ledger's revision, champion, challenger, stage and share."""
    world.crown("first")
    world.register("second")
    world.advance()
    world.later(6)
    world.advance(evidence())
    found = read_snapshot(snapshot_path(world.home / "serving", MODEL))
    assert found.revision == world.state.revision
    assert (found.stage, found.share) == (Stage.CANARY, 0.1)
    assert found.champion is not None
    assert found.challenger is not None
    verify(world.artifacts.root / found.challenger.folder, found.challenger.manifest_sha256)
    assert found.champion.folder == "late_delivery/v1"


def test_registering_the_same_model_again_gives_the_same_version(world: World) -> None:
    """The same files with the same facts are the same version, however often they come."""
    assert [world.register("first", None) for _ in range(3)] == ["v1"] * 3
    assert _kinds(world) == ["registered"]


def test_an_orphan_of_a_crash_does_not_block_the_next_model(world: World) -> None:
    """A folder that was placed but never recorded keeps its number; the next model takes the one after."""
    orphan = trained(world.home / "trained" / "orphan", "orphan")
    from registry.artifacts import seal

    seal(orphan.folder, {"model": MODEL})
    world.artifacts.place(MODEL, "v1", orphan.folder)
    assert world.register("first") == "v2"
    assert world.advance().champion == "v2"


def test_the_same_action_twice_changes_nothing(world: World) -> None:
    """Applying an action again after it was applied adds no row and raises nothing."""
    world.register("first")
    action = next_action(world.state, world.policy, None, None, world.clock.now(), bound=1.0)
    once = world.registrar.apply(action, world.policy)
    assert world.registrar.apply(action, world.policy) == once
    assert _kinds(world).count("promoted") == 1


def test_a_stale_decision_is_refused(world: World) -> None:
    """An action decided on an older revision is not applied."""
    world.register("first")
    action = next_action(world.state, world.policy, None, None, world.clock.now(), bound=1.0)
    world.registrar.request_retrain(world.policy, "drift", "w1")
    with pytest.raises(LedgerConflict):
        world.registrar.apply(action, world.policy)
    assert world.state.champion is None


def test_a_new_candidate_that_passes_supersedes_the_one_on_trial(world: World) -> None:
    """A newer version with a passing gate takes the place of one in shadow, and that is written down."""
    world.crown("first")
    world.register("second")
    world.advance()
    assert world.register("third") == "v3"
    assert (world.state.challenger, world.state.stage) == ("v3", Stage.CANDIDATE)
    row = next(r for r in world.ledger.rows(MODEL) if r.kind is RowKind.SUPERSEDED)
    assert (row.version, row.payload["by"]) == ("v2", "v3")
    assert world.advance().stage is Stage.SHADOW


def test_a_new_candidate_that_fails_leaves_the_one_on_trial_alone(world: World) -> None:
    """A failing newcomer is rejected where it waits; the shadow goes on."""
    world.crown("first")
    world.register("second")
    world.advance()
    world.register("third", Outcome.FAIL)
    assert (world.state.challenger, world.state.stage) == ("v2", Stage.SHADOW)
    assert _kinds(world)[-2:] == ["gated", "rejected"]


def test_one_that_waits_comes_in_when_the_place_is_free(world: World) -> None:
    """A version that was registered while another was on trial becomes the challenger when that one leaves."""
    world.crown("first")
    world.register("second")
    world.advance()
    world.register("third", None)
    world.registrar.reject(MODEL, world.policy, "enough", version="v2")
    assert (world.state.challenger, world.state.stage) == ("v3", Stage.CANDIDATE)
    world.registrar.reject(MODEL, world.policy, "enough", version="v2")
    assert world.state.challenger == "v3"


def test_no_promotion_without_a_recorded_passing_gate(world: World) -> None:
    """An action that skips the gate is refused and writes nothing."""
    world.register("first", Outcome.INCONCLUSIVE)
    action = next_action(world.state, world.policy, None, None, world.clock.now(), bound=1.0)
    assert action.move is Move.HOLD
    with pytest.raises(CheckFailed, match="no passing gate"):
        world.registrar.apply(replace(action, move=Move.PROMOTE), world.policy)
    assert _kinds(world) == ["registered", "gated"]


def test_rollback_puts_the_previous_champion_back_once(world: World) -> None:
    """The same rollback twice goes back one champion, not two."""
    for name in ("first", "second", "third"):
        world.crown(name)
    for _ in range(2):
        state = world.registrar.rollback(MODEL, world.policy, "complaints", version="v3")
    assert (state.champion, state.previous_champion) == ("v2", "v1")
    assert _kinds(world).count("rolled_back") == 1


def test_rollback_to_missing_files_is_refused_before_the_switch(world: World) -> None:
    """When the previous champion's files are gone, nothing is switched and nothing is written."""
    world.crown("first")
    world.crown("second")
    shutil.rmtree(world.artifacts.path(MODEL, "v1"))
    before = world.ledger.rows(MODEL)
    with pytest.raises(ArtifactRefused):
        world.registrar.rollback(MODEL, world.policy, "complaints")
    assert world.ledger.rows(MODEL) == before
    assert world.state.champion == "v2"


def test_rollback_holds_the_challenger_that_was_compared_with_the_one_that_left(world: World) -> None:
    """A canary is stopped by a rollback and starts again in shadow when resumed."""
    world.crown("first")
    world.crown("second")
    world.register("third")
    world.advance()
    world.later(6)
    assert world.advance(evidence()).share == 0.1
    state = world.registrar.rollback(MODEL, world.policy, "complaints")
    assert (state.champion, state.challenger, state.stage, state.share) == ("v1", "v3", Stage.HELD, 0.0)
    assert world.registrar.resume(MODEL, world.policy, "compared anew").stage is Stage.SHADOW


def test_hold_takes_the_share_and_resume_gives_it_back(world: World) -> None:
    """A held canary serves nothing; a resumed one goes on at its step."""
    world.crown("first")
    world.register("second")
    world.advance()
    world.later(6)
    world.advance(evidence())
    held = world.registrar.hold(MODEL, world.policy, "stocktaking")
    assert (held.stage, held.share) == (Stage.HELD, 0.0)
    assert world.registrar.hold(MODEL, world.policy, "again").revision == held.revision
    resumed = world.registrar.resume(MODEL, world.policy, "done")
    assert (resumed.stage, resumed.step, resumed.share) == (Stage.CANARY, 0, 0.1)


def test_reconcile_rebuilds_a_lost_snapshot(world: World) -> None:
    """A snapshot that is gone or spoilt is written again from the ledger, and a second reconcile finds nothing."""
    world.crown("first")
    path = snapshot_path(world.home / "serving", MODEL)
    before = read_snapshot(path)
    path.write_text("{")
    assert len(world.registrar.reconcile(MODEL, world.policy)) == 1
    assert read_snapshot(path).says_the_same_as(before)
    assert world.registrar.reconcile(MODEL, world.policy) == ()


def test_reconcile_sees_a_ledger_that_lost_its_tail(world: World, tmp_path: Path) -> None:
    """The snapshot keeps the newest row's hash, so that a ledger put back from last week is noticed."""
    world.crown("first")
    older = World(tmp_path / "older")
    shutil.rmtree(world.home / "serving")
    world.registrar.reconcile(MODEL, world.policy)
    world.crown("second")
    shutil.copytree(world.home / "serving", older.home / "serving")
    with pytest.raises(LedgerBroken, match="tail"):
        older.registrar.reconcile(MODEL, world.policy)


def test_reconcile_names_a_champion_whose_files_changed(world: World) -> None:
    """Reconciling raises when the champion's files are not what was sealed."""
    world.crown("first")
    (world.artifacts.path(MODEL, "v1") / "booster.txt").write_text("tree\n")
    with pytest.raises(ArtifactRefused):
        world.registrar.reconcile(MODEL, world.policy)


def _careful() -> Policy:
    gate = policy().gate.model_dump(mode="json")
    gate["approvals"] = {"required": 1, "by": ["model-owner"], "not_author": True}
    return policy(gate=gate, automate={"promote_to_champion": "approval"})


def test_a_promotion_waits_for_its_approval(world: World) -> None:
    """Where the policy asks for a person, the action says so, is refused without one and goes through with one."""
    world.policy = _careful()
    world.register("first")
    action = next_action(world.state, world.policy, None, None, world.clock.now(), bound=1.0)
    assert action.needs_approval
    with pytest.raises(CheckFailed, match="approval"):
        world.registrar.apply(action, world.policy)
    world.registrar.approve(MODEL, world.policy, approver="bea", role="model-owner", version="v1")
    assert world.advance().champion == "v1"


@pytest.mark.parametrize(
    ("who", "role", "version", "sha"),
    [
        ("seatrial", "model-owner", "v1", None),
        ("bea", "intern", "v1", None),
        ("bea", "model-owner", "v2", None),
        ("bea", "model-owner", "v1", "0" * 64),
    ],
)
def test_an_approval_that_may_not_be_given_is_refused(
    world: World, who: str, role: str, version: str, sha: str | None
) -> None:
    """The author, a wrong role, another version and other files are refused."""
    world.policy = _careful()
    world.register("first")
    with pytest.raises(CheckFailed):
        world.registrar.approve(MODEL, world.policy, approver=who, role=role, version=version, manifest_sha256=sha)
    assert "approved" not in _kinds(world)


def test_an_approval_is_for_one_stage(world: World) -> None:
    """An approval given in shadow does not carry over into the canary."""
    world.crown("first")
    world.register("second")
    world.advance()
    world.registrar.approve(MODEL, world.policy, approver="bea")
    assert [given.who for given in world.state.approvals["v2"]] == ["bea"]
    world.later(6)
    world.advance(evidence())
    assert world.state.approvals == {}


def test_a_retrain_request_and_a_policy_are_recorded_once(world: World) -> None:
    """The same occasion and the same policy give one row each, and neither moves the rollout."""
    world.crown("first")
    for _ in range(2):
        world.registrar.request_retrain(world.policy, "drift", "window-7")
        world.registrar.record_policy(world.policy, "adopted")
    assert _kinds(world)[3:] == ["retrain_requested", "policy_changed"]
    assert world.state.champion == "v1"


def test_a_gate_for_an_unknown_version_and_a_foreign_policy_are_refused(world: World) -> None:
    """What was not registered cannot be gated, and a policy only speaks of its own model."""
    with pytest.raises(UsageError):
        world.registrar.record_gate(world.policy, "v9", verdict())
    with pytest.raises(UsageError):
        world.registrar.reconcile("demand", world.policy)


def test_where_access_is_required_only_an_adopted_policy_counts(world: World) -> None:
    """Another policy than the one in force writes no row, by whatever way, until somebody adopts it."""
    strict = Registrar(
        world.ledger, world.artifacts, world.home / "serving", None, world.clock, "eve", adopted_only=True
    )
    strict.record_policy(world.policy, "the first one needs no adoption")
    world.register("first")
    mine = policy(gate={"metric": "brier", "min_rows": 1})
    rows = len(world.ledger.rows(MODEL))
    attempts = (
        lambda: strict.record_policy(mine, "the policy in force"),
        lambda: strict.hold(MODEL, mine, "because"),
        lambda: strict.record_gate(mine, "v1", verdict()),
        lambda: strict.stop(MODEL, mine, "because"),
    )
    for attempt in attempts:
        with pytest.raises(CheckFailed, match="seatrial policy adopt"):
            attempt()
    assert len(world.ledger.rows(MODEL)) == rows
    strict.record_policy(mine, "agreed", adopt=True)
    strict.hold(MODEL, mine, "now it may")
    assert world.state.stage is Stage.HELD


@pytest.mark.parametrize(("outcome", "move"), [(Outcome.FAIL, Move.REJECT), (Outcome.INCONCLUSIVE, Move.HOLD)])
def test_a_gate_judged_again_ends_a_trial(world: World, outcome: Outcome, move: Move) -> None:
    """A challenger in shadow whose gate is recorded anew as failed leaves, as inconclusive is held."""
    world.crown("first")
    second = world.register("second")
    world.advance()
    assert world.state.stage is Stage.SHADOW
    world.registrar.record_gate(world.policy, second, verdict(outcome))
    found = next_action(world.state, world.policy, None, evidence(), world.clock.now(), bound=1.0)
    assert found.move is move
