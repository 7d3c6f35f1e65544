"""One way to write a rollout's rows: the chain checked, the row tried in the fold, then appended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contracts.errors import CheckFailed, LedgerBroken, LedgerConflict, UsageError
from contracts.policy import Policy
from contracts.rollout import LedgerRow, RolloutState, RowKind
from contracts.times import Clock
from registry.artifacts import ArtifactStore, verify
from registry.fold import fold
from registry.ledger import Ledger, RowDraft, chained, head
from registry.ledger import verify as verify_chain
from registry.mlflow_store import MlflowProjection
from registry.projection import Projection

RETRIES = 20


class RolloutWriter:
    """Appends rows to a model's chain, each wish once.

    Args:
        ledger: the truth.
        artifacts: sealed models.
        snapshots: folder of serving snapshots.
        mlflow: the projection for people, or None.
        clock: where "now" comes from.
        actor: who acts, as the ledger will name them.
        adopted_only: refuse to act under a policy other than the one that the ledger says is in force; while access is
            required, a file in somebody's folder is nobody's policy.
    """

    def __init__(
        self,
        ledger: Ledger,
        artifacts: ArtifactStore,
        snapshots: Path,
        mlflow: MlflowProjection | None,
        clock: Clock,
        actor: str,
        *,
        adopted_only: bool = False,
    ) -> None:
        self.ledger, self.artifacts, self.clock, self.actor = ledger, artifacts, clock, actor
        self._adopted_only = adopted_only
        self.projection = Projection(ledger, artifacts, snapshots, mlflow, clock)

    def state(self, model: str) -> RolloutState:
        """Where the model's rollout stands, from the ledger."""
        return fold(self.ledger.rows(model), model)

    def _verify_files(self, state: RolloutState, version: str) -> None:
        verify(self.artifacts.path(state.model, version), state.manifests[version])

    def _draft(
        self, policy: Policy, kind: RowKind, version: str, reason: str, payload: dict[str, Any] | None = None
    ) -> RowDraft:
        """A row by this actor, now; every row names the policy under which it was written.

        Raises:
            CheckFailed: another policy is in force.
        """
        if self._adopted_only and kind is not RowKind.POLICY_CHANGED:
            self._must_be_in_force(policy)
        named = {**(payload or {}), "policy_hash": policy.hash}
        return RowDraft(policy.model, kind, version, self.clock.now(), self.actor, reason, "", named)

    def _must_be_in_force(self, policy: Policy) -> None:
        force = in_force(self.ledger.rows(policy.model))
        if force and force != policy.hash:
            raise CheckFailed(
                f"{policy.model}: the policy file says {policy.hash[:12]}, in force is {force[:12]}; "
                f"an admin has to adopt it first: seatrial policy adopt {policy.model} --reason WHY"
            )

    def _append(self, rows: Sequence[LedgerRow], draft: RowDraft, request_id: str) -> LedgerRow:
        """Append after `rows`, having checked that the chain holds and that the row may follow.

        Raises:
            LedgerConflict: `rows` is not the whole chain any more. CheckFailed: the row may not follow.
            LedgerBroken: the chain does not hold.
        """
        if known := held(rows, request_id):
            return known
        verify_chain(rows)
        newest = head(rows, draft.model)
        wish = RowDraft(**{**vars(draft), "request_id": request_id})
        try:
            fold((*rows, chained(wish, newest.revision + 1, newest.hash)), draft.model)
        except LedgerBroken as error:
            raise CheckFailed(f"{draft.kind} of {draft.version or draft.model} refused: {error.why}") from None
        return self.ledger.append(wish, newest.revision)

    def _append_soon(self, draft: RowDraft, request_id: str) -> LedgerRow:
        """Append wherever the chain's end is: for rows that hold whatever came in between."""
        for _ in range(RETRIES - 1):
            try:
                return self._append(self.ledger.rows(draft.model), draft, request_id)
            except LedgerConflict:
                continue
        return self._append(self.ledger.rows(draft.model), draft, request_id)


def in_force(rows: Sequence[LedgerRow]) -> str:
    """Hash of the policy that the chain says is in force, empty when none was recorded."""
    past = [row for row in rows if row.kind is RowKind.POLICY_CHANGED]
    return str(past[-1].payload.get("policy_hash", "")) if past else ""


def held(rows: Sequence[LedgerRow], request_id: str) -> LedgerRow | None:
    """The row that a wish has already made, if any."""
    return next((row for row in rows if row.request_id == request_id), None)


def must_speak_of(policy: Policy, model: str) -> None:
    """Refuse a policy of another model.

    Raises:
        UsageError: names both.
    """
    if policy.model != model:
        raise UsageError(f"wanted the policy of {model}, got that of {policy.model}")
