"""The registrar: the only writer of rollouts. Artifact checked, ledger appended (the truth), then its projections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.canonical import content_hash, sha256_hex
from contracts.errors import CheckFailed, LedgerBroken, LedgerConflict, UsageError
from contracts.policy import Policy
from contracts.rollout import Action, LedgerRow, Move, OnlineEvidence, Outcome, RolloutState, RowKind, Stage, Verdict
from contracts.times import Clock, iso
from registry.artifacts import ArtifactStore, seal, verify
from registry.crashpoints import crash_point
from registry.ledger import Anchor, Ledger, RowDraft, chained, head
from registry.ledger import verify as verify_chain
from registry.mlflow_store import MlflowProjection
from registry.projection import Projection
from registry.rollout import approvals_needed, fold

if TYPE_CHECKING:
    from contracts.evaluation import TrainedModel

_RETRIES = 20
_ROWS = {
    Move.START_SHADOW: RowKind.SHADOW_STARTED,
    Move.STEP_CANARY: RowKind.CANARY_STEP,
    Move.PROMOTE: RowKind.PROMOTED,
    Move.REJECT: RowKind.REJECTED,
    Move.HOLD: RowKind.HELD,
    Move.ROLL_BACK: RowKind.ROLLED_BACK,
}
_NEED_FILES = (Move.START_SHADOW, Move.STEP_CANARY, Move.PROMOTE)


class Registrar:
    """Registers versions and moves them, each wish once, in an order that any crash leaves whole.

    A row of the ledger makes a thing true; the serving snapshot and MLflow are written after it and rebuilt from it by
    `reconcile`. Every row's request id follows from the wish, so the same call after a crash adds no second row.

    Args:
        ledger: the truth.
        artifacts: sealed models.
        snapshots: folder of serving snapshots.
        mlflow: the projection for people, or None.
        clock: where "now" comes from.
        actor: who acts, as the ledger will name them.
    """

    def __init__(
        self,
        ledger: Ledger,
        artifacts: ArtifactStore,
        snapshots: Path,
        mlflow: MlflowProjection | None,
        clock: Clock,
        actor: str,
    ) -> None:
        self.ledger, self.artifacts, self.clock, self.actor = ledger, artifacts, clock, actor
        self.projection = Projection(ledger, artifacts, snapshots, mlflow, clock)

    def state(self, model: str) -> RolloutState:
        """Where the model's rollout stands, from the ledger."""
        return fold(self.ledger.rows(model), model)

    def register(
        self, trained: TrainedModel, policy: Policy, run_id: str, features_hash: str, code_revision: str
    ) -> str:
        """Seal, place and record a trained model; the same model again gives the same version.

        The new version becomes the challenger when there is none; otherwise it waits for its gate.

        Returns:
            its version: v1, v2, ... (a number may be skipped after a crash).

        Raises:
            ArtifactRefused: the folder holds something that is not plain data.
            LedgerConflict: other writers kept being first.
        """
        _same_model(trained.model, policy)
        meta: dict[str, Any] = {
            "model": trained.model,
            "kind": trained.kind,
            "trained_at": iso(trained.trained_at),
            "trained_until": iso(trained.train_until),
            "rows": trained.rows,
            "dataset_hash": trained.dataset_hash,
            "params": trained.params,
            "run_id": run_id,
            "features": policy.features,
            "features_hash": features_hash,
            "policy_hash": policy.hash,
            "code_revision": code_revision,
        }
        sha = seal(trained.folder, meta)
        crash_point("register.sealed")
        for _ in range(_RETRIES):
            rows = self.ledger.rows(trained.model)
            manifests = fold(rows, trained.model).manifests
            version = next((name for name, known in manifests.items() if known == sha), None)
            if version is None:
                version = self._free_version(trained.model, manifests, sha)
            self.artifacts.place(trained.model, version, trained.folder)
            row = {"manifest_sha256": sha, **meta}
            draft = self._draft(trained.model, RowKind.REGISTERED, version, f"trained by run {run_id}", row)
            try:
                self._append(rows, draft, f"register:{sha}")
            except LedgerConflict:
                continue
            self.projection.write(policy)
            crash_point("register.projected")
            return version
        raise LedgerConflict(trained.model, len(rows), len(self.ledger.rows(trained.model)))

    def record_gate(self, policy: Policy, version: str, verdict: Verdict) -> RolloutState:
        """Record a version's gate verdict.

        A pass puts the version in the place of whatever challenger was before it (a `superseded` row); a fail rejects
        a version that waits behind another challenger, whom it leaves alone.

        Raises:
            UsageError: the version was not registered.
        """
        if version not in self.state(policy.model).manifests:
            raise UsageError(f"{policy.model} {version}: wanted a registered version")
        payload = {
            "outcome": verdict.outcome.value,
            "criteria": [
                {"name": c.name, "outcome": c.outcome.value, "value": c.value, "bound": c.bound, "words": c.words}
                for c in verdict.criteria
            ],
            "policy_hash": policy.hash,
        }
        draft = self._draft(policy.model, RowKind.GATED, version, verdict.words, payload)
        self._append_soon(draft, f"gate:{version}:{content_hash(payload)}")
        crash_point("gate.recorded")
        self._settle_waiting(policy.model)
        crash_point("gate.superseded")
        return self.projection.write(policy)

    def apply(self, action: Action, policy: Policy, evidence: OnlineEvidence | None = None) -> RolloutState:
        """Carry out what `next_action` decided: files verified, row appended, snapshot and MLflow rewritten.

        The action holds for the ledger revision on which it was decided; the same action again changes nothing.

        Returns:
            the state after it.

        Raises:
            LedgerConflict: something else happened since the decision; decide again.
            ArtifactRefused: the version's files are not what was sealed; nothing was changed.
            CheckFailed: it needs approvals that are not there, or may not follow in this rollout.
        """
        rows = self.ledger.rows(policy.model)
        state = fold(rows, policy.model)
        if action.move is Move.STAY or action.version is None:
            return state
        decided_on = int(action.evidence.get("revision", state.revision))
        request_id = f"{action.move}:{action.version}:{action.step}:r{decided_on}"
        if not _holds(rows, request_id):
            if state.revision != decided_on:
                raise LedgerConflict(policy.model, decided_on, state.revision)
            if missing := approvals_needed(state, policy, action.move, action.step):
                raise CheckFailed(f"{action.move} of {action.version}: {missing} more approval(s) needed")
            if action.move in _NEED_FILES:
                self._verify_files(state, action.version)
            crash_point("apply.verified")
            payload: dict[str, Any] = {
                "evidence": action.evidence,
                "seen": _counts(evidence),
                "policy_hash": policy.hash,
            }
            if action.move is Move.STEP_CANARY:
                payload |= {"step": action.step, "share": action.share}
            draft = self._draft(policy.model, _ROWS[action.move], action.version, action.reason, payload)
            self._append(rows, draft, request_id)
        crash_point("apply.recorded")
        state = self.projection.write(policy)
        crash_point("apply.done")
        return state

    def rollback(self, model: str, policy: Policy, reason: str, *, version: str | None = None) -> RolloutState:
        """Put the previous champion back in service, after its files have been verified.

        Args:
            version: the champion to leave, so that the same call twice rolls back once; None means whoever serves.

        Raises:
            CheckFailed: there is no previous champion, or `version` is not the champion and was not rolled back.
            ArtifactRefused: the previous champion's files are gone or changed; nothing was switched.
        """
        _same_model(model, policy)
        rows = self.ledger.rows(model)
        state = fold(rows, model)
        leave, back = version or state.champion, state.previous_champion
        if leave != state.champion:
            if any(row.kind is RowKind.ROLLED_BACK and row.version == leave for row in rows):
                return self.projection.write(policy)
            raise CheckFailed(f"{model}: {leave} is not the champion, {state.champion} is; nothing to roll back")
        if leave is None or back is None:
            raise CheckFailed(f"{model}: there is no previous champion to roll back to")
        self._verify_files(state, back)
        crash_point("apply.verified")
        draft = self._draft(model, RowKind.ROLLED_BACK, leave, reason, {"to": back, "policy_hash": policy.hash})
        self._append(rows, draft, f"rollback:{leave}:to:{back}:r{state.revision}")
        crash_point("apply.recorded")
        return self.projection.write(policy)

    def hold(self, model: str, policy: Policy, reason: str, *, version: str | None = None) -> RolloutState:
        """Stop the challenger where it stands: no share of decisions until `resume`; no-op while it is held.

        Args:
            version: whom the wish is about, so that repeating it never hits another; None: whoever challenges.
        """
        return self._by_hand(model, policy, RowKind.HELD, reason, version)

    def resume(self, model: str, policy: Policy, reason: str, *, version: str | None = None) -> RolloutState:
        """Let a held challenger go on where it was held; no-op when it is not held. `version`: as for hold."""
        return self._by_hand(model, policy, RowKind.RESUMED, reason, version)

    def reject(self, model: str, policy: Policy, reason: str, *, version: str | None = None) -> RolloutState:
        """Send the challenger away for good; no-op when it is gone. `version`: as for hold."""
        return self._by_hand(model, policy, RowKind.REJECTED, reason, version)

    def approve(
        self,
        model: str,
        policy: Policy,
        *,
        approver: str,
        reason: str = "",
        role: str = "",
        version: str | None = None,
        manifest_sha256: str | None = None,
    ) -> RolloutState:
        """Record that a person agrees with the challenger's next move; it counts in the present stage only.

        Args:
            role: the approver's, held against the policy's `gate.approvals.by`.
            version, manifest_sha256: what the approver looked at; refused when the challenger is another.

        Raises:
            CheckFailed: no challenger, another version or files than approved, a role that may not approve, or the
                author of the version where the policy forbids it.
        """
        _same_model(model, policy)
        rows = self.ledger.rows(model)
        state, rule = fold(rows, model), policy.gate.approvals
        known = state.manifests.get(state.challenger or "")
        if state.challenger is None or (version or state.challenger) != state.challenger:
            raise CheckFailed(f"{model}: wanted the challenger {state.challenger}, the approval is for {version}")
        if (manifest_sha256 or known) != known:
            raise CheckFailed(f"{model} {state.challenger}: the approval is for other files ({manifest_sha256})")
        if rule.by and role not in rule.by:
            raise CheckFailed(f"{model}: wanted an approver from {', '.join(rule.by)}, got {role or 'no role'!r}")
        author = next(r.actor for r in rows if r.kind is RowKind.REGISTERED and r.version == state.challenger)
        if rule.not_author and approver == author:
            raise CheckFailed(f"{model} {state.challenger}: {approver} registered it and may not approve it")
        payload = {"approver": approver, "role": role, "stage": state.stage.value, "manifest_sha256": known}
        since = iso(state.since) if state.since else ""
        draft = self._draft(model, RowKind.APPROVED, state.challenger, reason, payload)
        self._append_soon(draft, f"approve:{state.challenger}:{state.stage}:{since}:{sha256_hex(approver)[:16]}")
        return self.projection.write(policy)

    def request_retrain(self, policy: Policy, reason: str, key: str) -> LedgerRow:
        """Record that a retraining was asked for; `key` names the occasion, so that asking twice gives one row."""
        version = self.state(policy.model).champion or ""
        draft = self._draft(policy.model, RowKind.RETRAIN_REQUESTED, version, reason, {"policy_hash": policy.hash})
        return self._append_soon(draft, f"retrain:{key}")

    def record_policy(self, policy: Policy, reason: str) -> RolloutState:
        """Record the policy in force; no-op while it is the one recorded last."""
        past = [r for r in self.ledger.rows(policy.model) if r.kind is RowKind.POLICY_CHANGED]
        if not past or past[-1].payload.get("policy_hash") != policy.hash:
            payload = {"policy_hash": policy.hash, "policy": policy.model_dump(mode="json")}
            draft = self._draft(policy.model, RowKind.POLICY_CHANGED, "", reason, payload)
            self._append_soon(draft, f"policy:{policy.hash}:{len(past)}")
        return self.projection.write(policy)

    def reconcile(self, model: str, policy: Policy) -> tuple[str, ...]:
        """Make snapshot and MLflow say what the ledger says; finishes what a crash interrupted; idempotent.

        Returns:
            in words, what was different and has been put right; empty when all agreed.

        Raises:
            LedgerBroken: the chain does not hold, or contradicts the anchor in the last snapshot.
            ArtifactRefused: the champion's files are not what was sealed.
        """
        _same_model(model, policy)
        rows, before = self.ledger.rows(model), self.projection.snapshot(model)
        known = before.ledger_head if before else ""
        verify_chain(rows, Anchor(model, before.revision, known) if before and known else None)
        found = [f"{w} was superseded, which a crash had left open" for w in self._settle_waiting(model)]
        found += self.projection.differences(self.state(model))
        state = self.projection.write(policy)
        after = self.projection.snapshot(model)
        if before is None or after is None or not after.says_the_same_as(before):
            was = f"revision {before.revision}" if before else "missing or unreadable"
            found.append(f"serving snapshot of {model} was {was}, is revision {state.revision}")
        if state.champion is not None:
            self._verify_files(state, state.champion)
        return tuple(found)

    def _by_hand(self, model: str, policy: Policy, kind: RowKind, reason: str, version: str | None) -> RolloutState:
        _same_model(model, policy)
        rows = self.ledger.rows(model)
        state = fold(rows, model)
        subject = version or state.challenger
        if subject is None or subject != state.challenger:
            if any(row.kind is kind and row.version == subject for row in rows):
                return self.projection.write(policy)
            raise CheckFailed(f"{model}: {subject or 'no version'} is not the challenger, {state.challenger} is")
        if (kind is RowKind.HELD) == (state.stage is Stage.HELD) and kind is not RowKind.REJECTED:
            return self.projection.write(policy)
        draft = self._draft(model, kind, subject, reason, {"policy_hash": policy.hash})
        self._append(rows, draft, f"{kind}:{subject}:r{state.revision}")
        return self.projection.write(policy)

    def _settle_waiting(self, model: str) -> list[str]:
        """Give the challenger's place to the newest waiting version that passed; send waiting ones away that failed."""
        rows = self.ledger.rows(model)
        state, settled = fold(rows, model), []
        done = {row.version for row in rows if row.kind in (RowKind.REJECTED, RowKind.ROLLED_BACK, RowKind.PROMOTED)}
        done |= {row.version for row in rows if row.kind is RowKind.SUPERSEDED}
        order = list(state.manifests)
        waiting = [v for v in order if v not in done and v != state.challenger and v in state.gates]
        for version in waiting:
            if state.gates[version] == Outcome.FAIL:
                draft = self._draft(model, RowKind.REJECTED, version, "its gate failed while it waited", {})
                self._append_soon(draft, f"reject-waiting:{version}")
        passed = [v for v in waiting if state.gates[v] == Outcome.PASS]
        if passed and state.challenger and order.index(passed[-1]) > order.index(state.challenger):
            new, old = passed[-1], state.challenger
            draft = self._draft(model, RowKind.SUPERSEDED, old, f"{new} passed its gate", {"by": new})
            self._append_soon(draft, f"supersede:{old}:by:{new}")
            settled.append(old)
        return settled

    def _free_version(self, model: str, manifests: dict[str, str], sha: str) -> str:
        """The next number that neither the ledger nor, after a crash, a folder with other files has taken."""
        number = 1 + max((int(name[1:]) for name in manifests), default=0)
        while self.artifacts.holds_other(model, f"v{number}", sha):
            number += 1
        return f"v{number}"

    def _verify_files(self, state: RolloutState, version: str) -> None:
        verify(self.artifacts.path(state.model, version), state.manifests[version])

    def _draft(self, model: str, kind: RowKind, version: str, reason: str, payload: dict[str, Any]) -> RowDraft:
        return RowDraft(model, kind, version, self.clock.now(), self.actor, reason, "", payload)

    def _append(self, rows: Sequence[LedgerRow], draft: RowDraft, request_id: str) -> LedgerRow:
        """Append after `rows`, having checked that the chain holds and that the row may follow."""
        if known := _holds(rows, request_id):
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
        for _ in range(_RETRIES - 1):
            try:
                return self._append(self.ledger.rows(draft.model), draft, request_id)
            except LedgerConflict:
                continue
        return self._append(self.ledger.rows(draft.model), draft, request_id)


def _same_model(model: str, policy: Policy) -> None:
    if policy.model != model:
        raise UsageError(f"wanted the policy of {model}, got that of {policy.model}")


def _holds(rows: Sequence[LedgerRow], request_id: str) -> LedgerRow | None:
    return next((row for row in rows if row.request_id == request_id), None)


def _counts(evidence: OnlineEvidence | None) -> dict[str, Any]:
    if evidence is None:
        return {}
    counts = {name: getattr(evidence, name) for name in ("decisions", "days", "errors", "fallbacks")}
    return {**counts, "pairs": len(evidence.pairs_champion)}
