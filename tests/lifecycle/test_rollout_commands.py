"""`seatrial rollout ...`: read by a person, tried before it is done, and the kill switch."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts.policy import Policy
from contracts.rollout import Move, Outcome, RowKind, Stage
from contracts.times import iso
from lifecycle.rollouts import advance
from lifecycle.workspace import Workspace
from registry.snapshot import read_snapshot, snapshot_path
from tests.lifecycle.command_runs import Ended, ran
from tests.registry.rig import MODEL, World, evidence, policy, verdict

Rollout = Callable[..., Ended]


def _rules() -> Policy:
    rollout = policy().rollout.model_dump(mode="json")
    rollout["freeze"] = [{"reason": "stocktaking", "first": "2026-01-30", "last": "2026-02-10"}]
    gate = policy().gate.model_dump(mode="json")
    gate["approvals"] = {"required": 1, "expires": "10d"}
    return policy(rollout=rollout, gate=gate)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A champion, and a challenger in its first canary step."""
    made = World(tmp_path / "home")
    made.policy = _rules()
    made.register("first")
    made.registrar.approve(MODEL, made.policy, approver="bea", version="v1")
    made.advance()
    made.register("second")
    made.advance()
    made.later(6)
    assert made.advance(evidence(pairs=150)).stage is Stage.CANARY
    made.registrar.approve(MODEL, made.policy, approver="bea", reason="figures looked at", version="v2")
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / f"{MODEL}.yaml").write_text(json.dumps(made.policy.model_dump(mode="json", exclude_defaults=True)))
    return made


@pytest.fixture
def rollout(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rollout:
    """Runs `seatrial rollout ...` on the world, `days` after its last row."""

    def run(*arguments: object, days: float = 0.5) -> Ended:
        environment = {
            "SEATRIAL_HOME": str(world.home),
            "SEATRIAL_POLICIES": str(world.home.parent / "policies"),
            "SEATRIAL_CLOCK": iso(world.clock.now() + timedelta(days=days)),
            "SEATRIAL_ACTOR": "dora",
        }
        return ran(monkeypatch, capsys, environment, ("rollout", *arguments))

    return run


def test_status_says_who_serves_who_challenges_and_what_is_waited_for(rollout: Rollout) -> None:
    """Champion with its gate, challenger with stage, step, share and verdicts, approvals, the next move, last rows."""
    told: dict[str, Any] = rollout("status", MODEL, "--json").json
    assert (told["champion"], told["challenger"], told["stage"], told["share"]) == ("v1", "v2", "canary", 0.1)
    assert told["champion_is"]["in_office"].startswith("promoted by seatrial: nobody serves yet")
    assert told["champion_is"]["gate"] == {"outcome": "pass (row 2)", "also_passed": "rows"}
    assert told["challenger_is"]["stands"] == "canary since 2026-01-07 00:00, step 1 of 2, 10% of decisions"
    assert told["approvals"]["given"] == ["bea 2026-01-07 00:00, holds until 2026-01-17 00:00"]
    assert told["approvals"]["needed"] == "0 more to promote"
    assert told["next"].startswith("wait: step 1 of 2 bakes until 2026-01-08 00:00")
    assert (told["freeze"], told["stopped"]) == ("none", "")
    assert list(told["last"].values())[-1] == "2026-01-07 00:00 approved v2 by seatrial: figures looked at"
    words = rollout("status", MODEL).out
    assert "figures looked at" in words
    assert rollout("status", MODEL, "--json", days=25).json["freeze"].startswith("frozen until the end of 2026-02-10")


@pytest.mark.parametrize("what", ["hold", "reject", "stop", "rollback", "resume", "release"])
def test_a_dry_run_checks_everything_and_changes_nothing(rollout: Rollout, world: World, what: str) -> None:
    """It says where the rollout would stand, refuses what would be refused, and leaves ledger and snapshot alone."""
    rows, path = world.ledger.rows(MODEL), snapshot_path(world.home / "serving", MODEL)
    served = path.read_bytes()
    ended = rollout(what, MODEL, "--reason", "trying", "--dry-run", "--json")
    assert (world.ledger.rows(MODEL), path.read_bytes()) == (rows, served)
    if what == "rollback":
        assert (ended.code, "no previous champion" in ended.err) == (1, True)
        return
    found = ended.json
    assert (ended.code, found["dry_run"]) == (0, True)
    expected = {"hold": "held", "reject": "none"}.get(what, "canary")
    assert (found["stage"], found["stopped"]) == (expected, "trying" if what == "stop" else "")


def test_an_approval_is_tried_like_any_other(rollout: Rollout, world: World) -> None:
    """The version's author is refused in a dry run as well; somebody else would be counted."""
    given = ("approve", MODEL, "--version", "v2", "--dry-run", "--json")
    assert rollout(*given, "--by", "seatrial").code == 1
    assert rollout(*given, "--by", "cleo").json["approvals"] == ["bea", "cleo"]
    assert [given.who for given in world.state.approvals["v2"]] == ["bea"]


def test_the_kill_switch_is_one_command_and_names_who_and_why(rollout: Rollout, world: World) -> None:
    """Stop writes a row by whoever acts and reaches the snapshot; release undoes it; both may be said twice."""
    path = snapshot_path(world.home / "serving", MODEL)
    for _ in range(2):
        assert rollout("stop", MODEL, "--reason", "wrong carrier codes", "--json").json["stopped"] == (
            "wrong carrier codes"
        )
    assert read_snapshot(path).stopped == "wrong carrier codes"
    assert "is stopped (wrong carrier codes)" in rollout("status", MODEL, "--json", days=2).json["next"]
    assert rollout("release", MODEL, "--reason", "mended", "--json").json["stopped"] == ""
    rows = [row for row in world.ledger.rows(MODEL) if row.kind in (RowKind.STOPPED, RowKind.RELEASED)]
    assert [(row.kind.value, row.actor, row.reason) for row in rows] == [
        ("stopped", "dora", "wrong carrier codes"),
        ("released", "dora", "mended"),
    ]


def test_a_wish_about_a_version_never_hits_the_next_one(rollout: Rollout, world: World) -> None:
    """Rejected twice by a person who saw no answer: the version that waited behind it stays."""
    world.register("third", None)
    for _ in range(2):
        found = rollout("reject", MODEL, "--version", "v2", "--reason", "no answer came", "--json")
        assert (found.code, found.json["challenger"]) == (0, "v3")
    refused = rollout("hold", MODEL, "--version", "v2", "--reason", "too late", "--json")
    assert (refused.code, "v3 is" in refused.err) == (1, True)


def test_a_policy_file_that_serving_follows_is_a_row(rollout: Rollout, world: World) -> None:
    """A hold writes the snapshot with the file's policy as it is now: the ledger says so, once."""
    world.registrar.record_policy(world.policy, "agreed")
    changed = world.policy.model_copy(update={"serve": world.policy.serve.model_copy(update={"max_items": 7})})
    file = world.home.parent / "policies" / f"{MODEL}.yaml"
    file.write_text(json.dumps(changed.model_dump(mode="json", exclude_defaults=True)))
    for _ in range(2):
        assert rollout("hold", MODEL, "--reason", "a look first").code == 0
    served = read_snapshot(snapshot_path(world.home / "serving", MODEL)).policy_hash
    rows = [row for row in world.ledger.rows(MODEL) if row.kind is RowKind.POLICY_CHANGED]
    assert [row.payload["policy_hash"] for row in rows] == [world.policy.hash, served]


def test_a_challenger_without_a_gate_is_not_judged_by_another_versions(
    rollout: Rollout, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between registration and gate; the next training's version fails its own gate: the first one stays."""
    world.registrar.reject(MODEL, world.policy, "out of the way")
    world.register("killed", None)
    world.register("later", Outcome.FAIL)
    assert rollout("status", MODEL).code == 0  # sets the environment of the workspace
    action, state = advance(Workspace(), world.policy, world.clock.now(), verdict=verdict(Outcome.FAIL))
    assert (action.move, state.challenger) == (Move.STAY, "v3")
