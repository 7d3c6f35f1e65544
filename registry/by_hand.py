"""What people do to a rollout: roll back, hold, resume, reject, approve, stop, release, override an alarm."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import structlog

from contracts.canonical import sha256_hex
from contracts.errors import CheckFailed
from contracts.policy import Policy
from contracts.rollout import LedgerRow, Move, RolloutState, RowKind, Stage
from contracts.times import iso
from registry.crashpoints import crash_point
from registry.fold import fold
from registry.rollout import blocked
from registry.writer import RolloutWriter, must_speak_of

log = structlog.get_logger("seatrial.registry")


class ByHand(RolloutWriter):
    """Interventions, each a row with its reason; repeating one changes nothing.

    What is refused leaves no row, so that nobody lengthens the chain by asking: refused approvals are logged as a
    warning with who asked, for what and why not.
    """

    def rollback(self, model: str, policy: Policy, reason: str, *, version: str | None = None) -> RolloutState:
        """Put the previous champion back in service, after its files have been verified.

        Nothing in Seatrial deletes an artifact, so every former champion can be gone back to, one after the other.

        Args:
            version: the champion to leave, so that the same call twice rolls back once; None means whoever serves.

        Raises:
            CheckFailed: there is no previous champion, or `version` is not the champion and was not rolled back.
            ArtifactRefused: the previous champion's files are gone or changed; nothing was switched.
        """
        must_speak_of(policy, model)
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
        draft = self._draft(policy, RowKind.ROLLED_BACK, leave, reason, {"to": back})
        self._append(rows, draft, f"rollback:{leave}:to:{back}:r{state.revision}")
        crash_point("apply.recorded")
        return self.projection.write(policy)

    def hold(self, model: str, policy: Policy, reason: str, *, version: str | None = None) -> RolloutState:
        """Stop the challenger where it stands: no share of decisions until `resume`; no-op while it is held.

        Args:
            version: whom the wish is about, so that repeating it never hits another; None: whoever challenges.
        """
        return self._on_challenger(model, policy, RowKind.HELD, reason, version)

    def resume(self, model: str, policy: Policy, reason: str, *, version: str | None = None) -> RolloutState:
        """Let a held challenger go on where it was held; no-op when it is not held. `version`: as for hold.

        Raises:
            CheckFailed: it would go back into a canary, in a freeze or while the model is stopped.
        """
        return self._on_challenger(model, policy, RowKind.RESUMED, reason, version)

    def reject(self, model: str, policy: Policy, reason: str, *, version: str | None = None) -> RolloutState:
        """Send the challenger away for good; no-op when it is gone. `version`: as for hold."""
        return self._on_challenger(model, policy, RowKind.REJECTED, reason, version)

    def stop(self, model: str, policy: Policy, reason: str) -> RolloutState:
        """The kill switch: no version of the model answers any more, the rungs below them do, and shadows pause.

        Nothing goes forward until `release`. No-op while the model is stopped.
        """
        return self._switch(model, policy, RowKind.STOPPED, reason)

    def release(self, model: str, policy: Policy, reason: str) -> RolloutState:
        """Let a stopped model answer again; its challenger's stage begins its clock anew. No-op when not stopped."""
        return self._switch(model, policy, RowKind.RELEASED, reason)

    def override_alarm(self, policy: Policy, window_end: datetime, reason: str) -> LedgerRow:
        """Record that a person overrides the alarm of the judged window that ends at `window_end`; once a window."""
        version, until = self.state(policy.model).champion or "", iso(window_end)
        draft = self._draft(policy, RowKind.ALARM_OVERRIDDEN, version, reason, {"window_end": until})
        row = self._append_soon(draft, f"override:{until}")
        crash_point("hand.recorded")
        self.projection.write(policy)
        return row

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
        """Record that a person agrees with the challenger's next move, for the files that are registered now.

        It counts in the present stage, until `gate.approvals.expires`; given again while it counts it changes nothing,
        given again after it has expired it counts anew.

        Args:
            role: the approver's, held against the policy's `gate.approvals.by`.
            version, manifest_sha256: what the approver looked at; refused when the challenger is another.

        Raises:
            CheckFailed: no challenger, another version or files than approved, a role that may not approve, or the
                author of the version where the policy forbids it.
            LedgerConflict: something else happened meanwhile; look again and approve anew.
        """
        must_speak_of(policy, model)
        rows = self.ledger.rows(model)
        state = fold(rows, model)
        if why := _refusal(state, policy, approver, role, version, manifest_sha256):
            log.warning("approval_refused", model=model, version=version or state.challenger, who=approver, why=why)
            raise CheckFailed(f"{model}: {why}")
        challenger = state.challenger or ""
        given = next((one for one in state.approvals.get(challenger, ()) if one.who == approver), None)
        if given is None or (self.clock.now() >= given.at + policy.gate.approvals.expires or given.role != role):
            payload = {"approver": approver, "role": role, "stage": state.stage.value}
            payload["manifest_sha256"] = state.manifests[challenger]
            draft = self._draft(policy, RowKind.APPROVED, challenger, reason, payload)
            since, before = iso(state.since) if state.since else "", iso(given.at) if given else "first"
            wish = f"approve:{challenger}:{state.stage}:{since}:{sha256_hex(approver)[:16]}:{before}"
            # Not wherever the chain's end is: in the next stage it would agree to a move that nobody asked about.
            self._append(rows, draft, wish)
            crash_point("hand.recorded")
        return self.projection.write(policy)

    def _on_challenger(
        self, model: str, policy: Policy, kind: RowKind, reason: str, version: str | None
    ) -> RolloutState:
        must_speak_of(policy, model)
        rows = self.ledger.rows(model)
        state = fold(rows, model)
        subject = version or state.challenger
        if subject is None or subject != state.challenger:
            if any(row.kind is kind and row.version == subject for row in rows):
                return self.projection.write(policy)
            raise CheckFailed(f"{model}: {subject or 'no version'} is not the challenger, {state.challenger} is")
        if (kind is RowKind.HELD) == (state.stage is Stage.HELD) and kind is not RowKind.REJECTED:
            return self.projection.write(policy)
        into_canary = kind is RowKind.RESUMED and state.held_from is Stage.CANARY
        if into_canary and (why := blocked(state, policy, Move.STEP_CANARY, self.clock.now())):
            raise CheckFailed(f"{model}: {subject} would go back into its canary, {why}")
        self._append(rows, self._draft(policy, kind, subject, reason), f"{kind}:{subject}:r{state.revision}")
        crash_point("hand.recorded")
        return self.projection.write(policy)

    def _switch(self, model: str, policy: Policy, kind: RowKind, reason: str) -> RolloutState:
        must_speak_of(policy, model)
        rows = self.ledger.rows(model)
        if bool(fold(rows, model).stopped) == (kind is RowKind.STOPPED):
            return self.projection.write(policy)
        draft = self._draft(policy, kind, fold(rows, model).champion or "", reason)
        self._append_soon(draft, f"{kind}:{_count(rows, kind)}")
        crash_point("hand.recorded")
        return self.projection.write(policy)


def _count(rows: Sequence[LedgerRow], kind: RowKind) -> int:
    return sum(row.kind is kind for row in rows)


def _refusal(
    state: RolloutState, policy: Policy, approver: str, role: str, version: str | None, manifest_sha256: str | None
) -> str:
    """Why an approval may not be given, in words; empty when it may."""
    rule, challenger = policy.gate.approvals, state.challenger
    if challenger is None or (version or challenger) != challenger:
        return f"wanted the challenger {challenger}, the approval is for {version}"
    if (manifest_sha256 or state.manifests[challenger]) != state.manifests[challenger]:
        return f"the approval of {challenger} is for other files ({manifest_sha256})"
    if rule.by and role not in rule.by:
        return f"wanted an approver from {', '.join(rule.by)}, got {role or 'no role'!r}"
    made = state.registered[challenger]
    if rule.not_author and approver in made.authors:
        did = "registered" if approver == made.author else "made"
        return f"{approver} {did} {challenger} and may not approve it"
    return ""
