"""The rollout state machine: each move for its reason, and no way around the gate."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import CheckFailed, LedgerBroken, LedgerConflict
from contracts.rollout import Action, Approval, Move, OnlineEvidence, Outcome, RolloutState, RowKind, Stage
from registry.ledger import MemoryLedger, RowDraft
from registry.rollout import approvals_needed, fold, next_action
from tests.registry.rig import MODEL, START, chain, evidence, policy, verdict

POLICY = policy()
SHADOW = RolloutState(MODEL, 5, "v1", None, "v2", Stage.SHADOW, since=START, gates={"v1": "pass", "v2": "pass"})
CANARY = replace(SHADOW, stage=Stage.CANARY, step=0, share=0.1)
LAST = replace(CANARY, step=1, share=0.5)


def _next(state: RolloutState, seen: OnlineEvidence | None, days: float) -> Action:
    return next_action(state, POLICY, None, seen, START + timedelta(days=days), bound=1.0)


@pytest.mark.parametrize(
    ("outcome", "champion", "move"),
    [
        (Outcome.PASS, None, Move.PROMOTE),
        (Outcome.PASS, "v1", Move.START_SHADOW),
        (Outcome.FAIL, "v1", Move.REJECT),
        (Outcome.FAIL, None, Move.REJECT),
        (Outcome.INCONCLUSIVE, "v1", Move.HOLD),
        (Outcome.INCONCLUSIVE, None, Move.HOLD),
    ],
)
def test_a_candidate_goes_where_its_gate_sends_it(outcome: Outcome, champion: str | None, move: Move) -> None:
    """Pass, fail and inconclusive, with and without a champion; what is recorded wins over what is passed in."""
    state = RolloutState(MODEL, 2, champion, None, "v2", Stage.CANDIDATE, since=START)
    assert next_action(state, POLICY, verdict(outcome), None, START, bound=1.0).move is move
    recorded = replace(state, gates={"v2": outcome.value})
    assert next_action(recorded, POLICY, verdict(Outcome.FAIL), None, START, bound=1.0).move is move
    assert next_action(state, POLICY, None, None, START, bound=1.0).move is Move.STAY


@pytest.mark.parametrize(
    ("state", "seen", "days", "move"),
    [
        (SHADOW, evidence(decisions=49), 3, Move.STAY),
        (SHADOW, evidence(days=1.9), 3, Move.STAY),
        (SHADOW, evidence(), 3, Move.STEP_CANARY),
        (SHADOW, evidence(pairs=0), 3, Move.STEP_CANARY),
        (SHADOW, evidence(gain=-0.1), 3, Move.REJECT),
        (SHADOW, evidence(errors=100), 3, Move.REJECT),
        (SHADOW, None, 3, Move.STAY),
        (SHADOW, None, 30, Move.HOLD),
        (SHADOW, evidence(decisions=10), 31, Move.HOLD),
        (CANARY, evidence(), 0.5, Move.STAY),
        (CANARY, evidence(), 1, Move.STEP_CANARY),
        (CANARY, evidence(errors=100), 0.1, Move.ROLL_BACK),
        (CANARY, evidence(decisions=12, errors=12), 0.1, Move.ROLL_BACK),
        (CANARY, evidence(gain=-0.1), 0.1, Move.REJECT),
        (CANARY, evidence(decisions=10), 2, Move.STAY),
        (CANARY, evidence(decisions=10), 30, Move.HOLD),
        (CANARY, None, 2, Move.STAY),
        (LAST, evidence(), 1, Move.PROMOTE),
        (LAST, evidence(), 0.9, Move.STAY),
        (LAST, evidence(pairs=99), 5, Move.STAY),
        (LAST, evidence(pairs=99), 30, Move.HOLD),
        (replace(LAST, stage=Stage.HELD), evidence(), 5, Move.STAY),
        (RolloutState(MODEL), evidence(), 5, Move.STAY),
    ],
)
def test_each_move_for_its_reason(state: RolloutState, seen: OnlineEvidence | None, days: float, move: Move) -> None:
    """Time, decisions, guardrails and accuracy decide, and missing evidence never moves anything forward."""
    found = _next(state, seen, days)
    assert found.move is move, found.reason
    assert found.evidence["revision"] == state.revision


@pytest.mark.parametrize(
    "change", [{"slow": 30}, {"prediction_psi": 0.9}, {"slow": 1_000_000}, {"prediction_psi": float("inf")}]
)
def test_latency_and_shift_guard_the_canary(change: dict[str, float]) -> None:
    """Over the limit rolls back; a figure that is no number stops the way forward without judging."""
    found = _next(CANARY, replace(evidence(), **change), 2)
    number = next(iter(change.values()))
    assert found.move is (Move.STAY if number in (1_000_000, float("inf")) else Move.ROLL_BACK)


@pytest.mark.parametrize(("slow", "move"), [(0, Move.STEP_CANARY), (1, Move.STEP_CANARY), (3, Move.STAY)])
def test_a_slow_decision_among_few_is_no_reason_to_roll_back(slow: int, move: Move) -> None:
    """One of 40 over the limit comes by chance where 1% may be; three hold the way forward, and do not roll back."""
    assert _next(CANARY, replace(evidence(decisions=40), slow=slow, p99_ms=400.0), 2).move is move


def test_latency_and_shift_that_were_not_measured_are_left_out() -> None:
    """None means not measured: the shares of errors and fallbacks still have to pass."""
    assert _next(CANARY, replace(evidence(), slow=None, prediction_psi=None), 2).move is Move.STEP_CANARY


def test_one_error_in_few_decisions_waits_instead_of_throwing_out() -> None:
    """A share over the limit that may be chance is inconclusive: neither forward nor back."""
    assert _next(CANARY, evidence(decisions=40, errors=1), 2).move is Move.STAY


def test_the_shares_are_the_policys_steps() -> None:
    """Each step carries its share of the policy, in order."""
    first, second = _next(SHADOW, evidence(), 3), _next(CANARY, evidence(), 3)
    assert [(first.step, first.share), (second.step, second.share)] == [(0, 0.1), (1, 0.5)]


def test_only_the_first_canary_step_asks_for_approval() -> None:
    """approval for the canary is asked once; a promotion needs as many as the policy requires."""
    careful = policy(automate={"promote_to_canary": "approval"})
    agreed = replace(SHADOW, approvals={"v2": (Approval("bea", "", START),)})
    assert approvals_needed(SHADOW, careful, Move.STEP_CANARY, 0, now=START) == 1
    assert approvals_needed(CANARY, careful, Move.STEP_CANARY, 1, now=START) == 0
    assert approvals_needed(agreed, careful, Move.STEP_CANARY, 0, now=START) == 0
    assert approvals_needed(SHADOW, careful, Move.REJECT, now=START) == 0


REGISTERED = (RowKind.REGISTERED, "v1", {"manifest_sha256": "1" * 64})
PASSED = (RowKind.GATED, "v1", {"outcome": "pass"})


@pytest.mark.parametrize(
    "steps",
    [
        (REGISTERED, (RowKind.PROMOTED, "v1", {})),
        (REGISTERED, (RowKind.GATED, "v1", {"outcome": "fail"}), (RowKind.PROMOTED, "v1", {})),
        (REGISTERED, (RowKind.GATED, "v1", {"outcome": "maybe"})),
        (REGISTERED, REGISTERED),
        (REGISTERED, PASSED, (RowKind.SHADOW_STARTED, "v1", {})),
        (REGISTERED, PASSED, (RowKind.CANARY_STEP, "v1", {"step": 0, "share": 0.1})),
        (REGISTERED, PASSED, (RowKind.PROMOTED, "v1", {}), (RowKind.PROMOTED, "v1", {})),
        (REGISTERED, PASSED, (RowKind.PROMOTED, "v1", {}), (RowKind.ROLLED_BACK, "v1", {})),
        (REGISTERED, (RowKind.SUPERSEDED, "v1", {"by": "v2"})),
        (PASSED,),
    ],
)
def test_rows_that_no_rollout_can_contain_are_named(steps: tuple[tuple[RowKind, str, dict[str, object]], ...]) -> None:
    """A well-chained row that skips the gate or the order breaks the fold at its own revision."""
    with pytest.raises(LedgerBroken) as error:
        fold(chain(*steps))
    assert error.value.revision == len(steps)


@given(st.lists(st.tuples(st.sampled_from(list(RowKind)), st.integers(1, 4), st.integers(0, 2)), max_size=40))
@settings(max_examples=300, deadline=None)
def test_whatever_is_tried_the_invariants_hold_at_every_prefix(wishes: list[tuple[RowKind, int, int]]) -> None:
    """Of any attempts only legal ones get in; then no champion without a pass, no share without a champion."""
    ledger = MemoryLedger()
    for number, (kind, version, extra) in enumerate(wishes):
        payload = {
            "manifest_sha256": "a" * 64,
            "outcome": list(Outcome)[extra].value,
            "step": extra,
            "share": 0.1,
            "by": f"v{extra}",
        }
        if kind is RowKind.ROLLED_BACK:
            payload = {}
        at = START + timedelta(hours=number)
        draft = RowDraft(MODEL, kind, f"v{version}", at, "ann", "", f"q{number}", payload)
        trial = MemoryLedger()
        for row in ledger.rows(MODEL):
            trial.append(
                RowDraft(MODEL, row.kind, row.version, row.at, row.actor, "", row.request_id, row.payload),
                row.revision - 1,
            )
        trial.append(draft, len(ledger.rows(MODEL)))
        try:
            fold(trial.rows(MODEL))
        except LedgerBroken:
            continue
        ledger.append(draft, len(ledger.rows(MODEL)))
        _assert_sound(fold(ledger.rows(MODEL)))


def _assert_sound(state: RolloutState) -> None:
    assert state.champion is None or state.champion in state.manifests
    assert (state.challenger is None) == (state.stage is Stage.NONE)
    assert state.challenger is None or state.challenger != state.champion
    assert state.share == 0 or (state.champion is not None and state.stage is Stage.CANARY)
    assert state.stage not in (Stage.SHADOW, Stage.CANARY) or state.champion is not None
    assert state.previous_champion is None or state.previous_champion != state.champion


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["new", "gate", "turn", "rollback", "hold", "resume", "reject"]),
            st.sampled_from(list(Outcome)),
            st.sampled_from([0.06, -0.1, 0.0]),
            st.sampled_from([0, 0, 0, 100]),
        ),
        min_size=4,
        max_size=30,
    )
)
@settings(max_examples=25, deadline=None)
def test_a_registrar_driven_at_random_stays_sound(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, Outcome, float, int]]
) -> None:
    """Through any order of candidates, gates, turns and interventions: one champion or none, each with its pass."""
    from tests.registry.rig import World

    world = World(tmp_path_factory.mktemp("random"), ledger=MemoryLedger())
    for number, (what, outcome, gain, errors) in enumerate(moves):
        world.later(3)
        try:
            if what == "new":
                world.register(f"m{number}", None if gain == 0.0 else outcome)
            elif what == "gate" and world.state.manifests:
                world.registrar.record_gate(world.policy, list(world.state.manifests)[-1], verdict(outcome))
            elif what == "rollback":
                world.registrar.rollback(MODEL, world.policy, "by hand")
            elif what in ("hold", "resume", "reject"):
                getattr(world.registrar, what)(MODEL, world.policy, "by hand")
            else:
                world.advance(evidence(gain=gain, errors=errors, pairs=120))
        except (CheckFailed, LedgerConflict):
            pass
        _assert_sound(world.state)
        rows = world.ledger.rows(MODEL)
        for row in rows:
            if row.kind is RowKind.PROMOTED:
                assert fold(rows[: row.revision - 1]).gates.get(row.version) == "pass"
