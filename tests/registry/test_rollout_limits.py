"""What stops a rollout besides its figures: freezes, the kill switch, the exposure cap, expiry, missing evidence."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from contracts.errors import CheckFailed, LedgerConflict
from contracts.policy import Policy
from contracts.rollout import (
    Action,
    Burst,
    Move,
    OnlineEvidence,
    Outcome,
    Registration,
    RolloutState,
    RowKind,
    Ruling,
    Stage,
)
from registry.crashpoints import passing
from registry.freezes import frozen
from registry.rollout import next_action
from registry.snapshot import read_snapshot, snapshot_path
from registry.trial import guardrails
from tests.registry.rig import MODEL, START, World, evidence, policy, verdict

SHADOW = RolloutState(MODEL, 5, "v1", None, "v2", Stage.SHADOW, since=START, gates={"v1": "pass", "v2": "pass"})
CANARY = replace(SHADOW, stage=Stage.CANARY, step=0, share=0.1)
LAST = replace(CANARY, step=1, share=0.5)
CANDIDATE = replace(SHADOW, stage=Stage.CANDIDATE)


def _policy(**rollout: object) -> Policy:
    return policy(rollout={**policy().rollout.model_dump(mode="json"), **rollout})


FROZEN = _policy(freeze=[{"reason": "stocktaking", "first": "2026-01-01", "last": "2026-02-28"}])


def _next(state: RolloutState, seen: OnlineEvidence | None, rules: Policy, days: float = 3, misses: int = 0) -> Action:
    return next_action(state, rules, None, seen, START + timedelta(days=days), bound=1.0, misses=misses)


@pytest.mark.parametrize(
    ("state", "seen", "move"),
    [
        (CANDIDATE, None, Move.START_SHADOW),
        (replace(CANDIDATE, champion=None), None, Move.STAY),
        (SHADOW, evidence(), Move.STAY),
        (CANARY, evidence(), Move.STAY),
        (LAST, evidence(), Move.STAY),
        (CANARY, evidence(errors=100), Move.ROLL_BACK),
        (LAST, evidence(gain=-0.1), Move.REJECT),
        (replace(CANDIDATE, gates={"v2": "fail"}), None, Move.REJECT),
        (replace(CANDIDATE, gates={"v2": "inconclusive"}), None, Move.HOLD),
    ],
)
def test_in_a_freeze_only_shadows_start_and_what_goes_back_goes(
    state: RolloutState, seen: OnlineEvidence | None, move: Move
) -> None:
    """No canary, no step, no promotion, not even of a first champion; the reason names the freeze and its end."""
    found = _next(state, seen, FROZEN)
    assert found.move is move, found.reason
    if move is Move.STAY:
        assert "frozen until the end of 2026-02-28: stocktaking" in found.reason


@pytest.mark.parametrize("state", [CANDIDATE, SHADOW, CANARY, LAST])
def test_while_stopped_nothing_goes_forward_and_no_deadline_passes(state: RolloutState) -> None:
    """A stopped model's challenger stays where it is, however good and however long; a failing one still leaves."""
    stopped = replace(state, stopped="recall")
    for seen, days in ((evidence(), 3), (None, 50)):
        found = _next(stopped, seen, policy(), days)
        assert (found.move, found.needs_approval) == (Move.STAY, False), found.reason
    if state.stage is Stage.CANARY:
        assert _next(stopped, evidence(errors=100), policy()).move is Move.ROLL_BACK


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("2026-03-22T23:59:59", ""),
        ("2026-03-23T00:00:00", "frozen until the end of 2026-03-31: books close"),
        ("2026-03-31T23:59:59", "frozen until the end of 2026-03-31: books close"),
        ("2026-04-01T00:00:00", ""),
        ("2026-06-22T00:00:00", "frozen until the end of 2026-06-30: books close"),
        ("2026-12-31T12:00:00", "frozen until the end of 2026-12-31: books close"),
        ("2026-05-09T12:00:00", "frozen until the end of 2026-05-10: fair"),
    ],
)
def test_freezes_hold_whole_days_in_utc(at: str, words: str) -> None:
    """The last nine days of a quarter and a span, both ends included."""
    fair = {"reason": "fair", "first": "2026-05-08", "last": "2026-05-10"}
    rules = _policy(freeze=[{"reason": "books close", "quarter_end": 9}, fair])
    assert frozen(rules, datetime.fromisoformat(at).replace(tzinfo=UTC)) == words


@pytest.mark.parametrize(
    ("state", "seen", "move"),
    [
        (CANARY, replace(evidence(pairs=50), exposed=500), Move.HOLD),
        (CANARY, replace(evidence(pairs=50), exposed=499), Move.STEP_CANARY),
        (CANARY, replace(evidence(), exposed=900), Move.STEP_CANARY),
        (LAST, replace(evidence(), exposed=900), Move.PROMOTE),
        (CANARY, replace(evidence(pairs=50, errors=100), exposed=900), Move.ROLL_BACK),
        (SHADOW, replace(evidence(pairs=50), exposed=900), Move.STEP_CANARY),
    ],
)
def test_a_canary_without_a_verdict_is_held_at_its_exposure_cap(
    state: RolloutState, seen: OnlineEvidence, move: Move
) -> None:
    """500 answers of all canary steps together; with a passing verdict the cap is no longer asked."""
    canary = {**policy().rollout.canary.model_dump(mode="json"), "max_decisions": 500}
    found = _next(state, seen, _policy(canary=canary))
    assert found.move is move, found.reason
    if move is Move.HOLD:
        assert "500 are allowed before its verdict" in found.reason
        assert "raise canary.max_decisions" in found.reason


@pytest.mark.parametrize("stage", [Stage.CANDIDATE, Stage.SHADOW, Stage.CANARY, Stage.HELD])
def test_an_old_challenger_expires_in_any_stage(stage: Stage) -> None:
    """Registered 40 days ago where 40 are allowed: it leaves; a day earlier it does not."""
    state = replace(CANARY, stage=stage, registered={"v2": Registration(START - timedelta(days=30), "ann")})
    assert _next(state, evidence(pairs=50), _policy(expires="40d"), 10).move is Move.EXPIRE
    assert _next(state, evidence(pairs=50), _policy(expires="40d"), 9).move is not Move.EXPIRE


def test_missing_evidence_is_no_failure_and_holds_after_the_limit() -> None:
    """Four looks without evidence stay, the fifth holds and says so; nothing is rolled back."""
    assert _next(CANARY, None, policy(), misses=4).move is Move.STAY
    found = _next(CANARY, None, policy(), misses=5)
    assert (found.move, found.rulings) == (Move.HOLD, {})
    assert "no evidence was to be had at 5 looks in a row" in found.reason


@pytest.mark.parametrize(
    ("invalid", "move"), [(0, Move.STEP_CANARY), (4, Move.STEP_CANARY), (8, Move.STAY), (60, Move.ROLL_BACK)]
)
def test_invalid_answers_guard_the_canary(invalid: int, move: Move) -> None:
    """Of 400 answers 1% may be invalid; 2% may be chance and hold it back, 15% are not."""
    assert _next(CANARY, replace(evidence(), invalid=invalid), policy()).move is move


@pytest.mark.parametrize(
    ("psi", "low", "move"),
    [(0.9, 0.1, Move.STAY), (0.9, 0.26, Move.ROLL_BACK), (0.2, -0.1, Move.STEP_CANARY), (0.9, None, Move.ROLL_BACK)],
)
def test_a_shift_that_may_be_chance_waits(psi: float, low: float | None, move: Move) -> None:
    """Only what is over the limit with its noise taken off rolls back."""
    seen = replace(evidence(), prediction_psi=psi, prediction_psi_low=low)
    assert _next(CANARY, seen, policy()).move is move


def test_a_verdict_is_a_ruling_once_a_stage() -> None:
    """A decided verdict is new until the state holds it; an open one is none; the other outcome is new again."""
    assert set(_next(CANARY, evidence(), policy(), 0.5).rulings) == {"guardrails", "accuracy"}
    known = replace(CANARY, verdicts={"accuracy": Ruling(Outcome.PASS, 4), "guardrails": Ruling(Outcome.PASS, 4)})
    assert _next(known, evidence(), policy(), 0.5).rulings == {}
    assert set(_next(known, evidence(errors=100), policy(), 0.5).rulings) == {"guardrails"}
    assert _next(CANARY, evidence(pairs=50, decisions=5), policy(), 0.5).rulings == {}


def _in_canary(world: World) -> None:
    world.crown("first")
    world.register("second")
    world.advance()
    world.later(6)
    assert world.advance(evidence(pairs=50)).stage is Stage.CANARY


def _kinds(world: World) -> list[str]:
    return [row.kind.value for row in world.ledger.rows(MODEL)]


def test_a_look_that_stays_records_its_verdict_and_the_promotion_names_it(world: World) -> None:
    """While the step bakes, accuracy passes: one row with the figures; the promotion points at it and at the gate."""
    _in_canary(world)
    for _ in range(2):
        world.later(0.1)
        assert world.advance(evidence()).stage is Stage.CANARY
    verdicts = [row for row in world.ledger.rows(MODEL) if row.kind is RowKind.VERDICT]
    rulings = [row for row in verdicts if row.payload["stage"] == "canary"]
    assert [(row.payload["of"], row.payload["outcome"]) for row in rulings] == [
        ("guardrails", "pass"),
        ("accuracy", "pass"),
    ]
    assert rulings[1].payload["evidence"]["sequential"]["e_better"] > 20
    for _ in range(2):
        world.later(2)
        world.advance(evidence())
    promoted = world.ledger.rows(MODEL)[-1]
    assert (promoted.kind, promoted.payload["verdict_revision"]) == (RowKind.PROMOTED, rulings[1].revision)
    assert world.ledger.rows(MODEL)[promoted.payload["gate_revision"] - 1].kind is RowKind.GATED


def test_an_action_that_died_between_its_verdict_and_its_move_is_finished(world: World) -> None:
    """The very same action again makes the move; nothing is written twice, and a stranger's row still conflicts."""
    _in_canary(world)
    world.later(2)
    action = next_action(world.state, world.policy, None, evidence(), world.clock.now(), bound=1.0)

    def die(label: str) -> None:
        if label == "verdict.recorded":
            raise KeyboardInterrupt

    with passing(die), pytest.raises(KeyboardInterrupt):
        world.registrar.apply(action, world.policy, evidence())
    assert world.registrar.apply(action, world.policy, evidence()).step == 1
    assert _kinds(world)[-3:] == ["verdict", "verdict", "canary_step"]
    with pytest.raises(LedgerConflict):
        world.registrar.apply(replace(action, move=Move.REJECT), world.policy)


def test_stop_and_release_are_one_row_each_and_reach_the_snapshot(world: World) -> None:
    """Stopped twice is stopped once; the snapshot says why; after the release the canary's clock begins anew."""
    _in_canary(world)
    path = snapshot_path(world.home / "serving", MODEL)
    for _ in range(2):
        assert world.registrar.stop(MODEL, world.policy, "recall").stopped == "recall"
    assert read_snapshot(path).stopped == "recall"
    world.later(5)
    assert world.advance(evidence()).share == 0.1
    for _ in range(2):
        state = world.registrar.release(MODEL, world.policy, "codes mended")
    assert (state.stopped, state.since, read_snapshot(path).stopped) == ("", world.clock.now(), "")
    assert [kind for kind in _kinds(world) if kind in ("stopped", "released")] == ["stopped", "released"]
    world.registrar.stop(MODEL, world.policy, "again")
    assert world.state.stopped == "again"


def test_a_held_canary_is_not_resumed_in_a_freeze_or_while_stopped(world: World) -> None:
    """The hold stays until then; a held shadow may be resumed, because it serves nobody."""
    _in_canary(world)
    world.registrar.hold(MODEL, world.policy, "stocktaking")
    with pytest.raises(CheckFailed, match="frozen until"):
        world.registrar.resume(MODEL, FROZEN, "let us go on")
    world.registrar.stop(MODEL, world.policy, "recall")
    with pytest.raises(CheckFailed, match="is stopped"):
        world.registrar.resume(MODEL, world.policy, "let us go on")
    world.registrar.release(MODEL, world.policy, "mended")
    assert world.registrar.resume(MODEL, world.policy, "let us go on").stage is Stage.CANARY


def test_an_action_cannot_carry_a_freeze_or_a_share_of_its_own(world: World) -> None:
    """Decided before the freeze, or by hand with another share: refused, nothing written."""
    _in_canary(world)
    world.later(2)
    action = next_action(world.state, world.policy, None, evidence(), world.clock.now(), bound=1.0)
    before = world.ledger.rows(MODEL)
    with pytest.raises(CheckFailed, match="frozen"):
        world.registrar.apply(action, FROZEN)
    with pytest.raises(CheckFailed, match="share of its step"):
        world.registrar.apply(replace(action, share=0.9), world.policy)
    assert world.ledger.rows(MODEL) == before


def test_an_alarm_is_overridden_once_a_window_and_moves_nothing(world: World) -> None:
    """The row names the window, who and why."""
    world.crown("first")
    end, before = world.clock.now(), world.state
    rows = [world.registrar.override_alarm(world.policy, end, "strike, known to all") for _ in range(2)]
    assert rows[0] == rows[1]
    assert (rows[0].version, rows[0].payload["window_end"]) == ("v1", "2026-01-07T00:00:00.000000Z")
    assert world.state.overridden == (end,)
    assert replace(world.state, revision=before.revision, overridden=()) == before


def test_an_expired_challenger_makes_room_and_its_row_says_why(world: World) -> None:
    """After 180 days the held challenger leaves by itself, and the one that waits comes in."""
    _in_canary(world)
    world.registrar.hold(MODEL, world.policy, "forgotten")
    world.later(100)
    world.register("third", None)
    world.later(80)
    state = world.advance()
    row = world.ledger.rows(MODEL)[-1]
    assert (row.kind, row.version, state.challenger, state.stage) == (RowKind.EXPIRED, "v2", "v3", Stage.CANDIDATE)
    assert "train a new one" in row.reason
    assert world.registrar.record_gate(world.policy, "v3", verdict()).challenger == "v3"


@pytest.mark.parametrize(("slow", "outcome"), [(150, Outcome.PASS), (215, Outcome.PASS), (400, Outcome.FAIL)])
def test_latency_is_judged_over_any_number_of_decisions(slow: int, outcome: Outcome) -> None:
    """Twenty thousand decisions, of which about the allowed 1% or clearly more were slow: a verdict, no overflow."""
    found = guardrails(replace(evidence(), decisions=20_000, slow=slow), policy())
    assert next(one.outcome for one in found.criteria if one.name == "p99_ms") is outcome


@pytest.mark.parametrize("bursts", [(), (Burst(START, 500, errors=5),), (Burst(START, 500, errors=60),)])
def test_a_window_that_fails_is_not_hidden_by_a_long_good_past(bursts: tuple[Burst, ...]) -> None:
    """20,000 good decisions, then 60 errors in one window: rolled back for that window; 5 of 500 pass."""
    errors = sum(burst.errors for burst in bursts)
    seen = replace(evidence(decisions=20_500), errors=errors, bursts=bursts)
    found = guardrails(seen, policy())
    failing = errors == 60
    assert found.outcome is (Outcome.FAIL if failing else Outcome.PASS)
    assert ("60 of 500 in the" in found.words) == failing


def test_equal_windows_seldom_end_a_good_challenger() -> None:
    """Errors exactly at the limit, daily windows for two months, 300 challengers: at most alpha are rolled back."""
    rng, rule = np.random.default_rng(5), policy().rollout
    ended = 0
    for _ in range(300):
        errors = rng.binomial(40, rule.guardrails.error_rate, 60)
        bursts = tuple(Burst(START + timedelta(days=d), 40, errors=int(e)) for d, e in enumerate(errors) if e)
        seen = replace(evidence(decisions=2_400), errors=int(errors.sum()), bursts=bursts)
        ended += guardrails(seen, policy()).outcome is Outcome.FAIL
    assert ended <= 300 * rule.verdict.alpha
