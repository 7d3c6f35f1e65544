"""Moves a rollout one step: evidence in, the pure decision, the registrar's write."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from typing import TYPE_CHECKING

from contracts.errors import DependencyDown
from contracts.policy import Policy
from contracts.rollout import Action, Move, OnlineEvidence, RolloutState, Stage, Verdict
from lifecycle.workspace import Workspace
from registry.durable import replace_file

if TYPE_CHECKING:
    from drift.monitor import Monitor

_LOG = logging.getLogger(__name__)
_WATCHED = (Stage.SHADOW, Stage.CANARY)


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
        verdict: of the gate that was just recorded, for its words; which outcome counts, the ledger says.
        dry_run: decide only.

    Returns:
        the action and the state after it (the present state when nothing was written).
    """
    from models.metrics import LOSS_BOUND
    from registry.rollout import next_action

    if not dry_run:
        ws.registrar.record_policy(policy, "the policy in force")
    state = ws.registrar.state(policy.model)
    misses = _misses(ws, state, evidence, keep=not dry_run) if state.stage in _WATCHED else 0
    bound = LOSS_BOUND[policy.rollout.verdict.metric]
    # A challenger without a recorded gate (a training that was killed) is never judged by another version's verdict.
    told = verdict if state.challenger in state.gates else None
    action = next_action(state, policy, told, evidence, now, bound=bound, misses=misses)
    if dry_run or (action.move is Move.STAY and not action.rulings):
        return action, state
    if action.needs_approval:
        return action, ws.registrar.record_verdicts(action, policy)
    return action, ws.registrar.apply(action, policy, evidence)


def seen(monitor: Monitor, state: RolloutState, now: datetime) -> OnlineEvidence | None:
    """What the monitor saw of the challenger; None outside of a trial, or when its logs could not be read."""
    if state.stage not in _WATCHED:
        return None
    try:
        return monitor.evidence(state, now)
    except (DependencyDown, OSError) as error:
        _LOG.warning("no evidence on %s of %s: %s", state.challenger, state.model, error)
        return None


def _misses(ws: Workspace, state: RolloutState, evidence: OnlineEvidence | None, *, keep: bool) -> int:
    """How many looks in a row had no evidence, this one included; a stage or step counts anew.

    Kept in a file beside the monitor's, not in the ledger: a look that saw nothing changes nothing.
    """
    path = ws.settings.home / "monitor" / f"{state.model}-misses.json"
    of = f"{state.challenger} {state.stage} {state.step}"
    before = 0
    if evidence is None:
        try:
            noted = json.loads(path.read_text(encoding="utf-8"))
            before = int(noted["looks"]) if noted["of"] == of else 0
        except (OSError, ValueError, KeyError, TypeError):
            before = 0
    looks = before + 1 if evidence is None else 0
    if keep and (looks or path.exists()):
        replace_file(path, json.dumps({"of": of, "looks": looks}).encode())
    return looks


def under_trial(state: RolloutState) -> bool:
    """True while a challenger is on its way; a held one waits for a person and may be superseded by a new candidate."""
    return state.challenger is not None and state.stage in (Stage.CANDIDATE, Stage.SHADOW, Stage.CANARY)
