"""A version carried to another environment: same files, whole evidence, refused when anything of it does not hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from contracts.errors import ArtifactRefused, CheckFailed, InputInvalid, LedgerBroken, SeatrialError, UsageError
from contracts.rollout import Move, Outcome
from registry.carry import must_have_reached, open_bundle, pack
from registry.rollout import approvals_needed
from tests.registry.rig import MODEL, START, World, policy, verdict


def _packed(world: World, version: str, out: Path) -> Path:
    rows = world.ledger.rows(MODEL)
    return pack(rows, world.artifacts, version, out, environment="dev", actor="ann", now=START)


def test_a_bundle_opens_with_its_evidence(world: World, tmp_path: Path) -> None:
    """What was packed comes out whole: files by manifest, the chain by its head, and whom it was compared with."""
    world.crown("first")
    second = world.register("second")
    carried = open_bundle(_packed(world, second, tmp_path / "bundle"))
    state = world.state
    assert (carried.version, carried.environment) == (second, "dev")
    assert carried.manifest_sha256 == state.manifests[second]
    assert carried.rival == state.manifests["v1"]
    assert carried.rows == world.ledger.rows(MODEL)
    assert [row["kind"] for row in carried.facts()["rows"]][:2] == ["registered", "gated"]


def _cut_ledger(bundle: Path) -> None:
    path = bundle / "ledger.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def _edit_ledger(bundle: Path) -> None:
    path = bundle / "ledger.jsonl"
    path.write_text(path.read_text().replace('"pass"', '"fail"', 1))


def _flip_file(bundle: Path) -> None:
    path = bundle / "artifact" / "booster.txt"
    path.write_text(path.read_text().replace("0.1", "0.9", 1))


def _other_version(bundle: Path) -> None:
    path = bundle / "carried.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "v9"}))


@pytest.mark.parametrize(
    ("harm", "refused"),
    [
        (_cut_ledger, LedgerBroken),
        (_edit_ledger, LedgerBroken),
        (_flip_file, ArtifactRefused),
        (_other_version, LedgerBroken),
        (lambda bundle: (bundle / "carried.json").write_text("{}"), InputInvalid),
        (lambda bundle: (bundle / "ledger.jsonl").write_text(""), LedgerBroken),
        (lambda bundle: shutil.rmtree(bundle / "artifact"), InputInvalid),
    ],
)
def test_a_bundle_that_was_changed_is_refused(
    world: World, tmp_path: Path, harm: object, refused: type[SeatrialError]
) -> None:
    """A cut or edited chain, a changed file, another name, an empty label: each is refused before anything is taken."""
    world.crown("first")
    bundle = _packed(world, "v1", tmp_path / "bundle")
    assert callable(harm)
    harm(bundle)
    with pytest.raises(refused):
        open_bundle(bundle)


def test_a_version_goes_on_only_from_where_it_got_far_enough(world: World, tmp_path: Path) -> None:
    """A failed gate never goes on, a passing one does, champion only when it was; a rolled-back version stays."""
    world.crown("first")
    failed = world.register("second", Outcome.FAIL)
    with pytest.raises(CheckFailed, match="passing gate"):
        must_have_reached(open_bundle(_packed(world, failed, tmp_path / "a")), "gated")
    third = world.register("third")
    waiting = open_bundle(_packed(world, third, tmp_path / "b"))
    must_have_reached(waiting, "gated")
    with pytest.raises(CheckFailed, match="never was"):
        must_have_reached(waiting, "champion")
    must_have_reached(open_bundle(_packed(world, "v1", tmp_path / "c")), "champion")


def test_packing_never_writes_over_what_is_there(world: World, tmp_path: Path) -> None:
    """A folder that is there is refused; an unknown version is refused and leaves nothing behind."""
    world.crown("first")
    _packed(world, "v1", tmp_path / "bundle")
    with pytest.raises(UsageError, match="new folder"):
        _packed(world, "v1", tmp_path / "bundle")
    with pytest.raises(UsageError, match="known: v1"):
        _packed(world, "v7", tmp_path / "other")
    assert not list(tmp_path.glob("*other*"))


def test_what_its_trial_rejected_goes_nowhere(world: World, tmp_path: Path) -> None:
    """A version that passed its gate and was rejected in shadow would be the first champion of an empty environment."""
    world.crown("first")
    second = world.register("second")
    world.advance()
    world.registrar.reject(MODEL, world.policy, "errors")
    with pytest.raises(CheckFailed, match=r"rejected there \(errors\)"):
        must_have_reached(open_bundle(_packed(world, second, tmp_path / "a")), "gated")


def test_who_made_a_version_there_may_not_approve_it_here(world: World, tmp_path: Path) -> None:
    """Neither who trained it nor who carried it counts, also two environments on; somebody else does."""
    rules, carriers = policy(automate={"promote_to_champion": "approval"}), ("bob", "cleo")
    world.register("first")
    for place, carrier in enumerate(carriers):
        carried = open_bundle(_packed(world, "v1", tmp_path / f"bundle{place}"))
        world = World(tmp_path / f"home{place}")
        world.registrar.actor = carrier
        facts = {**carried.registered.payload, "carried": carried.facts()}
        world.registrar.enter(carried.artifact, carried.manifest_sha256, rules, facts, "carried")
        world.registrar.record_gate(rules, "v1", verdict())
    for who in ("seatrial", *carriers):
        with pytest.raises(CheckFailed, match="may not approve it"):
            world.registrar.approve(MODEL, rules, approver=who)
    state = world.registrar.approve(MODEL, rules, approver="dora")
    assert approvals_needed(state, rules, Move.PROMOTE, now=START) == 0
