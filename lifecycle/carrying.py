"""Carries a version from one environment to the next: the same files and their evidence, no retraining."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from contracts.environments import Reached
from contracts.errors import CheckFailed, UsageError
from contracts.policy import Policy
from contracts.rollout import RolloutState, RowKind, Verdict
from contracts.settings import Settings
from lifecycle.workspace import Workspace
from registry.carry import Carried, must_have_reached, open_bundle, pack
from registry.ledger import Anchor


@dataclass(frozen=True)
class Arrived:
    """A version that another environment took: its name there, its gate there, and where it stands."""

    version: str
    verdict: Verdict
    state: RolloutState
    carried: Carried


def pack_version(ws: Workspace, model: str, version: str, out: Path) -> Path:
    """Write a version of this workspace with its evidence into the new folder `out`; see registry.carry.pack."""
    rows = ws.ledger.rows(ws.policy(model).model)
    settings = ws.settings
    return pack(
        rows,
        ws.artifacts,
        version,
        out,
        environment=settings.environment,
        actor=settings.actor,
        now=ws.clock.now(),
    )


def take(
    ws: Workspace, bundle: Path, requires: Reached = "gated", *, heads: Sequence[Anchor] = (), dry_run: bool = False
) -> Arrived:
    """Register a packed version here, and hold its evidence against this environment's policy.

    The backtest that came with it is judged by the policy of here. Its comparison with the champion counts only when
    the champion of here is the one that it was compared with there; otherwise the shadow of here compares them. The
    same bundle again changes nothing.

    Args:
        ws: the workspace of the environment that takes it.
        bundle: see registry.carry.
        requires: what the version must have reached where it comes from.
        heads: rows of the chain that it comes from, known from elsewhere; they must be in the bundle.
        dry_run: judge only.

    Raises:
        InputInvalid, LedgerBroken, ArtifactRefused: the bundle does not hold.
        CheckFailed: it did not reach what is required, or the features of here are not those it was trained on.
    """
    from models.training import read_evaluation
    from registry.gate import gate

    carried = open_bundle(bundle, *heads)
    policy = ws.policy(carried.model)
    must_have_reached(carried, requires)
    _same_features(ws, policy, carried)
    state = ws.registrar.state(policy.model)
    champion = state.manifests.get(state.champion) if state.champion else None
    met = champion is not None and champion == carried.rival
    evaluation = read_evaluation(carried.artifact)
    cost = _predict_cost(carried)
    verdict = gate(replace(evaluation, predict=cost), policy, has_champion=met, now=ws.clock.now())
    known = next((name for name, sha in state.manifests.items() if sha == carried.manifest_sha256), None)
    if known and known in state.gates:
        return Arrived(known, verdict, state, carried)
    if dry_run:
        return Arrived(known or "a new version", verdict, state, carried)
    # The training run lies in the other environment's MLflow; here it would name nothing.
    run = {"run_id": "", "run_id_there": carried.registered.payload.get("run_id", "")}
    facts = {**carried.registered.payload, **run, "carried": carried.facts()}
    ws.registrar.record_policy(policy, "the policy in force")
    reason = f"carried from {carried.environment or 'another workspace'}, where it is {carried.version}"
    version = ws.registrar.enter(carried.artifact, carried.manifest_sha256, policy, facts, reason)
    return Arrived(version, verdict, ws.registrar.record_gate(policy, version, verdict), carried)


def carry(
    source: Workspace, target: Settings, model: str, version: str, requires: Reached, *, dry_run: bool = False
) -> Arrived:
    """`pack_version` here and `take` in the environment of `target`, in one go.

    Raises:
        UsageError: the target has no policy for the model. Otherwise as `take`.
    """
    into = Workspace(target, source.clock)
    if model not in into.policies:
        raise UsageError(f"environment {target.environment} has no policy of {model}; add one to {target.policies}")
    with tempfile.TemporaryDirectory(prefix="seatrial-carry-") as folder, into.closing():
        bundle = pack_version(source, model, version, Path(folder) / "bundle")
        return take(into, bundle, requires, dry_run=dry_run)


def _same_features(ws: Workspace, policy: Policy, carried: Carried) -> None:
    there, here = carried.registered.payload.get("features_hash"), ws.features_hash(policy)
    if there != here:
        raise CheckFailed(
            f"{carried.model} {carried.version}: it was trained on features {str(there)[:12]}, those of "
            f"{policy.features} here are {here[:12]}; bring the same feature declarations here first"
        )


def _predict_cost(carried: Carried) -> dict[str, float]:
    """What one prediction and the loaded model cost there, from the newest gate of the version that measured it."""
    found: dict[str, float] = {}
    for row in carried.rows:
        if row.kind is RowKind.GATED and row.version == carried.version:
            for criterion in row.payload.get("criteria", ()):
                name = str(criterion.get("name", ""))
                if name.startswith("predict_") and isinstance(criterion.get("value"), float):
                    found[name.removeprefix("predict_")] = criterion["value"]
    return found
