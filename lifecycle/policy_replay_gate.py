"""A recorded backtest at another policy's gate: what was measured is judged, what was not is left out and said."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from contracts.evaluation import Evaluation
from contracts.policy import GatePolicy, Policy, Predict
from contracts.rollout import LedgerRow, RowKind, Verdict
from lifecycle.policy_replay_history import History
from registry.fold import fold
from registry.gate import gate

_COSTS = {"predict_p99_ms": "p99_ms", "predict_memory_mb": "memory_mb"}


def gate_again(
    history: History, version: str, policy: Policy, champion: str | None, now: datetime
) -> tuple[Verdict, tuple[str, ...]]:
    """A version's recorded backtest through a policy's gate.

    Args:
        history: with the version's backtest and its recorded gate.
        champion: who serves in the replay; the backtest's own champion column is of who served then.
        now: the moment of the gate.

    Returns:
        the verdict, and in words what could not be judged as it would have been live.
    """
    evaluation = with_costs(history.evaluations[version], version, history.rows)
    measured, left_out = what_was_measured(policy, evaluation)
    notes = [f"{name} of {version} was not measured then: its gate is judged without it" for name in left_out]
    registered = next(row for row in history.registrations if row.version == version)
    then = fold([row for row in history.rows if row.revision < registered.revision], policy.model).champion
    if champion is not None and champion != then:
        words = f"the gate of {version} compares with {then or 'nobody'}, who served when it was backtested"
        notes.append(f"{words}, not with {champion}")
    return gate(evaluation, measured, has_champion=champion is not None, now=now), tuple(notes)


def with_costs(evaluation: Evaluation, version: str, rows: tuple[LedgerRow, ...]) -> Evaluation:
    """The backtest with what predicting cost, which only the recorded gate knows."""
    gates = [row for row in rows if row.kind is RowKind.GATED and row.version == version]
    criteria = gates[-1].payload.get("criteria", []) if gates else []
    values = {_COSTS[one["name"]]: one["value"] for one in criteria if one["name"] in _COSTS}
    known = {name: float(value) for name, value in values.items() if value is not None}
    return replace(evaluation, predict={**known, **evaluation.predict})


def what_was_measured(policy: Policy, evaluation: Evaluation) -> tuple[Policy, tuple[str, ...]]:
    """The policy without the criteria for which the backtest holds no figure, and the keys that were taken out."""
    rule = policy.gate
    left_out: list[str] = []
    costs = rule.predict.model_dump()
    for name in [name for name, bound in costs.items() if bound is not None and name not in evaluation.predict]:
        costs[name] = None
        left_out.append(f"gate.predict.{name}")
    stability = rule.stability
    if stability is not None and evaluation.stability.get("noise") != stability.noise:
        stability = None
        left_out.append("gate.stability")
    changed: GatePolicy = rule.model_copy(update={"predict": Predict(**costs), "stability": stability})
    return policy.model_copy(update={"gate": changed}), tuple(left_out)
