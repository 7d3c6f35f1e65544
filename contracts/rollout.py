"""Words of the registry: ledger rows, rollout state, verdicts, evidence and the actions that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

LEDGER_FORMAT = 1


class RowKind(StrEnum):
    """What a ledger row says happened."""

    REGISTERED = "registered"
    GATED = "gated"
    SHADOW_STARTED = "shadow_started"
    CANARY_STEP = "canary_step"
    HELD = "held"
    RESUMED = "resumed"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"
    APPROVED = "approved"
    RETRAIN_REQUESTED = "retrain_requested"
    POLICY_CHANGED = "policy_changed"
    VERDICT = "verdict"
    EXPIRED = "expired"
    STOPPED = "stopped"
    RELEASED = "released"
    ALARM_OVERRIDDEN = "alarm_overridden"
    KEY_ISSUED = "key_issued"
    KEY_REVOKED = "key_revoked"


@dataclass(frozen=True)
class LedgerRow:
    """One row of the ledger; `hash` covers everything else in it, `previous` is the hash of the row before."""

    model: str
    revision: int
    kind: RowKind
    version: str
    at: datetime
    actor: str
    reason: str
    request_id: str
    payload: dict[str, Any]
    previous: str
    hash: str
    format: int = LEDGER_FORMAT


class Stage(StrEnum):
    """Where the challenger stands."""

    NONE = "none"
    CANDIDATE = "candidate"
    SHADOW = "shadow"
    CANARY = "canary"
    HELD = "held"


class Outcome(StrEnum):
    """Three outcomes of any trial; inconclusive holds, and never passes."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Registration:
    """When a version was registered, and by whom: its author; `before`: its authors where it was carried from."""

    at: datetime
    author: str
    before: tuple[str, ...] = ()

    @property
    def authors(self) -> frozenset[str]:
        """Everybody who had a hand in its coming to be, here or where it was carried from."""
        return frozenset({self.author, *self.before})


@dataclass(frozen=True)
class Approval:
    """A person's consent to the challenger's next move, in the role and at the moment it was given."""

    who: str
    role: str
    at: datetime


@dataclass(frozen=True)
class Ruling:
    """A verdict on record, and the revision of the row that holds its figures."""

    outcome: Outcome
    revision: int


@dataclass(frozen=True)
class RolloutState:
    """The state of one model: a fold over its ledger rows.

    `share`: the canary's share in [0, 1]; `step`: index into the policy's canary steps, -1 before the first;
    `since`: when the present stage or step began; `trial_since`: when the challenger's shadow began, before which
    nobody asked it; `canary_since`: when its first canary step began, None before; `held_from`: the stage that a held
    challenger was held in; `manifests`: version -> manifest hash of everything registered; `registered`: version ->
    when and by whom; `gates`: version -> the recorded gate verdict; `approvals`: version -> given in the present stage;
    `verdicts`: accuracy and guardrails as recorded in the present stage; `stopped`: why the model's kill switch is on,
    empty when it is not; `retrains`: when retrainings were asked for; `overridden`: ends of judged windows whose alarm
    a person overrode; `revision`: the newest row's, 0 for an empty ledger.
    """

    model: str
    revision: int = 0
    champion: str | None = None
    previous_champion: str | None = None
    challenger: str | None = None
    stage: Stage = Stage.NONE
    step: int = -1
    share: float = 0.0
    since: datetime | None = None
    trial_since: datetime | None = None
    champion_since: datetime | None = None
    manifests: dict[str, str] = field(default_factory=dict)
    gates: dict[str, str] = field(default_factory=dict)
    approvals: dict[str, tuple[Approval, ...]] = field(default_factory=dict)
    canary_since: datetime | None = None
    held_from: Stage = Stage.NONE
    registered: dict[str, Registration] = field(default_factory=dict)
    verdicts: dict[str, Ruling] = field(default_factory=dict)
    stopped: str = ""
    retrains: tuple[datetime, ...] = ()
    overridden: tuple[datetime, ...] = ()


@dataclass(frozen=True)
class Criterion:
    """One criterion of a verdict: its figure, the bound it was held against, and in words what that means.

    `evidence`: further figures behind it (bounds, tests that do not decide, slices), plain values.
    """

    name: str
    outcome: Outcome
    value: float | None
    bound: float | None
    words: str
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """A decision with its evidence; fails if any criterion fails, passes only if all pass."""

    outcome: Outcome
    criteria: tuple[Criterion, ...]

    @property
    def words(self) -> str:
        """The criteria that decided, in a sentence."""
        deciding = [c.words for c in self.criteria if c.outcome is self.outcome] or ["nothing was judged"]
        return "; ".join(deciding)


@dataclass(frozen=True)
class Burst:
    """Counts of one window of a stage or step (`guardrails.window` long, from its begin on), as in OnlineEvidence."""

    since: datetime
    decisions: int
    errors: int = 0
    invalid: int = 0
    fallbacks: int = 0
    slow: int = 0


@dataclass(frozen=True)
class OnlineEvidence:
    """What was seen of a challenger since its present stage began.

    `decisions`: decisions it scored (in shadow: all; in canary: its own arm); `days`: span of them in days;
    `pairs_challenger`, `pairs_champion`: losses on the same matured subjects since **shadow** began, in order of
    maturity; `pair_blocks`: the block of each pair (the day it was decided on), empty when every pair stands for
    itself: pairs of a block share a shock and are averaged before they are tested; `errors`, `fallbacks`: counts among
    decisions; `invalid`: answers that are no number or out of range, not counted as errors; `slow`: of them, slower
    than the policy's p99_ms (None when not measured), `p99_ms`: of all; `prediction_psi` against the champion's answers
    to the same decisions, None when not computed, and `prediction_psi_low`, below which it is not by chance (None: not
    known, so the figure itself); `exposed`: decisions that the challenger was to answer in all canary steps together
    (None: as many as `decisions`); `bursts`: the same counts by window, of windows in which something was bad.
    """

    decisions: int
    days: float
    pairs_challenger: tuple[float, ...] = ()
    pairs_champion: tuple[float, ...] = ()
    errors: int = 0
    fallbacks: int = 0
    p99_ms: float | None = None
    slow: int | None = None
    prediction_psi: float | None = None
    pair_blocks: tuple[str, ...] = ()
    invalid: int = 0
    prediction_psi_low: float | None = None
    exposed: int | None = None
    bursts: tuple[Burst, ...] = ()


class Move(StrEnum):
    """What a rollout can do next."""

    STAY = "stay"
    START_SHADOW = "start_shadow"
    STEP_CANARY = "step_canary"
    PROMOTE = "promote"
    REJECT = "reject"
    HOLD = "hold"
    ROLL_BACK = "roll_back"
    EXPIRE = "expire"


@dataclass(frozen=True)
class Action:
    """The next move with its reason; `share` is the canary's share after a step; `needs_approval`: a person first.

    `rulings`: verdicts (accuracy, guardrails) that this look reached and the ledger does not hold yet.
    """

    move: Move
    version: str | None
    reason: str
    share: float = 0.0
    step: int = -1
    evidence: dict[str, Any] = field(default_factory=dict)
    needs_approval: bool = False
    rulings: dict[str, Verdict] = field(default_factory=dict)


Arm = Literal["champion", "canary", "none"]
