"""Moves a rollout one step: evidence in, the pure decision, the registrar's write."""

from __future__ import annotations

from datetime import datetime

from contracts.policy import Policy
from contracts.rollout import Action, Move, OnlineEvidence, RolloutState, Stage, Verdict
from lifecycle.workspace import Workspace


def advance(
    ws: Workspace,
    policy: Policy,
    now: datetime,
    *,
    evidence: OnlineEvidence | None = None,
    verdict: Verdict | None = None,
    dry_run: bool = False,
) -> tuple[Action, RolloutState]:
    """Decide the rollout's next move and, unless `dry_run`, make it.

    Args:
        ws: the workspace.
        policy: the model's policy.
        now: the moment of the decision.
        evidence: what was seen of the challenger since its stage began; needed in shadow and canary.
        verdict: the gate's, needed for a candidate.
        dry_run: decide only.

    Returns:
        the action and the state after it (the present state when nothing was written).
    """
    from models.metrics import LOSS_BOUND
    from registry.rollout import next_action

    state = ws.registrar.state(policy.model)
    bound = LOSS_BOUND[policy.rollout.verdict.metric]
    action = next_action(state, policy, verdict, evidence, now, bound=bound)
    if dry_run or action.move is Move.STAY or action.needs_approval:
        return action, state
    return action, ws.registrar.apply(action, policy, evidence)


def under_trial(state: RolloutState) -> bool:
    """True while a challenger is on its way; a held one waits for a person and may be superseded by a new candidate."""
    return state.challenger is not None and state.stage in (Stage.CANDIDATE, Stage.SHADOW, Stage.CANARY)
