"""A rollout driven at random, with crashes, races and re-openings: whatever happens, the invariants hold.

I1 one champion or none, the same in ledger and snapshot; I2 its files verify; I3 the chain holds and contains what the
snapshot was made from; I4 no promotion without a recorded passing gate and, beside a champion, a passing verdict.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from contracts.errors import CheckFailed, LedgerConflict, SeatrialError
from contracts.policy import Policy
from contracts.rollout import LedgerRow, Move, OnlineEvidence, Outcome, RowKind, Stage
from registry.artifacts import verify as verify_artifact
from registry.crashpoints import CRASH_POINTS, passing
from registry.fold import fold
from registry.freezes import frozen
from registry.ledger import Anchor
from registry.ledger import verify as verify_chain
from registry.promotion import Registrar
from registry.rollout import FORWARD, next_action
from registry.snapshot import read_snapshot, snapshot_path
from tests.registry.rig import MODEL, World, evidence, policy, verdict

CAP = 1000
SEEN: dict[str, OnlineEvidence | None] = {
    "good": evidence(pairs=150),
    "worse": evidence(pairs=150, gain=-0.1),
    "open": evidence(pairs=120, gain=0.0),
    "failing": evidence(errors=100),
    "exposed": replace(evidence(pairs=120, gain=0.0), exposed=CAP),
    "none": None,
}
GOES_ON = (RowKind.SHADOW_STARTED, RowKind.CANARY_STEP, RowKind.PROMOTED)
# Where another registrar may act in between: outside the lock that projections are written under.
GAPS = ("apply.verified", "verdict.recorded", "apply.recorded", "gate.recorded", "hand.recorded")


class Died(BaseException):
    """The process ended here; nothing in it may catch this."""


def _policy() -> Policy:
    rollout = policy().rollout.model_dump(mode="json")
    rollout["canary"]["max_decisions"] = CAP
    rollout["freeze"] = [
        {"reason": "stocktaking", "first": "2026-01-12", "last": "2026-01-16"},
        {"reason": "books close", "quarter_end": 8},
    ]
    rollout["expires"] = "60d"
    gate = policy().gate.model_dump(mode="json")
    gate["approvals"] = {"required": 0, "not_author": True, "expires": "10d"}
    return policy(rollout=rollout, gate=gate, automate={"promote_to_canary": "approval"})


class Rollouts(RuleBasedStateMachine):
    """One model, two registrars over the same files, a clock, and everything that can happen."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="machine-"))
        self.world = World(self.home)
        self.world.policy = _policy()
        self.registered, self.behind = 0, False

    def teardown(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.home, ignore_errors=True)

    @initialize()
    def first_champion(self) -> None:
        """Begin with somebody in service and another in shadow, so that trials happen."""
        for name in ("champion", "challenger"):
            self.world.register(name)
            self._turn(self.world.registrar, "none")

    def _try(self, act: Callable[[], object], *, crash_at: str = "") -> None:
        """Do it; a refusal is fine, a crash leaves the projections behind."""

        def die(label: str) -> None:
            if label == crash_at:
                raise Died(label)

        try:
            with passing(die):
                act()
        except (CheckFailed, LedgerConflict):
            pass
        except Died:
            self.behind = True

    def _turn(self, registrar: Registrar, seen: str, misses: int = 0) -> None:
        rules, state, now = self.world.policy, registrar.state(MODEL), self.world.clock.now()
        action = next_action(state, rules, None, SEEN[seen], now, bound=1.0, misses=misses)
        if action.needs_approval:
            registrar.record_verdicts(action, rules)
        else:
            registrar.apply(action, rules, SEEN[seen])
        stays = action.move not in FORWARD
        assert stays or state.stage is Stage.CANDIDATE or seen in ("good", "open", "exposed"), action.reason
        assert stays or state.stage is not Stage.CANARY or seen != "exposed", action.reason
        assert misses < 5 or state.stage not in (Stage.SHADOW, Stage.CANARY) or action.move in (Move.HOLD, Move.EXPIRE)

    @precondition(lambda self: self.registered < 4)
    @rule(outcome=st.sampled_from([*Outcome, Outcome.PASS]), crash_at=st.sampled_from(["", "", *CRASH_POINTS]))
    def new_version(self, outcome: Outcome, crash_at: str = "") -> None:
        """A model is trained, registered and gated; a process that dies on the way is run again later, or never."""
        self.registered += 1
        self._try(lambda: self.world.register(f"m{self.registered}", outcome), crash_at=crash_at)

    @rule(outcome=st.sampled_from([Outcome.PASS, *Outcome]))
    def gate_the_challenger_again(self, outcome: Outcome) -> None:
        """A gate is repeated with whatever verdict."""
        version = self.world.state.challenger
        if version is not None:
            self._try(lambda: self.world.registrar.record_gate(self.world.policy, version, verdict(outcome)))

    @rule(seen=st.sampled_from(["good", "good", "good", *SEEN]), crash_at=st.sampled_from(["", "", "", *CRASH_POINTS]))
    def turn(self, seen: str, crash_at: str = "") -> None:
        """The loop looks and moves; it may die on the way."""
        self._try(lambda: self._turn(self.world.registrar, seen), crash_at=crash_at)

    @rule(turns=st.integers(1, 5), crash_at=st.sampled_from(["", *CRASH_POINTS]))
    def the_loop_goes_on_with_approval(self, turns: int, crash_at: str) -> None:
        """A fortnight in which people agree and the challenger does well; the process may die in it."""

        def go_on() -> None:
            for _ in range(turns):
                self.world.later(3)
                if self.world.state.challenger is not None:
                    self.world.registrar.approve(MODEL, self.world.policy, approver="bea")
                self._turn(self.world.registrar, "good")

        self._try(go_on, crash_at=crash_at)

    @rule()
    def sixth_look_without_evidence(self) -> None:
        """Evidence was away for longer than the failure limit."""
        self._try(lambda: self._turn(self.world.registrar, "none", misses=6))

    @rule(days=st.sampled_from([0.4, 1.5, 3, 6, 6, 20]))
    def time_passes(self, days: float) -> None:
        """Bakes end, freezes begin, approvals and challengers expire."""
        self.world.later(days)

    @rule(what=st.sampled_from(["hold", "resume", "resume", "reject", "stop", "release", "release", "rollback"]))
    def a_person_acts(self, what: str) -> None:
        """Somebody intervenes."""
        self._try(lambda: getattr(self.world.registrar, what)(MODEL, self.world.policy, f"{what} by hand"))

    @rule(who=st.sampled_from(["ann", "bea", "seatrial"]))
    def a_person_approves(self, who: str) -> None:
        """Somebody agrees, the author among them."""
        self._try(lambda: self.world.registrar.approve(MODEL, self.world.policy, approver=who))

    @rule(
        gap=st.sampled_from(GAPS),
        what=st.sampled_from(["hold", "stop", "rollback", "turn", "release"]),
        seen=st.sampled_from(["good", "good", "open", "failing"]),
    )
    def two_registrars_race(self, gap: str, what: str, seen: str) -> None:
        """While one makes its move, another comes in between, at any gap."""
        other, met = World(self.home, ledger=self.world.ledger), []
        other.clock.set(self.world.clock.now())
        other.policy = self.world.policy

        def come_between(label: str) -> None:
            if label != gap or met:
                return
            met.append(label)
            if what == "turn":
                self._try(lambda: self._turn(other.registrar, "good"))
            else:
                self._try(lambda: getattr(other.registrar, what)(MODEL, other.policy, "the other one"))

        with passing(come_between):
            self._try(lambda: self._turn(self.world.registrar, seen))

    @precondition(lambda self: self.behind)
    @rule()
    def open_again_and_reconcile(self) -> None:
        """A new process looks at the files, finishes what was open, and finds nothing more to do."""
        now, rules = self.world.clock.now(), self.world.policy
        self.world = World(self.home)
        self.world.clock.set(now)
        self.world.policy = rules
        self.world.registrar.reconcile(MODEL, rules)
        assert self.world.registrar.reconcile(MODEL, rules) == ()
        self.behind = False

    @invariant()
    def one_champion_everywhere(self) -> None:
        """I1, I2, I3."""
        rows, state = self.world.ledger.rows(MODEL), self.world.state
        verify_chain(rows)
        if state.champion is not None:
            verify_artifact(self.world.artifacts.path(MODEL, state.champion), state.manifests[state.champion])
        try:
            served = read_snapshot(snapshot_path(self.home / "serving", MODEL))
        except SeatrialError:
            assert self.behind or not rows
            return
        verify_chain(rows, Anchor(MODEL, served.revision, served.ledger_head))
        then = fold(rows[: served.revision])
        assert (served.champion.version if served.champion else None) == then.champion
        assert (served.share, served.stage, served.stopped) == (then.share, then.stage, then.stopped)
        assert self.behind or served.revision == state.revision

    @invariant()
    def every_row_had_the_right_to_be_written(self) -> None:
        """I4, and no way forward in a freeze, while stopped, or at another share than the policy's step."""
        rows = self.world.ledger.rows(MODEL)
        for row in rows:
            assert row.payload["policy_hash"] == self.world.policy.hash
            before = fold(rows[: row.revision - 1], MODEL)
            into_canary = row.kind is RowKind.RESUMED and before.held_from is Stage.CANARY
            if row.kind in GOES_ON or into_canary:
                assert not before.stopped
            if row.kind in (RowKind.CANARY_STEP, RowKind.PROMOTED) or into_canary:
                assert not frozen(self.world.policy, row.at)
            if row.kind is RowKind.CANARY_STEP:
                steps = self.world.policy.rollout.canary.steps
                assert row.payload["share"] == steps[row.payload["step"]] / 100
            if row.kind is RowKind.PROMOTED:
                self._promoted_by_right(rows, row)

    def _promoted_by_right(self, rows: tuple[LedgerRow, ...], row: LedgerRow) -> None:
        gate = rows[row.payload["gate_revision"] - 1]
        assert (gate.kind, gate.version, gate.payload["outcome"]) == (RowKind.GATED, row.version, "pass")
        if fold(rows[: row.revision - 1]).champion is not None:
            ruled = rows[row.payload["verdict_revision"] - 1]
            assert (ruled.kind, ruled.version, ruled.payload["of"]) == (RowKind.VERDICT, row.version, "accuracy")
            assert ruled.payload["outcome"] == "pass"


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(
    max_examples=10,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
