"""The rollout state machine: what may happen next to a challenger, and why. Pure: values in, an action out."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from contracts.policy import Mode, Policy
from contracts.rollout import Action, Move, OnlineEvidence, Outcome, RolloutState, Stage, Verdict
from registry.fold import fold
from registry.trial import accuracy, guardrails

__all__ = ["approvals_needed", "fold", "next_action"]


def next_action(
    state: RolloutState,
    policy: Policy,
    gate: Verdict | None,
    evidence: OnlineEvidence | None,
    now: datetime,
    *,
    bound: float,
) -> Action:
    """The next move of the model's challenger.

    candidate: a passing gate starts the shadow, or promotes at once when nobody serves yet (bootstrap: there is no
    champion to be compared with, and the gate already beat the incumbent); a failing one rejects; an inconclusive
    one holds. shadow: failing guardrails or accuracy reject; after min_decisions and min_days, with passing
    guardrails, the canary begins (accuracy may still be open). canary: failing guardrails roll back, failing accuracy
    rejects; each step bakes; after the last step a passing accuracy verdict promotes. Whatever is still open when the
    stage or step is older than the verdict's deadline is held for a person.

    Args:
        state: see registry.fold.
        policy: of the model.
        gate: the candidate's verdict; what the ledger has recorded wins over it.
        evidence: since the present stage began, None when it could not be had: then nothing moves forward.
        now: the time.
        bound: winsorising bound of the verdict's loss (models.metrics.LOSS_BOUND[policy.rollout.verdict.metric]).

    Returns:
        the action; its evidence names the ledger revision it was decided on, so that it can be applied only to that.
    """
    if state.challenger is None:
        return _act(state, policy, Move.STAY, "no challenger")
    if state.stage is Stage.CANDIDATE:
        return _from_candidate(state, policy, gate)
    if state.stage is Stage.SHADOW:
        return _from_shadow(state, policy, evidence, now, bound)
    if state.stage is Stage.CANARY:
        return _from_canary(state, policy, evidence, now, bound)
    return _act(state, policy, Move.STAY, f"{state.challenger} is held until somebody resumes or rejects it")


def approvals_needed(state: RolloutState, policy: Policy, move: Move, step: int = -1) -> int:
    """How many more people must agree before the challenger may make this move; 0 when it may.

    Only the first canary step asks for an approval. `gate.approvals.required` counts for a promotion even when the
    policy lets it run by itself.
    """
    automate = policy.automate
    modes: dict[Move, Mode] = {
        Move.START_SHADOW: automate.promote_to_shadow,
        Move.PROMOTE: automate.promote_to_champion,
    }
    if move is Move.STEP_CANARY and step <= 0:
        modes[move] = automate.promote_to_canary
    required = policy.gate.approvals.required if move is Move.PROMOTE else 0
    if modes.get(move) == "approval":
        required = max(1, policy.gate.approvals.required)
    return max(0, required - len(state.approvals.get(state.challenger or "", ())))


def _from_candidate(state: RolloutState, policy: Policy, gate: Verdict | None) -> Action:
    recorded = state.gates.get(state.challenger or "")
    if recorded is None and gate is None:
        return _act(state, policy, Move.STAY, f"{state.challenger} waits for its gate")
    outcome = Outcome(recorded) if recorded is not None else gate.outcome if gate else Outcome.INCONCLUSIVE
    words = gate.words if gate and gate.outcome is outcome else "as recorded"
    if outcome is Outcome.PASS and state.champion is None:
        return _act(state, policy, Move.PROMOTE, f"nobody serves yet and the gate passed: {words}")
    move = {
        Outcome.PASS: Move.START_SHADOW,
        Outcome.FAIL: Move.REJECT,
        Outcome.INCONCLUSIVE: Move.HOLD,
    }[outcome]
    return _act(state, policy, move, f"gate {outcome}: {words}")


def _from_shadow(
    state: RolloutState, policy: Policy, evidence: OnlineEvidence | None, now: datetime, bound: float
) -> Action:
    rule, safe = policy.rollout.shadow, guardrails(evidence, policy)
    found, seen = _weigh(safe, evidence, policy, bound)
    if safe.outcome is Outcome.FAIL:
        return _act(state, policy, Move.REJECT, f"shadow guardrails: {safe.words}", seen)
    if found.outcome is Outcome.FAIL:
        return _act(state, policy, Move.REJECT, f"shadow accuracy: {found.words}", seen)
    decisions, days = (evidence.decisions, evidence.days) if evidence else (0, 0.0)
    if decisions < rule.min_decisions or days < rule.min_days:
        words = f"shadow has {decisions} of {rule.min_decisions} decisions and {days:.1f} of {rule.min_days:g} days"
        return _wait(state, policy, now, words, seen)
    if safe.outcome is not Outcome.PASS:
        return _wait(state, policy, now, f"shadow guardrails are open: {safe.words}", seen)
    return _step(state, policy, f"shadow of {decisions} decisions over {days:.1f} days is clean; {found.words}", seen)


def _from_canary(
    state: RolloutState, policy: Policy, evidence: OnlineEvidence | None, now: datetime, bound: float
) -> Action:
    rule, safe = policy.rollout.canary, guardrails(evidence, policy)
    found, seen = _weigh(safe, evidence, policy, bound)
    if safe.outcome is Outcome.FAIL:
        return _act(state, policy, Move.ROLL_BACK, f"canary guardrails: {safe.words}", seen)
    if found.outcome is Outcome.FAIL:
        return _act(state, policy, Move.REJECT, f"canary accuracy: {found.words}", seen)
    if _age(state, now) < rule.bake:
        return _act(state, policy, Move.STAY, f"step {state.step + 1} of {len(rule.steps)} bakes", seen)
    if safe.outcome is not Outcome.PASS:
        return _wait(state, policy, now, f"canary guardrails are open: {safe.words}", seen)
    if state.step + 1 < len(rule.steps):
        return _step(state, policy, f"step {state.step + 1} of {len(rule.steps)} is clean; {safe.words}", seen)
    if found.outcome is Outcome.PASS:
        return _act(state, policy, Move.PROMOTE, found.words, seen)
    return _wait(state, policy, now, found.words, seen)


def _weigh(
    safe: Verdict, evidence: OnlineEvidence | None, policy: Policy, bound: float
) -> tuple[Verdict, dict[str, Any]]:
    """The accuracy verdict, and all that was seen as plain values for the ledger."""
    found, figures = accuracy(evidence, policy, bound)
    seen: dict[str, Any] = {
        criterion.name: {"outcome": criterion.outcome.value, "value": criterion.value, "bound": criterion.bound}
        for criterion in (*safe.criteria, *found.criteria)
    }
    if figures is not None:
        seen["sequential"] = {
            "pairs": figures.n,
            "mean_difference": figures.mean_difference,
            "lower": figures.lower,
            "upper": figures.upper,
            "e_better": figures.e_better,
            "e_worse": figures.e_worse,
        }
    return found, seen


def _wait(state: RolloutState, policy: Policy, now: datetime, words: str, seen: dict[str, Any]) -> Action:
    """Stay, or hold when it has taken longer than the deadline."""
    if _age(state, now) >= policy.rollout.verdict.deadline:
        return _act(state, policy, Move.HOLD, f"inconclusive at the deadline: {words}", seen)
    return _act(state, policy, Move.STAY, words, seen)


def _step(state: RolloutState, policy: Policy, reason: str, seen: dict[str, Any]) -> Action:
    step = state.step + 1
    return _act(state, policy, Move.STEP_CANARY, reason, seen, step, policy.rollout.canary.steps[step] / 100)


def _act(
    state: RolloutState,
    policy: Policy,
    move: Move,
    reason: str,
    seen: dict[str, Any] | None = None,
    step: int = -1,
    share: float = 0.0,
) -> Action:
    missing = approvals_needed(state, policy, move, step)
    words = f"{reason}; {missing} more approval(s) needed" if missing else reason
    facts = {**(seen or {}), "revision": state.revision}
    return Action(move, state.challenger, words, share, step, facts, needs_approval=missing > 0)


def _age(state: RolloutState, now: datetime) -> timedelta:
    return now - state.since if state.since else timedelta(0)
