"""What the ledger says, written where others read it: the serving snapshot and MLflow. Rebuilt at will."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from contracts.canonical import sha256_hex
from contracts.errors import DependencyDown, InputInvalid
from contracts.policy import Policy
from contracts.rollout import LedgerRow, RolloutState, RowKind, Stage
from contracts.times import Clock, parse_time
from registry.artifacts import ArtifactStore
from registry.crashpoints import crash_point
from registry.durable import only_one
from registry.fold import fold
from registry.ledger import Ledger
from registry.mlflow_store import MlflowProjection
from registry.snapshot import Deployed, ServingSnapshot, read_snapshot, snapshot_path, write_snapshot

_LOG = logging.getLogger(__name__)


class Projection:
    """Writes the serving snapshot and MLflow from the ledger as it stands, one writer at a time.

    `pending`: model -> why MLflow could not be brought up to date; empty when it is.
    """

    def __init__(
        self,
        ledger: Ledger,
        artifacts: ArtifactStore,
        snapshots: Path,
        mlflow: MlflowProjection | None,
        clock: Clock,
    ) -> None:
        self._ledger, self._artifacts, self._snapshots = ledger, artifacts, snapshots
        self._mlflow, self._clock = mlflow, clock
        self.pending: dict[str, str] = {}

    def write(self, policy: Policy) -> RolloutState:
        """Bring snapshot and MLflow up to the ledger; the lock and the fresh read mean that they never go backwards.

        A file that already says the same is left alone, until it has a quarter of the age that the policy allows it.
        MLflow being down leaves a note in `pending`, nothing else.

        Returns:
            the state that was written.
        """
        model = policy.model
        with only_one(self._snapshots / f".{model}.lock"):
            rows = self._ledger.rows(model)
            state = fold(rows, model)
            wanted, there = self._built(rows, state, policy), self.snapshot(model)
            if there is None or not wanted.says_the_same_as(there) or _ageing(there, wanted):
                write_snapshot(snapshot_path(self._snapshots, model), wanted)
            crash_point("apply.projected")
            if self._mlflow is not None:
                self._mirror(self._mlflow, rows, state)
        return state

    def agrees(self, found: ServingSnapshot) -> bool:
        """Whether a snapshot says what the ledger says, under the policy that the snapshot follows."""
        rows = self._ledger.rows(found.model)
        wanted = self._built(rows, fold(rows, found.model), found.policy)
        return found.says_the_same_as(wanted.model_copy(update={"policy_hash": found.policy_hash}))

    def snapshot(self, model: str) -> ServingSnapshot | None:
        """The snapshot as it lies there, None when it is missing or unreadable."""
        try:
            return read_snapshot(snapshot_path(self._snapshots, model))
        except InputInvalid:
            return None

    def differences(self, state: RolloutState) -> list[str]:
        """In words, what MLflow shows otherwise than the state; empty when all agree or there is no MLflow."""
        if self._mlflow is None:
            return []
        try:
            return self._mlflow.differences(state)
        except DependencyDown as error:
            return [str(error)]

    def _mirror(self, mlflow: MlflowProjection, rows: Sequence[LedgerRow], state: RolloutState) -> None:
        try:
            there = mlflow.versions(state.model)
            for row in rows:
                if row.kind is RowKind.REGISTERED and row.version not in there:
                    place = self._artifacts.path(state.model, row.version)
                    run, manifest = str(row.payload["run_id"]), str(row.payload["manifest_sha256"])
                    mlflow.register(state.model, row.version, run, place, manifest)
            mlflow.project(state)
            self.pending.pop(state.model, None)
        except DependencyDown as error:
            self.pending[state.model] = str(error)
            _LOG.warning("projection of %s to MLflow is pending: %s", state.model, error)

    def _built(self, rows: Sequence[LedgerRow], state: RolloutState, policy: Policy) -> ServingSnapshot:
        registered = {row.version: row.payload for row in rows if row.kind is RowKind.REGISTERED}

        def deployed(version: str | None) -> Deployed | None:
            if version is None:
                return None
            until = registered[version].get("trained_until")
            return Deployed(
                version=version,
                manifest_sha256=state.manifests[version],
                folder=self._artifacts.folder(state.model, version),
                trained_until=parse_time(str(until), "trained_until") if until else None,
            )

        tried = state.stage in (Stage.SHADOW, Stage.CANARY, Stage.HELD)
        return ServingSnapshot(
            model=state.model,
            kind=policy.kind,
            revision=state.revision,
            policy=policy,
            policy_hash=policy.hash,
            features=policy.features,
            champion=deployed(state.champion),
            previous_champion=deployed(state.previous_champion),
            challenger=deployed(state.challenger) if tried else None,
            stage=state.stage,
            share=state.share,
            salt=sha256_hex(f"{state.model}:{state.challenger}")[:16],
            written_at=self._clock.now(),
            ledger_head=rows[-1].hash if rows else "",
            stopped=state.stopped,
        )


def _ageing(there: ServingSnapshot, wanted: ServingSnapshot) -> bool:
    """True when servers should be told again that the file there still holds."""
    limit = wanted.policy.serve.max_snapshot_age
    return limit is not None and wanted.written_at - there.written_at > limit / 4
