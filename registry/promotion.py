"""The registrar: the only writer of rollouts. Artifact checked, ledger appended (the truth), then its projections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.canonical import content_hash
from contracts.errors import CheckFailed, LedgerConflict, UsageError
from contracts.policy import Policy
from contracts.rollout import Action, LedgerRow, Move, OnlineEvidence, Outcome, RolloutState, RowKind, Verdict
from contracts.times import iso
from registry.artifacts import seal
from registry.by_hand import ByHand
from registry.crashpoints import crash_point
from registry.fold import fold
from registry.ledger import Anchor
from registry.ledger import verify as verify_chain
from registry.rollout import FORWARD, approvals_needed, blocked
from registry.writer import RETRIES, held, in_force, must_speak_of

if TYPE_CHECKING:
    from contracts.evaluation import TrainedModel

_ROWS = {
    Move.START_SHADOW: RowKind.SHADOW_STARTED,
    Move.STEP_CANARY: RowKind.CANARY_STEP,
    Move.PROMOTE: RowKind.PROMOTED,
    Move.REJECT: RowKind.REJECTED,
    Move.HOLD: RowKind.HELD,
    Move.ROLL_BACK: RowKind.ROLLED_BACK,
    Move.EXPIRE: RowKind.EXPIRED,
}
_ENDS = (RowKind.REJECTED, RowKind.ROLLED_BACK, RowKind.PROMOTED, RowKind.SUPERSEDED, RowKind.EXPIRED)


class Registrar(ByHand):
    """Registers versions and moves them, each wish once, in an order that any crash leaves whole.

    A row of the ledger makes a thing true; the serving snapshot and MLflow are written after it and rebuilt from it by
    `reconcile`. Every row's request id follows from the wish, so the same call after a crash adds no second row, and
    every row names the policy's hash. What people do by hand is in `ByHand`; for its arguments see `RolloutWriter`.
    """

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
        must_speak_of(policy, trained.model)
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
        return self.enter(trained.folder, sha, policy, meta, f"trained by run {run_id}")

    def enter(self, folder: Path, manifest_sha256: str, policy: Policy, facts: dict[str, Any], reason: str) -> str:
        """Place and record a version whose folder is sealed already; the same files again give the same version.

        Args:
            folder: the sealed artifact. manifest_sha256: of its manifest.
            facts: what the ledger is to hold about it.

        Returns:
            its version, as `register`.

        Raises:
            ArtifactRefused: the folder is not what was sealed.
            LedgerConflict: other writers kept being first.
        """
        model = policy.model
        for _ in range(RETRIES):
            rows = self.ledger.rows(model)
            manifests = fold(rows, model).manifests
            version = next((name for name, known in manifests.items() if known == manifest_sha256), None)
            if version is None:
                version = self._free_version(model, manifests, manifest_sha256)
            self.artifacts.place(model, version, folder)
            named = {**facts, "manifest_sha256": manifest_sha256}
            draft = self._draft(policy, RowKind.REGISTERED, version, reason, named)
            try:
                self._append(rows, draft, f"register:{manifest_sha256}")
            except LedgerConflict:
                continue
            self.projection.write(policy)
            crash_point("register.projected")
            return version
        raise LedgerConflict(model, len(rows), len(self.ledger.rows(model)))

    def record_gate(self, policy: Policy, version: str, verdict: Verdict) -> RolloutState:
        """Record a version's gate verdict.

        A pass puts the version in the place of whatever challenger was before it (a `superseded` row); a fail rejects
        a version that waits behind another challenger, whom it leaves alone.

        Raises:
            UsageError: the version was not registered.
        """
        if version not in self.state(policy.model).manifests:
            raise UsageError(f"{policy.model} {version}: wanted a registered version")
        payload = _figures(verdict)
        draft = self._draft(policy, RowKind.GATED, version, verdict.words, payload)
        # What predicting cost is never the same twice: a run that goes on after a kill has reached the same verdict.
        reached = [(c.name, c.outcome.value, c.bound) for c in verdict.criteria]
        self._append_soon(draft, f"gate:{version}:{content_hash([verdict.outcome.value, reached, policy.hash])}")
        crash_point("gate.recorded")
        self._settle_waiting(policy)
        crash_point("gate.superseded")
        return self.projection.write(policy)

    def apply(self, action: Action, policy: Policy, evidence: OnlineEvidence | None = None) -> RolloutState:
        """Carry out what `next_action` decided: files verified, rows appended, snapshot and MLflow rewritten.

        New verdicts are rows of their own, before the move that they cause; a promotion names its verdict's row and its
        gate's. An action that stays only records them. The action holds for the ledger revision on which it was
        decided; the same action again changes nothing, and finishes what a crash interrupted.

        Returns:
            the state after it.

        Raises:
            LedgerConflict: something else happened since the decision; decide again.
            ArtifactRefused: the version's files are not what was sealed; nothing was changed.
            CheckFailed: it needs approvals that are not there, a stop or a freeze is in its way, its share is not its
                step's, or it may not follow in this rollout.
        """
        rows = self.ledger.rows(policy.model)
        state = fold(rows, policy.model)
        if action.version is None or (action.move is Move.STAY and not action.rulings):
            return state
        decided_on = int(action.evidence.get("revision", state.revision))
        request_id = f"{action.move}:{action.version}:{action.step}:r{decided_on}"
        if not held(rows, request_id):
            self._must_be_next(rows, action, decided_on)
            if action.move is not Move.STAY:
                self._must_be_allowed(state, action, policy)
            if action.move in FORWARD:
                self._verify_files(state, action.version)
            crash_point("apply.verified")
            rows = self._rule(rows, action, policy, decided_on)
            if action.move is Move.STAY:
                return self.projection.write(policy)
            payload = _payload(rows, action, evidence)
            draft = self._draft(policy, _ROWS[action.move], action.version, action.reason, payload)
            self._append(rows, draft, request_id)
        crash_point("apply.recorded")
        state = self.projection.write(policy)
        crash_point("apply.done")
        return state

    def record_verdicts(self, action: Action, policy: Policy) -> RolloutState:
        """Record the verdicts that a look reached, without making its move: for one that waits for an approval."""
        stays = Action(Move.STAY, action.version, action.reason, evidence=action.evidence, rulings=action.rulings)
        return self.apply(stays, policy)

    def _must_be_next(self, rows: Sequence[LedgerRow], action: Action, decided_on: int) -> None:
        """Nothing may have happened since the decision but this very action's verdicts, after a crash.

        Raises:
            LedgerConflict: something else did.
        """
        since = {row.request_id for row in rows if row.revision > decided_on}
        if len(rows) < decided_on or since - {_ruling_id(action, of, decided_on) for of in action.rulings}:
            raise LedgerConflict(rows[-1].model if rows else "", decided_on, len(rows))

    def _must_be_allowed(self, state: RolloutState, action: Action, policy: Policy) -> None:
        """Refuse what waits for people, stands still by a stop or a freeze, or takes another share than its step's.

        Raises:
            CheckFailed: says which.
        """
        now, steps = self.clock.now(), policy.rollout.canary.steps
        if missing := approvals_needed(state, policy, action.move, action.step, now=now):
            raise CheckFailed(f"{action.move} of {action.version}: {missing} more approval(s) needed")
        if why := blocked(state, policy, action.move, now):
            raise CheckFailed(f"{action.move} of {action.version}: {why}")
        if action.move is Move.STEP_CANARY and action.share != steps[min(action.step, len(steps) - 1)] / 100:
            raise CheckFailed(f"{action.move} of {action.version}: {action.share:.0%} is not the share of its step")

    def _rule(
        self, rows: Sequence[LedgerRow], action: Action, policy: Policy, decided_on: int
    ) -> tuple[LedgerRow, ...]:
        """The chain with the action's new verdicts at its end."""
        chain, state = tuple(rows), fold(rows)
        stands = {"stage": state.stage.value, "step": state.step}
        for of, verdict in action.rulings.items():
            wish = _ruling_id(action, of, decided_on)
            if held(chain, wish):
                continue
            figures = {"of": of, **stands, **_figures(verdict), "evidence": action.evidence}
            draft = self._draft(policy, RowKind.VERDICT, action.version or "", f"{of}: {verdict.words}", figures)
            chain = (*chain, self._append(chain, draft, wish))
            crash_point("verdict.recorded")
        return chain

    def request_retrain(self, policy: Policy, reason: str, key: str) -> LedgerRow:
        """Record that a retraining was asked for; `key` names the occasion, so that asking twice gives one row."""
        version = self.state(policy.model).champion or ""
        draft = self._draft(policy, RowKind.RETRAIN_REQUESTED, version, reason)
        return self._append_soon(draft, f"retrain:{key}")

    def record_policy(self, policy: Policy, reason: str, *, adopt: bool = False) -> RolloutState:
        """Record the policy in force; no-op while it is the one recorded last.

        Args:
            adopt: somebody who may put a policy in force does so; otherwise, where only adopted policies count, another
                one than the one in force is refused. The first one needs no adoption.

        Raises:
            CheckFailed: another policy is in force.
        """
        rows = self.ledger.rows(policy.model)
        force = in_force(rows)
        if force == policy.hash:
            return fold(rows, policy.model)
        if self._adopted_only and not adopt:
            self._must_be_in_force(policy)
        past = sum(row.kind is RowKind.POLICY_CHANGED for row in rows)
        draft = self._draft(policy, RowKind.POLICY_CHANGED, "", reason, {"policy": policy.model_dump(mode="json")})
        self._append_soon(draft, f"policy:{policy.hash}:{past}")
        return self.projection.write(policy)

    def reconcile(self, model: str, policy: Policy) -> tuple[str, ...]:
        """Make snapshot and MLflow say what the ledger says; finishes what a crash interrupted; idempotent.

        Returns:
            in words, what was different and has been put right; empty when all agreed.

        Raises:
            LedgerBroken: the chain does not hold, or contradicts the anchor in the last snapshot.
            ArtifactRefused: the champion's files are not what was sealed.
        """
        must_speak_of(policy, model)
        rows, before = self.ledger.rows(model), self.projection.snapshot(model)
        known = before.ledger_head if before else ""
        verify_chain(rows, Anchor(model, before.revision, known) if before and known else None)
        found = [f"{w} was superseded, which a crash had left open" for w in self._settle_waiting(policy)]
        found += self.projection.differences(self.state(model))
        state = self.projection.write(policy)
        after = self.projection.snapshot(model)
        if before is None or after is None or not after.says_the_same_as(before):
            was = f"not what the ledger says (revision {before.revision})" if before else "missing or unreadable"
            found.append(f"serving snapshot of {model} was {was}; it is of revision {state.revision} now")
        if state.champion is not None:
            self._verify_files(state, state.champion)
        return tuple(found)

    def _settle_waiting(self, policy: Policy) -> list[str]:
        """Give the challenger's place to the newest waiting version that passed; send waiting ones away that failed."""
        rows = self.ledger.rows(policy.model)
        state, settled = fold(rows, policy.model), []
        done = {row.version for row in rows if row.kind in _ENDS}
        order = list(state.manifests)
        waiting = [v for v in order if v not in done and v != state.challenger and v in state.gates]
        for version in waiting:
            if state.gates[version] == Outcome.FAIL:
                draft = self._draft(policy, RowKind.REJECTED, version, "its gate failed while it waited")
                self._append_soon(draft, f"reject-waiting:{version}")
        passed = [v for v in waiting if state.gates[v] == Outcome.PASS]
        if passed and state.challenger and order.index(passed[-1]) > order.index(state.challenger):
            new, old = passed[-1], state.challenger
            draft = self._draft(policy, RowKind.SUPERSEDED, old, f"{new} passed its gate", {"by": new})
            self._append_soon(draft, f"supersede:{old}:by:{new}")
            settled.append(old)
        return settled

    def _free_version(self, model: str, manifests: dict[str, str], sha: str) -> str:
        """The next number that neither the ledger nor, after a crash, a folder with other files has taken."""
        number = 1 + max((int(name[1:]) for name in manifests), default=0)
        while self.artifacts.holds_other(model, f"v{number}", sha):
            number += 1
        return f"v{number}"


def _ruling_id(action: Action, of: str, decided_on: int) -> str:
    return f"verdict:{of}:{action.version}:r{decided_on}"


def _figures(verdict: Verdict) -> dict[str, Any]:
    criteria = [
        {"name": c.name, "outcome": c.outcome.value, "value": c.value, "bound": c.bound, "words": c.words}
        | ({"evidence": c.evidence} if c.evidence else {})
        for c in verdict.criteria
    ]
    return {"outcome": verdict.outcome.value, "criteria": criteria}


def _payload(rows: Sequence[LedgerRow], action: Action, evidence: OnlineEvidence | None) -> dict[str, Any]:
    """What a move's row holds: its evidence, and for a promotion the rows that allowed it."""
    payload: dict[str, Any] = {"evidence": action.evidence, "seen": _counts(evidence)}
    if action.move is Move.STEP_CANARY:
        payload |= {"step": action.step, "share": action.share}
    if action.move is Move.PROMOTE:
        gates = [row.revision for row in rows if row.kind is RowKind.GATED and row.version == action.version]
        ruling = fold(rows).verdicts.get("accuracy")
        payload |= {"gate_revision": gates[-1]} if gates else {}
        payload |= {"verdict_revision": ruling.revision} if ruling else {}
    return payload


def _counts(evidence: OnlineEvidence | None) -> dict[str, Any]:
    if evidence is None:
        return {}
    counts = {name: getattr(evidence, name) for name in ("decisions", "days", "errors", "invalid", "fallbacks")}
    return {**counts, "pairs": len(evidence.pairs_champion)}
