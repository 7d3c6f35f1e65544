"""The rollout state machine: what may happen next to a challenger, and why. Pure: values in, an action out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from contracts.policy import Mode, Policy
from contracts.rollout import Action, Move, OnlineEvidence, Outcome, RolloutState, Stage, Verdict
from registry.fold import fold
from registry.freezes import frozen
from registry.trial import accuracy, guardrails

__all__ = ["approvals_needed", "blocked", "fold", "next_action"]

FORWARD = (Move.START_SHADOW, Move.STEP_CANARY, Move.PROMOTE)
RAISE = "the owner can raise canary.max_decisions and resume it, or reject it; resumed alone it is held again"
CHOICES = "the owner can resume it (the deadline starts anew), reject it, or change the policy"


@dataclass(frozen=True)
class _Look:
    """One look at a challenger: everything that its next move is decided from."""

    state: RolloutState
    policy: Policy
    now: datetime
    evidence: OnlineEvidence | None
    bound: float
    misses: int

    @property
    def age(self) -> timedelta:
        """How long the present stage or step has lasted."""
        return self.now - self.state.since if self.state.since else timedelta(0)


@dataclass(frozen=True)
class _Seen:
    """What the evidence says: both verdicts, all figures as plain values, and the verdicts that are new."""

    safe: Verdict
    found: Verdict
    facts: dict[str, Any] = field(default_factory=dict)
    rulings: dict[str, Verdict] = field(default_factory=dict)


def next_action(
    state: RolloutState,
    policy: Policy,
    gate: Verdict | None,
    evidence: OnlineEvidence | None,
    now: datetime,
    *,
    bound: float,
    misses: int = 0,
) -> Action:
    """The next move of the model's challenger.

    candidate: a passing gate starts the shadow, or promotes at once when nobody serves yet (bootstrap: there is no
    champion to be compared with, and the gate already beat the incumbent); a failing one rejects; an inconclusive
    one holds. shadow: failing guardrails or accuracy reject; after min_decisions and min_days, with passing
    guardrails, the canary begins (accuracy may still be open). canary: failing guardrails roll back, failing accuracy
    rejects; each step bakes; after the last step a passing accuracy verdict promotes; without one, a canary that has
    answered `canary.max_decisions` is held. Whatever is still open when the stage or step is older than the verdict's
    deadline is held for a person. In any stage, a challenger registered longer ago than `rollout.expires` leaves.

    Nothing goes forward while the model is stopped. In a freeze nobody else answers: no canary begins or grows, nobody
    is promoted, not even the first champion (the incumbent rule answers meanwhile); a shadow, which serves nobody, may
    start. What goes back or away (hold, reject, roll back, expire) is never held up.

    Args:
        state: see registry.fold.
        policy: of the model.
        gate: the candidate's verdict; what the ledger has recorded wins over it.
        evidence: since the present stage began, None when it could not be had: then nothing moves forward, and that is
            no failure of the challenger.
        now: the time.
        bound: winsorising bound of the verdict's loss (models.metrics.LOSS_BOUND[policy.rollout.verdict.metric]).
        misses: looks in a row, this one included, at which no evidence was to be had; `guardrails.failure_limit` of
            them hold the challenger. Whoever looks counts them: the ledger gets no row a look.

    Returns:
        the action; its evidence names the ledger revision it was decided on, so that it can be applied only to that,
        and its rulings are the verdicts that the ledger should hold before it.
    """
    look = _Look(state, policy, now, evidence, bound, misses)
    if state.challenger is None:
        return _act(look, Move.STAY, "no challenger")
    registered = state.registered.get(state.challenger)
    if registered is not None and now - registered.at >= policy.rollout.expires:
        days = policy.rollout.expires.days
        words = f"registered {registered.at:%Y-%m-%d} and no champion within {days} days: train a new one"
        return _act(look, Move.EXPIRE, words)
    if state.stage is Stage.CANDIDATE:
        return _from_candidate(look, gate)
    if state.stage in (Stage.SHADOW, Stage.CANARY):
        again = state.gates.get(state.challenger)
        if again == Outcome.FAIL:
            return _act(look, Move.REJECT, "its gate, judged again, failed")
        if again == Outcome.INCONCLUSIVE:
            return _act(look, Move.HOLD, f"its gate, judged again, is inconclusive; {CHOICES}")
        return _from_trial(look)
    return _act(look, Move.STAY, f"{state.challenger} is held until somebody resumes or rejects it")


def approvals_needed(state: RolloutState, policy: Policy, move: Move, step: int = -1, *, now: datetime) -> int:
    """How many more people must agree before the challenger may make this move; 0 when it may.

    Only the first canary step asks for an approval. `gate.approvals.required` counts for a promotion even when the
    policy lets it run by itself. An approval counts in the stage in which it was given, until it expires, from a role
    that may approve, and not from the version's author where the policy forbids that.
    """
    automate, rule, version = policy.automate, policy.gate.approvals, state.challenger or ""
    modes: dict[Move, Mode] = {
        Move.START_SHADOW: automate.promote_to_shadow,
        Move.PROMOTE: automate.promote_to_champion,
    }
    if move is Move.STEP_CANARY and step <= 0:
        modes[move] = automate.promote_to_canary
    required = rule.required if move is Move.PROMOTE else 0
    if modes.get(move) == "approval":
        required = max(1, rule.required)
    authors = state.registered[version].authors if version in state.registered else frozenset()
    agreed = {
        given.who
        for given in state.approvals.get(version, ())
        if now < given.at + rule.expires
        and (not rule.by or given.role in rule.by)
        and not (rule.not_author and given.who in authors)
    }
    return max(0, required - len(agreed))


def blocked(state: RolloutState, policy: Policy, move: Move, now: datetime) -> str:
    """Why a move may not be made now whatever the evidence says: a stop or a freeze, in words; empty when it may."""
    if move not in FORWARD:
        return ""
    if state.stopped:
        return f"{state.model} is stopped ({state.stopped})"
    return "" if move is Move.START_SHADOW else frozen(policy, now)


def _from_candidate(look: _Look, gate: Verdict | None) -> Action:
    state = look.state
    recorded = state.gates.get(state.challenger or "")
    if recorded is None and gate is None:
        return _act(look, Move.STAY, f"{state.challenger} waits for its gate")
    outcome = Outcome(recorded) if recorded is not None else gate.outcome if gate else Outcome.INCONCLUSIVE
    words = gate.words if gate and gate.outcome is outcome else "as recorded"
    if outcome is Outcome.PASS and state.champion is None:
        return _act(look, Move.PROMOTE, f"nobody serves yet and the gate passed: {words}")
    move = {
        Outcome.PASS: Move.START_SHADOW,
        Outcome.FAIL: Move.REJECT,
        Outcome.INCONCLUSIVE: Move.HOLD,
    }[outcome]
    return _act(look, move, f"gate {outcome}: {words}")


def _from_trial(look: _Look) -> Action:
    """Shadow or canary: what fails leaves; without evidence nothing moves; the rest by the stage's own rule."""
    stage, limit, seen = look.state.stage, look.policy.rollout.guardrails.failure_limit, _weigh(look)
    if seen.safe.outcome is Outcome.FAIL:
        move = Move.ROLL_BACK if stage is Stage.CANARY else Move.REJECT
        return _act(look, move, f"{stage} guardrails: {seen.safe.words}", seen)
    if seen.found.outcome is Outcome.FAIL:
        return _act(look, Move.REJECT, f"{stage} accuracy: {seen.found.words}", seen)
    if look.evidence is None:
        if look.misses >= limit:
            words = f"no evidence was to be had at {look.misses} looks in a row, {limit} hold; {CHOICES}"
            return _act(look, Move.HOLD, words, seen)
        return _wait(look, "no evidence was to be had", seen)
    decide = _from_shadow if stage is Stage.SHADOW else _from_canary
    return decide(look, look.evidence, seen)


def _from_shadow(look: _Look, evidence: OnlineEvidence, seen: _Seen) -> Action:
    rule, decisions, days = look.policy.rollout.shadow, evidence.decisions, evidence.days
    if decisions < rule.min_decisions or days < rule.min_days:
        words = f"shadow has {decisions} of {rule.min_decisions} decisions and {days:.1f} of {rule.min_days:g} days"
        return _wait(look, words, seen)
    if seen.safe.outcome is not Outcome.PASS:
        return _wait(look, f"shadow guardrails are open: {seen.safe.words}", seen)
    words = f"shadow of {decisions} decisions over {days:.1f} days is clean; {seen.found.words}"
    return _act(look, Move.STEP_CANARY, words, seen)


def _from_canary(look: _Look, evidence: OnlineEvidence, seen: _Seen) -> Action:
    rule, step, found = look.policy.rollout.canary, look.state.step, seen.found
    exposed = evidence.decisions if evidence.exposed is None else evidence.exposed
    if rule.max_decisions is not None and exposed >= rule.max_decisions and found.outcome is not Outcome.PASS:
        words = f"the canary has answered {exposed} decisions, {rule.max_decisions} are allowed before its verdict"
        return _act(look, Move.HOLD, f"{words}: {found.words}; {RAISE}", seen)
    if look.age < rule.bake:
        until = (look.state.since or look.now) + rule.bake
        return _act(look, Move.STAY, f"step {step + 1} of {len(rule.steps)} bakes until {until:%Y-%m-%d %H:%M}", seen)
    if seen.safe.outcome is not Outcome.PASS:
        return _wait(look, f"canary guardrails are open: {seen.safe.words}", seen)
    if step + 1 < len(rule.steps):
        return _act(look, Move.STEP_CANARY, f"step {step + 1} of {len(rule.steps)} is clean; {seen.safe.words}", seen)
    if found.outcome is Outcome.PASS:
        return _act(look, Move.PROMOTE, found.words, seen)
    return _wait(look, found.words, seen)


def _weigh(look: _Look) -> _Seen:
    safe = guardrails(look.evidence, look.policy)
    found, figures = accuracy(look.evidence, look.policy, look.bound)
    facts: dict[str, Any] = {
        criterion.name: {"outcome": criterion.outcome.value, "value": criterion.value, "bound": criterion.bound}
        for criterion in (*safe.criteria, *found.criteria)
    }
    if figures is not None:
        facts["sequential"] = {
            "pairs": figures.n,
            "mean_difference": figures.mean_difference,
            "lower": figures.lower,
            "upper": figures.upper,
            "e_better": figures.e_better,
            "e_worse": figures.e_worse,
        }
    known = {name: ruling.outcome for name, ruling in look.state.verdicts.items()}
    rulings = {
        name: verdict
        for name, verdict in (("guardrails", safe), ("accuracy", found))
        if verdict.outcome not in (Outcome.INCONCLUSIVE, known.get(name))
    }
    return _Seen(safe, found, facts, rulings)


def _wait(look: _Look, words: str, seen: _Seen) -> Action:
    """Stay, or hold when it has taken longer than the deadline; a stopped model's clock stands still."""
    deadline = look.policy.rollout.verdict.deadline
    if look.state.stopped:
        return _act(look, Move.STAY, f"{look.state.model} is stopped ({look.state.stopped}); {words}", seen)
    if look.age >= deadline:
        reason = f"inconclusive at the deadline of {deadline.total_seconds() / 86400:g} days: {words}; {CHOICES}"
        return _act(look, Move.HOLD, reason, seen)
    return _act(look, Move.STAY, words, seen)


def _act(look: _Look, move: Move, reason: str, seen: _Seen | None = None) -> Action:
    state, policy = look.state, look.policy
    facts = {**(seen.facts if seen else {}), "revision": state.revision}
    rulings = seen.rulings if seen else {}
    if why := blocked(state, policy, move, look.now):
        words = f"{move.replace('_', ' ')} waits, {why}; {reason}"
        return Action(Move.STAY, state.challenger, words, evidence=facts, rulings=rulings)
    step, share = -1, 0.0
    if move is Move.STEP_CANARY:
        step = state.step + 1
        share = policy.rollout.canary.steps[step] / 100
    missing = approvals_needed(state, policy, move, step, now=look.now)
    words = f"{reason}; {missing} more approval(s) needed" if missing else reason
    return Action(move, state.challenger, words, share, step, facts, needs_approval=missing > 0, rulings=rulings)
