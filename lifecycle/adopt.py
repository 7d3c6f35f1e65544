"""Takes up what somebody set by hand in MLflow, as far as the rules of a trial allow it."""

from __future__ import annotations

from contracts.errors import CheckFailed
from contracts.policy import Policy
from lifecycle.workspace import Workspace
from registry.mlflow_store import MlflowProjection


def adopt(ws: Workspace, policy: Policy, *, dry_run: bool = False) -> str:
    """Do properly what the alias `champion` in MLflow was moved for.

    An alias never decides what is served. On the previous champion it reads as the wish to roll back, and that is done
    (files verified first); on any other version it would be a promotion without a trial, and is refused.

    Returns:
        in words, what was done; "" when the alias says what the ledger says.

    Raises:
        CheckFailed: the alias names a version that only a trial can bring into service.
        DependencyDown: MLflow does not answer.
    """
    state = ws.registrar.state(policy.model)
    shown = MlflowProjection(ws.settings.tracking).shown(policy.model).get("champion")
    if shown is None or shown == state.champion:
        return ""
    if shown != state.previous_champion:
        raise CheckFailed(
            f"{policy.model}: somebody set MLflow's alias champion on {shown}; it is not the previous champion "
            f"({state.previous_champion or 'none'}), so only a trial can bring it into service. "
            f"Restore the alias: seatrial reconcile"
        )
    if dry_run:
        return f"would roll back from {state.champion} to {shown}, as the alias in MLflow asks"
    ws.registrar.rollback(policy.model, policy, "alias champion was set by hand in MLflow", version=state.champion)
    return f"rolled back from {state.champion} to {shown}, as the alias in MLflow asked"
